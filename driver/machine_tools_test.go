package driver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"golang.org/x/sys/unix"
)

// hooked is a rig whose steps can be interfered with.
type hooked struct {
	*rig
	mu sync.Mutex
	at map[Step]func(tool int)
}

// newHooked starts a plugin with steps.
func newHooked(t *testing.T, change ...func(*Timing)) *hooked {
	t.Helper()
	t.Parallel()
	h := &hooked{rig: newMachine(t, change...), at: map[Step]func(int){}}
	if err := os.MkdirAll(h.state, 0o755); err != nil {
		t.Fatal(err)
	}
	h.startWith(func(c *Config) { c.Step = h.reach })
	return h
}

// startWith is start with a changed Config.
func (h *hooked) startWith(change func(*Config)) {
	h.t.Helper()
	var err error
	if h.manager, err = h.plan().manager(h.log, change); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(h.unmountAll)
	h.serve()
}

func (h *hooked) reach(s Step, tool int) {
	h.mu.Lock()
	f := h.at[s]
	h.mu.Unlock()
	if f != nil {
		f(tool)
	}
}

// next runs f when the step is reached the next time.
func (h *hooked) next(s Step, f func(tool int)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at[s] = func(tool int) {
		h.mu.Lock()
		delete(h.at, s)
		h.mu.Unlock()
		f(tool)
	}
}

// stopTool stops a process that has begun to write, if it must have; false if it ended before.
func stopTool(pid int, writing bool) bool {
	for writing {
		io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil || !bytes.Contains(io, []byte("wchar: ")) {
			return false
		}
		writing = bytes.Contains(io, []byte("wchar: 0\n"))
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return false
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		switch rest := stat[bytes.LastIndexByte(stat, ')')+1:]; {
		case bytes.HasPrefix(rest, []byte(" T")):
			return true
		case bytes.HasPrefix(rest, []byte(" Z")), bytes.HasPrefix(rest, []byte(" X")):
			return false
		}
	}
	return false
}

// cutDevice takes all but the first sector from the one device that is attached, as a force-detach does, until heal is called.
func (h *hooked) cutDevice() (heal func()) {
	limit := func(size uint64) {
		devices, err := h.manager.disk.List()
		if err != nil || len(devices) != 1 {
			h.t.Errorf("devices: %v %v", devices, err)
			return
		}
		f, err := os.Open(devices[0].Path)
		if err != nil {
			h.t.Error(err)
			return
		}
		defer f.Close()
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		if err == nil {
			info.Sizelimit = size
			err = unix.IoctlLoopSetStatus64(int(f.Fd()), info)
		}
		if err != nil {
			h.t.Error(err)
		}
	}
	limit(512)
	return func() { limit(0) }
}

// failReads makes every read of the volume's storage beyond its first part an I/O error, until heal is called.
func (h *hooked) failReads(id, good string) (heal func()) {
	path := h.sim.BackingFile(id)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, 64<<10)
	}
	if err != nil {
		h.t.Error(err)
	}
	return func() {
		run(h.t, "cp", "--sparse=always", good, path) // the same file, under the device
		if err := os.Truncate(path, info.Size()); err != nil {
			h.t.Error(err)
		}
	}
}

// tagNow is the format tag of the one volume there is, as EC2 has it.
func (h *hooked) tagNow() string {
	h.t.Helper()
	vols := h.volumes()
	if len(vols) != 1 {
		h.t.Fatalf("%d volumes", len(vols))
	}
	return vols[0].Attrs[attrFS]
}

// crashedXFS is an xfs with data as a host that died has left it: it is in the log and nowhere else.
func crashedXFS(t *testing.T) string {
	t.Helper()
	path := image(t, func(p string) { run(t, "mkfs.xfs", "-q", p) })
	at := t.TempDir()
	run(t, "mount", "-o", "loop", path, at)
	defer run(t, "umount", at)
	if err := os.Mkdir(filepath.Join(at, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "data", "old"), "kept")
	if err := syncFile(filepath.Join(at, "data", "old")); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "crashed")
	run(t, "cp", "--sparse=always", path, copied)
	return copied
}

func TestAMkfsThatLosesItsDeviceIsDoneAgainWhenThatIsBack(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			h := newHooked(t)
			for try := 0; ; try++ {
				name := fmt.Sprint("new", try)
				h.create(name, "fstype", fstype, "size", "64")
				hit, gone := false, make(chan struct{})
				h.next(StepMkfs, func(pid int) {
					if hit = stopTool(pid, true); hit {
						h.cutDevice()
						_ = unix.Kill(pid, unix.SIGCONT)
					}
					close(gone)
				})
				_, err := h.try("Mount", m{"Name": name, "ID": "c1"})
				<-gone
				if !hit && try < 30 { // mkfs had ended already
					h.unmount(name, "c1")
					h.nothingUnused()
					h.must("Remove", m{"Name": name})
					continue
				}
				id := h.status(name)["id"].(string)
				for _, w := range []string{name, id, "/nvme", "mkfs." + fstype} {
					if err == nil || !strings.Contains(err.Error(), w) {
						t.Errorf("the error does not say %q: %v", w, err)
					}
				}
				if tag := h.tagNow(); tag != "formatting:"+h.host.ID {
					t.Errorf("the tag says %q", tag)
				}
				h.nothingUnused() // the cut device goes; the next is whole
				write(t, filepath.Join(h.mount(name, "c2"), "row"), "42")
				if tag := h.tagNow(); tag != fstype {
					t.Errorf("the tag says %q in the end", tag)
				}
				h.unmount(name, "c2")
				h.nothingUnused()
				return
			}
		})
	}
}

// What a filesystem that has data meets between the attachment and the mount.
func TestAFilesystemThatCannotBeReadIsRefusedAndIsWholeWhenItCan(t *testing.T) {
	for _, c := range []struct {
		name, fstype string
		image        func(t *testing.T) string
		at           Step
		says         []string
	}{
		{"e2fsck", "ext4", dirtyImage, StepFsck, []string{"e2fsck"}},
		{"check", "ext4", dirtyImage, StepProbe, []string{"cannot be read"}},
		{"mount of ext4", "ext4", dirtyImage, StepChecked, []string{"mount"}},
		{"mount of xfs", "xfs", crashedXFS, StepChecked, []string{"mount"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHooked(t)
			good := c.image(t)
			if c.at == StepFsck {
				run(t, "sh", "-c", "e2fsck -p "+good+"; debugfs -w -R 'ssv state 2' "+good) // e2fsck shall read all of it
			}
			tags := h.ours("db", c.fstype)
			tags["blockvol:fstype"] = c.fstype
			heal := func() {}
			var id string
			var err error
			for try, hit := 0, false; !hit; try++ {
				if id, err = h.sim.Import(ec2sim.ImportSpec{Image: good, SizeGiB: 1, Zone: h.host.Zone, Tags: tags}); err != nil {
					t.Fatal(err)
				}
				h.next(c.at, func(pid int) {
					if pid != 0 && !stopTool(pid, false) {
						return
					}
					hit, heal = true, h.failReads(id, good)
					if pid != 0 {
						_ = unix.Kill(pid, unix.SIGCONT)
					}
				})
				_, err = h.try("Mount", m{"Name": "db", "ID": "c1"})
				late := hit && c.at == StepFsck && err != nil && !strings.Contains(err.Error(), "e2fsck") // it had read everything
				if late && try < 30 {
					hit = false
					h.nothingUnused()
					heal()
					h.must("Remove", m{"Name": "db"})
				} else if !hit { // the tool was over before it could be stopped
					if err != nil || try == 30 {
						t.Fatalf("%s was not reached (%v)", c.at, err)
					}
					h.unmount("db", "c1")
					h.nothingUnused()
					h.must("Remove", m{"Name": "db"})
				}
			}
			for _, w := range append(c.says, "db", id, "/nvme") {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not say %q: %v", w, err)
				}
			}
			if tag := h.tagNow(); tag != c.fstype {
				t.Errorf("the tag says %q", tag)
			}
			h.nothingUnused()
			heal()
			path := h.mount("db", "c2")
			if got := read(t, filepath.Join(path, "old")); got != "kept" {
				t.Errorf("the data is %q", got)
			}
			h.unmount("db", "c2")
			h.nothingUnused()
		})
	}
}

// usedImage is a filesystem with data that was unmounted in order.
func usedImage(t *testing.T, fstype string) string {
	t.Helper()
	path := image(t, func(p string) { run(t, "mkfs."+fstype, "-q", p) })
	at := t.TempDir()
	run(t, "mount", "-o", "loop", path, at)
	defer run(t, "umount", at)
	if err := os.Mkdir(filepath.Join(at, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "data", "old"), "kept")
	return path
}

func TestADamagedFilesystemIsToldAndLeftAsItIs(t *testing.T) {
	h := newHooked(t)
	ext4, dirty, xfs := usedImage(t, "ext4"), dirtyImage(t), usedImage(t, "xfs")
	zero := make([]byte, 64)
	for i, c := range []struct {
		name, fstype, image string
		off                 int64
		bytes               []byte
		says                string
	}{
		{"superblock of ext4", "ext4", ext4, 1024, make([]byte, 1024), "no filesystem is recognised"},
		{"checksum of ext4's superblock", "ext4", ext4, 1024 + 0x3FC, []byte("bad!"), "checksum"},
		{"ext4's group descriptors, dirty", "ext4", dirty, 4096, zero, "group descriptors"},
		{"root directory of ext4 is in no group", "ext4", dirty, 4096 + 8, []byte("bad!"), "group descriptors"},
		{"superblock of xfs", "xfs", xfs, 0, make([]byte, 512), "no filesystem is recognised"},
		{"xfs's free space", "xfs", xfs, 512, zero, "Metadata CRC error"},
	} {
		name := fmt.Sprint("db", i)
		tags := h.ours(name, c.fstype)
		tags["blockvol:fstype"] = c.fstype
		id, err := h.sim.Import(ec2sim.ImportSpec{Image: c.image, SizeGiB: 1, Zone: h.host.Zone, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		file := h.sim.BackingFile(id)
		good := make([]byte, len(c.bytes))
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(good, c.off); err != nil {
			t.Fatal(err)
		}
		f.Close()
		put(t, file, c.off, c.bytes)
		before := digest(t, file)
		_, err = h.try("Mount", m{"Name": name, "ID": "c1"})
		for _, w := range []string{name, id, "/nvme", c.says} {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the error does not say %q: %v", c.name, w, err)
			}
		}
		h.nothingUnused()
		if digest(t, file) != before && c.off != 512 { // there the kernel finds it out when it has begun to write to its log
			t.Errorf("%s: the volume was changed", c.name)
		}
		if tag := h.status(name)["filesystem"]; tag != c.fstype {
			t.Errorf("%s: the tag says %q", c.name, tag)
		}
		put(t, file, c.off, good)
		if got := read(t, filepath.Join(h.mount(name, "c2"), "old")); got != "kept" {
			t.Errorf("%s: the data is %q", c.name, got)
		}
		h.unmount(name, "c2")
		h.nothingUnused()
	}
}

// A stale tag, and a host that died with the filesystem mounted: what it holds is only in its log.
func TestAnXFSOfADeadHostIsNotFormattedWhateverItsTagSays(t *testing.T) {
	r := newRig(t)
	tags := r.ours("db", "formatting:i-00000000000000009")
	tags["blockvol:fstype"] = "xfs"
	id, err := r.sim.Import(ec2sim.ImportSpec{Image: crashedXFS(t), SizeGiB: 1, Zone: r.host.Zone, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	before := digest(t, r.sim.BackingFile(id))
	r.refused("Mount", m{"Name": "db", "ID": "c1"}, "db", id, "not formatted", "mounted since")
	r.nothingUnused()
	if digest(t, r.sim.BackingFile(id)) != before {
		t.Error("its bytes have changed")
	}
}

func TestADeviceThatIsReadOnlyIsToldAndNotTagged(t *testing.T) {
	h := newHooked(t)
	h.create("db")
	set := func(readOnly int) {
		devices, err := h.manager.disk.List()
		if err != nil || len(devices) != 1 {
			t.Fatalf("devices: %v %v", devices, err)
		}
		f, err := os.Open(devices[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, readOnly); err != nil {
			t.Error(err)
		}
	}
	h.next(StepDevice, func(int) { set(1) })
	h.refused("Mount", m{"Name": "db", "ID": "c1"}, "db", h.status("db")["id"].(string), "/nvme", "read-only", "blockdev --setrw")
	if tag := h.tagNow(); tag != "none" {
		t.Errorf("the tag says %q", tag)
	}
	h.nothingUnused()
	h.mount("db", "c2")
	h.unmount("db", "c2")
	h.nothingUnused()
}

// lists asks for the list while something hangs, and tells how long that took.
func (h *hooked) lists(want int) {
	h.t.Helper()
	began := time.Now()
	vols, _ := h.must("List", m{})["Volumes"].([]any)
	took := time.Since(began)
	h.t.Logf("List answered %d volumes in %s", len(vols), took.Round(time.Millisecond))
	if len(vols) != want {
		h.t.Errorf("%d volumes are listed, want %d", len(vols), want)
	}
	if limit := 10 * time.Second; took > limit {
		h.t.Errorf("List took %s", took)
	}
}

// A tool that neither ends nor says anything: its volume waits, and nobody else does.
func TestAHungToolBlocksNoOtherVolume(t *testing.T) {
	for _, at := range []Step{StepMkfs, StepFsck} {
		t.Run(at.String(), func(t *testing.T) {
			h := newHooked(t, func(t *Timing) { t.Request = 8 * time.Second })
			h.create("other")
			done := make(chan error, 1)
			pid := 0
			for try := 0; pid == 0; try++ {
				h.create("hung")
				pids := make(chan int, 1)
				h.next(at, func(pid int) {
					if !stopTool(pid, false) {
						pid = 0
					}
					pids <- pid
				})
				go func() { _, err := h.try("Mount", m{"Name": "hung", "ID": "c1"}); done <- err }()
				if pid = <-pids; pid == 0 { // the tool was over before it could be stopped
					if err := <-done; err != nil || try == 30 {
						t.Fatalf("the tool was never stopped (%v)", err)
					}
					h.unmount("hung", "c1")
					h.nothingUnused()
					h.must("Remove", m{"Name": "hung"})
				}
			}
			go2 := sync.OnceFunc(func() { _ = unix.Kill(pid, unix.SIGCONT) })
			defer go2()

			write(t, filepath.Join(h.mount("other", "c2"), "row"), "42")
			h.unmount("other", "c2")
			h.create("third")
			h.lists(3)
			h.must("Remove", m{"Name": "third"})
			if st := h.status("hung"); st["doing"] == nil {
				t.Errorf("what hangs is not told: %v", st)
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), "still ") || !strings.Contains(err.Error(), "try again") {
				t.Errorf("the hung mount says %v", err)
			}
			h.lists(2)
			go2()
			h.eventually("mounted by the retry", func() bool { _, err := h.try("Mount", m{"Name": "hung", "ID": "c3"}); return err == nil })
			h.unmount("hung", "c3")
			h.nothingUnused()
		})
	}
}

// No call of EC2 is answered: what is mounted stays usable, is given to a second container and taken back; the list is answered from memory, also
// by a plugin that was started meanwhile and does not even know which host it is on.
func TestADeadCloudBlocksNothingThatIsHere(t *testing.T) {
	h := newHooked(t)
	h.create("used")
	h.create("idle")
	row := filepath.Join(h.mount("used", "c1"), "row")
	if err := h.sim.Inject(ec2sim.Fault{Kind: "hang", Times: -1}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(h.timing.Fresh)
	work := func(id string) {
		t.Helper()
		h.lists(2)
		began := time.Now()
		if st := h.status("used"); st["id"] == nil || time.Since(began) > 15*time.Second {
			t.Errorf("what is known is not told, or late (%s): %v", time.Since(began), st)
		}
		write(t, row, id)
		if err := syncFile(row); err != nil {
			t.Error(err)
		}
	}
	work("before the restart")
	h.mount("used", "c2")
	h.unmount("used", "c2")

	h.crash()
	known := make(chan struct{})
	h.startWith(func(c *Config) { c.Cloud = deaf{c.Cloud, known} })
	work("after the restart")
	h.unmount("used", "unknown")
	work("after an unmount")
	h.manager.mu.Lock()
	ready := h.manager.isReady
	h.manager.mu.Unlock()
	if ready {
		t.Fatal("it is ready without a cloud: this test shows nothing")
	}
	close(known)
	h.eventually("ready", func() bool { return h.manager.ready(t.Context()) == nil })
	h.lists(2) // EC2 still hangs
	h.sim.ClearFaults()
	if got := read(t, row); got != "after an unmount" {
		t.Errorf("the data is %q", got)
	}
	h.unmount("used", "c1")
	h.nothingUnused()
}

// deaf is a cloud that does not tell which host this is until it is known.
type deaf struct {
	cloud.Cloud
	known chan struct{}
}

func (d deaf) Host(ctx context.Context) (cloud.Host, error) {
	select {
	case <-d.known:
		return d.Cloud.Host(ctx)
	case <-ctx.Done():
		return cloud.Host{}, ctx.Err()
	}
}

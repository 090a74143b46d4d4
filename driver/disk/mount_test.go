package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// formatted is a device with a filesystem.
func (m *machine) formatted(fstype string) (Device, *loop) {
	m.t.Helper()
	d, l := m.disk(512 * mib)
	must(m.t, m.Format(soon(m.t), d, fstype, FormatOptions{}))
	return d, l
}

// mountLine is what the kernel says of a mount.
func mountLine(t *testing.T, target string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+target+" ") {
			return line
		}
	}
	return ""
}

func TestAFailedMountTellsWhatTheKernelSaid(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	blank, _ := m.disk(512 * mib)
	ext4, _ := m.formatted("ext4")
	target := m.target()
	file, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
	must(t, os.WriteFile(file, []byte("kept"), 0o600))
	must(t, os.Symlink(target, link))
	for name, c := range map[string]struct {
		d       Device
		fstype  string
		target  string
		options []string
		is      error
		says    string
	}{
		"nothing on it, ext4": {blank, "ext4", target, nil, unix.EINVAL, "Can't find ext4 filesystem"},
		"nothing on it, xfs":  {blank, "xfs", target, nil, unix.EINVAL, "Invalid superblock magic number"},
		"another type":        {ext4, "xfs", target, nil, unix.EINVAL, "Invalid superblock magic number"},
		"unknown option":      {ext4, "ext4", target, []string{"nosuchoption"}, ErrOption, "Unknown parameter 'nosuchoption'"},
		"wrong value":         {ext4, "ext4", target, []string{"commit=never"}, ErrOption, "commit=never"},
		"no such target":      {ext4, "ext4", target + "/none", nil, unix.ENOENT, target + "/none"},
		"a file":              {ext4, "ext4", file, nil, unix.ENOTDIR, file + " is in the way"},
		"a symbolic link":     {ext4, "ext4", link, nil, unix.ENOTDIR, link + " is in the way"},
		"relative target":     {ext4, "ext4", "mnt", nil, nil, "absolute"},
		"unsupported type":    {ext4, "vfat", target, nil, ErrUnsupported, "ext4, xfs"},
		"refused option":      {ext4, "ext4", target, []string{"bind"}, ErrOption, "bind"},
	} {
		err := m.Mount(ctx, c.d, c.target, c.fstype, c.options)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.Kmsg = "/nonexistent" // without the kernel's log the error number is explained
	if err := m.Mount(ctx, blank, target, "ext4", nil); err == nil || !strings.Contains(err.Error(), "holds no filesystem of this type") {
		t.Error(err)
	}
	if list, err := m.MountsUnder(m.dir); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	for _, d := range []Device{blank, ext4} {
		claim, err := m.Claim(d)
		must(t, err)
		must(t, claim.Release())
	}
}

func TestMountOptionsReachTheKernel(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	ext4, _ := m.formatted("ext4")
	xfs, _ := m.formatted("xfs")
	for _, c := range []struct {
		d       Device
		fstype  string
		options []string
		want    []string
		not     []string
	}{
		{ext4, "ext4", nil, []string{"rw,relatime"}, []string{"errors=continue", "nosuid"}},
		{ext4, "ext4", []string{"ro", "noatime", "nosuid", "nodev", "noexec", "nodiratime"}, []string{"ro,", "noatime", "nosuid", "nodev", "noexec", "nodiratime", "- ext4 " + ext4.Path + " ro"}, []string{"relatime"}},
		{ext4, "ext4", []string{"noatime", "strictatime", "nosuid", "suid", "ro", "rw"}, []string{"rw"}, []string{"noatime", "relatime", "nosuid"}},
		{ext4, "ext4", []string{"errors=continue", "commit=7", "discard", "lazytime", "sync", "iversion"}, []string{"errors=continue", "commit=7", "discard", "lazytime", "sync"}, []string{"remount-ro"}},
		{xfs, "xfs", []string{"logbufs=4", "dirsync"}, []string{"nouuid", "logbufs=4", "dirsync"}, nil},
		{xfs, "xfs", []string{"nouuid"}, []string{"nouuid"}, nil},
	} {
		target := m.target()
		if err := m.Mount(ctx, c.d, target, c.fstype, c.options); err != nil {
			t.Errorf("%v: %v", c.options, err)
			continue
		}
		line := mountLine(t, target)
		for _, w := range c.want {
			if !strings.Contains(line, w) {
				t.Errorf("%v: %q is missing in %s", c.options, w, line)
			}
		}
		for _, w := range c.not {
			if strings.Contains(line, w) {
				t.Errorf("%v: %q in %s", c.options, w, line)
			}
		}
		must(t, m.Unmount(target))
	}
}

func TestExt4StopsWritingOnErrorsWhateverItsSuperblockSays(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(512 * mib)
	command(t, "mkfs.ext4", "-q", "-e", "continue", d.Path)
	target := m.target()
	must(t, m.Mount(soon(t), d, target, "ext4", nil))
	if line := mountLine(t, target); !strings.Contains(line, "errors=remount-ro") {
		t.Error(line)
	}
}

func TestACopyOfAnXFSVolumeMountsBesideIt(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	d, l := m.formatted("xfs")
	b, err := os.ReadFile(l.image)
	must(t, err)
	copied := m.image(0)
	must(t, os.WriteFile(copied, b, 0o600))
	twin, _ := m.over(copied)
	must(t, m.Mount(ctx, d, m.target(), "xfs", nil))
	must(t, m.Mount(ctx, twin, m.target(), "xfs", nil))
}

// A kernel without the new mount API gets the same mounts from mount(2).
func TestMountingTheOldWayDoesTheSame(t *testing.T) {
	m := newMachine(t)
	yes, no := func() bool { return true }, func() bool { return false }
	for _, fstype := range Filesystems() {
		d, _ := m.formatted(fstype)
		fs, err := lookup(fstype)
		must(t, err)
		for _, options := range [][]string{nil, {"ro", "noatime", "nosuid"}, {"strictatime", "noexec", "lazytime", "dirsync", "discard"}} {
			plan, err := planMount(options, fs.mountAlways)
			must(t, err)
			var lines []string
			for _, how := range []func(Device, string, string, mountPlan, func() bool) error{mountNew, mountOld} {
				target := m.target()
				must(t, how(d, target, fstype, plan, yes))
				fields := strings.SplitN(mountLine(t, target), " ", 6)
				lines = append(lines, fields[5][:strings.Index(fields[5], " ")]+fields[5][strings.Index(fields[5], " - "):])
				must(t, m.Unmount(target))
			}
			if lines[0] != lines[1] {
				t.Errorf("%s %v: new %s, old %s", fstype, options, lines[0], lines[1])
			}
		}
		plan, err := planMount(nil, nil)
		must(t, err)
		target := m.target()
		wrong := d
		wrong.Minor += 1000
		for name, how := range map[string]func(Device, string, string, mountPlan, func() bool) error{"new": mountNew, "old": mountOld} {
			if err := how(wrong, target, fstype, plan, yes); !errors.Is(err, ErrNoDevice) {
				t.Errorf("%s way, another device: %v", name, err)
			}
			if err := how(d, target, fstype, plan, no); !errors.Is(err, errAbandoned) {
				t.Errorf("%s way, nobody waits: %v", name, err)
			}
			if line := mountLine(t, target); line != "" {
				t.Errorf("%s way: a mount is left: %s", name, line)
			}
		}
	}
}

func TestWhatNobodyWaitsForIsNotCommitted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	held, committed := make(chan struct{}), make(chan bool, 1)
	begun := make(chan struct{})
	go func() {
		<-begun
		cancel()
	}()
	_, err := bounded(ctx, "work", func(commit func() bool) (int, error) {
		close(begun)
		<-held
		committed <- commit()
		return 1, nil
	})
	close(held)
	if !errors.Is(err, ErrStuck) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if <-committed {
		t.Error("committed after its context had ended")
	}
	// What was committed is waited for.
	ctx, cancel = context.WithCancel(context.Background())
	got, err := bounded(ctx, "work", func(commit func() bool) (bool, error) {
		ok := commit()
		cancel()
		time.Sleep(50 * time.Millisecond)
		return ok, nil
	})
	if !got || err != nil {
		t.Error(got, err)
	}
}

func TestMountOptionsAreRefusedBeforeTheyDoHarm(t *testing.T) {
	for _, good := range []string{"ro", "noatime", "discard", "data=journal", "commit=30", "usrquota", "context=system_u:object_r:container_file_t:s0:c1,c2",
		`context="system_u:object_r:container_file_t:s0:c1,c2"`, "allocsize=64k", "defaults", "errors=panic"} {
		if err := ValidateMountOptions([]string{good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "=", "=x", "a b", "ro,rw", "commit=", "commit=1,abort", "data=a\nb", `x="y"`, "ro=1", "bind", "rbind", "remount", "move", "loop", "loop=/dev/loop0",
		"offset=4096", "sizelimit=1", "user", "users", "noauto", "nofail", "_netdev", "x-systemd.automount", "X-mount.mkdir", "shared", "rslave", "journal_path=/dev/sda",
		"journal_dev=2049", "logdev=/dev/sda", "rtdev=/dev/sda", "source=/dev/sda", "sb=32768", "abort", "stripe=" + strings.Repeat("1", 256)} {
		if err := ValidateMountOptions([]string{bad}); !errors.Is(err, ErrOption) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	p, err := planMount([]string{`context="a:b:c1,c2"`, "commit=1"}, []string{"errors=remount-ro", "commit=9"})
	must(t, err)
	if fmt.Sprint(p.params) != "[context=a:b:c1,c2 commit=1 errors=remount-ro]" || p.data() != `context="a:b:c1,c2",commit=1,errors=remount-ro` {
		t.Errorf("%q, %q", p.params, p.data())
	}
}

func TestADeviceMountedInAnotherNamespaceIsInUse(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	d, _ := m.formatted("ext4")
	target := m.target()
	must(t, m.Mount(ctx, d, target, "ext4", nil))
	// A process in a namespace of its own, as a container is.
	holder := exec.Command("unshare", "-m", "sh", "-c", "echo ready; exec sleep 60")
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	defer func() { holder.Process.Kill(); holder.Wait() }()
	_, err = out.Read(make([]byte, 16))
	must(t, err)
	must(t, m.Unmount(target))
	if at, err := m.Mounts(d); err != nil || len(at) != 0 {
		t.Fatalf("mounted here: %v, %v", at, err)
	}
	if _, err := m.Claim(d); !errors.Is(err, ErrInUse) || !errors.Is(err, unix.EBUSY) {
		t.Fatalf("held by a container: %v", err)
	}
	// The same filesystem can be mounted again beside it.
	must(t, m.Mount(ctx, d, target, "ext4", nil))
	must(t, m.Unmount(target))
	must(t, holder.Process.Kill())
	holder.Wait()
	claim, err := m.Claim(d)
	must(t, err)
	// And the claim keeps others away.
	if _, err := m.Claim(d); !errors.Is(err, ErrInUse) {
		t.Errorf("claimed twice: %v", err)
	}
	if err := m.Mount(ctx, d, target, "ext4", nil); !errors.Is(err, ErrInUse) {
		t.Errorf("mounted while claimed: %v", err)
	}
	must(t, claim.Release())
	must(t, claim.Release())
	must(t, m.Mount(ctx, d, target, "ext4", nil))
}

func TestAClaimThatCannotBeMadeIsNotInUse(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	gone := d
	gone.Name, gone.Path, gone.Major, gone.Minor = "nvme9n1", filepath.Join(m.Dev, "nvme9n1"), 240, 1 // 240 is for nobody: devices.txt
	m.sysfs(gone.Name, gone.Serial, gone.Minor, gone.Size)
	must(t, os.WriteFile(filepath.Join(m.Sys, "block", gone.Name, "dev"), []byte("240:1\n"), 0o644))
	must(t, unix.Mknod(gone.Path, unix.S_IFBLK|0o600, int(unix.Mkdev(240, 1))))
	if c, err := m.Claim(gone); c != nil || errors.Is(err, ErrInUse) || !errors.Is(err, ErrNoDevice) {
		t.Errorf("a node without a device: %v", err)
	}
	must(t, os.Remove(d.Path))
	must(t, os.Symlink("/dev/null", d.Path))
	if c, err := m.Claim(d); c != nil || errors.Is(err, ErrInUse) || errors.Is(err, ErrNoDevice) {
		t.Errorf("a symbolic link: %v", err)
	}
}

func TestUnmountNeverForces(t *testing.T) {
	m := newMachine(t)
	d, _ := m.formatted("ext4")
	target := m.target()
	must(t, m.Mount(soon(t), d, target, "ext4", nil))
	f, err := os.Create(filepath.Join(target, "open"))
	must(t, err)
	if err := m.Unmount(target); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), target) {
		t.Errorf("with an open file: %v", err)
	}
	if mountLine(t, target) == "" {
		t.Error("it was unmounted lazily")
	}
	f.Close()
	link := filepath.Join(m.dir, "link")
	must(t, os.Symlink(target, link))
	if err := m.Unmount(link); !errors.Is(err, ErrNotMounted) {
		t.Errorf("through a link: %v", err)
	}
	must(t, m.Unmount(target))
	for _, dir := range []string{target, target + "/none"} {
		if err := m.Unmount(dir); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestALockKeepsOthersAwayAndEndsWithItsContext(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	unlock, err := m.Lock(soon(t), d)
	must(t, err)
	udev, err := os.Open(d.Path) // udev asks for a shared lock, without waiting
	must(t, err)
	defer udev.Close()
	if err := unix.Flock(int(udev.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("udev would probe: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := m.Lock(ctx, d); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	// The lock that came too late was given back.
	again, err := m.Lock(soon(t), d)
	must(t, err)
	again()
	must(t, unix.Flock(int(udev.Fd()), unix.LOCK_SH|unix.LOCK_NB))
}

func TestMountsAreSeenByDeviceAndByFolder(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	a, _ := m.formatted("ext4")
	b, _ := m.formatted("xfs")
	odd := filepath.Join(m.dir, "mnt with space\tand\\more")
	must(t, os.Mkdir(odd, 0o755))
	sibling := odd + "x"
	must(t, os.Mkdir(sibling, 0o755))
	for target, d := range map[string]Device{odd: a, sibling: b} {
		must(t, m.Mount(ctx, d, target, map[Device]string{a: "ext4", b: "xfs"}[d], nil))
		t.Cleanup(func() { unix.Unmount(target, 0) })
	}
	_, err := m.Root(odd, true, RootOptions{Subdir: "data"})
	must(t, err)
	bind := m.target()
	must(t, unix.Mount(odd+"/data", bind, "", unix.MS_BIND, ""))
	at, err := m.Mounts(a)
	if err != nil || len(at) != 2 || at[0] != odd || at[1] != bind {
		t.Errorf("%q, %v", at, err)
	}
	list, err := m.MountsUnder(odd + "/")
	if want := (MountPoint{odd, a.Major, a.Minor, "ext4", "/"}); err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("%+v, %v", list, err)
	}
	list, err = m.MountsUnder(m.dir)
	if err != nil || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	for _, p := range list {
		if p.Target == bind && p.Root != "/data" {
			t.Errorf("%+v", p)
		}
	}
}

// What a force-detached volume looks like to the host that had it.
func TestADeviceThatIsTakenAwayUnderItsMountCanBeUnmounted(t *testing.T) {
	m := newMachine(t)
	d, l := m.formatted("ext4")
	target := m.target()
	must(t, m.Mount(soon(t), d, target, "ext4", nil))
	must(t, os.WriteFile(filepath.Join(target, "file"), []byte("x"), 0o644))
	l.limit(t, 512)
	if _, err := m.Claim(d); !errors.Is(err, ErrInUse) {
		t.Errorf("claim: %v", err)
	}
	must(t, m.Unmount(target))
	if at, err := m.Mounts(d); err != nil || len(at) != 0 {
		t.Errorf("%v, %v", at, err)
	}
}

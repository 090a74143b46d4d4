package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
	"golang.org/x/sys/unix"
)

// digest is the checksum of a volume's content.
func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Holes are skipped: what was never written is zero.
	h := sha256.New()
	for at := int64(0); ; {
		begin, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		end, herr := f.Seek(begin, unix.SEEK_HOLE)
		if err != nil || herr != nil {
			t.Fatal(err, herr)
		}
		fmt.Fprintf(h, "%d-%d:", begin, end)
		if _, err := io.Copy(h, io.NewSectionReader(f, begin, end-begin)); err != nil {
			t.Fatal(err)
		}
		at = end
	}
	return hex.EncodeToString(h.Sum(nil))
}

// image makes a file of 1 GiB and lets fill write to it.
func image(t *testing.T, fill func(path string)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	f.Close()
	fill(path)
	return path
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func put(t *testing.T, path string, off int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
}

// ours are the tags of a volume of the rig's cluster, with one state of the format tag.
func (r *rig) ours(name, fs string) map[string]string {
	tags := map[string]string{"blockvol:cluster": r.settings.Cluster, "blockvol:name": name, "blockvol:schema": "1",
		"blockvol:fstype": "ext4", "blockvol:subdir": "data", "blockvol:fs": fs}
	if fs == "" {
		delete(tags, "blockvol:fs")
	}
	return tags
}

// What the format rule refuses is refused on the whole way from Docker to the device, and not one byte of it changes. The rule itself, over
// many more kinds of content, is tested in package disk.
func TestForeignDataIsRefusedAndItsBytesAreUnchanged(t *testing.T) {
	r := newRig(t)
	const cut = "formatting:i-00000000000000001"
	noise := rand.NewChaCha8([32]byte{1})
	images := []struct {
		name  string
		fill  func(path string)
		found string   // what the refusal names
		fine  []string // the states in which it is used, or is what a killed mkfs may have left
	}{
		{"ext4", func(p string) { run(t, "mkfs.ext4", "-q", p) }, "ext4", []string{"ext4", cut}},
		{"xfs", func(p string) { run(t, "mkfs.xfs", "-q", p) }, "xfs", nil},
		{"vfat", func(p string) { run(t, "mkfs.vfat", p) }, "vfat", nil},
		{"swap", func(p string) { run(t, "mkswap", p) }, "swap", nil},
		{"luks", func(p string) {
			put(t, p, 0, append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 4088)...))
		}, "LUKS", nil},
		{"noise", func(p string) {
			b := make([]byte, 8<<20)
			noise.Read(b)
			put(t, p, 16<<20, b)
		}, "no known format", []string{cut}},
		{"end", func(p string) { put(t, p, 1<<30-4096, []byte("the last words")) }, "no known format", []string{cut}},
	}
	states := []string{"none", cut, "ext4", "xfs", "btrfs", ""}
	for _, img := range images {
		path := image(t, img.fill)
		for i, state := range states {
			if slices.Contains(img.fine, state) {
				continue // not refused: see the other tests
			}
			name := fmt.Sprintf("%s-%d", img.name, i)
			id, err := r.sim.Import(ec2sim.ImportSpec{Image: path, SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours(name, state)})
			if err != nil {
				t.Fatal(err)
			}
			before := digest(t, r.sim.BackingFile(id))
			_, err = r.try("Mount", m{"Name": name, "ID": "c1"})
			if err == nil {
				t.Errorf("a volume with %s and the tag blockvol:fs=%q was mounted", img.name, state)
				r.unmount(name, "c1")
			} else if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), id) {
				t.Errorf("%s, tag %q: the refusal names neither volume nor ID: %v", img.name, state, err)
			} else if state == "none" && !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(img.found)) {
				t.Errorf("%s, tag %q: the refusal does not say what was found: %v", img.name, state, err)
			}
			r.eventually("detached after the refusal", func() bool { return r.attached() == 0 })
			if after := digest(t, r.sim.BackingFile(id)); after != before {
				t.Errorf("%s, tag %q: the bytes of the volume have changed", img.name, state)
			}
		}
	}
}

func TestForeignVolumesAreInvisibleAndUntouchable(t *testing.T) {
	r := newRig(t)
	path := image(t, func(p string) { run(t, "mkfs.ext4", "-q", p) })
	tags := r.ours("theirs", "ext4")
	tags["blockvol:cluster"] = "another"
	for _, tags := range []map[string]string{tags, {"Name": "theirs"}, nil} {
		_, err := r.sim.Import(ec2sim.ImportSpec{Image: path, SizeGiB: 1, Zone: r.host.Zone, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.refused("Get", m{"Name": "theirs"}, "no volume")
	r.refused("Mount", m{"Name": "theirs", "ID": "c1"}, "no volume")
	r.must("Remove", m{"Name": "theirs"})
	if vols := r.must("List", m{})["Volumes"]; vols != nil && len(vols.([]any)) != 0 {
		t.Errorf("listed: %v", vols)
	}
	for _, action := range []string{"AttachVolume", "DeleteVolume", "CreateTags", "DetachVolume"} {
		for _, c := range r.sim.Calls() {
			if c.Action == action {
				t.Errorf("%s was called", action)
			}
		}
	}
}

func TestAVolumeFromASnapshotIsNeverFormatted(t *testing.T) {
	r := newRig(t)
	id, err := r.sim.Import(ec2sim.ImportSpec{SizeGiB: 1, Zone: r.host.Zone, SnapshotID: "snap-1", Tags: r.ours("restored", "none")})
	if err != nil {
		t.Fatal(err)
	}
	before := digest(t, r.sim.BackingFile(id))
	r.refused("Mount", m{"Name": "restored", "ID": "c1"}, "restored", id, "snapshot")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	if digest(t, r.sim.BackingFile(id)) != before {
		t.Error("its bytes have changed")
	}
}

// What a refusal was made from may be older than the attachment, and its text names a tag to set: the next try asks EC2 again, although the
// device is still here.
func TestATagThatWasSetAfterARefusalCountsAtTheNextTry(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace = time.Minute })
	path := image(t, func(p string) { run(t, "mkfs.ext4", "-q", p) })
	id, err := r.sim.Import(ec2sim.ImportSpec{Image: path, SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours("adopted", "none")})
	if err != nil {
		t.Fatal(err)
	}
	r.refused("Mount", m{"Name": "adopted", "ID": "c1"}, "blockvol:fs", "ext4")
	c, err := r.plan().cloud(r.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetAttrs(t.Context(), id, map[string]string{attrFS: "ext4"}); err != nil {
		t.Fatal(err)
	}
	r.mount("adopted", "c1")
	if n := r.calls()["AttachVolume"]; n != 1 {
		t.Errorf("%d AttachVolume calls: the device was not still here", n)
	}
	r.unmount("adopted", "c1")
}

func TestAFormatThatWasCutIsDoneAgain(t *testing.T) {
	r := newRig(t)
	path := image(t, func(p string) { put(t, p, 4096*5, []byte("what a killed mkfs left")) })
	_, err := r.sim.Import(ec2sim.ImportSpec{Image: path, SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours("cut", "formatting:i-00000000000000009")})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.mount("cut", "c1"), "row"), "42")
	if st := r.status("cut"); st["filesystem"] != "ext4" {
		t.Errorf("the tag is %v", st["filesystem"])
	}
	r.unmount("cut", "c1")
}

func TestTwoVolumesOfOneNameAreBothRefused(t *testing.T) {
	r := newRig(t)
	var ids []string
	for range 2 {
		id, err := r.sim.Import(ec2sim.ImportSpec{SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours("twin", "none")})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for call, req := range map[string]any{"Mount": m{"Name": "twin", "ID": "c1"}, "Remove": m{"Name": "twin"}, "Create": m{"Name": "twin"}} {
		r.refused(call, req, ids[0], ids[1])
	}
	if st := r.status("twin"); !strings.Contains(fmt.Sprint(st["error"]), ids[0]) {
		t.Errorf("Get does not tell: %v", st)
	}
	if n := r.calls(); n["DeleteVolume"]+n["AttachVolume"] != 0 {
		t.Errorf("touched: %v", n)
	}
}

func TestCopyUpFindsAnEmptyRootWithTheOwnerAskedFor(t *testing.T) {
	r := newRig(t)
	r.create("owned", "uid", "1000", "gid", "1001", "mode", "0750")
	r.create("xx", "fstype", "xfs", "size", "1", "subdir", "pg/data")
	p := r.mount("owned", "c1")
	entries, err := os.ReadDir(p)
	if err != nil || len(entries) != 0 {
		t.Errorf("the root is not empty: %v %v", entries, err)
	}
	out, err := exec.Command("stat", "-c", "%u:%g %a", p).Output()
	if err != nil || strings.TrimSpace(string(out)) != "1000:1001 750" {
		t.Errorf("owner and mode are %s %v", out, err)
	}
	if err := os.Chmod(p, 0o700); err != nil {
		t.Fatal(err)
	}
	r.unmount("owned", "c1")
	p = r.mount("owned", "c2")
	if out, _ := exec.Command("stat", "-c", "%a", p).Output(); strings.TrimSpace(string(out)) != "700" {
		t.Errorf("the mode was applied twice: %s", out)
	}
	r.unmount("owned", "c2")
	p = r.mount("xx", "c1")
	if !strings.HasSuffix(p, "/pg/data") {
		t.Errorf("subdir: %s", p)
	}
	if st := r.status("xx"); st["filesystem"] != "xfs" {
		t.Errorf("filesystem: %v", st)
	}
	r.unmount("xx", "c1")
}

// Whatever EC2 does to one operation: the error says what, nothing is left, and the next try works.
func TestAfterEveryFaultTheNextTryWorks(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.AskCloud, t.Attach = 500*time.Millisecond, 12*time.Second })
	faults := []struct {
		fault ec2sim.Fault
		fails bool // the operation that it hits may fail; otherwise it must not notice
		word  string
	}{
		{ec2sim.Fault{Kind: "lost-answer", Action: "CreateVolume"}, false, ""},
		{ec2sim.Fault{Kind: "lost-answer", Action: "AttachVolume"}, false, ""},
		{ec2sim.Fault{Kind: "lost-answer", Action: "DetachVolume"}, false, ""},
		{ec2sim.Fault{Kind: "lost-answer", Action: "CreateTags"}, false, ""},
		{ec2sim.Fault{Kind: "lost-answer", Action: "DeleteVolume"}, false, ""},
		{ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "RequestLimitExceeded", Times: 2}, false, ""},
		{ec2sim.Fault{Kind: "error", Action: "DescribeVolumes", Code: "RequestLimitExceeded", Times: 3}, false, ""},
		{ec2sim.Fault{Kind: "error", Action: "CreateVolume", Code: "UnauthorizedOperation"}, true, "policy"},
		{ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "UnauthorizedOperation"}, true, "policy"},
		{ec2sim.Fault{Kind: "error", Action: "CreateTags", Code: "UnauthorizedOperation"}, true, "policy"},
		{ec2sim.Fault{Kind: "error", Action: "DeleteVolume", Code: "UnauthorizedOperation"}, true, "policy"},
		{ec2sim.Fault{Kind: "error", Action: "CreateVolume", Code: "VolumeLimitExceeded"}, true, "quota"},
		{ec2sim.Fault{Kind: "invisible", Action: "CreateVolume", Duration: 400 * time.Millisecond}, false, ""},
		{ec2sim.Fault{Kind: "kms-failed"}, true, "key"},
		{ec2sim.Fault{Kind: "create-failed"}, true, "remove it"},
		{ec2sim.Fault{Kind: "stuck-attaching"}, true, "attaching"},
		{ec2sim.Fault{Kind: "no-device"}, true, "no device with serial"},
		{ec2sim.Fault{Kind: "late-device", Duration: 700 * time.Millisecond}, false, ""},
		{ec2sim.Fault{Kind: "wrong-serial"}, true, "serial"},
		{ec2sim.Fault{Kind: "empty-serial"}, true, "serial"},
	}
	for i, f := range faults {
		t.Run(f.fault.Kind+"-"+f.fault.Action+"-"+f.fault.Code, func(t *testing.T) {
			r := *r
			r.t = t
			name := fmt.Sprint("v", i)
			if err := r.sim.Inject(f.fault); err != nil {
				t.Fatal(err)
			}
			noticed := false
			insist := func(call string, req m) {
				t.Helper()
				_, err := r.try(call, req)
				if err == nil {
					return
				}
				if !f.fails && tryAgain(err) {
					r.eventually(call+" is done by the retry", func() bool { _, err = r.try(call, req); return err == nil })
					return
				}
				noticed = true
				if !f.fails {
					t.Errorf("%s failed: %v", call, err)
				}
				for _, w := range []string{name, f.word} {
					if !strings.Contains(strings.ToLower(err.Error()), w) {
						t.Errorf("%s: the error does not say %q: %v", call, w, err)
					}
				}
				if f.fault.Kind == "create-failed" {
					r.must("Remove", m{"Name": name}) // what the error says; Create itself never deletes
				}
				r.eventually(call+" works later", func() bool { _, err = r.try(call, req); return err == nil })
			}
			insist("Create", m{"Name": name, "Opts": m{"size": "1", "kms-key-id": "alias/mine"}})
			insist("Mount", m{"Name": name, "ID": "c1"})
			insist("Unmount", m{"Name": name, "ID": "c1"})
			r.eventually("detached", func() bool { return r.attached() == 0 })
			insist("Remove", m{"Name": name})
			if f.fails && !noticed {
				t.Error("nobody was told")
			}
			r.sim.ClearFaults()
			r.eventually("no volume is left", func() bool {
				vols := r.must("List", m{})["Volumes"]
				return vols == nil || len(vols.([]any)) == 0
			})
		})
	}
}

func TestAStuckAttachDelaysNothingElse(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Request, t.Attach = 20*time.Second, 25*time.Second })
	r.create("stuck")
	r.create("other")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "stuck-attaching"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := r.try("Mount", m{"Name": "stuck", "ID": "c1"}); done <- err }()
	r.eventually("attaching", func() bool { return r.calls()["AttachVolume"] > 0 })
	r.mount("other", "c2")
	r.unmount("other", "c2")
	r.must("List", m{})
	r.status("stuck")
	select {
	case err := <-done:
		t.Fatalf("all of that was done only when the stuck mount had ended: %v", err)
	default:
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "still attaching") {
		t.Errorf("the stuck mount says %v", err)
	}
}

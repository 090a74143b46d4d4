package driver

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

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// oftenSnapshots lets snapshots of one volume follow each other at once.
func (r *rig) oftenSnapshots() {
	l := r.sim.Limits()
	l.SnapshotSeconds = 0
	r.sim.SetLimits(l)
}

// keep makes a snapshot of a volume as the plugin does it, and returns what was said meanwhile.
func (r *rig) keep(name string, spec cloud.SnapshotSpec) (s cloud.Snapshot, said string, err error) {
	r.t.Helper()
	v := r.manager.record(name)
	err = r.manager.work(r.t.Context(), v, func(ctx context.Context) error {
		vol, err := r.manager.exists(ctx, v, 0)
		if err != nil {
			return err
		}
		s, err = r.manager.snapshotVolume(ctx, v, vol, spec, func(format string, args ...any) { said += fmt.Sprintf(format+"\n", args...) })
		return err
	})
	return s, said, err
}

// snapshots are those of the cluster.
func (r *rig) snapshots() []cloud.Snapshot {
	r.t.Helper()
	r.volumes() // opens the eyes
	all, err := r.eyes.Snapshots(context.Background(), "")
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// freezes tells whether a filesystem can be frozen, which the kernel refuses for one that is, and leaves it as it was.
func freezes(t *testing.T, path string) bool {
	t.Helper()
	out, err := exec.Command("fsfreeze", "--freeze", path).CombinedOutput()
	if err == nil {
		run(t, "fsfreeze", "--unfreeze", path)
		return true
	}
	if !strings.Contains(string(out), "busy") {
		t.Fatalf("fsfreeze: %v: %s", err, out)
	}
	return false
}

func TestASnapshotOfAVolumeInUseStandsStillAndWritesGoOnAfterwards(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	for _, fs := range []string{"ext4", "xfs"} {
		name := "db-" + fs
		r.create(name, "fstype", fs, "mount-options", "noatime", "subdir", "pg", "profile", "none")
		path := r.mount(name, "c1")
		write(t, filepath.Join(path, "row"), "42")
		// The simulator refuses to copy what is written to without a pause.
		stop, stopped := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := writeThrough(filepath.Join(path, "busy"), fmt.Sprint(i)); err != nil {
					stopped <- err
					return
				}
			}
		}()
		s, said, err := r.keep(name, cloud.SnapshotSpec{Description: "before the upgrade", Tags: map[string]string{"team": "db"}, Attrs: map[string]string{"by": "hand"}})
		if err != nil {
			t.Fatal(err)
		}
		close(stop)
		if err := <-stopped; err != nil {
			t.Errorf("writing meanwhile: %v", err)
		}
		if !freezes(t, path) {
			t.Error("it is still frozen")
		}
		if s.Attrs[attrConsistency] != consistentFrozen || !strings.Contains(said, "freezing") {
			t.Errorf("it was not frozen: %v, %q", s.Attrs, said)
		}
		s, err = r.eyesOn(s.ID)
		for attr, want := range map[string]string{"fs": fs, "fstype": fs, "subdir": "pg", "mount-options": "noatime", "consistency": "frozen", "by": "hand", "reclaim": ""} {
			if got := s.Attrs[attr]; err != nil || got != want {
				t.Errorf("%s is %q, want %q (%v)", attr, got, want, err)
			}
		}
		if s.Volume != name || s.Description != "before the upgrade" || s.Tags["team"] != "db" || s.SizeGiB != 1 {
			t.Errorf("the snapshot is %+v", s)
		}
		r.unmount(name, "c1")
	}
}

// eyesOn looks at a snapshot.
func (r *rig) eyesOn(id string) (cloud.Snapshot, error) {
	r.volumes()
	return r.eyes.SnapshotByID(context.Background(), id)
}

// writeThrough writes a file and waits until it is on the device.
func writeThrough(path, text string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}

func TestASnapshotSaysInWhatStateTheFilesystemWas(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	two := r.twin()
	r.create("db")
	take := func(by *rig, want string, says ...string) {
		t.Helper()
		s, said, err := by.keep("db", cloud.SnapshotSpec{})
		if err != nil || s.Attrs[attrConsistency] != want {
			t.Errorf("%v, want %s (%v)", s.Attrs, want, err)
		}
		for _, w := range says {
			if !strings.Contains(said, w) {
				t.Errorf("%q does not say %q", said, w)
			}
		}
	}
	if _, _, err := r.keep("db", cloud.SnapshotSpec{}); err == nil || !strings.Contains(err.Error(), "no filesystem yet") || !strings.Contains(err.Error(), "db") {
		t.Errorf("a snapshot of nothing: %v", err)
	}
	path := r.mount("db", "c1")
	take(r, consistentFrozen)
	take(two, consistentCrash, r.host.ID)
	release := r.hold(filepath.Dir(path))
	r.unmount("db", "c1")
	take(r, consistentCrash, "a container")
	release()
	r.eventually("detached", func() bool { return r.attached() == 0 })
	take(r, consistentUnmounted)
	if n := len(r.snapshots()); n != 4 {
		t.Errorf("there are %d snapshots", n)
	}
}

func TestASnapshotThatEC2IsTooSlowForLeavesNothingBehind(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Freeze = time.Second })
	r.oftenSnapshots()
	r.create("db")
	path := r.mount("db", "c1")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "delay", Action: "CreateSnapshot", Duration: 4 * time.Second}); err != nil {
		t.Fatal(err)
	}
	_, _, err := r.keep("db", cloud.SnapshotSpec{})
	if err == nil || !strings.Contains(err.Error(), "db") || !strings.Contains(err.Error(), "stood still, which is for 1s at most") || !strings.Contains(err.Error(), "try again") {
		t.Errorf("too slow: %v", err)
	}
	if !freezes(t, path) {
		t.Error("it is still frozen")
	}
	write(t, filepath.Join(path, "row"), "42")
	r.eventually("what EC2 made of it is deleted", func() bool { return r.calls()["DeleteSnapshot"] > 0 && len(r.snapshots()) == 0 })
	if _, _, err := r.keep("db", cloud.SnapshotSpec{}); err != nil {
		t.Errorf("once more: %v", err)
	}
	r.unmount("db", "c1")
}

func TestASnapshotThatFailsLeavesTheFilesystemAsItWas(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	r.create("db")
	path := r.mount("db", "c1")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "CreateSnapshot", Code: "UnauthorizedOperation", Status: 403}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.keep("db", cloud.SnapshotSpec{}); !errors.Is(err, cloud.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	if !freezes(t, path) {
		t.Error("it is still frozen")
	}
	// What somebody else has frozen stays so.
	run(t, "fsfreeze", "--freeze", path)
	_, _, err := r.keep("db", cloud.SnapshotSpec{})
	if err == nil || !strings.Contains(err.Error(), "fsfreeze --unfreeze") {
		t.Errorf("frozen by another program: %v", err)
	}
	if freezes(t, path) {
		t.Error("what another program froze was thawed")
	} else {
		run(t, "fsfreeze", "--unfreeze", path)
	}
	r.unmount("db", "c1")
	if n := len(r.snapshots()); n != 0 {
		t.Errorf("there are %d snapshots", n)
	}
}

// EC2 refuses a second snapshot of a volume for some seconds, also when the first one is deleted.
func TestTheNextSnapshotIsWaitedForWhileNothingStandsStill(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Snapshots = 3 * time.Second })
	two := r.twin()
	l := r.sim.Limits()
	l.SnapshotSeconds = 2
	r.sim.SetLimits(l)
	r.create("db")
	path := r.mount("db", "c1")
	for n, by := range []*rig{r, r, two, r} {
		var row SnapshotRow
		a := by.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: "db"}, &row)
		if waited := strings.Contains(strings.Join(a.said, "\n"), "EC2 allows"); n == 0 && waited || n == 1 && !waited {
			t.Errorf("snapshot %d: said was %q", n, a.said)
		}
		var gone RemoveSnapshotRequest
		by.askFor("RemoveSnapshot", RemoveSnapshotRequest{ID: row.ID}, &gone)
	}
	if !freezes(t, path) {
		t.Error("it is still frozen")
	}
	r.unmount("db", "c1")
}

func TestASlotIsFilledOnce(t *testing.T) {
	r := newRig(t)
	r.create("db")
	r.mount("db", "c1")
	first, _, err := r.keep("db", cloud.SnapshotSpec{Slot: "2026-01-01T03:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	again, said, err := r.keep("db", cloud.SnapshotSpec{Slot: "2026-01-01T03:00Z"})
	if err != nil || again.ID != first.ID || said != "" {
		t.Errorf("once more: %s, was %s (%q, %v)", again.ID, first.ID, said, err)
	}
	if n := r.calls()["CreateSnapshot"]; n != 1 {
		t.Errorf("CreateSnapshot was sent %d times", n)
	}
	r.unmount("db", "c1")
}

// A plugin that is killed while a filesystem is frozen leaves it to its guard, and both to the next start.
func TestTheNextStartThawsWhatIsFrozen(t *testing.T) {
	r := newRig(t)
	r.create("db")
	path := r.mount("db", "c1")
	r.crash()
	run(t, "fsfreeze", "--freeze", path)
	r.start()
	r.eventually("thawed", func() bool { return freezes(t, path) })
	r.unmount("db", "c1")
}

// Killed at whatever step of a snapshot: the filesystem does not stay frozen, whether the plugin starts again or not, and there is one snapshot
// at most.
func testCrashOfASnapshot(t *testing.T, c crash) {
	r := newMachine(t, func(t *Timing) { t.HandOver = time.Second })
	r.oftenSnapshots()
	x := r.startProcess()
	r.create(crashName)
	path := r.mount(crashName, "c1")
	write(t, filepath.Join(path, "row"), "42")
	x.dieAt(c.step)
	if a, err := r.ask(t.Context(), "CreateSnapshot", CreateSnapshotRequest{Volume: crashName}); err == nil {
		t.Errorf("a process that was killed answered %+v", a)
	}
	x.died(c.step)
	r.eventually("the filesystem is not frozen any more", func() bool { return freezes(t, path) })
	write(t, filepath.Join(path, "row"), "43")
	made := 0
	if c.step == StepSnapshotSent || c.step == StepThawed {
		made = 1
	}
	if got := r.snapshots(); len(got) != made {
		t.Errorf("there are %d snapshots, want %d", len(got), made)
	}
	r.start()
	if c.again {
		var row SnapshotRow
		r.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: crashName, Wait: true}, &row)
		if row.State != string(cloud.SnapshotCompleted) || row.Volume != crashName {
			t.Errorf("made is %+v", row)
		}
	}
	r.nothingUnused()
	if got := read(t, filepath.Join(r.mount(crashName, "c2"), "row")); got != "43" {
		t.Errorf("row holds %q", got)
	}
	r.unmount(crashName, "c2")
	r.nothingUnused()
	r.must("Remove", m{"Name": crashName})
}

func TestSnapshotsAreListedAndDeletedAlsoWhenTheirVolumeIsGone(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	r.create("db")
	r.create("web")
	for _, name := range []string{"db", "web"} {
		r.mount(name, "c1")
		r.unmount(name, "c1")
	}
	var first, second, other SnapshotRow
	a := r.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: "db", Description: "nightly", Tags: map[string]string{"team": "db"}, Wait: true}, &first)
	if first.State != "completed" || first.Progress != 100 || first.Filesystem != "ext4" || first.SizeGiB != 1 || first.Tags["team"] != "db" || first.Description != "nightly" || len(a.said) == 0 {
		t.Errorf("made is %+v; said was %q", first, a.said)
	}
	r.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: first.VolumeID}, &second)
	r.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: "web"}, &other)
	list := func(volume string, want ...string) {
		t.Helper()
		var rows SnapshotRows
		var ids []string
		r.askFor("Snapshots", SnapshotsRequest{Volume: volume}, &rows)
		for _, s := range rows.Snapshots {
			ids = append(ids, s.ID)
		}
		if fmt.Sprint(ids) != fmt.Sprint(want) {
			t.Errorf("the snapshots of %q are %v, want %v", volume, ids, want)
		}
	}
	list("", other.ID, second.ID, first.ID)
	r.remove("db")
	list("db", second.ID, first.ID)
	list(first.VolumeID, second.ID, first.ID)
	list("none")
	foreign := *r
	foreign.settings.Cluster = "another"
	for by, id := range map[*rig]string{foreign.twin(): first.ID, r: "snap-0123456789abcdef0"} {
		if a, err := by.ask(t.Context(), "RemoveSnapshot", RemoveSnapshotRequest{ID: id}); err != nil || !strings.Contains(a.Error, id) || !strings.Contains(a.Error, "does not exist in this cluster") {
			t.Errorf("deleting what is not the cluster's: %+v %v", a, err)
		}
	}
	var gone RemoveSnapshotRequest
	r.askFor("RemoveSnapshot", RemoveSnapshotRequest{ID: first.ID}, &gone)
	list("db", second.ID)
}

func TestASnapshotThatCannotBeMadeIsRefusedBeforeAnythingStandsStill(t *testing.T) {
	r := newRig(t)
	r.create("db")
	path := r.mount("db", "c1")
	for _, c := range []struct {
		req  CreateSnapshotRequest
		says []string
	}{
		{CreateSnapshotRequest{Volume: "none"}, []string{"none"}},
		{CreateSnapshotRequest{Volume: "vol-0123456789abcdef0"}, []string{"vol-0123456789abcdef0"}},
		{CreateSnapshotRequest{Volume: "../db"}, []string{"../db"}},
		{CreateSnapshotRequest{Volume: "db", Description: strings.Repeat("x", 256)}, []string{"db", "256", "255"}},
		{CreateSnapshotRequest{Volume: "db", Tags: map[string]string{"blockvol:fs": "x"}}, []string{"db", "blockvol:"}},
		{CreateSnapshotRequest{Volume: "db", Tags: map[string]string{"aws:x": "x"}}, []string{"db", "aws:"}},
	} {
		a, err := r.ask(t.Context(), "CreateSnapshot", c.req)
		if err != nil || a.Error == "" || len(a.said) > 0 {
			t.Errorf("%+v: %+v, %v", c.req, a, err)
		}
		for _, w := range c.says {
			if !strings.Contains(a.Error, w) {
				t.Errorf("%q does not say %q", a.Error, w)
			}
		}
	}
	if n := r.calls()["CreateSnapshot"]; n != 0 || len(r.snapshots()) != 0 {
		t.Errorf("CreateSnapshot was sent %d times", n)
	}
	if !freezes(t, path) {
		t.Error("it is frozen")
	}
	r.unmount("db", "c1")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "snapshot-failed"}); err != nil {
		t.Fatal(err)
	}
	if a, err := r.ask(t.Context(), "CreateSnapshot", CreateSnapshotRequest{Volume: "db", Wait: true}); err != nil || !strings.Contains(a.Error, "state error") {
		t.Errorf("EC2 could not make it: %+v, %v", a, err)
	}
}

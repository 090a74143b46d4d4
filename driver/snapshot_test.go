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
	if err == nil || !strings.Contains(err.Error(), "db") || !strings.Contains(err.Error(), "try again") {
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

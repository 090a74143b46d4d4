package ebs

import (
	"errors"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestAVolumeIsModifiedInOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	if m, err := c.LastModification(timeout(t, time.Minute), v.ID); err != nil || m.State != cloud.ModifyNone {
		t.Errorf("never modified: %+v, %v", m, err)
	}
	w.ResetCalls()
	w.setDelays(func(d *ec2sim.Delays) { d.Optimize = time.Hour })
	m, err := c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 10, Type: "gp3", IOPS: 4000, Throughput: 125})
	if err != nil || m.To != (cloud.Form{SizeGiB: 10, Type: "gp3", IOPS: 4000, Throughput: 125}) || m.From != (cloud.Form{SizeGiB: 1, Type: "gp3", IOPS: 3000, Throughput: 125}) || m.Started.IsZero() {
		t.Fatalf("%+v, %v", m, err)
	}
	w.wantCalls("modify", "DescribeVolumes 1, ModifyVolume 1")
	m, err = c.WaitModified(timeout(t, time.Minute), v.ID)
	if err != nil || m.State != cloud.ModifyOptimizing || !m.InEffect() {
		t.Errorf("%+v, %v", m, err)
	}
	now, err := c.ByID(timeout(t, time.Minute), v.ID)
	if err != nil || now.SizeGiB != 10 || now.IOPS != 4000 {
		t.Errorf("%+v, %v", now, err)
	}
	w.ResetCalls()
	if m, err := c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 10, Type: "gp3"}); err != nil || m.State != cloud.ModifyOptimizing {
		t.Errorf("what it has already: %+v, %v", m, err)
	}
	if n := w.count("ModifyVolume"); n != 0 {
		t.Errorf("%d ModifyVolume calls for what the volume has already", n)
	}
	_, err = c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 20})
	var tooSoon *cloud.TooSoonError
	if !errors.As(err, &tooSoon) || !errors.Is(err, cloud.ErrTooSoon) || tooSoon.Last.State != cloud.ModifyOptimizing || !tooSoon.Next.IsZero() {
		t.Errorf("while the last one goes on: %v", err)
	}
	contains(t, err, `"db"`, v.ID, "optimizing", "new size already", "try again when it is completed")
}

func TestAModificationWhoseAnswerIsLostIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	w.setDelays(func(d *ec2sim.Delays) { d.Modify, d.Optimize = 200*time.Millisecond, time.Hour })
	w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "ModifyVolume"})
	if m, err := c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 2}); err != nil || m.To.SizeGiB != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := w.client().Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 2}); err != nil || m.To.SizeGiB != 2 {
		t.Errorf("again on another host: %+v, %v", m, err)
	}
	if m, err := c.WaitModified(timeout(t, time.Minute), v.ID); err != nil || m.State != cloud.ModifyOptimizing {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestTheTimeOfTheNextModificationIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	w.setLimits(func(l *ec2sim.Limits) { l.Modifications = 1 })
	first, err := c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 2})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "completed", func() bool {
		m, err := c.LastModification(timeout(t, time.Minute), v.ID)
		return err == nil && m.State == cloud.ModifyCompleted
	})
	_, err = c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 3})
	var tooSoon *cloud.TooSoonError
	if !errors.As(err, &tooSoon) || tooSoon.Next.Sub(first.Started.Add(24*time.Hour)).Abs() > 2*time.Second {
		t.Fatalf("%v", err)
	}
	contains(t, err, `"db"`, v.ID, tooSoon.Next.UTC().Format(time.RFC3339))
	last := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for message, want := range map[string]time.Time{
		"Wait until 2026-01-03T00:00:00Z before":      time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC),
		"Wait until 2026-01-03T00:00:00.250Z before":  time.Date(2026, 1, 3, 0, 0, 0, 250e6, time.UTC),
		"Wait at least 6 hours between modifications": last.Add(6 * time.Hour),
		"Something else": last.Add(24 * time.Hour),
	} {
		if got := nextModification(message, last); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", message, got, want)
		}
	}
}

func TestModificationsAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	large := spec("db")
	large.SizeGiB = 5
	v, err := c.Create(timeout(t, time.Minute), large)
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	foreign := w.foreign(nil)
	for _, refused := range []struct {
		id     string
		change cloud.Form
		kind   error
		tell   string
	}{
		{v.ID, cloud.Form{SizeGiB: 4}, cloud.ErrInvalid, "can only grow"},
		{v.ID, cloud.Form{SizeGiB: -1}, cloud.ErrInvalid, "impossible"},
		{v.ID, cloud.Form{IOPS: 1 << 40}, cloud.ErrInvalid, "impossible"},
		{foreign, cloud.Form{SizeGiB: 9}, cloud.ErrNotFound, foreign},
	} {
		_, err := c.Modify(timeout(t, time.Minute), refused.id, refused.change)
		if !errors.Is(err, refused.kind) {
			t.Errorf("%+v: %v", refused.change, err)
		}
		contains(t, err, refused.tell)
	}
	if n := w.count("ModifyVolume"); n != 0 {
		t.Errorf("%d ModifyVolume calls", n)
	}
	_, err = c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{Type: "gp9"})
	if !errors.Is(err, cloud.ErrInvalid) {
		t.Error(err)
	}
	contains(t, err, `"db"`, "does not know the volume type")
}

func TestAFailedModificationIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	w.inject(ec2sim.Fault{Kind: "modify-failed", Message: "out of luck"})
	if _, err := c.Modify(timeout(t, time.Minute), v.ID, cloud.Form{SizeGiB: 2}); err != nil {
		t.Fatal(err)
	}
	_, err := c.WaitModified(timeout(t, time.Minute), v.ID)
	if !errors.Is(err, cloud.ErrState) {
		t.Error(err)
	}
	contains(t, err, `"db"`, v.ID, "out of luck", "as it was")
}

func TestADeletedVolumeComesBackFromTheRecycleBin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	lost := w.create(c, "lost")
	v := w.create(c, "kept") // the rule of the Recycle Bin is for this name
	s := w.snapshot(c, v.ID, "a")
	for _, id := range []string{v.ID, lost.ID} {
		if err := c.Delete(timeout(t, time.Minute), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeleteSnapshot(timeout(t, time.Minute), s.ID); err != nil {
		t.Fatal(err)
	}
	var found []cloud.Recycled
	eventually(t, "the volume is in the bin", func() (ok bool) {
		var err error
		found, err = c.RecycledVolumes(timeout(t, time.Minute))
		return err == nil && len(found) == 1
	})
	if r := found[0]; r.ID != v.ID || r.Zone != v.Zone || r.Form != (cloud.Form{SizeGiB: 1, Type: "gp3", IOPS: 3000, Throughput: 125}) || r.Exit.Sub(r.Entered) != time.Hour {
		t.Errorf("%+v", r)
	}
	snapshots, err := c.RecycledSnapshots(timeout(t, time.Minute))
	if err != nil || len(snapshots) != 1 || snapshots[0].ID != s.ID || snapshots[0].VolumeID != v.ID {
		t.Errorf("%+v, %v", snapshots, err)
	}
	back, err := c.RestoreVolume(timeout(t, time.Minute), v.ID)
	if err != nil || back.ID != v.ID || back.Name != "kept" || back.State != cloud.Available || back.Attrs["fs"] != "none" {
		t.Errorf("%+v, %v", back, err)
	}
	if again := w.create(c, "kept"); again.ID != v.ID {
		t.Errorf("its name makes a second volume, %s", again.ID)
	}
	w.attach(c, back)
	if restored, err := c.RestoreSnapshot(timeout(t, time.Minute), s.ID); err != nil || restored.ID != s.ID || restored.Volume != "kept" {
		t.Errorf("%+v, %v", restored, err)
	}
	for what, err := range map[string]error{
		lost.ID: func() error { _, err := c.RestoreVolume(timeout(t, time.Minute), lost.ID); return err }(),
		s.ID:    func() error { _, err := c.RestoreSnapshot(timeout(t, time.Minute), s.ID); return err }(),
		"x":     func() error { _, err := c.RestoreVolume(timeout(t, time.Minute), "x"); return err }(),
	} {
		if !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("restore %s: %v", what, err)
		}
		contains(t, err, what, "not in the Recycle Bin")
	}
}

func TestAForeignVolumeThatIsRestoredIsToldOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setLimits(func(l *ec2sim.Limits) { l.Retention = []ec2sim.Retention{{Resource: "volume", For: time.Hour}} })
	c := w.client()
	theirs := w.create(w.client(func(cfg *Config) { cfg.Cluster = "other" }), "theirs")
	if err := w.client(func(cfg *Config) { cfg.Cluster = "other" }).Delete(timeout(t, time.Minute), theirs.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the volume is in the bin", func() bool {
		found, err := c.RecycledVolumes(timeout(t, time.Minute))
		return err == nil && len(found) == 1
	})
	_, err := c.RestoreVolume(timeout(t, time.Minute), theirs.ID)
	if !errors.Is(err, cloud.ErrNotFound) {
		t.Error(err)
	}
	contains(t, err, theirs.ID, "does not belong to this cluster")
}

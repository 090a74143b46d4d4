package ebs

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// useSnapshots makes one call of every action for snapshots, copies, modifications and the Recycle Bin.
func (w *world) useSnapshots(c *Client, what string) {
	w.t.Helper()
	ctx := timeout(w.t, time.Minute)
	must := func(err error) {
		if err != nil {
			w.t.Errorf("%s: %v", what, err)
		}
	}
	v := w.create(c, "kept")
	s, err := c.CreateSnapshot(ctx, cloud.SnapshotSpec{VolumeID: v.ID, Slot: "1"})
	must(err)
	must(c.WaitSnapshot(ctx, s.ID))
	copied := spec("copy")
	copied.SourceID = v.ID
	_, err = c.Create(ctx, copied)
	must(err)
	_, err = c.Modify(ctx, v.ID, cloud.Form{SizeGiB: 2})
	must(err)
	_, err = c.WaitModified(ctx, v.ID)
	must(err)
	must(c.DeleteSnapshot(ctx, s.ID))
	_, err = c.RecycledSnapshots(ctx)
	must(err)
	_, err = c.RestoreSnapshot(ctx, s.ID)
	must(err)
	must(c.Delete(ctx, v.ID))
	eventually(w.t, "the volume is in the Recycle Bin", func() bool {
		found, err := c.RecycledVolumes(ctx)
		must(err)
		return len(found) == 1 || err != nil
	})
	_, err = c.RestoreVolume(ctx, v.ID)
	must(err)
}

func (w *world) snapshot(c *Client, volume, slot string) cloud.Snapshot {
	w.t.Helper()
	s, err := c.CreateSnapshot(timeout(w.t, time.Minute), cloud.SnapshotSpec{VolumeID: volume, Slot: slot})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.WaitSnapshot(timeout(w.t, time.Minute), s.ID); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) snapshots(c *Client, volume string) []cloud.Snapshot {
	w.t.Helper()
	found, err := c.Snapshots(timeout(w.t, time.Minute), volume)
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func TestASnapshotIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	w.setDelays(func(d *ec2sim.Delays) { d.Snapshot = time.Hour })
	made, err := c.CreateSnapshot(timeout(t, time.Minute), cloud.SnapshotSpec{
		VolumeID: v.ID, Slot: "2026-01-02T03", Description: "nightly", Attrs: map[string]string{"by": "schedule"}, Tags: map[string]string{"team": "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.SnapshotByID(timeout(t, time.Minute), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []cloud.Snapshot{made, found} {
		if s.ID != made.ID || s.VolumeID != v.ID || s.Volume != "db" || s.Slot != "2026-01-02T03" || s.Description != "nightly" || s.SizeGiB != 1 || s.State != cloud.SnapshotPending ||
			s.Progress > 50 || s.Started.IsZero() || fmt.Sprint(s.Attrs) != "map[by:schedule]" || fmt.Sprint(s.Tags) != "map[team:x]" || s.Newer != nil {
			t.Errorf("%+v", s)
		}
	}
	raw, err := w.raw.DescribeSnapshots(timeout(t, time.Minute), &ec2.DescribeSnapshotsInput{Filters: []types.Filter{filter("tag:Name", "db"), filter("tag:blockvol:cluster", "test")}})
	if err != nil || len(raw.Snapshots) != 1 {
		t.Errorf("with the console's tag: %+v, %v", raw, err)
	}
}

func TestASlotHasOneSnapshotHoweverOftenItIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"", "lost-answer", "hang", "lagging"} {
		w := newWorld(t)
		c := w.client()
		v, other := w.create(c, "db"), w.create(c, "other")
		switch fault {
		case "hang":
			w.inject(ec2sim.Fault{Kind: "hang", Action: "CreateSnapshot", Duration: time.Millisecond})
		case "lost-answer":
			w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "CreateSnapshot"})
		case "lagging":
			w.setDelays(func(d *ec2sim.Delays) { d.Visible = 100 * time.Millisecond })
			w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "CreateSnapshot"})
		}
		first := w.snapshot(c, v.ID, "a")
		if again := w.snapshot(w.client(), v.ID, "a"); again.ID != first.ID {
			t.Errorf("%s: the slot has %s and %s", fault, first.ID, again.ID)
		}
		if n := len(w.snapshots(c, v.ID)); n != 1 {
			t.Errorf("%s: %d snapshots of one slot", fault, n)
		}
		ids := map[string]bool{first.ID: true, w.snapshot(c, v.ID, "b").ID: true, w.snapshot(c, other.ID, "a").ID: true, w.snapshot(c, v.ID, "").ID: true, w.snapshot(c, v.ID, "").ID: true}
		if len(ids) != 5 {
			t.Errorf("%s: other slots, another volume, and none: %v", fault, ids)
		}
		eventually(t, "all are shown", func() bool { return len(w.snapshots(c, "")) == 5 })
	}
}

func TestHostsThatFillOneSlotAtOnceMakeOneSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setLimits(func(l *ec2sim.Limits) { l.SnapshotSeconds = 15 }) // as EC2: the second call is refused
	v := w.create(w.client(), "db")
	var all sync.WaitGroup
	ids := make([]string, 4)
	for n := range ids {
		c := w.client(func(cfg *Config) { cfg.Timing.Consistency = 4 * time.Second })
		all.Add(1)
		go func() {
			defer all.Done()
			s, err := c.CreateSnapshot(timeout(t, time.Minute), cloud.SnapshotSpec{VolumeID: v.ID, Slot: "a"})
			if err != nil {
				t.Error(err)
			}
			ids[n] = s.ID
		}()
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("one slot has %v", ids)
		}
	}
}

func TestAFailedSnapshotDoesNotTakeItsSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	w.inject(ec2sim.Fault{Kind: "snapshot-failed"})
	failed, err := c.CreateSnapshot(timeout(t, time.Minute), cloud.SnapshotSpec{VolumeID: v.ID, Slot: "a"})
	if err != nil {
		t.Fatal(err)
	}
	err = c.WaitSnapshot(timeout(t, time.Minute), failed.ID)
	if !errors.Is(err, cloud.ErrState) {
		t.Errorf("%v", err)
	}
	contains(t, err, failed.ID, `"db"`, "state error", "make another one")
	if next := w.snapshot(c, v.ID, "a"); next.ID == failed.ID {
		t.Error("the failed snapshot was returned again")
	}
}

func TestForeignSnapshotsAreInvisibleAndUntouchable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	mine := w.snapshot(c, v.ID, "a")
	for _, tags := range strangers {
		in := &ec2.CreateSnapshotInput{VolumeId: aws.String(v.ID)}
		if len(tags) > 0 {
			in.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot, Tags: toTags(tags)}}
		}
		made, err := w.raw.CreateSnapshot(timeout(t, time.Minute), in)
		if err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"delete": c.DeleteSnapshot(timeout(t, time.Minute), *made.SnapshotId),
			"look":   func() error { _, err := c.SnapshotByID(timeout(t, time.Minute), *made.SnapshotId); return err }(),
		} {
			if !errors.Is(err, cloud.ErrNotFound) {
				t.Errorf("%s a foreign snapshot: %v", what, err)
			}
		}
		// To make a volume of, they can be seen, with whose they are.
		if s, err := c.AnySnapshot(timeout(t, time.Minute), *made.SnapshotId); err != nil || s.ID != *made.SnapshotId || s.SizeGiB != v.SizeGiB || s.Cluster != tags[tagCluster] {
			t.Errorf("%v: %+v, %v", tags, s, err)
		}
		eventually(t, "it is completed", func() bool {
			out, err := w.raw.DescribeSnapshots(timeout(t, time.Minute), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*made.SnapshotId}})
			return err == nil && out.Snapshots[0].State == types.SnapshotStateCompleted
		})
	}
	for _, volume := range []string{"", v.ID} {
		if found := w.snapshots(c, volume); len(found) != 1 || found[0].ID != mine.ID {
			t.Errorf("%+v", found)
		}
	}
	if n := w.count("DeleteSnapshot"); n != 0 {
		t.Errorf("%d DeleteSnapshot calls", n)
	}
	for id, kind := range map[string]error{"snap-0123456789abcdef0": cloud.ErrNotFound, "vol-1": cloud.ErrInvalid} {
		if _, err := c.AnySnapshot(timeout(t, time.Minute), id); !errors.Is(err, kind) || !strings.Contains(err.Error(), id) {
			t.Errorf("%s: %v", id, err)
		}
	}
	w.retag(mine.ID, tagSchema, "3")
	err := c.DeleteSnapshot(timeout(t, time.Minute), mine.ID)
	if !errors.Is(err, cloud.ErrState) {
		t.Errorf("a snapshot of a newer blockvol: %v", err)
	}
	contains(t, err, mine.ID, "newer blockvol", "upgrade")
	w.retag(mine.ID, tagSchema, "1")
	if err := c.DeleteSnapshot(timeout(t, time.Minute), mine.ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteSnapshot(timeout(t, time.Minute), mine.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestSnapshotsAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	foreign := w.foreign(nil)
	many := map[string]string{}
	for n := range 50 {
		many[fmt.Sprint(n)] = ""
	}
	for _, refused := range []struct {
		spec cloud.SnapshotSpec
		kind error
		tell string
	}{
		{cloud.SnapshotSpec{VolumeID: foreign}, cloud.ErrNotFound, foreign},
		{cloud.SnapshotSpec{VolumeID: v.ID, Description: strings.Repeat("x", 256)}, cloud.ErrInvalid, "255"},
		{cloud.SnapshotSpec{VolumeID: v.ID, Tags: many}, cloud.ErrInvalid, "50"},
		{cloud.SnapshotSpec{VolumeID: v.ID, Tags: map[string]string{"aws:x": "y"}}, cloud.ErrInvalid, "aws:"},
		{cloud.SnapshotSpec{VolumeID: v.ID, Attrs: map[string]string{"slot": "y"}}, cloud.ErrInvalid, "slot"},
		{cloud.SnapshotSpec{VolumeID: v.ID, Slot: strings.Repeat("x", 257)}, cloud.ErrInvalid, "257"},
	} {
		_, err := c.CreateSnapshot(timeout(t, time.Minute), refused.spec)
		if !errors.Is(err, refused.kind) {
			t.Errorf("%.100v: %v", refused.spec, err)
		}
		contains(t, err, refused.tell)
	}
	if n := w.count("CreateSnapshot"); n != 0 {
		t.Errorf("%d CreateSnapshot calls", n)
	}
	w.setLimits(func(l *ec2sim.Limits) { l.SnapshotSeconds = 3600 })
	w.snapshot(c, v.ID, "a")
	_, err := c.CreateSnapshot(timeout(t, time.Minute), cloud.SnapshotSpec{VolumeID: v.ID, Slot: "b"})
	if !errors.Is(err, cloud.ErrThrottled) {
		t.Errorf("too soon: %v", err)
	}
	contains(t, err, `"db"`, v.ID, "seconds old", "try again in 15 seconds")
	w.setLimits(func(l *ec2sim.Limits) { l.DeniedActions = []string{"CreateSnapshot"} })
	_, err = c.CreateSnapshot(timeout(t, time.Minute), cloud.SnapshotSpec{VolumeID: v.ID, Slot: "c"})
	contains(t, err, "not allowed", "docs/iam-snapshots.json")
}

func TestAVolumeIsMadeOfASnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	s := w.snapshot(c, v.ID, "a")
	for size, want := range map[int64]int64{0: 1, 3: 3} {
		from := spec(fmt.Sprintf("restored%d", size))
		from.SizeGiB, from.SnapshotID, from.Zone = size, s.ID, region+"b"
		made, err := c.Create(timeout(t, time.Minute), from)
		if err != nil || made.SizeGiB != want || made.SnapshotID != s.ID || made.Zone != region+"b" || made.Name != from.Name {
			t.Errorf("size %d: %+v, %v", size, made, err)
		}
		again, err := w.client().Create(timeout(t, time.Minute), from)
		if err != nil || again.ID != made.ID {
			t.Errorf("again on another host: %v, %v", again.ID, err)
		}
	}
	for id, tell := range map[string]string{"snap-0123456789abcdef0": "no such snapshot", "disk": "no snapshot ID"} {
		from := spec("bad")
		from.SnapshotID = id
		_, err := c.Create(timeout(t, time.Minute), from)
		if !errors.Is(err, cloud.ErrInvalid) {
			t.Errorf("%s: %v", id, err)
		}
		contains(t, err, `"bad"`, tell)
	}
}

func TestAVolumeIsCopiedInOneStepOrByWayOfASnapshot(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"copy", "another zone", "unsupported", "unknown"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.client()
			v := w.create(c, "db")
			to := spec("copy")
			to.SizeGiB, to.SourceID = 2, v.ID
			calls := "CopyVolumes"
			switch way {
			case "another zone":
				to.Zone, calls = region+"b", "CreateSnapshot"
			case "unsupported":
				w.inject(ec2sim.Fault{Kind: "error", Action: "CopyVolumes", Code: "UnsupportedOperation", Times: -1})
				calls = "CreateSnapshot"
			case "unknown":
				w.inject(ec2sim.Fault{Kind: "error", Action: "CopyVolumes", Code: "InvalidAction", Times: -1})
				calls = "CreateSnapshot"
			}
			taken := 0
			first := to
			first.Taken = func() { taken++ }
			made, err := c.Create(timeout(t, time.Minute), first)
			if err != nil {
				t.Fatal(err)
			}
			if taken == 0 {
				t.Error("nobody was told that the moment of the copy has passed")
			}
			if made.SizeGiB != 2 || made.SnapshotID == "" || made.Name != "copy" || made.Zone != to.Zone || made.State != cloud.Available {
				t.Errorf("%+v", made)
			}
			again, err := w.client().Create(timeout(t, time.Minute), to)
			if err != nil || again.ID != made.ID {
				t.Errorf("again on another host: %v, %v", again.ID, err)
			}
			if w.count(calls) == 0 {
				t.Errorf("it took %s", w.calls())
			}
			if left := w.snapshots(c, ""); len(left) != 0 {
				t.Errorf("left over: %+v", left)
			}
		})
	}
}

func TestALeftoverOfACopyIsUsedOnlyWhileItIsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var later time.Duration
	c := w.client(func(cfg *Config) { cfg.Now = func() time.Time { return time.Now().Add(later) } })
	v := w.create(c, "db")
	left := w.snapshot(c, v.ID, cloneSlot+"one")
	to := spec("one")
	to.SourceID, to.Zone = v.ID, region+"b"
	made, err := c.Create(timeout(t, time.Minute), to)
	if err != nil || made.SnapshotID != left.ID {
		t.Errorf("made of %s, not of %s: %v", made.SnapshotID, left.ID, err)
	}
	old := w.snapshot(c, v.ID, cloneSlot+"two")
	later = 2 * time.Hour
	to.Name = "two"
	made, err = c.Create(timeout(t, time.Minute), to)
	if err != nil || made.SnapshotID == old.ID {
		t.Errorf("made of the old %s: %v", made.SnapshotID, err)
	}
	if found := w.snapshots(c, ""); len(found) != 0 {
		t.Errorf("left over: %+v", found)
	}
}

func TestCopiesAreRefusedWithAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	large := spec("large")
	large.SizeGiB = 3
	v, err := c.Create(timeout(t, time.Minute), large)
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	for _, refused := range []struct {
		change func(*cloud.Spec)
		kind   error
		tell   string
	}{
		{func(s *cloud.Spec) { s.SourceID = w.foreign(nil) }, cloud.ErrNotFound, "does not exist in this cluster"},
		{func(s *cloud.Spec) { s.SourceID = v.ID }, cloud.ErrInvalid, "at least"},
		{func(s *cloud.Spec) { s.SourceID, s.SnapshotID = v.ID, "snap-0123456789abcdef0" }, cloud.ErrInvalid, "snap-0123456789abcdef0"},
	} {
		to := spec("copy")
		refused.change(&to)
		_, err := c.Create(timeout(t, time.Minute), to)
		if !errors.Is(err, refused.kind) {
			t.Errorf("%+v: %v", to, err)
		}
		contains(t, err, refused.tell)
	}
	if n := w.count("CopyVolumes") + w.count("CreateSnapshot"); n != 0 {
		t.Errorf("%s", w.calls())
	}
}

func TestHostsThatCopyAtOnceMakeOneVolume(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"a", "b"} { // The source is in a.
		w := newWorld(t)
		v := w.create(w.client(), "db")
		to := spec("copy")
		to.SourceID, to.Zone = v.ID, region+zone
		var all sync.WaitGroup
		ids := make([]string, 4)
		for n := range ids {
			c := w.client()
			all.Add(1)
			go func() {
				defer all.Done()
				made, err := c.Create(timeout(t, time.Minute), to)
				if err != nil {
					t.Errorf("to zone %s: %v", zone, err)
				}
				ids[n] = made.ID
			}()
		}
		all.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("to zone %s: copies %v", zone, ids)
			}
		}
		if left := w.snapshots(w.client(), ""); len(left) != 0 {
			t.Errorf("to zone %s: left over %+v", zone, left)
		}
	}
}

func TestACopyThatCannotBeMadeLeavesNoSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	to := spec("copy")
	to.SourceID, to.Zone, to.Type = w.create(c, "db").ID, region+"b", "gp9"
	_, err := c.Create(timeout(t, time.Minute), to)
	if !errors.Is(err, cloud.ErrInvalid) {
		t.Error(err)
	}
	contains(t, err, `"copy"`, "does not know the volume type")
	if left := w.snapshots(c, ""); len(left) != 0 {
		t.Errorf("left over: %+v", left)
	}
}

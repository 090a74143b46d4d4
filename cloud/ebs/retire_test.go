package ebs

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// oneGivenUp returns the only volume that was given up, or none.
func (w *world) oneGivenUp(c *Client) (g cloud.GivenUp) {
	w.t.Helper()
	all, err := c.GivenUp(timeout(w.t, time.Minute))
	if err != nil || len(all) > 1 {
		w.t.Fatalf("given up are %+v, %v", all, err)
	}
	for _, g = range all {
	}
	return g
}

// due waits until a retired volume's time is over.
func (w *world) due(c *Client, id string) {
	w.t.Helper()
	eventually(w.t, "its time is over", func() bool { g := w.oneGivenUp(c); return g.ID == id && g.Left <= 0 })
}

func TestARetiredVolumeIsThereUntilItsTimeIsOverAndThenDeletedForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// Clocks that are days off: the times are EC2's.
	a := w.client(func(c *Config) { c.Now = func() time.Time { return time.Now().Add(-48 * time.Hour) } })
	b := w.client(func(c *Config) { c.Now = func() time.Time { return time.Now().Add(48 * time.Hour) } })
	ctx := timeout(t, time.Minute)
	v := w.create(a, "db")
	w.retag(v.ID, "team", "shop")
	before := time.Now()
	if err := a.Retire(ctx, v.ID, 10*time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Client{a, b} {
		g := w.oneGivenUp(c)
		if g.ID != v.ID || g.Name != "db" || !g.Retired || g.Left <= 0 || g.Tags["team"] != "shop" || g.Until.Before(before.Add(10*time.Hour-5*time.Second)) || g.Until.After(time.Now().Add(10*time.Hour)) {
			t.Errorf("%+v", g)
		}
		if all, err := c.List(ctx); err != nil || len(all) != 0 {
			t.Errorf("listed: %+v, %v", all, err)
		}
		err := c.Purge(ctx, v.ID)
		if !errors.Is(err, cloud.ErrState) {
			t.Errorf("before its time: %v", err)
		}
		contains(t, err, v.ID, "until "+g.Until.UTC().Format(time.RFC3339))
	}
	// The name is free at once.
	second := w.create(b, "db")
	if second.ID == v.ID {
		t.Error("what was retired came back")
	}
	if err := b.Retire(ctx, second.ID, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second one can be purged", func() bool { return a.Purge(ctx, second.ID) == nil })
	if err := a.Purge(ctx, second.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("once more: %v", err)
	}
	if state, _ := w.rawState(second.ID); state != "" && state != "deleting" {
		t.Errorf("it is %s", state)
	}
	if g := w.oneGivenUp(a); g.ID != v.ID {
		t.Errorf("left is %+v", g)
	}
}

// Whatever somebody did to its tags: a volume is deleted for good only if all of them say so.
func TestAVolumeWhoseTagsDoNotSayThatItIsToBeDeletedIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, 3*time.Minute)
	retire := func(name string) string {
		v := w.create(c, name)
		if err := c.Retire(ctx, v.ID, 0); err != nil {
			t.Fatal(err)
		}
		return v.ID
	}
	past := "2001-02-03T04:05:06Z"
	for i, x := range []struct {
		key, value string
		kind       error
		part       string
	}{
		{"blockvol:name", "db", cloud.ErrNotFound, `blockvol:name is "db"`},
		{"blockvol:name", "released:", cloud.ErrNotFound, "released:"},
		{"blockvol:cluster", "another", cloud.ErrNotFound, "none that this cluster has given up"},
		{"blockvol:schema", "9", cloud.ErrState, "newer blockvol"},
		{"blockvol:released-at", "", cloud.ErrState, "to be kept"},
		{"blockvol:released-at", past, cloud.ErrState, "to be kept"},
		{"blockvol:released-at", past + " delete-after", cloud.ErrState, "to be kept"},
		{"blockvol:released-at", past + " delete-after soon", cloud.ErrState, "to be kept"},
		{"blockvol:released-at", past + " keep-after " + past, cloud.ErrState, "to be kept"},
		{"blockvol:released-at", past + " delete-after 1999-02-03T04:05:06Z", cloud.ErrState, "to be kept"},
		{"blockvol:released-at", "yesterday delete-after " + past, cloud.ErrState, "to be kept"},
		{"blockvol:released-at", past + " delete-after 2101-02-03T04:05:06Z", cloud.ErrState, "until 2101"},
	} {
		id := retire(fmt.Sprintf("v%d", i))
		w.retag(id, x.key, x.value)
		err := c.Purge(ctx, id)
		if !errors.Is(err, x.kind) {
			t.Errorf("%s=%q: %v", x.key, x.value, err)
		}
		contains(t, err, id, x.part)
		if state, _ := w.rawState(id); state != "available" {
			t.Errorf("%s=%q: it is %s", x.key, x.value, state)
		}
	}
	for what, id := range map[string]string{"a living one": w.create(c, "living").ID, "no ID": "vol-1", "one that is not there": "vol-0123456789abcdef0", "somebody's": w.foreign(nil)} {
		if err := c.Purge(ctx, id); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := w.count("DeleteVolume"); n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
	held := retire("held")
	other := w.host(ec2sim.Instance{})
	if _, err := w.raw.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &held, InstanceId: &other.ID, Device: aws.String("/dev/xvdx")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the only reason is who has it", func() bool { return errors.Is(c.Purge(ctx, held), cloud.ErrInUse) })
	if n := w.count("DeleteVolume"); n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

// A volume that came back is given up to be kept: what was meant for it before plays no part.
func TestAVolumeThatCameBackAndIsThenKeptIsNeverDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, time.Minute)
	v := w.create(c, "db")
	w.retag(v.ID, "team", "shop")
	if err := c.Retire(ctx, v.ID, 0); err != nil {
		t.Fatal(err)
	}
	w.due(c, v.ID)
	got, err := c.Adopt(ctx, cloud.Adoption{ID: v.ID, Name: "back"})
	if err != nil || got.ID != v.ID || got.Name != "back" || got.Tags["team"] != "shop" || got.Attrs["fs"] != "none" {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := c.Purge(ctx, v.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("it lives: %v", err)
	}
	w.retag(v.ID, "blockvol:name", "released:back") // by hand, as nothing of the documents says
	if err := c.Purge(ctx, v.ID); !errors.Is(err, cloud.ErrState) {
		t.Errorf("it was given up by hand: %v", err)
	}
	w.retag(v.ID, "blockvol:name", "back")
	if err := c.Release(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if g := w.oneGivenUp(c); g.Retired || g.Since.IsZero() {
		t.Errorf("%+v", g)
	}
	if err := c.Purge(ctx, v.ID); !errors.Is(err, cloud.ErrState) {
		t.Errorf("it is kept: %v", err)
	}
	if n := w.count("DeleteVolume"); n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

// Several hosts delete and bring back one volume at the same moment, while EC2's answers are old: who is told that it is back has it.
func TestAVolumeIsNeverDeletedUnderTheHandsOfWhoBringsItBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const lag = 300 * time.Millisecond
	w.setDelays(func(d *ec2sim.Delays) { d.Visible = lag })
	host := func() *Client { return w.informed(w.host(ec2sim.Instance{}), lag+200*time.Millisecond) }
	purgers, savers := []*Client{host(), host()}, []*Client{host(), host()}
	ctx := timeout(t, 5*time.Minute)
	saved, gone := 0, 0
	for round := range 4 {
		v := w.create(purgers[0], fmt.Sprintf("v%d", round))
		if err := purgers[0].Retire(ctx, v.ID, 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its time is over", func() bool {
			all, err := savers[0].GivenUp(ctx)
			for _, g := range all {
				if g.ID == v.ID {
					return g.Left <= 0
				}
			}
			return err != nil
		})
		var together sync.WaitGroup
		var mu sync.Mutex
		var back []string
		for i, c := range savers {
			together.Add(1)
			go func() {
				defer together.Done()
				time.Sleep(time.Duration(round) * 150 * time.Millisecond)
				name := fmt.Sprintf("back%d-%d", round, i)
				if _, err := c.Adopt(ctx, cloud.Adoption{ID: v.ID, Name: name}); err == nil {
					mu.Lock()
					defer mu.Unlock()
					back = append(back, name)
				}
			}()
		}
		for _, c := range purgers {
			together.Add(1)
			go func() {
				defer together.Done()
				time.Sleep(time.Duration(3-round) * 150 * time.Millisecond)
				_ = c.Purge(ctx, v.ID)
			}()
		}
		together.Wait()
		time.Sleep(lag)
		state, _ := w.rawState(v.ID)
		switch {
		case len(back) > 1:
			t.Errorf("it came back as %v", back)
		case len(back) == 1 && (state != "available" || w.tags(v.ID)["blockvol:name"] != back[0]):
			t.Errorf("it came back as %s, and is %s", back[0], state)
		case len(back) == 1:
			saved++
		case state != "available":
			gone++
		}
	}
	t.Logf("%d came back, %d were deleted", saved, gone)
}

// A volume that is to become a snapshot is there until that is completed, and for as long as it is not.
func TestAVolumeIsNotDeletedBeforeItsSnapshotIsCompleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, other := w.client(), w.client()
	ctx := timeout(t, 3*time.Minute)
	v := w.create(c, "db")
	if _, err := c.Preserve(ctx, v.ID, cloud.SnapshotSpec{}); !errors.Is(err, cloud.ErrState) {
		t.Errorf("a snapshot of a living volume: %v", err)
	}
	before, err := c.CreateSnapshot(ctx, cloud.SnapshotSpec{VolumeID: v.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitSnapshot(ctx, before.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.RetireToSnapshot(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if g := w.oneGivenUp(other); g.ID != v.ID || !g.Retired || !g.Snapshot || !g.Until.IsZero() {
		t.Errorf("%+v", g)
	}
	refused := func(what string, parts ...string) {
		t.Helper()
		err := other.Purge(ctx, v.ID)
		if !errors.Is(err, cloud.ErrState) {
			t.Errorf("%s: %v", what, err)
		}
		contains(t, err, append(parts, v.ID)...)
	}
	refused("one from before the removal is none", "no snapshot of it yet")
	w.setDelays(func(d *ec2sim.Delays) { d.Snapshot = time.Hour })
	pending, err := c.Preserve(ctx, v.ID, cloud.SnapshotSpec{Description: "last", Attrs: map[string]string{"fs": "ext4"}})
	if err != nil || pending.State != cloud.SnapshotPending || pending.Volume != "db" || pending.VolumeID != v.ID || pending.Attrs["fs"] != "ext4" {
		t.Fatalf("%+v, %v", pending, err)
	}
	if again, err := other.Preserve(ctx, v.ID, cloud.SnapshotSpec{}); err != nil || again.ID != pending.ID {
		t.Errorf("there are two: %+v, %v", again, err)
	}
	refused("it is pending", pending.ID, "pending")
	if err := c.DeleteSnapshot(ctx, pending.ID); err != nil {
		t.Fatal(err)
	}
	refused("it was deleted", "no snapshot of it yet")
	w.setDelays(func(d *ec2sim.Delays) { d.Snapshot = 10 * time.Millisecond })
	done, err := other.Preserve(ctx, v.ID, cloud.SnapshotSpec{})
	if err != nil || done.ID == pending.ID {
		t.Fatalf("%+v, %v", done, err)
	}
	// It came back meanwhile, is written to, and removed again: that takes another snapshot.
	if _, err := c.Adopt(ctx, cloud.Adoption{ID: v.ID, Name: "db", Back: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitSnapshot(ctx, done.ID); err != nil {
		t.Fatal(err)
	}
	if err := other.Purge(ctx, v.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("it lives: %v", err)
	}
	if err := c.RetireToSnapshot(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	refused("that of the first removal is none of this one", "no snapshot of it yet")
	if w.count("DeleteVolume") != 0 {
		t.Error("DeleteVolume was sent")
	}
	last, err := c.Preserve(ctx, v.ID, cloud.SnapshotSpec{})
	if err != nil || last.ID == done.ID {
		t.Fatalf("%+v, %v", last, err)
	}
	if err := c.WaitSnapshot(ctx, last.ID); err != nil {
		t.Fatal(err)
	}
	if err := other.Purge(ctx, v.ID); err != nil {
		t.Error(err)
	}
}

// A person may delete any volume that was given up, and no other.
func TestOnlyWhatWasGivenUpIsDiscarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, 3*time.Minute)
	living, kept, removed := w.create(c, "living"), w.create(c, "kept"), w.create(c, "removed")
	theirs, newer, held := w.create(c, "theirs"), w.create(c, "newer"), w.create(c, "held")
	for _, v := range []cloud.Volume{kept, theirs, newer, held} {
		if err := c.Release(ctx, v.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Retire(ctx, removed.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	w.retag(theirs.ID, "blockvol:cluster", "another")
	w.retag(newer.ID, "blockvol:schema", "9")
	other := w.host(ec2sim.Instance{})
	if _, err := w.raw.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &held.ID, InstanceId: &other.ID, Device: aws.String("/dev/xvdx")}); err != nil {
		t.Fatal(err)
	}
	for id, kind := range map[string]error{living.ID: cloud.ErrNotFound, theirs.ID: cloud.ErrNotFound, newer.ID: cloud.ErrState, held.ID: cloud.ErrInUse} {
		if err := c.Discard(ctx, id); !errors.Is(err, kind) {
			t.Errorf("%s: %v, want %v", id, err, kind)
		}
	}
	if w.count("DeleteVolume") != 0 {
		t.Error("DeleteVolume was sent")
	}
	for _, v := range []cloud.Volume{kept, removed} {
		if err := c.Discard(ctx, v.ID); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	if n := w.count("DeleteVolume"); n != 2 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

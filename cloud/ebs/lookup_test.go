package ebs

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// strangers are tags of volumes that must not be seen by the cluster "test".
var strangers = []map[string]string{
	nil,
	{"Name": "mine"},
	{"blockvol:name": "mine"},
	{"blockvol:cluster": "test2", "blockvol:name": "mine"},
	{"blockvol:cluster": "TEST", "blockvol:name": "mine"},
	{"blockvol:cluster": "", "blockvol:name": "mine"},
	{"blockvol:cluster": "test"}, // no name
}

func TestForeignVolumesAreInvisibleAndUntouchable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var ids []string
	for i := range 210 {
		ids = append(ids, w.foreign(strangers[i%len(strangers)]))
	}
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	mine := w.create(c, "mine")
	all, err := c.List(timeout(t, time.Minute))
	if err != nil || len(all) != 1 || all[0].ID != mine.ID {
		t.Errorf("list: %d volumes, %v", len(all), err)
	}
	if v, err := c.ByName(timeout(t, time.Minute), "mine"); err != nil || v.ID != mine.ID {
		t.Errorf("by name: %v, %v", v.ID, err)
	}
	w.ResetCalls()
	for _, id := range ids[:len(strangers)] {
		ctx := timeout(t, time.Minute)
		_, err := c.ByID(ctx, id)
		for what, err := range map[string]error{
			"by ID":     err,
			"delete":    c.Delete(ctx, id),
			"set attrs": c.SetAttrs(ctx, id, map[string]string{"fs": "ext4"}),
			"attach":    c.Attach(ctx, cloud.Volume{ID: id, Name: "mine", Zone: h.Zone, State: cloud.Available}),
			"detach":    c.Detach(ctx, id),
		} {
			if !errors.Is(err, cloud.ErrNotFound) {
				t.Errorf("%s of a foreign volume: %v", what, err)
			}
		}
	}
	for _, action := range mutating {
		if n := w.count(action); n != 0 {
			t.Errorf("%d calls of %s on foreign volumes", n, action)
		}
	}
}

func TestAVolumeWhoseTagWasTakenAwayIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Timing.Proof = 50 * time.Millisecond })
	v := w.create(c, "rescued")
	other := w.client()
	if _, err := other.ByID(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	w.retag(v.ID, tagCluster, "elsewhere")
	eventually(t, "the proof is too old", func() bool { return !c.known.proven(v.ID, c.timing.Proof) })
	if err := c.Delete(timeout(t, time.Minute), v.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("delete: %v", err)
	}
	if n := w.count("DeleteVolume"); n != 0 {
		t.Error("DeleteVolume was called")
	}
}

func TestPagesAreFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setLimits(func(l *ec2sim.Limits) { l.PageSize = 5 })
	for i := range 23 {
		w.foreign(map[string]string{tagCluster: "test", tagName: fmt.Sprintf("v%d", i)})
	}
	c := w.client()
	w.ResetCalls()
	all, err := c.List(timeout(t, time.Minute))
	if err != nil || len(all) != 23 {
		t.Errorf("list: %d of 23, %v", len(all), err)
	}
	w.wantCalls("list", "DescribeVolumes 5")
	var wait sync.WaitGroup
	for i := range 23 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if _, err := c.ByName(timeout(t, time.Minute), fmt.Sprintf("v%d", i)); err != nil {
				t.Error(err)
			}
		}()
	}
	wait.Wait()
}

func TestNamesAreExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	big, small := w.create(c, "Data"), w.create(c, "data")
	for name, want := range map[string]string{"Data": big.ID, "data": small.ID, "DATA": "", "dat": "", "data1": "", "dat?": "", "*": "", `data\`: ""} {
		v, err := c.ByName(timeout(t, time.Minute), name)
		if v.ID != want || (want == "") != errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("%q: %q, %v", name, v.ID, err)
		}
	}
}

func TestAClusterWithAWildcardSeesOnlyItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(w.client(func(cfg *Config) { cfg.Cluster = "production" }), "v")
	c := w.client(func(cfg *Config) { cfg.Cluster = "prod*" })
	if all, err := c.List(timeout(t, time.Minute)); err != nil || len(all) != 0 {
		t.Errorf("%d volumes, %v", len(all), err)
	}
	if sent := w.Calls()[len(w.Calls())-1].Params["Filter.1.Value.1"]; sent != `prod\*` {
		t.Errorf("EC2 was asked for the volumes of all clusters that match %s", sent)
	}
	mine := w.create(c, "v")
	if all, err := c.List(timeout(t, time.Minute)); err != nil || len(all) != 1 || all[0].ID != mine.ID {
		t.Errorf("%d volumes, %v", len(all), err)
	}
}

func TestALookUpIsOneCallAndConcurrentOnesShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Timing.Gather = 5 * time.Second })
	v := w.create(c, "v0")
	for i := 1; i < 50; i++ {
		w.foreign(map[string]string{tagCluster: "test", tagName: fmt.Sprintf("v%d", i)})
	}
	w.setDelays(func(d *ec2sim.Delays) { d.Call = time.Second }) // in which all the others come
	w.ResetCalls()
	if _, err := c.ByName(timeout(t, time.Minute), "v0"); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("by name", "DescribeVolumes 1")
	if _, err := c.ByID(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("by ID", "DescribeVolumes 1")
	var wait sync.WaitGroup
	for i := range 100 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			got, err := c.ByName(timeout(t, time.Minute), fmt.Sprintf("v%d", i))
			if i < 50 && (err != nil || got.Name != fmt.Sprintf("v%d", i)) {
				t.Errorf("v%d: %v, %v", i, got.Name, err)
			}
			if i >= 50 && !errors.Is(err, cloud.ErrNotFound) {
				t.Errorf("v%d: %v", i, err)
			}
		}()
	}
	wait.Wait()
	if n := w.count("DescribeVolumes"); n > 10 {
		t.Errorf("100 look-ups at once took %d calls", n)
	}
}

func TestMoreNamesThanAFilterTakesAreSplit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Timing.Gather = 5 * time.Second })
	w.create(c, "v1")
	w.setDelays(func(d *ec2sim.Delays) { d.Call = time.Second })
	var wait sync.WaitGroup
	for i := range 450 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			_, err := c.ByName(timeout(t, time.Minute), fmt.Sprintf("v%d", i))
			if (i == 1) != (err == nil) {
				t.Errorf("v%d: %v", i, err)
			}
		}()
	}
	wait.Wait()
	if n := w.count("DescribeVolumes"); n > 8 {
		t.Errorf("450 look-ups took %d calls", n)
	}
}

func TestASlowLookUpHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "delay", Action: "DescribeVolumes", Duration: 5 * time.Second})
	slow := make(chan error, 1)
	go func() {
		_, err := c.ByName(timeout(t, time.Minute), "v")
		slow <- err
	}()
	eventually(t, "the slow call has arrived", func() bool { return len(w.Faults()) == 0 })
	if _, err := c.ByName(timeout(t, time.Minute), "v"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-slow:
		t.Errorf("the second look-up ended only after the slow one (%v)", err)
	default:
		if err := <-slow; err != nil {
			t.Error(err)
		}
	}
}

func TestACallerThatGivesUpTakesNobodyWithHim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.create(c, "v")
	w.setDelays(func(d *ec2sim.Delays) { d.Call = 300 * time.Millisecond })
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			limit := 5 * time.Second
			if i%2 == 0 {
				limit = 100 * time.Millisecond
			}
			if _, err := c.ByName(timeout(t, limit), "v"); (err == nil) != (i%2 == 1) {
				t.Errorf("caller %d: %v", i, err)
			}
		}()
	}
	wait.Wait()
}

func TestAVolumeOfANewerBlockvolIsFoundAndDetachedButNotChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "future")
	w.attach(c, v)
	w.retag(v.ID, tagSchema, "3")
	found, err := c.ByName(timeout(t, time.Minute), "future")
	if err != nil || found.ID != v.ID || found.Newer == nil {
		t.Fatalf("%+v, %v", found, err)
	}
	contains(t, found.Newer, "future", v.ID, "blockvol:schema is 3", "knows 2", "upgrade the plugin")
	w.ResetCalls()
	for what, err := range map[string]error{
		"attach":      c.Attach(timeout(t, time.Minute), found),
		"delete":      c.Delete(timeout(t, time.Minute), v.ID),
		"set tags":    c.SetAttrs(timeout(t, time.Minute), v.ID, map[string]string{"fs": "none"}),
		"detach from": c.DetachFrom(timeout(t, time.Minute), v.ID, "i-0123456789abcdef0"),
	} {
		if !errors.Is(err, cloud.ErrState) || err.Error() != found.Newer.Error() {
			t.Errorf("%s: %v", what, err)
		}
	}
	if w.count("AttachVolume")+w.count("DeleteVolume")+w.count("CreateTags")+w.count("DetachVolume") != 0 {
		t.Errorf("it was changed: %s", w.calls())
	}
	w.detach(c, v)
}

func TestIDsThatAreNoneAreNotFoundWithoutACall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	for _, id := range []string{"", "vol-", "x", "vol-xyz", "i-0123456789abcdef0", "vol-0123456789abcdef0,vol-1"} {
		if _, err := c.ByID(timeout(t, time.Minute), id); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	w.wantCalls("refusing", "")
}

func TestAttributesAreChangedWithOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	s := spec("tagged")
	s.Tags = map[string]string{"fs": "the user's own"}
	v, err := c.Create(timeout(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	if err := c.SetAttrs(timeout(t, time.Minute), v.ID, map[string]string{"fs": "formatting:i-1", "uid": "5"}); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("set attributes", "CreateTags 1")
	got, err := c.ByID(timeout(t, time.Minute), v.ID)
	if err != nil || got.Attrs["fs"] != "formatting:i-1" || got.Attrs["uid"] != "5" || got.Tags["fs"] != "the user's own" {
		t.Errorf("%v, %v, %v", got.Attrs, got.Tags, err)
	}
	w.ResetCalls()
	for _, key := range []string{"cluster", "name", "schema", "released-at", "made-as", ""} {
		if err := c.SetAttrs(timeout(t, time.Minute), v.ID, map[string]string{key: "x"}); !errors.Is(err, cloud.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	w.wantCalls("refusing", "")
	w.inject(ec2sim.Fault{Kind: "error", Action: "CreateTags", Code: "InvalidVolume.NotFound", Times: 2})
	if err := c.SetAttrs(timeout(t, time.Minute), v.ID, map[string]string{"fs": "ext4"}); err != nil {
		t.Errorf("a volume that is not known everywhere yet: %v", err)
	}
	w.inject(ec2sim.Fault{Kind: "error", Action: "CreateTags", Code: "TagLimitExceeded"})
	err = c.SetAttrs(timeout(t, time.Minute), v.ID, map[string]string{"fs": "ext4"})
	if !errors.Is(err, cloud.ErrQuota) {
		t.Errorf("not ErrQuota: %v", err)
	}
	contains(t, err, `"tagged"`, v.ID, "50 tags")
}

func TestADeleteIsOneCallAndTellsTheHolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	v := w.create(c, "used")
	w.attach(c, v)
	if _, err := c.ByName(timeout(t, time.Minute), "used"); err != nil {
		t.Fatal(err)
	}
	var holder *cloud.HolderError
	if err := c.Delete(timeout(t, time.Minute), v.ID); !errors.As(err, &holder) || holder.Host != h.ID || holder.Volume != "used" {
		t.Fatalf("delete of an attached volume: %v", err)
	}
	w.detach(c, v)
	if _, err := c.ByName(timeout(t, time.Minute), "used"); err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("delete", "DeleteVolume 1")
	eventually(t, "the volume is gone", func() bool { state, _ := w.rawState(v.ID); return state == "" })
	if err := w.client().Delete(timeout(t, time.Minute), v.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("delete of what is gone: %v", err)
	}
}

func TestANewVolumeThatDeleteVolumeDoesNotKnowYetIsStillDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "new")
	w.inject(ec2sim.Fault{Kind: "error", Action: "DeleteVolume", Code: "InvalidVolume.NotFound", Times: 2})
	if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	eventually(t, "the volume is gone", func() bool { state, _ := w.rawState(v.ID); return state == "" })
}

// Whoever is told that a volume is gone forgets it, and it is paid for ever after.
func TestAVolumeThatOneAnswerDoesNotShowIsStillDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create(w.client(), "shy")
	c := w.client() // it has not seen the volume yet and must look
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "DescribeVolumes", Volume: v.ID})
	if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	eventually(t, "the volume is gone", func() bool { state, _ := w.rawState(v.ID); return state == "" })
}

func TestAVolumeThatCannotBeDeletedNowIsNotTakenForGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "stays")
	w.inject(ec2sim.Fault{Kind: "error", Action: "DeleteVolume", Code: "IncorrectState"})
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "DescribeVolumes", Volume: v.ID})
	if err := c.Delete(timeout(t, time.Minute), v.ID); !errors.Is(err, cloud.ErrState) {
		t.Errorf("delete: %v", err)
	}
}

func TestALostAnswerToDeleteVolumeIsSuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Delete = time.Millisecond })
	c := w.client()
	v := w.create(c, "lost")
	w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "DeleteVolume"})
	if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	w.create(c, "lost")
}

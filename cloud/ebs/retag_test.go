package ebs

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestTagsOfAVolumeAreChangedAndTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	s := spec("tagged")
	s.Tags = map[string]string{"Team": "db", "empty": "", "keep": "x"}
	s.Attrs["fencing"] = "never"
	v, err := c.Create(timeout(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	change := cloud.Retag{Attrs: map[string]string{"mount-options": "noatime", "reclaim": "retain"}, Tags: map[string]string{"Team": "web", "new": ""},
		DropAttrs: []string{"fencing"}, DropTags: []string{"empty", "none"}}
	if err := c.Retag(timeout(t, time.Minute), v.ID, change); err != nil {
		t.Fatal(err)
	}
	if set, gone := w.count("CreateTags"), w.count("DeleteTags"); set != 1 || gone != 1 {
		t.Errorf("%d CreateTags, %d DeleteTags", set, gone)
	}
	want := func() {
		t.Helper()
		got, err := c.ByID(timeout(t, time.Minute), v.ID)
		if err != nil || !reflect.DeepEqual(got.Tags, map[string]string{"Team": "web", "new": "", "keep": "x"}) || got.Attrs["mount-options"] != "noatime" ||
			got.Attrs["reclaim"] != "retain" || got.Attrs["fs"] != "none" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, still := got.Attrs["fencing"]; still {
			t.Errorf("%+v", got.Attrs)
		}
		raw, err := c.raw(timeout(t, time.Minute), v.ID)
		if err != nil || tagOf(*raw, tagSchema) != schemaLatest || tagOf(*raw, tagConsole) != "tagged" {
			t.Errorf("%+v, %v", raw, err)
		}
	}
	want()
	if err := c.Retag(timeout(t, time.Minute), v.ID, change); err != nil { // once more
		t.Error(err)
	}
	for _, action := range []string{"CreateTags", "DeleteTags"} {
		w.inject(ec2sim.Fault{Kind: "lost-answer", Action: action})
		if err := c.Retag(timeout(t, time.Minute), v.ID, change); err != nil {
			t.Errorf("the answer to %s is lost: %v", action, err)
		}
	}
	want()
	w.ResetCalls()
	for _, bad := range []cloud.Retag{
		{Attrs: map[string]string{"name": "other"}}, {DropAttrs: []string{"cluster"}}, {DropAttrs: []string{""}}, {Tags: map[string]string{"Name": "other"}},
		{Tags: map[string]string{"blockvol:fs": "x"}}, {Tags: map[string]string{"aws:x": "x"}}, {DropTags: []string{"Name"}}, {DropTags: []string{"Blockvol:cluster"}}, {DropTags: []string{""}},
	} {
		if err := c.Retag(timeout(t, time.Minute), v.ID, bad); !errors.Is(err, cloud.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	w.wantCalls("refused", "")
	if err := c.Retag(timeout(t, time.Minute), w.foreign(nil), change); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("somebody else's volume: %v", err)
	}
	w.inject(ec2sim.Fault{Kind: "error", Action: "DeleteTags", Code: "UnauthorizedOperation", Status: 403})
	err = c.Retag(timeout(t, time.Minute), v.ID, change)
	if !errors.Is(err, cloud.ErrDenied) {
		t.Error(err)
	}
	contains(t, err, `"tagged"`, v.ID, "docs/iam-snapshots.json")
}

func TestTagsThatAreNotShownYetAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "db")
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "CreateTags", Duration: 300 * time.Millisecond})
	if err := c.Retag(timeout(t, time.Minute), v.ID, cloud.Retag{Tags: map[string]string{"Team": "db"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ByID(timeout(t, time.Minute), v.ID); err != nil || got.Tags["Team"] != "db" {
		t.Errorf("%+v, %v", got.Tags, err)
	}
	if w.count("DescribeVolumes") < 3 {
		t.Error("the fault was not met")
	}
}

package ebs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// kept makes a volume that is kept when it is removed.
func (w *world) kept(c *Client, name string, gib int64) cloud.Volume {
	w.t.Helper()
	s := spec(name)
	s.SizeGiB, s.Attrs["reclaim"] = gib, "retain"
	v, err := c.Create(timeout(w.t, time.Minute), s)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// tags are a volume's tags as EC2 has them.
func (w *world) tags(id string) map[string]string {
	w.t.Helper()
	out, err := w.raw.DescribeVolumes(timeout(w.t, time.Minute), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil {
		w.t.Fatal(err)
	}
	tags := map[string]string{}
	for _, tag := range out.Volumes[0].Tags {
		tags[*tag.Key] = *tag.Value
	}
	return tags
}

func TestAReleasedVolumeIsKeptIsNoVolumeOfTheClusterAndFreesItsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.client(), w.client()
	ctx := timeout(t, time.Minute)
	v := w.kept(a, "db", 1)
	if got := w.tags(v.ID)["blockvol:schema"]; got != "2" {
		t.Errorf("a version that would delete it may use it: schema %s", got)
	}
	if _, err := b.ByName(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	if err := a.Release(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	tags := w.tags(v.ID)
	if tags["blockvol:name"] != "released:db" || tags["blockvol:cluster"] != "test" || tags["blockvol:released-at"] == "" || tags["blockvol:made-as"] != "db" || tags["blockvol:fs"] != "none" {
		t.Errorf("its tags are %v", tags)
	}
	for _, c := range []*Client{a, b} {
		if got, err := c.ByName(ctx, "db"); !errors.Is(err, cloud.ErrNotFound) && (err != nil || got.State != cloud.Deleting) {
			t.Errorf("by name: %+v, %v", got, err)
		}
		if got, err := c.ByID(ctx, v.ID); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("by ID: %+v, %v", got, err)
		}
		if all, err := c.List(ctx); err != nil || len(all) != 0 {
			t.Errorf("listed: %+v, %v", all, err)
		}
		for what, err := range map[string]error{"delete": c.Delete(ctx, v.ID), "tag": c.SetAttrs(ctx, v.ID, map[string]string{"fs": "ext4"}),
			"attach": c.Attach(ctx, v), "release": c.Release(ctx, v.ID)} {
			if err == nil {
				t.Errorf("%s was done with a volume that was given up", what)
			}
		}
	}
	// The name is free on both, for other options and for the same ones, as often as one likes.
	second := w.kept(b, "db", 2)
	if err := b.Release(ctx, second.ID); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Client{a, w.client()} {
		third := w.kept(c, "db", 1)
		if third.ID == v.ID || third.ID == second.ID {
			t.Errorf("what was given up came back as %s", third.ID)
		}
		if again := w.kept(w.client(), "db", 1); again.ID != third.ID {
			t.Errorf("two volumes of one name: %s and %s", third.ID, again.ID)
		}
		if err := c.Release(ctx, third.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAVolumeThatSomebodyHasIsNotReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, time.Minute)
	v := w.kept(c, "db", 1)
	w.attach(c, v)
	if err := c.Release(ctx, v.ID); !errors.Is(err, cloud.ErrInUse) {
		t.Errorf("attached: %v", err)
	}
	if got := w.tags(v.ID)["blockvol:name"]; got != "db" {
		t.Errorf("it is called %s", got)
	}
}

// A host that looked the volume up before it was given up may attach it right after the last look.
func TestAVolumeThatIsTakenWhileItIsReleasedStaysTheClusters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	other := w.host(ec2sim.Instance{})
	ctx := timeout(t, time.Minute)
	v := w.kept(c, "db", 1)
	w.inject(ec2sim.Fault{Kind: "delay", Action: "CreateTags", Duration: 4 * time.Second})
	done := make(chan error, 1)
	w.ResetCalls()
	go func() { done <- c.Release(ctx, v.ID) }()
	for asked := false; !asked; time.Sleep(time.Millisecond) {
		for _, call := range w.Sim.Calls() {
			asked = asked || call.Action == "DescribeVolumes"
		}
		if ctx.Err() != nil {
			t.Fatal("no look before the release")
		}
	}
	time.Sleep(50 * time.Millisecond) // the answer to the look is on its way
	if _, err := w.raw.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &v.ID, InstanceId: &other.ID, Device: aws.String("/dev/xvdx")}); err != nil {
		t.Fatal(err)
	}
	err := <-done
	var held *cloud.HolderError
	if !errors.As(err, &held) || held.Host != other.ID {
		t.Errorf("released under the hands of %s: %v", other.ID, err)
	}
	if got := w.tags(v.ID)["blockvol:name"]; got != "db" {
		t.Errorf("it is called %s", got)
	}
	if got, err := c.ByName(ctx, "db"); err != nil || got.ID != v.ID || got.State == cloud.Deleting {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whoever holds a volume that was given up can let go of it.
func TestAnAttachmentOfAReleasedVolumeIsEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, time.Minute)
	v := w.kept(c, "db", 1)
	w.attach(c, v)
	if _, err := w.raw.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{v.ID}, Tags: []types.Tag{{Key: aws.String("blockvol:name"), Value: aws.String("released:db")}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.ByID(ctx, v.ID); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("%v", err)
		}
		if err := c.Detach(context.WithoutCancel(ctx), v.ID); err != nil {
			t.Errorf("detach: %v", err)
		}
	}
}

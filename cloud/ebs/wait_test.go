package ebs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"golang.org/x/sys/unix"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestAnotherVolumesAbsenceEndsNoWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Detach = 1200 * time.Millisecond })
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	v, doomed := w.create(c, "v"), w.create(c, "doomed")
	w.attach(c, v)
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	doomedEnd := make(chan error, 1)
	go func() { doomedEnd <- c.WaitAttached(timeout(t, time.Minute), doomed.ID) }()
	if _, err := w.raw.DeleteVolume(timeout(t, time.Minute), &ec2.DeleteVolumeInput{VolumeId: &doomed.ID}); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDetached(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	if _, attached := w.rawState(v.ID); attached[h.ID] != "" {
		t.Errorf("the wait ended while the attachment was %s", attached[h.ID])
	}
	if err := <-doomedEnd; err == nil {
		t.Error("the wait for the attachment of a deleted volume succeeded")
	}
}

func TestAMomentaryAbsenceEndsNoWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Detach = 800 * time.Millisecond })
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	v := w.create(c, "v")
	w.attach(c, v)
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "DescribeVolumes", Volume: v.ID, Times: 2})
	if err := c.WaitDetached(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	if len(w.Faults()) != 0 {
		t.Error("the wait ended before the volume was visible again")
	}
	w.ClearFaults()
	if _, attached := w.rawState(v.ID); attached[h.ID] != "" {
		t.Errorf("the wait ended while the attachment was %s", attached[h.ID])
	}
}

func TestAnAnswerFromBeforeTheAttachEndsNoWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "AttachVolume", Duration: 250 * time.Millisecond})
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Fatal(err)
	}
	c.timing.Attaching = time.Millisecond // look at once
	if err := c.WaitAttached(timeout(t, time.Minute), v.ID); err != nil {
		t.Errorf("the attachment was not visible for a moment, and the wait ended: %v", err)
	}
}

func TestABusyAttachmentIsToldAsSoonAsItIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	v := w.create(c, "v")
	w.attach(c, v)
	held := w.hold(h, v)
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	err := c.WaitDetached(timeout(t, time.Minute), v.ID)
	if !errors.Is(err, cloud.ErrBusy) {
		t.Fatalf("not ErrBusy: %v", err)
	}
	contains(t, err, `"v"`, v.ID, "busy", "lsof")
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is free after the holder let go", func() bool { return c.WaitDetached(timeout(t, time.Minute), v.ID) == nil })
}

// hold opens the device of an attachment on its host, as a mount does.
func (w *world) hold(h *host, v cloud.Volume) *os.File {
	w.t.Helper()
	blocks := filepath.Join(w.DevDir(h.ID), ".sysfs", "block")
	entries, err := os.ReadDir(blocks)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		serial, _ := os.ReadFile(filepath.Join(blocks, e.Name(), "device", "serial"))
		if strings.TrimSpace(string(serial)) != v.Serial {
			continue
		}
		f, err := os.OpenFile(filepath.Join(w.DevDir(h.ID), e.Name()), os.O_RDWR|unix.O_EXCL, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { f.Close() })
		return f
	}
	w.t.Fatalf("no device of %s", v.ID)
	return nil
}

func TestAStuckAttachmentDelaysNobodyAndIsDescribed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	stuck, fine := w.create(c, "stuck"), w.create(c, "fine")
	w.inject(ec2sim.Fault{Kind: "stuck-attaching"})
	if err := c.Attach(timeout(t, time.Minute), stuck); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- c.WaitAttached(timeout(t, 15*time.Second), stuck.ID) }()
	w.attach(c, fine)
	if len(end) > 0 {
		t.Error("the other attach ended only after the stuck one")
	}
	err := <-end
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cloud.ErrState) {
		t.Fatalf("not a deadline with a state: %v", err)
	}
	contains(t, err, `"stuck"`, stuck.ID, h.ID, "begun at 20", "is attaching")
}

func TestWaitsShareTheirQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Attach, d.Detach = 400*time.Millisecond, 400*time.Millisecond })
	c := w.client()
	var all []cloud.Volume
	for i := range 8 {
		all = append(all, w.create(c, fmt.Sprintf("v%d", i)))
	}
	if err := c.Warm(timeout(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	var wait sync.WaitGroup
	for _, v := range all {
		wait.Add(1)
		go func() {
			defer wait.Done()
			ctx := timeout(t, time.Minute)
			if err := errors.Join(c.Attach(ctx, v), c.WaitAttached(ctx, v.ID)); err != nil {
				t.Error(err)
			}
		}()
	}
	wait.Wait()
	if n := w.count("DescribeVolumes"); n > 24 {
		t.Errorf("8 waits took %d DescribeVolumes calls", n)
	}
}

func TestAnAttachmentThatNeverWasOrHasEndedIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	v := w.create(c, "v")
	err := c.WaitAttached(timeout(t, time.Minute), v.ID)
	if !errors.Is(err, cloud.ErrState) || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("never attached: %v", err)
	}
	contains(t, err, `"v"`, v.ID, h.ID, "not attached")
	w.setDelays(func(d *ec2sim.Delays) { d.Attach = time.Minute })
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- c.WaitAttached(timeout(t, time.Minute), v.ID) }()
	if _, err := w.raw.DetachVolume(timeout(t, time.Minute), &ec2.DetachVolumeInput{VolumeId: &v.ID}); err != nil {
		t.Fatal(err)
	}
	if err := <-end; !errors.Is(err, cloud.ErrState) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an attachment that ended: %v", err)
	}
	if err := c.WaitDetached(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	if _, err := w.raw.DeleteVolume(timeout(t, time.Minute), &ec2.DeleteVolumeInput{VolumeId: &v.ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { state, _ := w.rawState(v.ID); return state == "" })
	if err := c.WaitDetached(timeout(t, time.Minute), v.ID); err != nil {
		t.Errorf("a volume that is gone is attached nowhere: %v", err)
	}
	if err := c.WaitAttached(timeout(t, time.Minute), v.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("a volume that is gone: %v", err)
	}
}

func TestACycleAtUsualTimesTakesTheCallsItMust(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.SetDelays(ec2sim.DefaultDelays)
	c := w.client(func(cfg *Config) { cfg.Timing = Timing{} })
	ctx := timeout(t, time.Minute)
	if err := c.Warm(ctx); err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	if _, err := c.ByName(ctx, "v"); !errors.Is(err, cloud.ErrNotFound) {
		t.Fatal(err)
	}
	w.create(c, "v")
	w.wantCalls("looking and creating", "CreateVolume 1, DescribeVolumes 2")
	v, err := c.ByName(ctx, "v")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(ctx, v); err != nil {
		t.Fatal(err)
	}
	for _, fs := range []string{"formatting:i-1", "ext4"} {
		if err := c.SetAttrs(ctx, v.ID, map[string]string{"fs": fs}); err != nil {
			t.Fatal(err)
		}
	}
	w.wantCalls("the first mount", "AttachVolume 1, CreateTags 2, DescribeVolumes 1")
	eventually(t, "the device is there", func() bool {
		entries, _ := os.ReadDir(filepath.Join(w.DevDir(w.Instances()[0].ID), ".sysfs", "block"))
		return len(entries) == 1
	})
	if err := c.Detach(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDetached(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("the last unmount", "DescribeVolumes 1, DetachVolume 1")
	if _, err := c.ByName(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("the removal", "DeleteVolume 1, DescribeVolumes 1")
}

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

func TestAttachAndDetachAreOneCallEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Detach = 200 * time.Millisecond })
	c := w.client(func(cfg *Config) { cfg.Timing.Consistency = 100 * time.Millisecond })
	first, v := w.create(c, "first"), w.create(c, "v")
	w.ResetCalls()
	w.attach(c, first)
	if n := w.count("DescribeInstances") + w.count("DescribeInstanceTypes"); n != 2 {
		t.Errorf("the first attach looked at the instance with %d calls, want 2", n)
	}
	w.ResetCalls()
	ctx := timeout(t, time.Minute)
	if err := c.Attach(ctx, v); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("attach", "AttachVolume 1")
	if err := c.WaitAttached(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	if err := c.WaitAttached(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("waiting for what is attached", "DescribeVolumes 1")
	if err := c.Detach(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("detach", "DetachVolume 1")
	eventually(t, "it is detached", func() bool { state, _ := w.rawState(v.ID); return state == "available" })
	w.ResetCalls()
	if err := c.WaitDetached(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("waiting for what is detached", "DescribeVolumes 1")
}

func TestWarmLeavesNothingToLookUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	v := w.create(w.on(h), "v")
	c := w.on(h)
	if err := c.Warm(timeout(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := w.count("DescribeInstances") + w.count("DescribeInstanceTypes"); n != 2 {
		t.Errorf("warming up took %d calls, want 2", n)
	}
	if _, err := c.ByName(timeout(t, time.Minute), "v"); err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("attach", "AttachVolume 1")
}

func TestAColdBurstLooksAtTheInstanceOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{Type: "m7i.48xlarge"})
	maker := w.on(h)
	c := w.on(h, func(cfg *Config) { cfg.Timing.Gather, cfg.Timing.FirstPoll = 2*time.Second, 2*time.Second }) // on a slow machine too they come together
	var all []cloud.Volume
	for i := range 40 {
		all = append(all, w.create(maker, fmt.Sprintf("v%d", i)))
	}
	w.ResetCalls()
	var wait sync.WaitGroup
	for _, v := range all {
		wait.Add(1)
		go func() {
			defer wait.Done()
			ctx := timeout(t, time.Minute)
			if v, err := c.ByName(ctx, v.Name); err != nil {
				t.Error(err)
			} else if err := c.Attach(ctx, v); err != nil {
				t.Error(err)
			} else if err := c.WaitAttached(ctx, v.ID); err != nil {
				t.Error(err)
			}
		}()
	}
	wait.Wait()
	for action, want := range map[string]int{"DescribeInstances": 1, "DescribeInstanceTypes": 1, "AttachVolume": 40} {
		if n := w.count(action); n != want {
			t.Errorf("%s was called %d times, want %d", action, n, want)
		}
	}
	if n := w.count("DescribeVolumes"); n > 20 { // at least 80 if each asked for itself
		t.Errorf("40 look-ups and waits took %d DescribeVolumes calls", n)
	}
	devices := map[string]bool{}
	for _, call := range w.Calls() {
		if call.Action == "AttachVolume" {
			devices[call.Params["Device"]] = true
		}
	}
	if len(devices) != 40 {
		t.Errorf("%d device names for 40 volumes", len(devices))
	}
}

func TestWhatIsAttachedHereIsSuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	old := w.create(c, "v")
	w.attach(c, old)
	v, err := c.ByName(timeout(t, time.Minute), "v")
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Error(err)
	}
	w.wantCalls("attaching what is attached", "")
	// The caller's knowledge is from before the attachment, as after a lost answer.
	if err := c.Attach(timeout(t, time.Minute), old); err != nil {
		t.Error(err)
	}
	w.wantCalls("attaching it with old knowledge", "AttachVolume 1, DescribeVolumes 1")
	if err := w.on(h).Attach(timeout(t, time.Minute), old); err != nil {
		t.Errorf("from a new process: %v", err)
	}
	w.ResetCalls()
	w.detach(c, v)
	// v says attached, which was true a moment ago.
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Error(err)
	}
	if n := w.count("AttachVolume"); n != 1 {
		t.Errorf("attaching with knowledge from before the detach made %d AttachVolume calls", n)
	}
	if err := c.WaitAttached(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
}

func TestALostAnswerToAttachVolumeIsSuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "AttachVolume"})
	w.attach(c, v)
	w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "DetachVolume"})
	w.detach(c, v)
}

func TestAnAttachVolumeThatHangsIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Timing.Attempt = time.Second })
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "hang", Action: "AttachVolume"})
	w.attach(c, v)
}

func TestTheHolderIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	here, there := w.host(ec2sim.Instance{}), w.host(ec2sim.Instance{})
	a, b := w.on(here), w.on(there)
	old := w.create(a, "held")
	w.attach(b, func() cloud.Volume { v, _ := b.ByName(timeout(t, time.Minute), "held"); return v }())
	fresh, err := a.ByName(timeout(t, time.Minute), "held")
	if err != nil {
		t.Fatal(err)
	}
	for what, v := range map[string]cloud.Volume{"with old knowledge": old, "with new knowledge": fresh} {
		err := a.Attach(timeout(t, time.Minute), v)
		var holder *cloud.HolderError
		if !errors.As(err, &holder) || holder.Host != there.ID || holder.Volume != "held" || holder.ID != v.ID {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := a.Detach(timeout(t, time.Minute), old.ID); err != nil {
		t.Errorf("detaching what is attached elsewhere: %v", err)
	}
	if _, attached := w.rawState(old.ID); attached[there.ID] != "attached" {
		t.Errorf("the other host's attachment is %v", attached)
	}
	if err := a.WaitDetached(timeout(t, time.Minute), old.ID); err != nil {
		t.Errorf("waiting for it: %v", err)
	}
	var holder *cloud.HolderError
	if err := a.WaitAttached(timeout(t, time.Minute), old.ID); !errors.As(err, &holder) || holder.Host != there.ID {
		t.Errorf("waiting for an attachment that another host has: %v", err)
	}
}

func TestADeviceNameInUseLeadsToTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h)
	if err := c.Warm(timeout(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/dev/xvdaa", "/dev/xvdab", "/dev/xvdac"} {
		id := w.foreign(nil)
		eventually(t, "it is available", func() bool { state, _ := w.rawState(id); return state == "available" })
		if _, err := w.raw.AttachVolume(timeout(t, time.Minute), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &h.ID, Device: aws.String(name)}); err != nil {
			t.Fatal(err)
		}
	}
	v := w.create(c, "v")
	w.ResetCalls()
	w.attach(c, v)
	if n := w.count("AttachVolume"); n != 4 {
		t.Errorf("%d AttachVolume calls, want 4", n)
	}
	next := w.create(c, "next")
	w.ResetCalls()
	w.attach(c, next)
	if n := w.count("AttachVolume"); n != 1 {
		t.Errorf("the names in use were not remembered: %d AttachVolume calls", n)
	}
	// A new process sees them in DescribeInstances.
	fresh := w.on(h)
	third := w.create(fresh, "third")
	w.ResetCalls()
	w.attach(fresh, third)
	if n := w.count("AttachVolume"); n != 1 {
		t.Errorf("a new process made %d AttachVolume calls", n)
	}
}

func TestNamesInUseAreTriedABoundedNumberOfTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "InvalidParameterValue", Times: -1,
		Message: "Invalid value '/dev/xvdx' for unixDevice. Attachment point /dev/xvdx is already in use"})
	err := c.Attach(timeout(t, time.Minute), v)
	contains(t, err, `"v"`, "already in use")
	if n := w.count("AttachVolume"); n != nameAttempts+1 {
		t.Errorf("%d AttachVolume calls, want %d", n, nameAttempts+1)
	}
}

func TestTheAttachLimitIsKnownBeforeTheCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setLimits(func(l *ec2sim.Limits) { l.Attachments = map[string]int{"m7i.large": 3} })
	h := w.host(ec2sim.Instance{Type: "m7i.large"})
	c := w.on(h)
	var all []cloud.Volume
	for i := range 4 {
		all = append(all, w.create(c, fmt.Sprintf("v%d", i)))
	}
	for _, v := range all[:3] {
		w.attach(c, v)
	}
	w.ResetCalls()
	err := c.Attach(timeout(t, time.Minute), all[3])
	if !errors.Is(err, cloud.ErrLimit) {
		t.Fatalf("not ErrLimit: %v", err)
	}
	contains(t, err, `"v3"`, all[3].ID, h.ID, "m7i.large", "allows 4", "4 volumes", "stop a container")
	w.wantCalls("refusing", "DescribeInstances 1")
	w.detach(c, all[0])
	w.attach(c, all[3])
	// Somebody else detaches: the count is refreshed before the refusal.
	if _, err := w.raw.DetachVolume(timeout(t, time.Minute), &ec2.DetachVolumeInput{VolumeId: &all[1].ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is detached", func() bool { state, _ := w.rawState(all[1].ID); return state == "available" })
	eventually(t, "the client's own view is old enough", func() bool { return c.Attach(timeout(t, time.Minute), all[0]) == nil })
}

func TestEC2sOwnAttachLimitIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "AttachmentLimitExceeded", Message: "Too many."})
	err := c.Attach(timeout(t, time.Minute), v)
	if !errors.Is(err, cloud.ErrLimit) {
		t.Fatal(err)
	}
	contains(t, err, `"v"`, "1 volumes are attached", "m5.large allows 27", "Too many", "AttachmentLimitExceeded")
}

func TestHostsThatAreNotNitroAreRefusedBeforeAnything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := w.create(w.client(), "v")
	h := w.host(ec2sim.Instance{Type: "t2.micro"})
	c := w.on(h)
	err := c.Attach(timeout(t, time.Minute), v)
	if !errors.Is(err, cloud.ErrHost) {
		t.Fatalf("not ErrHost: %v", err)
	}
	contains(t, err, `"v"`, v.ID, "t2.micro", "Nitro")
	if n := w.count("AttachVolume"); n != 0 {
		t.Error("AttachVolume was called")
	}
	metal := w.on(w.host(ec2sim.Instance{Type: "m5.metal"}))
	if err := metal.Attach(timeout(t, time.Minute), v); err != nil {
		t.Errorf("bare metal has Nitro cards: %v", err)
	}
}

func TestAVolumeOfAnotherZoneIsRefusedWithoutACall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{Zone: region + "b"})
	c := w.on(h)
	v := w.create(c, "v")
	err := c.Attach(timeout(t, time.Minute), v)
	if !errors.Is(err, cloud.ErrZone) {
		t.Fatalf("not ErrZone: %v", err)
	}
	contains(t, err, `"v"`, v.ID, region+"a", region+"b", h.ID)
	if n := w.count("AttachVolume"); n != 0 {
		t.Error("AttachVolume was called")
	}
}

func TestAVolumeThatIsNotReadyIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "v")
	for _, state := range []cloud.State{cloud.Creating, cloud.Deleting, cloud.Failed} {
		v.State = state
		if err := c.Attach(timeout(t, time.Minute), v); !errors.Is(err, cloud.ErrState) {
			t.Errorf("%s: %v", state, err)
		}
	}
	v.State, v.MultiAttach = cloud.Available, true
	if err := c.Attach(timeout(t, time.Minute), v); !errors.Is(err, cloud.ErrState) {
		t.Errorf("multi-attach: %v", err)
	}
	if n := w.count("AttachVolume"); n != 0 {
		t.Error("AttachVolume was called")
	}
}

func TestWhatIsNotAttachedIsDetached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "v")
	w.ResetCalls()
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	w.wantCalls("detaching what is free", "DetachVolume 1")
	w.attach(c, v)
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Errorf("twice: %v", err)
	}
	if err := c.WaitDetached(timeout(t, time.Minute), v.ID); err != nil {
		t.Error(err)
	}
	for _, call := range w.Calls() {
		if call.Action == "DetachVolume" && (call.Params["InstanceId"] == "" || call.Params["Force"] != "") {
			t.Errorf("DetachVolume without an instance, or by force: %v", call.Params)
		}
	}
}

func TestADetachDuringAnAttachIsRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Attach = 300 * time.Millisecond })
	c := w.client()
	v := w.create(c, "v")
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Fatal(err)
	}
	w.inject(ec2sim.Fault{Kind: "error", Action: "DetachVolume", Code: "IncorrectState", Message: "Volume '" + v.ID + "' is in the 'attaching' state.", Times: 3})
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	if n := w.count("DetachVolume"); n != 4 {
		t.Errorf("%d DetachVolume calls, want 4", n)
	}
	if err := c.WaitDetached(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
}

func TestRefusalsFromBeforeAChangeAreNotBelieved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h, func(cfg *Config) { cfg.Timing.Consistency = 10 * time.Second })
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "InvalidVolume.NotFound", Times: 2})
	if err := c.Attach(timeout(t, time.Minute), v); err != nil {
		t.Fatalf("a new volume that AttachVolume does not know yet: %v", err)
	}
	for _, code := range []string{"InvalidAttachment.NotFound", "InvalidVolume.NotFound"} {
		w.inject(ec2sim.Fault{Kind: "error", Action: "DetachVolume", Code: code})
	}
	w.inject(ec2sim.Fault{Kind: "error", Action: "DetachVolume", Code: "IncorrectState", Message: "Volume '" + v.ID + "' is in the 'available' state."})
	if err := c.Detach(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	if _, attached := w.rawState(v.ID); attached[h.ID] == "attached" || attached[h.ID] == "attaching" {
		t.Errorf("the detach of a new attachment was taken for done; it is %s", attached[h.ID])
	}
}

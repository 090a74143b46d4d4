package driver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// What EC2 has accepted may still fail: a host that finds a volume which another one is creating waits for its end.
func TestACreateThatFindsAVolumeBeingMadeWaitsForIt(t *testing.T) {
	r := newRig(t)
	two := r.twin()
	d := r.sim.Delays()
	d.Create = 5 * time.Second
	r.sim.SetDelays(d)
	if err := r.sim.Inject(ec2sim.Fault{Kind: "create-failed"}); err != nil {
		t.Fatal(err)
	}
	first := make(chan error, 1)
	go func() { _, err := r.try("Create", m{"Name": "pgdata", "Opts": m{"size": "1"}}); first <- err }()
	r.eventually("begun", func() bool { return r.calls()["CreateVolume"] > 0 })
	two.refused("Create", m{"Name": "pgdata", "Opts": m{"size": "1"}}, "pgdata", "state error", "remove it")
	if err := <-first; err == nil {
		t.Error("the first Create succeeded")
	}
	two.must("Remove", m{"Name": "pgdata"})
	two.create("pgdata")
}

// After a restart the plugin does not know at once what the one before it has mounted.
func TestAMountRightAfterARestartIsNotASecondMount(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	path := r.mount("pgdata", "c1")
	r.crash()
	// The listing at the start takes its time; the look-up of the Mount does not.
	if err := r.sim.Inject(ec2sim.Fault{Kind: "delay", Action: "DescribeVolumes", Duration: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.eventually("the listing has begun", func() bool { return len(r.sim.Faults()) == 0 })
	if again := r.mount("pgdata", "c2"); again != path {
		t.Errorf("mounted on %s, was on %s", again, path)
	}
	if points, err := r.manager.disk.MountsUnder(r.manager.mounts); err != nil || len(points) != 1 {
		t.Errorf("mounts: %v %v", points, err)
	}
	r.unmount("pgdata", "c1")
	r.unmount("pgdata", "c2")
	r.eventually("detached", func() bool { return r.attached() == 0 })
}

// A plugin that ends while it is still finding out where it is leaves the instance to the next one.
func TestAnEndDuringTheStartKeepsNoLock(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	r.stop()
	r.manager.base = t.Context() // the answer was on its way when Close began
	if err := r.manager.getReady(); err == nil {
		t.Error("it got ready after its end")
	}
	r.start()
	r.mount("pgdata", "c1")
	r.unmount("pgdata", "c1")
}

// What begins while Close waits for the rest would outlive it, and the next plugin would meet it.
func TestNothingBeginsAfterTheEnd(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	v := r.manager.all()[0]
	r.stop()
	never := func(context.Context) error { t.Error("it began"); return nil }
	if err := r.manager.work(t.Context(), v, never); err == nil || !strings.Contains(err.Error(), `"pgdata": blockvol is shutting down`) {
		t.Errorf("work after the end: %v", err)
	}
	if r.manager.goOn("late", func(context.Context) { t.Error("it began") }) {
		t.Error("it is said to have begun")
	}
	r.manager.working.Wait()
	r.start()
	r.mount("pgdata", "c1")
	r.unmount("pgdata", "c1")
}

// The Manager's lock is taken before those of volumes, as the sweep does. Who took them the other way round would stop everything at once.
func TestNobodyWaitsForTheManagersLockWithAVolumeLocked(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	v := r.manager.record("pgdata")
	v.set(func() { v.seenAt = time.Time{} })
	began := make(chan struct{})
	func() {
		r.manager.mu.Lock()
		defer r.manager.mu.Unlock()
		go func() {
			defer close(began)
			r.manager.dropIfUnknown(v)
		}()
		// With the Manager locked, it comes as far as it can and leaves the volume unlocked.
		for end := time.Now().Add(patient / 3); ; time.Sleep(time.Millisecond) {
			if v.mu.TryLock() {
				looking := v.looking
				v.mu.Unlock()
				if looking > 0 {
					break
				}
			}
			if time.Now().After(end) {
				t.Error("the volume stays locked while its look-up waits for the Manager")
				break
			}
		}
	}()
	<-began
	r.status("pgdata")
}

// The work of a Mount goes on when its request is given up, and is done in the same moment.
func TestAMountThatIsGivenUpInTheLastMomentIsRolledBack(t *testing.T) {
	h := newHooked(t)
	h.create("pgdata")
	for range 5 {
		ctx, giveUp := context.WithCancel(t.Context())
		h.next(StepMountNoted, func(int) { giveUp() })
		path, undo, err := h.manager.Mount(ctx, "pgdata", "c1")
		switch {
		case err == nil:
			undo() // the answer was there first
		case path != "":
			t.Errorf("a mount that fails with %v has the path %s", err, path)
		}
	}
	h.eventually("unmounted and detached", func() bool { return h.attached() == 0 })
	h.mount("pgdata", "c2")
	h.unmount("pgdata", "c2")
}

package driver

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
	"golang.org/x/sys/unix"
)

// heldElsewhere makes a volume with data that a second host has mounted; that host's plugin is gone, and power off cuts its mounts.
func heldElsewhere(t *testing.T, opts ...string) (r *rig, holder string, powerOff func(state string)) {
	r = newRig(t)
	r.create("pgdata", opts...)
	other := r.twin()
	p := other.mount("pgdata", "c1")
	write(t, filepath.Join(p, "row"), "42")
	other.crash()
	r.calls()
	return r, other.host.ID, func(state string) {
		t.Helper()
		if err := unix.Unmount(filepath.Dir(p), 0); err != nil {
			t.Fatal(err)
		}
		if err := r.sim.SetInstanceState(other.host.ID, state); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAVolumeOfAStoppedOrTerminatedHostIsTakenWithItsData(t *testing.T) {
	for _, state := range []string{ec2sim.StateStopped, ec2sim.StateTerminated} {
		t.Run(state, func(t *testing.T) {
			r, holder, powerOff := heldElsewhere(t)
			powerOff(state)
			r.eventually("mounted here", func() bool { _, err := r.try("Mount", m{"Name": "pgdata", "ID": "c2"}); return err == nil })
			if got := read(t, filepath.Join(r.mount("pgdata", "c2"), "row")); got != "42" {
				t.Errorf("the data is %q", got)
			}
			if st := r.status("pgdata"); st["volumeState"] != "in-use" || st["attachedTo"] != r.host.ID {
				t.Errorf("after it was taken the status tells %v", st)
			}
			for _, c := range r.sim.Calls() {
				if c.Action == "DetachVolume" && (c.Params["InstanceId"] != holder || c.Params["Force"] == "true") {
					t.Errorf("DetachVolume was sent with %v", c.Params)
				}
			}
			r.unmount("pgdata", "c2")
			r.eventually("detached", func() bool { return r.attached() == 0 })
		})
	}
}

func TestARunningHostIsNeverTakenFrom(t *testing.T) {
	r, holder, powerOff := heldElsewhere(t)
	r.refused("Mount", m{"Name": "pgdata", "ID": "c2"}, "pgdata", holder, "running", "stop")
	if n := r.calls(); n["DetachVolume"] != 0 {
		t.Errorf("it was tried: %v", n)
	}
	powerOff(ec2sim.StateTerminated)
}

func TestFencingNeverIsKept(t *testing.T) {
	r, holder, powerOff := heldElsewhere(t, "fencing", "never")
	powerOff(ec2sim.StateStopped)
	r.refused("Mount", m{"Name": "pgdata", "ID": "c2"}, "pgdata", holder, "fencing=never")
	if n := r.calls(); n["DetachVolume"] != 0 {
		t.Errorf("it was tried: %v", n)
	}
}

// A host that is being started again while we look is not dead.
func TestAHostMustBeDeadTwice(t *testing.T) {
	r, holder, powerOff := heldElsewhere(t)
	powerOff(ec2sim.StateStopped)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.eventually("looked once", func() bool { return r.lookedAt(holder) > 0 })
		if err := r.sim.SetInstanceState(holder, ec2sim.StateRunning); err != nil {
			t.Error(err)
		}
	}()
	time.Sleep(r.timing.Fresh)
	r.refused("Mount", m{"Name": "pgdata", "ID": "c2"}, holder)
	<-done
	if n := r.calls(); n["DetachVolume"] != 0 {
		t.Errorf("taken from a host that runs again: %v", n)
	}
}

// lookedAt counts how often the state of a host was asked for.
func (r *rig) lookedAt(host string) (n int) {
	for _, c := range r.sim.Calls() {
		if c.Action == "DescribeInstances" && c.Params["InstanceId.1"] == host {
			n++
		}
	}
	return n
}

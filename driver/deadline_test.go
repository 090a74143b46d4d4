package driver

import (
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// slow is a rig whose attaches take longer than a request may.
func slow(t *testing.T) *rig {
	r := newRig(t, func(t *Timing) { t.Request, t.AskCloud = 5*time.Second, 20*time.Second })
	r.create("pgdata")
	d := r.sim.Delays()
	d.Attach = 10 * time.Second
	r.sim.SetDelays(d)
	r.calls()
	return r
}

func TestTheRetryOfASlowMountJoinsTheWork(t *testing.T) {
	r := slow(t)
	r.refused("Mount", m{"Name": "pgdata", "ID": "c1"}, "pgdata", "still attaching", "try again")
	r.eventually("mounted by the retry", func() bool { _, err := r.try("Mount", m{"Name": "pgdata", "ID": "c2"}); return err == nil })
	if n := r.calls()["AttachVolume"]; n != 1 {
		t.Errorf("%d AttachVolume calls", n)
	}
	time.Sleep(r.timing.HandOver + 2*r.timing.Grace)
	if st := r.status("pgdata"); st["state"] != "mounted" {
		t.Errorf("the claim that was answered is gone: %v", st)
	}
	r.unmount("pgdata", "c2")
}

// dockerd never sends Unmount for a Mount that it gave up on.
func TestAMountThatNobodyWaitsForIsRolledBack(t *testing.T) {
	r := slow(t)
	r.refused("Mount", m{"Name": "pgdata", "ID": "c1"}, "still attaching")
	r.eventually("mounted all the same", func() bool { return r.status("pgdata")["state"] == "mounted" })
	r.eventually("unmounted and detached", func() bool { return r.attached() == 0 })
	r.eventually("free", func() bool { return r.status("pgdata")["state"] == "free" })
}

func TestATermWithWorkInFlightEndsInTimeAndIsTakenUpAgain(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "hang", Action: "AttachVolume"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := r.try("Mount", m{"Name": "pgdata", "ID": "c1"}); done <- err }()
	r.eventually("the call hangs", func() bool { return r.server.InFlight() == 1 && r.status("pgdata")["state"] == "attaching" })
	began := time.Now()
	r.stop()
	if d := time.Since(began); d > 2*shutdownBudget {
		t.Errorf("shutting down took %s", d)
	}
	if err := <-done; err == nil {
		t.Error("the mount was answered as done")
	}
	r.sim.ClearFaults()
	r.start()
	r.mount("pgdata", "c2")
	r.unmount("pgdata", "c2")
	r.eventually("detached", func() bool { return r.attached() == 0 })
}

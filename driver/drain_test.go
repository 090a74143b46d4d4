package driver

import (
	"strings"
	"testing"
	"time"
)

func (r *rig) drain(timeout time.Duration) (Drained, asked) {
	r.t.Helper()
	var d Drained
	a := r.askFor("Drain", DrainRequest{Timeout: timeout}, &d)
	return d, a
}

func TestADrainLetsGoOfWhatIsUnusedWaitsForTheRestAndTakesNothingNew(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace = time.Hour; t.Sweep = time.Hour })
	for _, n := range []string{"idle", "used", "other", "new"} {
		r.create(n)
	}
	r.mount("idle", "c0")
	r.unmount("idle", "c0") // attached for the hour of its grace
	path := r.mount("used", "c1")
	r.mount("other", "c2")
	var d Drained
	var a asked
	r.eventually("what is idle has gone", func() bool {
		d, a = r.drain(time.Second)
		return len(d.Left) < 3
	})
	if len(d.Left) != 2 || d.Left[0].Volume != "other" || d.Left[1].Volume != "used" || !d.Draining {
		t.Fatalf("left: %+v", d)
	}
	for _, l := range d.Left {
		if !strings.Contains(l.Why, "docker ps --filter volume="+l.Volume) || !strings.Contains(strings.Join(a.said, "\n"), l.Why) {
			t.Errorf("%+v; said %q", l, a.said)
		}
	}
	if n := r.attached(); n != 2 {
		t.Errorf("%d devices are here, want those in use", n)
	}
	r.refused("Mount", m{"Name": "new", "ID": "c3"}, "new", "drained", r.host.ID, "--undo")
	r.refused("Mount", m{"Name": "idle", "ID": "c3"}, "idle", "drained")
	if again := r.mount("used", "c4"); again != path { // its container restarts
		t.Errorf("mounted on %s, was on %s", again, path)
	}
	if st := r.status("new"); st["draining"] == nil {
		t.Errorf("the status does not say it: %v", st)
	}
	done := make(chan Drained, 1)
	go func() {
		d, _ := r.drain(time.Minute)
		done <- d
	}()
	r.unmount("other", "c2")
	r.unmount("used", "c1")
	r.unmount("used", "c4")
	if d := <-done; len(d.Left) != 0 {
		t.Errorf("left: %+v", d)
	}
	for _, v := range r.volumes() {
		if _, here := v.On(r.host.ID); here || r.attached() != 0 {
			t.Errorf("%s is still attached", v.Name)
		}
	}
	var undone Drained
	r.askFor("Drain", DrainRequest{Undo: true}, &undone)
	if undone.Draining {
		t.Errorf("not undone: %+v", undone)
	}
	if st := r.status("new"); st["draining"] != nil {
		t.Errorf("the status says after the end: %v", st)
	}
	r.mount("new", "c5")
	r.unmount("new", "c5")
	r.drain(time.Minute)
	r.refused("Mount", m{"Name": "new", "ID": "c5"}, "drained")
	r.stop()
	r.start()
	r.mount("new", "c6") // a restart takes volumes again
	r.unmount("new", "c6")
}

// What the kernel says is used is not let go of, whatever Docker says; and what EC2 alone knows to be here is found.
func TestADrainIsDoneOnlyWhenNothingIsAttachedAnyMore(t *testing.T) {
	r := newRig(t)
	r.create("held")
	r.create("stray")
	held := r.hold(r.mount("held", "c1"))
	r.unmount("held", "c1")
	d, _ := r.drain(time.Second)
	if len(d.Left) != 1 || d.Left[0].Volume != "held" || d.Left[0].State != "draining" {
		t.Fatalf("left: %+v", d)
	}
	held()
	if d, _ := r.drain(time.Minute); len(d.Left) != 0 {
		t.Fatalf("left: %+v", d)
	}
	// By a process that died, or a person.
	c, err := r.plan().cloud(r.log)
	if err != nil {
		t.Fatal(err)
	}
	vol, err := c.ByName(t.Context(), "stray")
	if err == nil {
		err = c.Attach(t.Context(), vol)
	}
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := r.drain(time.Minute); len(d.Left) != 0 {
		t.Errorf("left: %+v", d)
	}
	for _, v := range r.volumes() {
		if _, here := v.On(r.host.ID); here {
			t.Errorf("%s is still attached", v.Name)
		}
	}
}

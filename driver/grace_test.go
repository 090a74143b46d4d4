package driver

import (
	"testing"
	"time"
)

// A container that restarts after hours of use finds its volume in place, also when it has restarted before.
func TestTheGraceBeginsAnewAfterEveryUse(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace = 8 * time.Second })
	r.create("pgdata")
	for _, id := range []string{"c1", "c2", "c3", "c4"} {
		r.mount("pgdata", id)
		time.Sleep(5 * time.Second) // two of these are longer than the grace
		r.unmount("pgdata", id)
	}
	if n := r.attached(); n != 1 {
		t.Errorf("right after the last use the volume is attached %d times", n)
	}
	if n := r.calls(); n["AttachVolume"] != 1 || n["DetachVolume"] != 0 {
		t.Errorf("four uses with no time between them took the calls %v", n)
	}
	r.eventually("detached after the grace", func() bool { return r.attached() == 0 })
}

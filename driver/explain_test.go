package driver

import (
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// explained asks what is known of a volume, and checks that it is said with these words.
func (r *rig) explained(name string, words ...string) Explanation {
	r.t.Helper()
	var e Explanation
	r.askFor("Explain", HolderRequest{name}, &e)
	text := strings.Join(append(e.Follows, e.WaysOut...), "\n")
	for _, f := range e.Facts {
		text += "\n" + f.Source + " " + f.What + " " + f.Says
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("%s is explained without %q:\n%s", name, w, text)
		}
	}
	if len(e.Follows) == 0 || e.Host != r.host.ID {
		r.t.Errorf("%s: %+v", name, e)
	}
	return e
}

func TestAVolumeIsExplainedByKernelCloudAndLedgerSideBySide(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace = time.Hour; t.HandOver = 500 * time.Millisecond })
	r.create("db")
	if e := r.explained("db", "kernel device none", "cloud attachment none", "none: it is formatted", "ledger uses none", "memory state free", "nobody has it"); len(e.WaysOut) != 0 || e.Refused != nil {
		t.Errorf("a free volume: %+v", e)
	}
	path := r.mount("db", "container-1")
	release := r.hold(path)
	id := r.status("db")["id"].(string)
	for _, nameOrID := range []string{"db", id} {
		e := r.explained(nameOrID, "serial vol", "kernel mounted", "of the inodes", "attached to "+r.host.ID+", this host", "ledger uses 1", "agree")
		if e.Volume != "db" || e.ID != id || len(e.WaysOut) != 0 {
			t.Errorf("a volume in use: %+v", e)
		}
	}
	r.refused("Remove", m{"Name": "db"}, "db")
	if e := r.explained("db"); e.Refused == nil || e.Refused.Call != "remove" || !strings.Contains(e.Refused.Text, "db") || time.Since(e.Refused.At) > patient {
		t.Errorf("the last refusal: %+v", e.Refused)
	}
	r.unmount("db", "container-1")
	r.eventually("draining", func() bool { return r.status("db")["state"] == string(phaseDraining) })
	r.explained("db", "not by blockvol", "still has it", "docker ps -a --filter volume=db", "letting go")
	release()
	r.eventually("free", func() bool { return r.status("db")["state"] == string(phaseAttached) })
	r.explained("db", "nobody uses it")
}

func TestAVolumeOfAnotherHostIsExplainedByWhatThatOneIs(t *testing.T) {
	r := newRig(t)
	r.create("db")
	r.filled("other")
	holder := r.leaveOn(ec2sim.Instance{}, "other")
	r.explained("other", "instance "+holder+" is running", "so this host cannot", "--stop-instance")
	r.power(holder, ec2sim.StateStopped)
	if e := r.explained("other", "dead", "blockvol detach other"); len(e.WaysOut) != 1 {
		t.Errorf("of a dead holder: %+v", e)
	}
	if a, err := r.ask(t.Context(), "Explain", HolderRequest{"nobody"}); err != nil || !strings.Contains(a.Error, "nobody") {
		t.Errorf("a volume that does not exist: %+v, %v", a, err)
	}
	if a, err := r.ask(t.Context(), "Explain", HolderRequest{"../x"}); err != nil || !strings.Contains(a.Error, "not allowed") {
		t.Errorf("a name that no volume can have: %+v, %v", a, err)
	}
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "DescribeVolumes", Code: "UnauthorizedOperation", Times: -1}); err != nil {
		t.Fatal(err)
	}
	r.explained("db", "cloud volume no answer", "serial vol")
	r.sim.ClearFaults()
}

func TestAVolumeWhoseSourcesDisagreeIsExplainedWithTheWayOut(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.HandOver = time.Hour })
	r.create("db")
	r.mount("db", "c1")
	r.forceDetach("db")
	r.eventually("the device is gone", func() bool { return r.attached() == 0 })
	r.explained("db", "kernel device none", "ledger uses 1", "runbooks.md")
	r.unmount("db", "c1")
}

package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// damages are the ways in which a ledger, or what lies beside it, may be found at a start.
var damages = map[string]func(path string) error{
	"missing":         os.Remove,
	"garbage":         func(p string) error { return os.WriteFile(p, []byte("{garbage"), 0o600) },
	"empty":           func(p string) error { return os.Truncate(p, 0) },
	"truncated":       func(p string) error { return os.Truncate(p, 40) },
	"from the future": func(p string) error { return os.WriteFile(p, []byte(`{"schema":99,"volumes":{}}`), 0o600) },
}

// undecided sends a Get that must be cut: any answer would be taken for "does not exist".
func (r *rig) undecided(name string) {
	r.t.Helper()
	if status, body := r.post("Get", `{"Name":"`+name+`"}`); status != 0 {
		r.t.Errorf("Get of %s was answered: %d %s", name, status, body)
	}
}

// The settings may change while the list of volumes is lost, and Docker still has records of them.
func TestAHostThatLostItsLedgerStillKnowsWhoseItsVolumesAre(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.create("pgdata")
			r.stop()
			ours := r.settings.Cluster
			if err := damage(filepath.Join(r.state, "ledger.json")); err != nil {
				t.Fatal(err)
			}
			r.settings.Cluster = "another"
			for range 2 { // the first start has written a ledger that can be read
				r.start()
				r.undecided("pgdata")
				r.refused("Mount", m{"Name": "pgdata", "ID": "c1"}, "another", ours, "set the old values again")
				r.stop()
			}
			r.settings.Cluster = ours
			r.start()
			if st := r.status("pgdata"); st["error"] != nil {
				t.Errorf("with the old settings Get tells %v", st)
			}
		})
	}
}

func TestWithoutLedgerAndIdentityAbsenceIsNoFactBeforeTheClusterShowsAVolume(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	r.stop()
	ours := r.settings.Cluster
	for _, file := range []string{"ledger.json", "identity.json"} {
		if err := damages["garbage"](filepath.Join(r.state, file)); err != nil {
			t.Fatal(err)
		}
	}
	r.settings.Cluster = "empty"
	for range 2 {
		r.start()
		r.eventually("ready", func() bool { return r.manager.ready(t.Context()) == nil })
		r.undecided("pgdata")
		r.refused("Create", m{"Name": "pgdata", "Opts": m{"size": "1"}}, "not created", "identity.json", "empty")
		r.stop()
	}
	r.settings.Cluster = ours
	r.start()
	if st := r.status("pgdata"); st["error"] != nil {
		t.Errorf("with the right settings Get tells %v", st)
	}
	r.refused("Get", m{"Name": "nothing"}, "there is no volume") // a fact again
	r.stop()
	if id, err := readIdentity(filepath.Join(r.state, "identity.json")); err != nil || id.Cluster != ours {
		t.Errorf("the identity is %v, %v", id, err)
	}
}

func TestAHostWithoutVolumesMayChangeItsCluster(t *testing.T) {
	r := newRig(t)
	for _, cluster := range []string{"first", "second"} {
		r.stop()
		r.settings.Cluster = cluster
		r.start()
		r.refused("Get", m{"Name": "nothing"}, "there is no volume")
	}
	r.create("pgdata")
	r.stop()
	r.settings.Cluster = "third"
	r.start()
	if said, _ := r.status("pgdata")["error"].(string); !strings.Contains(said, "second") {
		t.Errorf("Get tells %q", said)
	}
}

// Nobody on this host may ever ask for a volume that another host has removed; it is not listed for ever all the same.
func TestAVolumeThatAnotherHostRemovedIsListedNoMore(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	r.twin().must("Remove", m{"Name": "pgdata"})
	r.eventually("not listed", func() bool { list, _ := r.must("List", m{})["Volumes"].([]any); return len(list) == 0 })
	r.eventually("forgotten", func() bool { r.must("List", m{}); return !r.manager.ledger.knows() })
}

// What a lost ledger may have named is a volume of the cluster: once those have been listed, the ledger is as good as the lost one.
func TestALostLedgerIsWholeAgainWhenTheClusterWasListed(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	r.twin().create("shared") // Docker has a record of it here, too
	r.must("Get", m{"Name": "shared"})
	r.stop()
	ours := r.settings.Cluster
	if err := damages["truncated"](filepath.Join(r.state, "ledger.json")); err != nil {
		t.Fatal(err)
	}
	r.start()
	if !r.manager.ledger.lost() {
		t.Error("the ledger is not known to be lost")
	}
	r.eventually("whole again", func() bool { return !r.manager.ledger.lost() })
	r.stop()
	for _, name := range []string{"pgdata", "shared"} {
		if !r.manager.ledger.has(name) {
			t.Errorf("the ledger does not name %s", name)
		}
	}
	r.settings.Cluster = "another"
	r.start()
	for _, name := range []string{"pgdata", "shared"} { // what is known is answered from memory
		if said, _ := r.status(name)["error"].(string); !strings.Contains(said, ours) {
			t.Errorf("Get of %s tells %q", name, said)
		}
	}
	r.stop()
	r.settings.Cluster = ours
	r.start()
	if !r.manager.ledger.trusted {
		t.Error("the next process does not trust the ledger")
	}
}

func TestAHostThatLostTheLedgerOfAnEmptyClusterMayChangeIt(t *testing.T) {
	r := newRig(t)
	r.refused("Get", m{"Name": "nothing"}, "there is no volume") // the identity is written down
	r.stop()
	if err := damages["garbage"](filepath.Join(r.state, "ledger.json")); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.eventually("whole again", func() bool { return !r.manager.ledger.lost() })
	r.stop()
	r.settings.Cluster = "another"
	r.start()
	r.refused("Get", m{"Name": "nothing"}, "there is no volume")
}

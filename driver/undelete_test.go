package driver

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// undeletes asks for a volume to be brought back, and returns the error and whether it was refused.
func (r *rig) undeletes(volume, name string) (text string, refused bool) {
	r.t.Helper()
	a, err := r.ask(r.t.Context(), "Undelete", UndeleteRequest{Volume: volume, Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return a.Error, a.Refused
}

func (r *rig) undeletable() map[string]GivenUpRow {
	r.t.Helper()
	var rows GivenUpRows
	r.askFor("GivenUp", GivenUpRequest{}, &rows)
	byID := map[string]GivenUpRow{}
	for _, v := range rows.Volumes {
		byID[v.ID] = v
	}
	return byID
}

// said checks an error's words.
func said(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range append(words, "") {
		if text == "" || !strings.Contains(text, w) {
			t.Errorf("the error %q does not say %q", text, w)
		}
	}
}

func TestARemovedVolumeIsBroughtBackAsItWas(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = 2 * time.Hour
	r.start()
	two := r.twin()
	r.create("db", "tag.team", "shop", "mount-options", "noatime")
	id := r.status("db")["id"].(string)
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.unmount("db", "c1")
	r.remove("db")
	row := r.undeletable()[id]
	if row.Name != "db" || row.End != EndRemoved || row.Since == nil || row.Until == nil || row.Left <= 3600 || row.Left > 7200 || row.Tags["team"] != "shop" {
		t.Errorf("%+v", row)
	}
	// On another host, and once more.
	for range 2 {
		var got AdoptedVolume
		two.askFor("Undelete", UndeleteRequest{Volume: "db"}, &got)
		if got.ID != id || got.Name != "db" {
			t.Fatalf("%+v", got)
		}
		if got := two.undeletable(); len(got) != 0 {
			t.Errorf("can still be brought back: %+v", got)
		}
		text, _ := two.undeletes("db", "")
		said(t, text, `"db" exists`, id, "nothing to bring back")
		text, _ = two.undeletes(id, "again")
		said(t, text, id, `as "db"`, "nothing to bring back")
		two.eventually("it holds what it did", func() bool {
			res, err := two.try("Mount", m{"Name": "db", "ID": "c2"})
			return err == nil && read(t, filepath.Join(res["Mountpoint"].(string), "row")) == "42"
		})
		if st := two.status("db"); st["mount-options"] != "noatime" && st["mountOptions"] != "noatime" && two.volumes()[0].Attrs["mount-options"] != "noatime" {
			t.Errorf("its options are gone: %v", st)
		}
		two.unmount("db", "c2")
		two.remove("db")
	}
	r.eventually("the first host has it as well", func() bool {
		text, _ := r.undeletes(id, "elsewhere")
		return text == "" && r.has("elsewhere", id)
	})
	if n := r.calls()["DeleteVolume"]; n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

func TestWhatCannotBeBroughtBackIsToldWithTheWayOut(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = time.Hour
	r.start()
	r.create("db")
	first := r.status("db")["id"].(string)
	r.remove("db")
	r.create("db", "size", "2")
	second := r.status("db")["id"].(string)
	// The name is that of another one.
	text, refused := r.undeletes("db", "")
	said(t, text, first, second, `the name "db"`, "blockvol undelete "+first+" NEWNAME")
	if !refused {
		t.Error("that is no refusal")
	}
	if text, _ := r.undeletes(first, "db"); !strings.Contains(text, second) {
		t.Errorf("by ID: %q", text)
	}
	// Two of one name.
	r.remove("db")
	text, refused = r.undeletes("db", "")
	said(t, text, "2 volumes", first, second, "1 GiB", "2 GiB", "blockvol undelete VOLUME-ID")
	if !refused {
		t.Error("that is no refusal")
	}
	stranger := r.there(foreign(t, "mkfs.ext4", "-q"), map[string]string{"Name": "theirs"})
	r.create("living")
	living := r.status("living")["id"].(string)
	for _, x := range []struct {
		volume, name string
		words        []string
	}{
		{"nobody", "", []string{`"nobody"`, "none was removed", "--ls", "--recycle-bin"}},
		{"living", "", []string{"exists", living, "nothing to bring back"}},
		{living, "x1", []string{"exists", `"living"`}},
		{first, "a/b", []string{"a/b"}},
		{"vol-0123456789abcdef0", "", []string{"vol-0123456789abcdef0", "not in the Recycle Bin"}},
		{stranger, "x2", []string{stranger, "not in the Recycle Bin"}},
		{"released:db", "", []string{"released:db"}},
		{"", "", []string{"no volume of the name"}},
	} {
		text, _ := r.undeletes(x.volume, x.name)
		said(t, text, x.words...)
	}
	other := &ec2sim.Instance{Zone: "us-sim-1b"}
	made, err := r.sim.AddInstance(*other)
	if err != nil {
		t.Fatal(err)
	}
	far := *r
	far.host, far.state = made, filepath.Join(t.TempDir(), "far")
	far.start()
	text, _ = far.undeletes(first, "x3")
	said(t, text, first, "on a host there")
	if got := r.undeletable(); len(got) != 2 {
		t.Errorf("can be brought back: %+v", got)
	}
	if vols := r.volumes(); len(vols) != 1 {
		t.Errorf("the cluster has %+v", vols)
	}
	r.askFor("Undelete", UndeleteRequest{Volume: second, Name: "db"}, &AdoptedVolume{})
	r.askFor("Undelete", UndeleteRequest{Volume: "db", Name: "db-old"}, &AdoptedVolume{}) // one is left of the name
	if !r.has("db-old", first) || !r.has("db", second) {
		t.Error("they are not what they were said to be")
	}
}

// What was kept comes back in the same way, and is kept again when it is removed.
func TestAKeptVolumeIsBroughtBackToo(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.start()
	r.create("db", "reclaim", "retain")
	id := r.status("db")["id"].(string)
	for range 2 {
		r.remove("db")
		if row := r.undeletable()[id]; row.End != EndKept || row.Until != nil || row.Since == nil {
			t.Errorf("%+v", row)
		}
		r.askFor("Undelete", UndeleteRequest{Volume: "db"}, &AdoptedVolume{})
		if r.status("db")["id"] != id || r.status("db")["reclaim"] != "retain" {
			t.Errorf("%v", r.status("db"))
		}
	}
}

func TestADeletedVolumeComesBackFromTheRecycleBin(t *testing.T) {
	t.Parallel()
	r := newMachine(t, func(t *Timing) { t.Purge = 500 * time.Millisecond })
	l := r.sim.Limits()
	l.Retention = []ec2sim.Retention{{Resource: "volume", For: time.Hour}}
	r.sim.SetLimits(l)
	r.start()
	// Deleted at once: it had its name.
	r.create("db")
	id := r.status("db")["id"].(string)
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.unmount("db", "c1")
	r.remove("db")
	var bin GivenUpRows
	r.eventually("it is in the bin", func() bool {
		r.askFor("GivenUp", GivenUpRequest{RecycleBin: true}, &bin)
		return len(bin.Volumes) == 1
	})
	if v := bin.Volumes[0]; v.ID != id || v.End != EndRecycled || v.Until == nil || v.SizeGiB != 1 {
		t.Errorf("%+v", v)
	}
	r.create("db", "size", "2")
	text, _ := r.undeletes(id, "")
	said(t, text, id, `the name "db"`, "NEWNAME")
	if row := r.undeletable()[id]; row.End != EndKept {
		t.Errorf("it is neither in the bin nor kept: %+v", row)
	}
	r.askFor("Undelete", UndeleteRequest{Volume: id, Name: "old"}, &AdoptedVolume{})
	r.eventually("it holds what it did", func() bool {
		res, err := r.try("Mount", m{"Name": "old", "ID": "c2"})
		return err == nil && read(t, filepath.Join(res["Mountpoint"].(string), "row")) == "42"
	})
	r.unmount("old", "c2")
	r.remove("old")
	r.eventually("deleted", func() bool { return !r.has("old", id) })
	r.eventually("it comes back under the name that it had last", func() bool { text, _ := r.undeletes(id, ""); return text == "" && r.has("old", id) })
	// Deleted for good after its time: it had been given up.
	r.stop()
	r.settings.DeleteDelay = time.Second
	r.start()
	r.remove("old")
	r.eventually("purged", func() bool { return len(r.undeletable()) == 0 })
	r.eventually("it is brought back", func() bool { text, _ := r.undeletes(id, ""); return text == "" })
	if !r.has("old", id) {
		t.Error("it has not its name")
	}
}

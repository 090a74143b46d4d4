package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// setting sets the rig's settings as the environment of a plugin does, beside those that it has.
func (r *rig) setting(env map[string]string) {
	r.t.Helper()
	env["CLUSTER"] = r.settings.Cluster
	s, err := ReadSettings(func(name string) string { return env[name] })
	if err != nil {
		r.t.Fatal(err)
	}
	r.settings.DefaultOptions, r.settings.Profiles, r.settings.MaxSizeGiB = s.DefaultOptions, s.Profiles, s.MaxSizeGiB
}

// volume returns what matters here of the volume of a name as EC2 has them.
func (r *rig) volume(name string) (tags map[string]string) {
	r.t.Helper()
	for _, v := range r.volumes() {
		if v.Name == name {
			tags = map[string]string{"type": v.Type, "profile": v.Attrs["profile"], "fencing": v.Attrs["fencing"], "tier": v.Tags["tier"]}
		}
	}
	return tags
}

func TestAVolumeIsMadeByItsProfileWhichIsKeptAndShown(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.setting(map[string]string{"DEFAULT_OPTIONS": "size=2 tag.tier=none", "PROFILES": "gold: type=io2 size=4 iops=200 tag.tier=gold fencing=never; silver*: type=gp2"})
	r.start()
	r.must("Create", m{"Name": "one", "Opts": m{"profile": "gold"}})
	r.must("Create", m{"Name": "two"})
	r.must("Create", m{"Name": "three", "Opts": m{"profile": "gold", "fencing": "stopped", "type": "gp3", "size": "3"}})
	r.must("Create", m{"Name": "four", "Opts": m{"profile": "none"}})
	for name, want := range map[string]map[string]string{
		"one":   {"type": "io2", "profile": "gold", "fencing": "never", "tier": "gold"},
		"two":   {"type": "gp2", "profile": "silver", "fencing": "", "tier": "none"},
		"three": {"type": "gp3", "profile": "gold", "fencing": "stopped", "tier": "gold"},
		"four":  {"type": "gp3", "profile": "", "fencing": "", "tier": "none"},
	} {
		got := r.volume(name)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, got[k], v)
			}
		}
		if shown, _ := r.status(name)["profile"].(string); shown != want["profile"] {
			t.Errorf("%s: inspect shows the profile %q", name, shown)
		}
	}
	var rows VolumeRows
	r.askFor("List", NoRequest{}, &rows)
	for _, row := range rows.Volumes {
		if row.Profile != r.volume(row.Name)["profile"] {
			t.Errorf("listed %+v", row)
		}
	}
	r.must("Create", m{"Name": "one", "Opts": m{"profile": "gold"}})
	r.refused("Create", m{"Name": "one", "Opts": m{"profile": "silver"}}, "one", "profile is gold, asked for silver")
	r.refused("Create", m{"Name": "five", "Opts": m{"profile": "platinum"}}, "platinum", "gold, silver")
	r.refused("Create", m{"Name": "five", "Opts": m{"access-mode": "rwx"}}, "rwx", "EFS")
	if n := len(r.volumes()); n != 4 {
		t.Errorf("%d volumes", n)
	}
	r.create("six", "access-mode", "ReadWriteOnce")
}

func TestProfilesAreSetWhileThePluginRunsAndOutliveIt(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.setting(map[string]string{"PROFILES": "gold: type=gp2; silver*: type=gp3"})
	r.start()
	yes, no := true, false
	list := func() string {
		t.Helper()
		var rows ProfileRows
		r.askFor("Profiles", NoRequest{}, &rows)
		var all []string
		for _, row := range rows.Profiles {
			text := row.Name + " " + row.From
			if row.Default {
				text += " default"
			}
			for _, k := range row.Keys() {
				text += " " + k + "=" + row.Options[k]
			}
			all = append(all, text)
		}
		return strings.Join(all, "; ")
	}
	is := func(want string) {
		t.Helper()
		if got := list(); got != want {
			t.Errorf("the profiles are\n%s, want\n%s", got, want)
		}
	}
	is("gold setting type=gp2; silver setting default type=gp3")
	r.askFor("SetProfile", SetProfileRequest{Name: "gold", Options: m2s("ebs-type", "standard")}, new(ProfileRows))
	r.askFor("SetProfile", SetProfileRequest{Name: "cold", Options: m2s("type", "sc1", "size", "125"), Default: &yes}, new(ProfileRows))
	want := "cold this host default size=125 type=sc1; gold this host, over setting type=standard; silver setting type=gp3"
	is(want)
	r.create("one", "profile", "gold")
	r.must("Create", m{"Name": "two"})
	if a, b := r.volume("one"), r.volume("two"); a["type"] != "standard" || b["type"] != "sc1" || b["profile"] != "cold" {
		t.Errorf("made were %v and %v", a, b)
	}
	r.stop()
	r.start()
	is(want)
	r.askFor("SetProfile", SetProfileRequest{Name: "silver", Options: m2s("type", "gp2"), Default: &yes}, new(ProfileRows))
	is("cold this host size=125 type=sc1; gold this host, over setting type=standard; silver this host, over setting default type=gp2")
	r.askFor("SetProfile", SetProfileRequest{Name: "silver", Options: m2s("type", "gp3")}, new(ProfileRows)) // stays the default
	is("cold this host size=125 type=sc1; gold this host, over setting type=standard; silver this host, over setting default type=gp3")
	r.askFor("SetProfile", SetProfileRequest{Name: "silver", Options: m2s("type", "gp3"), Default: &no}, new(ProfileRows))
	is("cold this host size=125 type=sc1; gold this host, over setting type=standard; silver this host, over setting type=gp3")
	for _, name := range []string{"cold", "silver", "gold"} {
		r.askFor("RemoveProfile", RemoveProfileRequest{Name: name}, new(ProfileRows))
	}
	is("gold setting type=gp2; silver setting default type=gp3")
	if got := r.volume("one"); got["profile"] != "gold" || got["type"] != "standard" {
		t.Errorf("a volume that exists was changed: %v", got)
	}
}

func m2s(pairs ...string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

func TestWhatCannotBeAProfileIsRefusedAndLeavesTheOthersAsTheyAre(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.setting(map[string]string{"PROFILES": "gold: type=gp2"})
	r.start()
	var rows ProfileRows
	r.askFor("SetProfile", SetProfileRequest{Name: "mine", Options: m2s("type", "gp3")}, &rows)
	path := filepath.Join(r.state, "profiles.json")
	before := read(t, path)
	for _, c := range []struct {
		verb  string
		req   any
		words []string
	}{
		{"SetProfile", SetProfileRequest{Name: "Gold"}, []string{`"Gold"`, "lower-case"}},
		{"SetProfile", SetProfileRequest{Name: "none"}, []string{"no profile"}},
		{"SetProfile", SetProfileRequest{Name: "mine", Options: m2s("colour", "red")}, []string{"mine", "colour"}},
		{"SetProfile", SetProfileRequest{Name: "mine", Options: m2s("type", "io9")}, []string{"io9"}},
		{"SetProfile", SetProfileRequest{Name: "mine", Options: m2s("profile", "gold")}, []string{"no default"}},
		{"RemoveProfile", RemoveProfileRequest{Name: "gold"}, []string{"gold", "PROFILES"}},
		{"RemoveProfile", RemoveProfileRequest{Name: "platinum"}, []string{"platinum", "profile ls"}},
	} {
		a, err := r.ask(t.Context(), c.verb, c.req)
		if err != nil || a.Error == "" {
			t.Errorf("%s %+v: %+v %v", c.verb, c.req, a, err)
		}
		for _, w := range c.words {
			if !strings.Contains(a.Error, w) {
				t.Errorf("%s %+v: %q is missing in %q", c.verb, c.req, w, a.Error)
			}
		}
	}
	if after := read(t, path); after != before {
		t.Errorf("the file was changed to %s", after)
	}
	// A file that cannot be understood is not guessed at: what a new volume would be like is not known.
	for _, bad := range []string{"{", `{"schema": 2, "profiles": {}}`} {
		write(t, path, bad)
		r.refused("Create", m{"Name": "db"}, "profiles.json", "repair or remove")
		if a, err := r.ask(t.Context(), "SetProfile", SetProfileRequest{Name: "mine"}); err != nil || !strings.Contains(a.Error, "profiles.json") {
			t.Errorf("set over a file that cannot be read: %+v %v", a, err)
		}
		if got := read(t, path); got != bad {
			t.Errorf("the file was changed to %s", got)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.create("db", "profile", "gold")
}

func TestNoVolumeIsMadeLargerThanTheSettingAllows(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.start()
	r.create("old", "size", "8")
	r.stop()
	r.setting(map[string]string{"MAX_SIZE": "4GiB"})
	r.start()
	r.calls()
	r.refused("Create", m{"Name": "db", "Opts": m{"size": "5"}}, "db", "5 GiB", "MAX_SIZE", "4 GiB")
	r.refused("Create", m{"Name": "db"}, "16 GiB", "MAX_SIZE")
	if n := r.calls()["CreateVolume"]; n != 0 {
		t.Errorf("CreateVolume was sent %d times", n)
	}
	r.must("Create", m{"Name": "old", "Opts": m{"size": "8"}}) // it is there
	r.create("db", "size", "4")
}

func TestSettingsOfProvisioningAreToldWhenTheyAreWrong(t *testing.T) {
	env := map[string]string{"CLUSTER": "c", "PROFILES": "gold: tpye=io2", "MAX_SIZE": "much"}
	_, err := ReadSettings(func(n string) string { return env[n] })
	if err == nil {
		t.Fatal("accepted")
	}
	for _, w := range []string{"PROFILES", "gold", "tpye", "MAX_SIZE", `"much"`} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	env = map[string]string{"CLUSTER": "c", "PROFILES": `{"gold*": {"type": "io2"}}`, "MAX_SIZE": "1T"}
	s, err := ReadSettings(func(n string) string { return env[n] })
	if d, ok := s.Profiles.Default(); err != nil || !ok || d.Name != "gold" || d.Options["type"] != "io2" || s.MaxSizeGiB != 1024 {
		t.Errorf("%+v, %v", s, err)
	}
}

// The settings and options in the page about profiles work as they stand.
func TestTheExamplesOfProfilesAreAccepted(t *testing.T) {
	found := 0
	for _, line := range strings.Split(read(t, "../docs/profiles.md"), "\n") {
		_, setting, ok := strings.Cut(line, "docker plugin set blockvol PROFILES='")
		if !ok {
			continue
		}
		found++
		env := map[string]string{"CLUSTER": "c", "PROFILES": strings.TrimSuffix(setting, "'")}
		s, err := ReadSettings(func(n string) string { return env[n] })
		if d, has := s.Profiles.Default(); err != nil || !has || d.Name != "silver" || s.Profiles["gold"].Options["iops"] != "10000" {
			t.Errorf("%s: %v, %+v", line, err, s.Profiles)
		}
	}
	if found != 2 {
		t.Errorf("%d examples", found)
	}
}

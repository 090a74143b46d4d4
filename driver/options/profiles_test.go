package options

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

// parsed parses a setting PROFILES that must be accepted.
func parsed(t *testing.T, setting string, defaults m) Profiles {
	t.Helper()
	p, err := ParseProfiles(setting, defaults)
	if err != nil {
		t.Fatalf("%s: %v", setting, err)
	}
	return p
}

func TestProfilesAreReadFromShortTextAndFromJSONAlike(t *testing.T) {
	want := Profiles{
		"gold":   {Name: "gold", Options: m{"type": "io2", "iops": "10000", "encrypted": "true", "tag.Team": "a;b: c"}},
		"silver": {Name: "silver", Default: true, Options: m{"type": "gp3", "mkfs-options": "-m 0 -O 'bigalloc'"}},
		"plain":  {Name: "plain", Options: m{}},
	}
	for _, s := range []string{
		`gold: type=io2 IOPS=10000 encrypted=true "tag.Team=a;b: c"; silver*: type=gp3 "mkfs-options=-m 0 -O 'bigalloc'"; plain:`,
		` plain:;gold:type=io2 provisioned-iops=10000 encrypted=true 'tag.Team=a;b: c';silver*: type=gp3 mkfs_options="-m 0 -O 'bigalloc'";`,
		`{"gold": {"type": "io2", "iops": 10000, "encrypted": true, "tag.Team": "a;b: c"}, "silver*": {"type": "gp3", "mkfs-options": "-m 0 -O 'bigalloc'"}, "plain": {}}`,
	} {
		if got := parsed(t, s, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v\nwant %+v", s, got, want)
		}
	}
	if got := parsed(t, "  ", nil); len(got) != 0 {
		t.Errorf("nothing is read as %+v", got)
	}
}

func TestWhatIsWrongWithProfilesIsToldWithItsName(t *testing.T) {
	for _, c := range []struct {
		setting string
		parts   []string
	}{
		{"type=io2", []string{"type=io2", "gold: type=io2"}},
		{"gold type=io2 iops=1:2", []string{"does not begin with the name"}},
		{"gold: type=io2 silver: type=gp3", []string{"gold", `"silver:"`, "semicolons"}},
		{"gold: tpye=io2", []string{"gold", `"tpye"`, "did you mean type?"}},
		{"gold: type=io9", []string{"gold", "io9", "io2"}},
		{"gold: type=io2; gold: type=gp3", []string{"gold", "twice"}},
		{"gold*: type=io2; gold: type=gp3", []string{"gold", "twice"}},
		{"gold*: type=io2; silver*: type=gp3", []string{"gold", "silver", "default"}},
		{"gold: type=io2 type=gp3", []string{"gold", "type", "twice"}},
		{"gold: type=io2 ebs-type=gp3", []string{"gold", "type", "already"}},
		{"Gold: type=io2", []string{`"Gold"`, "lower-case"}},
		{"none: type=io2", []string{"none", "no profile"}},
		{": type=io2", []string{`""`, "name of a profile"}},
		{"gold: profile=silver", []string{"gold", "profile", "star"}},
		{"gold: help", []string{"gold", "help"}},
		{"gold: 'type=io2", []string{"quote", "not closed"}},
		{"gold: fstype=xfs mkfs-options=-Z", []string{"gold", "mkfs-options", "-Z"}},
		{"gold: access-mode=rwx", []string{"gold", "rwx", "EFS"}},
		{`{"gold": {"iops": 1.5}}`, []string{"gold", "iops", "1.5"}},
		{`{"gold": {"type": ["io2"]}}`, []string{"gold", "type", "neither a text nor a number"}},
		{`{"gold": "type=io2"}`, []string{"JSON object of profiles"}},
		{`{"gold": {}} x`, []string{"JSON object of profiles"}},
	} {
		p, err := ParseProfiles(c.setting, nil)
		if err == nil {
			t.Errorf("%s is read as %+v", c.setting, p)
			continue
		}
		for _, part := range c.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is missing in %v", c.setting, part, err)
			}
		}
	}
	// What a request has to complete is no mistake of the profile; what can never fit with the defaults is.
	parsed(t, "cold: type=st1; fast: type=io2; thr: throughput=1000", nil)
	if _, err := ParseProfiles("gold: mkfs-options='-m reflink=0'", m{"fstype": "ext4"}); err == nil || !strings.Contains(err.Error(), "profile gold") {
		t.Errorf("options of xfs for ext4: %v", err)
	}
}

func TestARequestGoesOverItsProfileAndThatOverTheDefaults(t *testing.T) {
	p := parsed(t, "gold: type=io2 iops=10000 tag.tier=gold; silver*: type=gp2; xfs: fstype=xfs mkfs-options='-m reflink=0'; clear: encrypted=false", nil)
	defaults := m{"size": "50", "type": "gp3", "iops": "4000", "tag.env": "prod", "kms-key-id": "alias/db"}
	get := func(request m) Options {
		t.Helper()
		o, err := Resolve(request, defaults, p)
		if err != nil {
			t.Fatalf("%v: %v", request, err)
		}
		return o
	}
	o := get(m{"profile": "Gold"})
	if o.Profile != "gold" || o.SizeGiB != 50 || o.Type != "io2" || o.IOPS != 10000 || !maps.Equal(o.Tags, m{"env": "prod", "tier": "gold"}) || !o.Given("profile") || o.Given("type") {
		t.Errorf("gold: %+v", o)
	}
	if a := o.Attrs(); a["profile"] != "gold" {
		t.Errorf("kept are %v", a)
	}
	o = get(m{"profile": "gold", "size": "20", "iops": "500", "tag.tier": "mine"})
	if o.SizeGiB != 20 || o.Type != "io2" || o.IOPS != 500 || o.Tags["tier"] != "mine" {
		t.Errorf("options of the request go first: %+v", o)
	}
	if o = get(m{"storageClass": "gold", "type": "gp3"}); o.Type != "gp3" || o.IOPS != 0 {
		t.Errorf("iops of the profile belong to its type: %+v", o)
	}
	if o = get(nil); o.Profile != "silver" || o.Type != "gp2" || o.IOPS != 0 || o.Given("profile") {
		t.Errorf("the default profile, without the iops of another type: %+v", o)
	}
	o = get(m{"profile": "none"})
	if o.Profile != "" || o.Type != "gp3" || o.IOPS != 4000 {
		t.Errorf("none: %+v", o)
	}
	if _, ok := o.Attrs()["profile"]; ok {
		t.Error("no profile is kept as one")
	}
	if o = get(m{"profile": "xfs"}); o.FSType != "xfs" || len(o.MkfsOptions) == 0 {
		t.Errorf("xfs: %+v", o)
	}
	if o = get(m{"profile": "xfs", "fs": "ext4"}); o.FSType != "ext4" || o.MkfsOptions != nil {
		t.Errorf("mkfs-options of the profile belong to its filesystem: %+v", o)
	}
	if o = get(m{"profile": "clear"}); o.Encrypted || o.KMSKeyID != "" {
		t.Errorf("clear: %+v", o)
	}
}

func TestAProfileThatIsNotThereIsRefusedAndWhatAProfileCausesNamesIt(t *testing.T) {
	p := parsed(t, "gold: type=io2; silver: type=gp3; cold*: type=st1", nil)
	for _, c := range []struct {
		request m
		parts   []string
	}{
		{m{"profile": "platinum"}, []string{`"platinum"`, "cold, gold, silver, none"}},
		{m{"profile": "sliver"}, []string{"did you mean silver?"}},
		{m{"profile": "a b"}, []string{"not the name of a profile"}},
		{m{"profile": " "}, []string{"no value"}},
		{m{"profile": "gold"}, []string{"iops=N", "from profile gold: type", "by default: size=16GiB"}},
		{nil, []string{"125", "from profile cold: type"}},
	} {
		o, err := Resolve(c.request, nil, p)
		if err == nil {
			t.Errorf("%v: %+v", c.request, o)
			continue
		}
		for _, part := range c.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: %q is missing in %v", c.request, part, err)
			}
		}
	}
	refuse(t, m{"profile": "gold"}, nil, `"gold"`, "PROFILES", "blockvol profile set")
	if _, err := Resolve(nil, nil, Profiles{"bad": {Name: "bad", Default: true, Options: m{"size": "x", "colour": "red"}}}); err == nil ||
		strings.Count(err.Error(), "(from profile bad)") != 2 {
		t.Errorf("what is wrong inside of a profile: %v", err)
	}
	if _, err := ParseDefaults("profile=gold"); err == nil || !strings.Contains(err.Error(), "star") {
		t.Errorf("a profile in DEFAULT_OPTIONS: %v", err)
	}
}

func TestAccessModesThatEBSCannotKeepAreRefusedWithTheWayOut(t *testing.T) {
	for _, v := range []string{"rwo", "RWO", "ReadWriteOnce", "read-write-once", "SINGLE_NODE_WRITER"} {
		accept(t, m{"accessmode": v}, nil)
	}
	for v, parts := range map[string][]string{
		"rwx": {"rwx", "two hosts", "EFS"}, "ReadWriteMany": {"EFS"}, "ROX": {":ro", "EFS"}, "read-only-many": {":ro"}, "MULTI_NODE_MULTI_WRITER": {"EFS"},
		"ReadWriteOncePod": {"use rwo"}, "all": {"not an access mode", "rwo"}, "": {"no value"},
	} {
		refuse(t, m{"access_mode": v}, nil, append(parts, "access-mode")...)
	}
}

func FuzzProfiles(f *testing.F) {
	f.Add(`gold: type=io2 iops=10000; silver*: "mkfs-options=-m 0"`)
	f.Add(`{"gold*": {"type": "io2", "iops": 10000}}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseProfiles(s, nil)
		if err != nil {
			return
		}
		for name, one := range p {
			if CheckProfileName(name) != nil || one.Name != name {
				t.Fatalf("%q: the name %q became %q", s, name, one.Name)
			}
			again, err := NewProfile(name, one.Options, nil)
			if again.Default = one.Default; err != nil || !reflect.DeepEqual(again, one) {
				t.Fatalf("%q: %+v became %+v, %v", s, one, again, err)
			}
		}
	})
}

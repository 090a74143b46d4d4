package options

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cloud"
)

// exists is a volume to be changed.
func exists() cloud.Volume {
	return cloud.Volume{ID: "vol-1", Name: "db", SizeGiB: 10, Type: "gp3", IOPS: 3000, Throughput: 125,
		Attrs: map[string]string{"fs": "xfs", "fstype": "xfs", "subdir": "data", "fencing": "never"}, Tags: map[string]string{"Team": "db", "keep": "x"}}
}

func TestAChangeHoldsWhatTheVolumeDoesNotHaveYet(t *testing.T) {
	io2 := func(v *cloud.Volume) { v.Type, v.IOPS, v.Throughput = "io2", 5000, 0 }
	kept := func(v *cloud.Volume) { v.Attrs["reclaim"] = "retain" }
	for _, c := range []struct {
		is    func(*cloud.Volume)
		set   m
		unset []string
		want  Change
	}{
		{set: m{}, want: Change{}},
		{set: m{"size": "10GiB", "TYPE": "GP3", "iops": "3000", "throughput": "125MiB/s", "tag.Team": "db", "fencing": "never", "reclaim": "delete"}, want: Change{}},
		{set: m{"size": "20"}, want: Change{Form: cloud.Form{SizeGiB: 20}, List: []Changed{{"size", "10 GiB", "20 GiB"}}}},
		{set: m{"volume-size": "+1.5GiB"}, want: Change{Form: cloud.Form{SizeGiB: 12}, List: []Changed{{"size", "10 GiB", "12 GiB"}}}},
		{set: m{"size": "100", "type": "io2", "iops": "20000"},
			want: Change{Form: cloud.Form{SizeGiB: 100, Type: "io2", IOPS: 20000}, List: []Changed{{"size", "10 GiB", "100 GiB"}, {"type", "gp3", "io2"}, {"iops", "3000", "20000"}}}},
		{is: io2, set: m{"type": "gp3"}, want: Change{Form: cloud.Form{Type: "gp3"}, List: []Changed{{"type", "io2", "gp3"}, {"iops", "5000", "3000"}}}},
		{is: io2, set: m{"type": "gp3", "iops": "5000"}, want: Change{Form: cloud.Form{Type: "gp3", IOPS: 5000}, List: []Changed{{"type", "io2", "gp3"}, {"iops", "5000", "5000"}}}},
		{set: m{"iops": "4000", "throughput": "1000"},
			want: Change{Form: cloud.Form{IOPS: 4000, Throughput: 1000}, List: []Changed{{"iops", "3000", "4000"}, {"throughput", "125 MiB/s", "1000 MiB/s"}}}},
		{set: m{"reclaim": "retain", "mount-options": "noatime,allocsize=1m"},
			want: Change{Attrs: m{"reclaim": "retain", "mount-options": "noatime,allocsize=1m"}, List: []Changed{{"mount-options", "", "noatime,allocsize=1m"}, {"reclaim", "delete", "retain"}}}},
		{is: kept, set: m{"reclaim": "delete"}, want: Change{DropAttrs: []string{"reclaim"}, List: []Changed{{"reclaim", "retain", "delete"}}}},
		{unset: []string{"Fencing", "mount_options", "tag.Team", "tag.none"},
			want: Change{DropAttrs: []string{"fencing"}, DropTags: []string{"Team"}, List: []Changed{{"fencing", "never", ""}, {"tag.Team", `"db"`, ""}}}},
		{set: m{"tag.Team": "", "tag.new": "a b"}, want: Change{Tags: m{"Team": "", "new": "a b"}, List: []Changed{{"tag.Team", `"db"`, `""`}, {"tag.new", "", `"a b"`}}}},
	} {
		vol := exists()
		if c.is != nil {
			c.is(&vol)
		}
		got, err := ParseChange(vol, c.set, c.unset)
		if len(got.Attrs) == 0 {
			got.Attrs = nil
		}
		if len(got.Tags) == 0 {
			got.Tags = nil
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v without %v: %+v %v, want %+v", c.set, c.unset, got, err, c.want)
		}
	}
}

func TestAChangeThatIsNotPossibleIsRefusedWithTheWayOut(t *testing.T) {
	many := m{}
	for i := range 24 {
		many[fmt.Sprint("tag.k", i)] = "v"
	}
	standard := func(v *cloud.Volume) { v.Type, v.IOPS, v.Throughput = "standard", 0, 0 }
	for _, c := range []struct {
		is    func(*cloud.Volume)
		set   m
		unset []string
		words []string
	}{
		{set: m{"size": "5"}, words: []string{"size is 10 GiB", "can only grow", "5 GiB", "copy the files"}},
		{set: m{"size": "-5"}, words: []string{"size", "negative"}},
		{set: m{"size": "+ 5"}, words: []string{"size", "is not a size"}},
		{set: m{"size": "+x"}, words: []string{"size", "is not a size"}},
		{set: m{"size": "+0"}, words: []string{"more than 0"}},
		{set: m{"size": ""}, words: []string{"size: it has no value"}},
		{set: m{"size": "70000"}, words: []string{"size is 70000 GiB", "65536"}},
		{set: m{"type": "ext4"}, words: []string{"fstype=ext4"}},
		{set: m{"type": "io2"}, words: []string{"needs iops=N"}},
		{set: m{"type": "st1"}, words: []string{"size is 10 GiB: volumes of type st1 have 125"}},
		{set: m{"type": "standard"}, words: []string{"type standard", "choose another type"}},
		{is: standard, set: m{"size": "20"}, words: []string{"cannot change a volume of type standard", "copy the files"}},
		{set: m{"throughput": "2000"}, words: []string{"with 3000 IOPS at most 750 MiB/s", "iops=8000"}},
		{set: m{"iops": "9000"}, words: []string{"at most 5000 IOPS", "size=18GiB"}},
		{set: m{"fstype": "ext4"}, words: []string{"fstype cannot be changed", "copy the files"}},
		{set: m{"encrypted": "true", "uid": "5", "colour": "red"}, words: []string{"3 things", "encrypted cannot be changed", "uid cannot be changed", "chown", "colour", "What can be changed is size, type"}},
		{set: m{"mount-options": "commit=5"}, words: []string{"mount-options", "ext4", "this volume has xfs"}},
		{set: m{"mount-options": "ro"}, words: []string{"mount-options", "refused"}},
		{set: m{"mount-options": "context=" + strings.Repeat("a", 190) + ",fscontext=" + strings.Repeat("b", 190)}, words: []string{"mount-options has", "256"}},
		{set: m{"reclaim": "burn"}, words: []string{"reclaim", "burn", "delete or retain or snapshot"}},
		{set: m{"fencing": "maybe"}, words: []string{"fencing", "maybe"}},
		{set: m{"size": "20", "volume-size": "30"}, words: []string{"have different values"}},
		{set: m{"tag.Name": "x"}, words: []string{"tag.Name", "blockvol sets"}},
		{set: m{"tag.blockvol:cluster": "x"}, words: []string{"blockvol:"}},
		{set: many, words: []string{"26 tags are too many", "25"}},
		{unset: []string{"size"}, words: []string{"size always has a value", "size=VALUE"}},
		{unset: []string{"reclaim"}, words: []string{"reclaim always has a value"}},
		{unset: []string{"iops"}, words: []string{"iops always has a value"}},
		{unset: []string{"fstype"}, words: []string{"fstype cannot be changed"}},
		{unset: []string{"tag.Name"}, words: []string{"tag.Name", "blockvol sets"}},
		{unset: []string{"tag.blockvol:fs"}, words: []string{"blockvol:"}},
		{unset: []string{"fancing"}, words: []string{"did you mean fencing?"}},
		{set: m{"fencing": "never"}, unset: []string{"fence"}, words: []string{"fencing is set and taken away"}},
	} {
		vol := exists()
		if c.is != nil {
			c.is(&vol)
		}
		got, err := ParseChange(vol, c.set, c.unset)
		if !errors.Is(err, cloud.ErrInvalid) || !reflect.DeepEqual(got, Change{}) {
			t.Errorf("%v without %v: %+v, %v", c.set, c.unset, got, err)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v without %v: %q is missing in %q", c.set, c.unset, w, err)
			}
		}
	}
}

// Whoever adds an option decides whether it can be changed later; what is no attribute of its own name could not.
func TestEveryOptionCanBeChangedLaterOrTellsWhyNot(t *testing.T) {
	form := strings.Join(formNames, " ")
	for _, opt := range table {
		if opt.Changeable == (opt.fixed != "") || strings.HasSuffix(opt.fixed, ".") {
			t.Errorf("%s: changeable %v, and why not: %q", opt.Name, opt.Changeable, opt.fixed)
		}
		if !opt.Changeable || opt.Name == tagName || strings.Contains(form, opt.Name) {
			continue
		}
		value := ""
		for _, v := range strings.Split(opt.Values, ", ") { // one that is not the default
			if v != opt.Default {
				value = v
			}
		}
		if opt.Name == "mount-options" {
			value = "noatime"
		}
		vol := exists()
		vol.Attrs = map[string]string{"fstype": "ext4", nameSchedule: "0 3 * * *"}
		if c, err := ParseChange(vol, m{opt.Name: value}, nil); err != nil || c.Attrs[opt.Name] == "" || len(c.List) != 1 {
			t.Errorf("%s=%s: %+v, %v", opt.Name, value, c, err)
		}
	}
}

package options

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cloud"
)

func TestASpecHoldsWhatWasAskedForAndDependsOnNothingElse(t *testing.T) {
	r := m{"size": "50", "type": "gp3", "iops": "4000", "throughput": "500", "kms-key-id": "alias/db", "tag.team": "db", "fstype": "xfs", "subdir": "/", "mode": "1777", "uid": "0"}
	o := accept(t, r, nil)
	s := o.Spec("pgdata", "eu-central-1a")
	want := cloud.Spec{Name: "pgdata", SizeGiB: 50, Type: "gp3", IOPS: 4000, Throughput: 500, Encrypted: true, KMSKeyID: "alias/db", Zone: "eu-central-1a",
		Tags: m{"team": "db"}, Attrs: m{"fs": "none", "fstype": "xfs", "subdir": "/", "mode": "1777", "uid": "0"}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	other := accept(t, r, nil).Spec("pgdata", "eu-central-1b")
	other.Zone = s.Zone
	if !reflect.DeepEqual(s, other) {
		t.Error("two hosts build different specs")
	}
	s.Tags["x"], s.Attrs["x"] = "1", "1"
	if !reflect.DeepEqual(o.Spec("pgdata", "eu-central-1a"), want) {
		t.Error("a spec shares memory with the options")
	}
	if s := accept(t, m{"zone": "eu-central-1c"}, nil).Spec("a", "eu-central-1a"); s.Zone != "eu-central-1c" {
		t.Errorf("the volume would be made in %s, another zone than asked for", s.Zone)
	}
}

func TestOnlyAttributesThatMatterAreStored(t *testing.T) {
	if got, want := accept(t, m{"mode": "755"}, nil).Spec("a", "z").Attrs, (m{"fs": "none", "fstype": "ext4", "subdir": "data"}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAnotherHostReadsTheSameLayoutFromTheAttributes(t *testing.T) {
	for _, r := range []m{
		{}, {"uid": "0", "gid": "4294967294", "mode": "3770"}, {"subdir": "/"}, {"subdir": "a/b"}, {"fs": "xfs", "mkfs-options": "-m reflink=0 -d agcount=8"},
		{"mkfs-options": "-O 'bigalloc' -C 65536", "mount-options": `noatime,context="a:b:c:s0:c1,c2"`},
	} {
		o := accept(t, r, nil)
		got, err := FromAttrs(o.Spec("a", "z").Attrs)
		if err != nil || !reflect.DeepEqual(got, o.Layout()) {
			t.Errorf("%v: got %+v, %v, want %+v", r, got, err, o.Layout())
		}
	}
}

func TestAttributesThatCannotBeTrustedAreRefused(t *testing.T) {
	good := m{"fs": "ext4", "fstype": "ext4", "subdir": "data", "some-later-one": "x"}
	if _, err := FromAttrs(good); err != nil {
		t.Fatal(err)
	}
	for name, value := range (m{"fstype": "btrfs", "subdir": "../..", "mkfs-options": "-F", "mount-options": "bind", "uid": "x", "gid": "-1", "mode": "rwx"}) {
		bad := maps.Clone(good)
		bad[name] = value
		if l, err := FromAttrs(bad); err == nil || !strings.Contains(err.Error(), "blockvol:"+name) {
			t.Errorf("%s=%s: got %+v, %v", name, value, l, err)
		}
	}
	for _, name := range []string{"fstype", "subdir"} {
		bad := maps.Clone(good)
		delete(bad, name)
		if l, err := FromAttrs(bad); err == nil || !strings.Contains(err.Error(), "blockvol:"+name+" is missing") {
			t.Errorf("without %s: got %+v, %v", name, l, err)
		}
	}
}

func TestWhatDoesNotFitIntoATagIsRefused(t *testing.T) {
	path := strings.Repeat("d/", 127) + "dd"
	if len(path) != 256 {
		t.Fatal(len(path))
	}
	accept(t, m{"subdir": path}, nil)
	refuse(t, m{"subdir": path + "d"}, nil, "subdir has 257 characters", "256")
	options := []string{}
	for _, o := range append(mountOptions[""], mountOptions["ext4"]...) {
		if o.value == nil {
			options = append(options, o.name)
		}
	}
	refuse(t, m{"mount-options": strings.Join(options, ",")}, nil, "mount-options has ", "256")
	refuse(t, m{"mkfs-options": strings.Repeat("-O bigalloc ", 30)}, nil, "mkfs-options has 359 characters")
}

func TestOnlyWhatTheRequestNamesIsComparedWithAnExistingVolume(t *testing.T) {
	arn := "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	v := cloud.Volume{SizeGiB: 10, Type: "gp3", IOPS: 3000, Throughput: 125, Zone: "eu-central-1a", Tags: m{"team": "db", "Name": "a"},
		Attrs: m{"fs": "ext4", "fstype": "ext4", "subdir": "data", "mount-options": "noatime"}}
	enc := v
	enc.Encrypted, enc.KMSKeyID = true, arn
	for _, c := range []struct {
		request m
		volume  cloud.Volume
		want    []string
	}{
		{m{}, v, nil},
		{m{"size": "10", "type": "GP3", "iops": "3000", "throughput": "125", "fstype": "ext4", "subdir": "data", "mode": "755", "az": "eu-central-1a", "tag.team": "db", "mount-options": "noatime"}, v, nil},
		{m{"sizeInGiB": "20"}, v, []string{"size is 10 GiB, asked for 20 GiB"}},
		{m{"size": "5"}, v, []string{"size is 10 GiB, asked for 5 GiB"}},
		{m{"type": "gp2"}, v, []string{"type is gp3, asked for gp2"}},
		{m{"iops": "4000", "throughput": "250"}, v, []string{"iops is 3000, asked for 4000", "throughput is 125 MiB/s, asked for 250 MiB/s"}},
		{m{"encrypted": "true"}, v, []string{"encrypted is false, asked for true"}},
		{m{"encrypted": "true"}, enc, nil},
		{m{"encrypted": "false"}, enc, nil},
		{m{"kms-key-id": "alias/db"}, v, []string{"encrypted is false, asked for kms-key-id=alias/db"}},
		{m{"kms-key-id": "alias/db"}, enc, nil},
		{m{"kms-key-id": arn}, enc, nil},
		{m{"kms-key-id": "1234ABCD-12ab-34cd-56ef-1234567890ab"}, enc, nil},
		{m{"kms-key-id": "0000abcd-12ab-34cd-56ef-1234567890ab"}, enc, []string{"kms-key-id is " + arn + ", asked for 0000abcd-12ab-34cd-56ef-1234567890ab"}},
		{m{"kms-key-id": strings.Replace(arn, "eu-central-1", "eu-west-1", 1)}, enc, []string{"kms-key-id is " + arn + ", asked for " + strings.Replace(arn, "eu-central-1", "eu-west-1", 1)}},
		{m{"fstype": "xfs"}, v, []string{"fstype is ext4, asked for xfs"}},
		{m{"subdir": "/", "mode": "0700", "uid": "5", "mkfs-options": "-m 0"}, v,
			[]string{"mkfs-options is not set, asked for -m 0", "uid is not set, asked for 5", "mode is 0755, asked for 0700", "subdir is data, asked for /"}},
		{m{"mount-options": "nosuid"}, v, []string{"mount-options is noatime, asked for nosuid"}},
		{m{"az": "eu-central-1b"}, v, []string{"availability-zone is eu-central-1a, asked for eu-central-1b"}},
		{m{"tag.team": "web", "tag.x": ""}, v, []string{`tag.team is "db", asked for "web"`, `tag.x is not set, asked for ""`}},
	} {
		if got := accept(t, c.request, m{"size": "99", "tag.env": "prod"}).Differences(c.volume); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: got %q, want %q", c.request, got, c.want)
		}
	}
	broken := v
	broken.Attrs = m{"fstype": "ext4"}
	if got := accept(t, m{"fstype": "ext4"}, nil).Differences(broken); len(got) != 1 || !strings.Contains(got[0], "blockvol:subdir is missing") {
		t.Errorf("got %q", got)
	}
}

func TestAVolumeMadeOfASpecIsNotDifferentFromIt(t *testing.T) {
	for _, r := range []m{
		{"size": "100", "type": "gp3", "iops": "5000", "throughput": "500", "encrypted": "", "fs": "xfs", "mkfs-options": "-m reflink=0", "mount-options": "noatime", "uid": "0", "gid": "7", "mode": "0755", "subdir": "x", "tag.a": "b"},
		{"type": "io2", "iops": "1000", "mode": "2770"},
	} {
		o := accept(t, r, nil)
		s := o.Spec("a", "z")
		v := cloud.Volume{Name: s.Name, SizeGiB: s.SizeGiB, Type: s.Type, IOPS: s.IOPS, Throughput: s.Throughput, Encrypted: s.Encrypted, Zone: s.Zone, Attrs: s.Attrs, Tags: s.Tags}
		if got := o.Differences(v); got != nil {
			t.Errorf("%v: %q", r, got)
		}
	}
}

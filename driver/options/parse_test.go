package options

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cloud"
)

type m = map[string]string

// accept parses what must be accepted.
func accept(t *testing.T, request, defaults m) Options {
	t.Helper()
	o, err := Parse(request, defaults)
	if err != nil {
		t.Fatalf("Parse(%v, %v): %v", request, defaults, err)
	}
	return o
}

// refuse parses what must be refused with a text that contains all of the parts.
func refuse(t *testing.T, request, defaults m, parts ...string) {
	t.Helper()
	o, err := Parse(request, defaults)
	if err == nil {
		t.Fatalf("Parse(%v, %v) was accepted: %+v", request, defaults, o)
	}
	if !errors.Is(err, cloud.ErrInvalid) {
		t.Errorf("Parse(%v, %v): %v is not a cloud.ErrInvalid", request, defaults, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("Parse(%v, %v):\n%v\ndoes not contain %q", request, defaults, err, p)
		}
	}
}

func TestNothingAskedForGivesTheDocumentedDefaults(t *testing.T) {
	o := accept(t, nil, nil)
	want := Options{SizeGiB: 16, Type: "gp3", FSType: "ext4", Mode: 0o755, Subdir: "data", Reclaim: "delete", Tags: m{}, given: map[string]bool{}}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got %+v, want %+v", o, want)
	}
	for _, opt := range Table() {
		if o.Given(opt.Name) {
			t.Errorf("%s counts as given", opt.Name)
		}
	}
}

func TestEveryOptionReachesItsField(t *testing.T) {
	o := accept(t, m{
		"size": "200", "type": "io2", "iops": "10000", "encrypted": "yes", "kms-key-id": "alias/db", "fstype": "xfs",
		"mkfs-options": "-m reflink=0 -d 'agcount=8'", "mount-options": "noatime,logbufs=8", "uid": "999", "gid": "0", "mode": "2770", "subdir": "pg/data",
		"availability-zone": "eu-central-1a", "tag.Team": "DB, west",
	}, nil)
	uid, gid := 999, 0
	o.given = nil
	want := Options{SizeGiB: 200, Type: "io2", IOPS: 10000, Encrypted: true, KMSKeyID: "alias/db", FSType: "xfs",
		MkfsOptions: []string{"-m", "reflink=0", "-d", "agcount=8"}, MountOptions: []string{"noatime", "logbufs=8"}, UID: &uid, GID: &gid,
		Mode: os.ModeSetgid | 0o770, Subdir: "pg/data", Reclaim: "delete", Zone: "eu-central-1a", Tags: m{"Team": "DB, west"}}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got %+v\nwant %+v", o, want)
	}
	if o := accept(t, m{"throughput": "250"}, nil); o.Throughput != 250 {
		t.Errorf("throughput is %d", o.Throughput)
	}
}

// valid holds a value for every option of the table, together with what else is needed for it to be accepted.
var valid = map[string]struct {
	value string
	with  m
}{
	"size": {value: "20GiB"}, "type": {value: "gp2"}, "iops": {value: "4000"}, "throughput": {value: "300"}, "encrypted": {value: "true"},
	"kms-key-id": {value: "alias/db"}, "fstype": {value: "xfs"}, "mkfs-options": {value: "-m 0"}, "mount-options": {value: "noatime"},
	"uid": {value: "1000"}, "gid": {value: "1000"}, "mode": {value: "0700"}, "subdir": {value: "x"}, "availability-zone": {value: "eu-central-1b"},
	"tag.KEY": {value: "v"}, "fencing": {value: "never"}, "profile": {value: "none"}, "reclaim": {value: "Retain"}, "volume-id": {value: "vol-0123456789abcdef0"},
	"selector": {value: "team=db"}, "selector-fallback": {value: "create", with: m{"selector": "team=db"}}, "access-mode": {value: "RWO"},
	"snapshot-schedule": {value: "@daily"}, "snapshot-keep": {value: "7d", with: m{"snapshot-schedule": "@daily"}},
	"snapshot-id": {value: "latest:db"}, "from": {value: "db"},
}

func TestEveryAliasMeansItsOptionInEveryWritingOfIt(t *testing.T) {
	seen := map[string]string{}
	for _, opt := range Table() {
		if opt.Name == nameHelp {
			continue
		}
		v, ok := valid[opt.Name]
		if !ok {
			t.Errorf("this test knows no value for %s", opt.Name)
			continue
		}
		with := func(key string) m {
			r := m{key: v.value}
			for k, val := range v.with {
				r[k] = val
			}
			return r
		}
		want := accept(t, with(opt.Name), nil)
		for _, name := range append([]string{opt.Name}, opt.Aliases...) {
			if other, ok := seen[fold(name)]; ok {
				t.Errorf("%q belongs to %s and to %s", name, other, opt.Name)
			}
			seen[fold(name)] = opt.Name
			spellings := []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", ""), strings.ReplaceAll(name, "-", "_")}
			for _, s := range spellings {
				if opt.Name == tagName && !strings.HasSuffix(s, "KEY") {
					continue
				}
				if got := accept(t, with(s), nil); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %+v, want %+v", s, got, want)
				}
			}
			if !want.Given(name) {
				t.Errorf("Given(%q) is false", name)
			}
		}
	}
}

func TestNamesPeopleBringFromOtherToolsAreUnderstood(t *testing.T) {
	for _, c := range []struct{ from, key, value, option string }{
		{"REX-Ray", "volumetype", "gp2", "type"}, {"REX-Ray", "volumeType", "gp2", "type"}, {"REX-Ray", "availabilityZone", "eu-central-1a", "availability-zone"},
		{"REX-Ray", "encryptionKey", "alias/a", "kms-key-id"}, {"REX-Ray", "newFsType", "xfs", "fstype"}, {"REX-Ray", "fsType", "xfs", "fstype"},
		{"REX-Ray", "IOPS", "5000", "iops"}, {"REX-Ray", "encrypted", "true", "encrypted"},
		{"Linode", "filesystem", "xfs", "fstype"}, {"Hetzner", "fstype", "xfs", "fstype"}, {"Hetzner", "uid", "1", "uid"}, {"Cloudstor", "ebstype", "gp2", "type"},
		{"Kubernetes", "csi.storage.k8s.io/fstype", "xfs", "fstype"}, {"Kubernetes", "csi.storage.k8s.io/fsType", "xfs", "fstype"},
		{"Kubernetes", "kmsKeyId", "alias/a", "kms-key-id"}, {"Kubernetes", "storage", "20Gi", "size"}, {"Kubernetes", "mountOptions", "noatime", "mount-options"},
		{"Kubernetes", "fsGroup", "100", "gid"}, {"Kubernetes", "topology.kubernetes.io/zone", "eu-central-1a", "availability-zone"},
		{"ECS", "volumeType", "gp2", "type"}, {"ECS", "sizeInGiB", "20", "size"}, {"ECS", "filesystemType", "xfs", "fstype"}, {"ECS", "kmsKeyId", "alias/a", "kms-key-id"},
		{"AWS CLI", "volume-type", "gp2", "type"}, {"AWS CLI", "availability-zone", "eu-central-1a", "availability-zone"}, {"AWS CLI", "kms-key-id", "alias/a", "kms-key-id"},
		{"plain", "fs", "xfs", "fstype"}, {"plain", "zone", "eu-central-1a", "availability-zone"}, {"plain", "az", "eu-central-1a", "availability-zone"},
	} {
		want := accept(t, m{c.option: c.value}, nil)
		if got := accept(t, m{c.key: c.value}, nil); !reflect.DeepEqual(got, want) {
			t.Errorf("%s's %s is not %s: got %+v", c.from, c.key, c.option, got)
		}
	}
}

func TestTheKeyOfATagKeepsItsLetters(t *testing.T) {
	o := accept(t, m{"TAG.Cost-Center_x": "A b", "Tags.owner": ""}, nil)
	if want := (m{"Cost-Center_x": "A b", "owner": ""}); !reflect.DeepEqual(o.Tags, want) {
		t.Errorf("tags are %v, want %v", o.Tags, want)
	}
	if !o.Given("tag.owner") || o.Given("tag.Owner") {
		t.Error("Given confuses the letter case of keys")
	}
}

func TestOneOptionTwiceMustSayTheSame(t *testing.T) {
	refuse(t, m{"type": "gp2", "volumeType": "io1"}, nil, `"type"`, `"volumeType"`, "different values", `"gp2"`, `"io1"`)
	refuse(t, m{"tag.a": "1", "TAG.a": "2"}, nil, "tag.a")
	accept(t, m{"tag.a": "1", "tag.A": "2"}, nil)
	if o := accept(t, m{"fs": "xfs", "fstype": "xfs", "FS-Type": "xfs"}, nil); o.FSType != "xfs" {
		t.Errorf("fstype is %s", o.FSType)
	}
}

func TestAllProblemsAreToldAtOnce(t *testing.T) {
	_, err := Parse(m{"size": "-1", "tpye": "gp2", "colour": "blue", "uid": "root", "mode": "0999", "tag.aws:x": "1"}, m{"iops": "many"})
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	if n := len(all.Problems); n != 7 {
		t.Errorf("%d problems: %v", n, err)
	}
	for _, p := range []string{"size:", `"tpye"`, "uid:", "mode:", "tag.aws:x:", "iops:", "from DEFAULT_OPTIONS", "7 things", "\nThe options are size,"} {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q is missing in:\n%v", p, err)
		}
	}
	for i := 0; i < 20; i++ {
		_, again := Parse(m{"size": "-1", "tpye": "gp2", "colour": "blue", "uid": "root", "mode": "0999", "tag.aws:x": "1"}, m{"iops": "many"})
		if again.Error() != err.Error() {
			t.Fatal("the text changes from call to call")
		}
	}
}

func TestARequestWinsOverDefaults(t *testing.T) {
	defaults := m{"type": "io2", "iops": "2000", "size": "50", "tag.team": "ops", "tag.env": "prod", "fstype": "xfs", "mkfs-options": "-m reflink=0", "mount-options": "logbufs=8"}
	o := accept(t, m{"SIZE": "100", "tag.team": "db"}, defaults)
	if o.SizeGiB != 100 || o.Type != "io2" || o.IOPS != 2000 || o.FSType != "xfs" || !reflect.DeepEqual(o.Tags, m{"team": "db", "env": "prod"}) {
		t.Errorf("got %+v", o)
	}
	if !o.Given("size") || !o.Given("tag.team") || o.Given("type") || o.Given("tag.env") {
		t.Error("Given confuses request and defaults")
	}
}

func TestDefaultsThatTheRequestMakesMeaninglessAreDropped(t *testing.T) {
	o := accept(t, m{"type": "gp2"}, m{"type": "io2", "iops": "2000"})
	if o.IOPS != 0 {
		t.Errorf("gp2 with the IOPS of another type: %d", o.IOPS)
	}
	if o := accept(t, m{"type": "IO2"}, m{"type": "io2", "iops": "2000"}); o.IOPS != 2000 {
		t.Errorf("the same type lost its IOPS: %d", o.IOPS)
	}
	o = accept(t, m{"fstype": "ext4"}, m{"fstype": "xfs", "mkfs-options": "-m reflink=0", "mount-options": "logbufs=8"})
	if o.MkfsOptions != nil || o.MountOptions != nil {
		t.Errorf("ext4 with the options of xfs: %v %v", o.MkfsOptions, o.MountOptions)
	}
	o = accept(t, m{"encrypted": "off"}, m{"kms-key-id": "alias/db"})
	if o.Encrypted || o.KMSKeyID != "" {
		t.Errorf("encrypted=off was not honoured: %+v", o)
	}
	o = accept(t, m{"kms-key-id": "alias/db"}, m{"encrypted": "false"})
	if !o.Encrypted || o.KMSKeyID != "alias/db" {
		t.Errorf("the key was not honoured: %+v", o)
	}
}

func TestAKeyMeansEncryption(t *testing.T) {
	if o := accept(t, m{"kms-key-id": "alias/db"}, nil); !o.Encrypted || o.Given("encrypted") {
		t.Errorf("got %+v", o)
	}
	refuse(t, m{"kms-key-id": "alias/db", "encrypted": "false"}, nil, "kms-key-id", "encrypted=false")
	refuse(t, nil, m{"kms-key-id": "alias/db", "encrypted": "0"}, "kms-key-id", "DEFAULT_OPTIONS")
}

func TestHelpIsAnsweredWhateverElseIsThere(t *testing.T) {
	for _, r := range []m{{"help": ""}, {"HELP": "true", "nonsense": "1", "size": "-3"}, {"usage": ""}} {
		o, err := Parse(r, m{"bad": "default"})
		if !IsHelp(err) || err.Error() != Help() || o.SizeGiB != 0 {
			t.Errorf("%v: got %+v, %v", r, o, err)
		}
	}
	if _, err := Parse(m{"size": "0"}, nil); IsHelp(err) || IsHelp(nil) {
		t.Error("another error counts as help")
	}
}

func TestMisspeltOptionsGetTheNearestMatch(t *testing.T) {
	for key, want := range (m{
		"sise": "size", "szie": "size", "tpye": "type", "troughput": "throughput", "throughputt": "throughput", "encryptd": "encrypted", "fstpye": "fstype",
		"mkfs-option": "mkfs-options", "mount-optoins": "mount-options", "sub-dri": "subdir", "availabilityzones": "availability-zone", "kmskeyld": "kms-key-id",
		"volumtype": "type", "fielsystem": "fstype", "moed": "mode", "hlep": "help",
	}) {
		refuse(t, m{key: "1"}, nil, `"`+key+`"`, "did you mean "+want+"?", "The options are size, type,")
	}
	_, err := Parse(m{"colour": "blue"}, nil)
	if err == nil || strings.Contains(err.Error(), "did you mean") || !strings.Contains(err.Error(), "The options are size,") {
		t.Errorf("got %v", err)
	}
}

func TestOptionsOfOthersAreRefusedWithWhatToDo(t *testing.T) {
	for _, c := range []struct{ key, value, part string }{
		{"o", "addr=1.2.3.4", "-d local"}, {"device", ":/x", "-d local"},
		{"snapshot-name", "snap-1", "snapshot-id=latest:NAME"}, {"backup", "x", "from=NAME"},
		{"import", "vol-1", "volume-id=vol-"}, {"delete-on-remove", "true", "reclaim=retain"}, {"deleteOnTermination", "true", "reclaim=retain"},
		{"keep", "", "reclaim=retain"}, {"backing", "relocatable", "leave it out"}, {"backing", "shared", "not supported"},
		{"multi-attach", "true", "one host at a time"}, {"aws-profile", "x", "docker plugin set"}, {"iopsPerGB", "50", "iops=N"}, {"blockSize", "4096", "mkfs-options"},
		{"tagSpecification_1", "a=b", "tag.KEY=VALUE"}, {"tag", "a", "tag.KEY=VALUE"}, {"tag:team", "a", `"tag.team"`}, {"overwriteFS", "true", "never overwrites"},
		{"csi.storage.k8s.io/provisioner-secret-name", "x", "Kubernetes"}, {"ro", "", ":ro"}, {"volumeMode", "Block", "raw block"}, {"", "x", "no name"},
	} {
		refuse(t, m{c.key: c.value}, nil, c.part)
	}
}

func TestNoNameIsBothAnOptionAndRefused(t *testing.T) {
	for _, f := range foreign {
		for _, name := range f.names {
			if opt, _, ok := lookup(name); ok {
				t.Errorf("%q is refused and yet an alias of %s", name, opt.Name)
			}
		}
	}
}

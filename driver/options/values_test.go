package options

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestSizesAreReadInBinaryUnitsAndRoundedUp(t *testing.T) {
	for value, want := range map[string]int64{
		"100": 100, "100GiB": 100, "100Gi": 100, "100G": 100, "100GB": 100, "100gb": 100, "100 GiB": 100, " 100 ": 100, "+100": 100, "0100": 100,
		"1T": 1024, "1TiB": 1024, "1Ti": 1024, "1tb": 1024, "500Mi": 1, "500MiB": 1, "500M": 1, "1024M": 1, "1025MB": 2, "1048577K": 2, "1048576k": 1,
		"1.5T": 1536, "1.5": 2, "0.1": 1, "1.0": 1, "1.0000000001": 2, "1.0001T": 1025, "2P": 2 << 20, "64T": 65536, "2147483647": 2147483647,
	} {
		if got, err := parseSize(strings.TrimSpace(value)); got != want || err != nil {
			t.Errorf("%q: got %d, %v, want %d", value, got, err, want)
		}
	}
}

func TestWhatIsNoSizeIsRefused(t *testing.T) {
	for value, part := range (m{
		"0": "more than 0", "0.0": "more than 0", "0GiB": "more than 0", "-1": "negative", "-5GiB": "negative", "": "no value", "abc": "not a size", "1e3": "not a size", "0x10": "not a size",
		"10XB": "unknown unit", "10B": "unknown unit", "10GiBit": "unknown unit", "10 G B": "not a size", "1,5T": "not a size", "1.": "not a size", ".5": "not a size", "1.5.2": "not a size",
		"NaN": "not a size", "Inf": "not a size", "2147483648": "far more", "99999999999999999999999": "far more", "107374182400": "without a unit", "9999999999P": "far more",
		"8Ei": "unknown unit", "\u0661": "not a size", "10\x00": "not a size", strings.Repeat("9", 500): "not a size",
	}) {
		refuse(t, m{"size": value}, nil, "size: ", part)
	}
	refuse(t, m{"size": "1000000000"}, nil, "65536", "without a unit")
}

func TestThroughputIsInMiBPerSecond(t *testing.T) {
	for _, v := range []string{"250", "250MiB/s", "250MB", "250M", "250mb/s", "250 MiB/s", "250Mi", "250MiB"} {
		if o := accept(t, m{"throughput": v}, nil); o.Throughput != 250 {
			t.Errorf("%q is %d", v, o.Throughput)
		}
	}
	for _, v := range []string{"0", "-250", "250.5", "250Mbit", "250Mbps", "250G", "250KiB/s", "fast", "", "99999999999999999999"} {
		refuse(t, m{"throughput": v}, nil, "throughput: ")
	}
	for _, v := range []string{"0", "-1", "3000.0", "3k", "", "1e4", "99999999999999999999", "3000 "} {
		if v == "3000 " {
			accept(t, m{"iops": v}, nil)
			continue
		}
		refuse(t, m{"iops": v}, nil, "iops: ")
	}
}

func TestTypesAreReadInAnyLetterCase(t *testing.T) {
	for _, l := range types {
		r := m{"type": strings.ToUpper(l.name), "size": "200"}
		if l.baseIOPS == 0 && l.maxIOPS > 0 {
			r["iops"] = "1000"
		}
		if o := accept(t, r, nil); o.Type != l.name {
			t.Errorf("%s became %s", r["type"], o.Type)
		}
	}
	refuse(t, m{"type": "gp33"}, nil, "gp3, gp2, io1, io2, st1, sc1, standard", "did you mean gp3?")
	refuse(t, m{"type": "ssd"}, nil, "gp3, gp2, io1, io2, st1, sc1, standard")
}

func TestAFilesystemOrAKindOfTheLocalDriverAsTypeIsExplained(t *testing.T) {
	for _, v := range []string{"ext4", "xfs", "btrfs", "EXT4"} {
		refuse(t, m{"type": v}, nil, "use fstype="+strings.ToLower(v))
	}
	for _, v := range []string{"nfs", "tmpfs", "none", "cifs", "nfs4"} {
		refuse(t, m{"type": v}, nil, "Docker's local driver", "-d local")
	}
	refuse(t, m{"type": "nfs", "o": "addr=10.0.0.1,rw", "device": ":/export"}, nil, `"device"`, `"o"`, "type=nfs")
}

func TestBooleans(t *testing.T) {
	for _, v := range []string{"true", "TRUE", "yes", "on", "1", "", " true "} {
		if o := accept(t, m{"encrypted": v}, nil); !o.Encrypted || !o.Given("encrypted") {
			t.Errorf("%q is not true", v)
		}
	}
	for _, v := range []string{"false", "No", "off", "0"} {
		if o := accept(t, m{"encrypted": v}, nil); o.Encrypted {
			t.Errorf("%q is not false", v)
		}
	}
	for _, v := range []string{"maybe", "2", "tru", "nope"} {
		refuse(t, m{"encrypted": v}, nil, "neither true nor false")
	}
}

func TestKMSKeysHaveOneOfTheFormsOfEC2(t *testing.T) {
	for _, v := range []string{
		"1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234567890abcdef1234567890abcdef", "alias/db", "alias/aws/ebs",
		"arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/db",
		"arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234567890abcdef1234567890abcdef",
	} {
		if o := accept(t, m{"kms-key-id": v}, nil); o.KMSKeyID != v {
			t.Errorf("%q became %q", v, o.KMSKeyID)
		}
	}
	for _, v := range []string{"db", "alias/", "arn:aws:kms:eu-central-1:123456789012:1234abcd-12ab-34cd-56ef-1234567890ab", "key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"arn:aws:s3:::bucket", "alias/a b", "", "1234abcd", "alias/a\nb"} {
		refuse(t, m{"kms-key-id": v}, nil, "kms-key-id: ")
	}
}

func TestModesAreOctal(t *testing.T) {
	for value, want := range map[string]os.FileMode{
		"0755": 0o755, "755": 0o755, "0o755": 0o755, "00755": 0o755, "1777": 0o777 | os.ModeSticky, "2770": 0o770 | os.ModeSetgid, "4700": 0o700 | os.ModeSetuid,
		"7777": 0o777 | os.ModeSticky | os.ModeSetgid | os.ModeSetuid, "0511": 0o511, "0500": 0o500, "555": 0o555, "0001": 1, "700": 0o700, "444": 0o444,
	} {
		o := accept(t, m{"mode": value}, nil)
		if o.Mode != want {
			t.Errorf("%q is %v, want %v", value, o.Mode, want)
		}
		if back, err := parseMode(formatMode(o.Mode)); back != want || err != nil {
			t.Errorf("%q came back as %v, %v", value, back, err)
		}
	}
	for value, part := range (m{"0": "nobody", "10000": "more than 7777", "rwx": "not an octal", "-755": "not an octal", "0o": "not an octal", "u=rwx": "not an octal",
		"0x1ff": "not an octal", "7 5": "not an octal", "99999999999999999999": "quote the number"}) {
		refuse(t, m{"mode": value}, nil, "mode: ", part)
	}
}

func TestAnOctalThatYAMLMadeDecimalIsNotTakenForAMode(t *testing.T) {
	for value, meant := range (m{"493": "0755", "488": "0750", "448": "0700", "509": "0775", "511": "0777", "504": "0770", "505": "0771", "457": "0711",
		"1023": "01777", "1533": "02775", "1528": "02770"}) {
		refuse(t, m{"mode": value}, nil, "YAML", `quote it, mode: "`+pad(meant)+`"`)
	}
	refuse(t, m{"mode": "0800"}, nil, "quote the number")
	refuse(t, m{"mode": "511"}, nil, "write it with the leading zero", "0511")
}

// pad is how a mode is written: four digits.
func pad(octal string) string {
	s := strings.TrimLeft(octal, "0")
	return strings.Repeat("0", max(0, 4-len(s))) + s
}

func TestOwnersAreNumbers(t *testing.T) {
	for _, v := range []string{"0", "1000", "4294967294"} {
		if o := accept(t, m{"uid": v, "gid": v}, nil); o.UID == nil || o.GID == nil || o.Layout().attr("uid") != v || o.Layout().attr("gid") != v {
			t.Errorf("%s: got %v %v", v, o.UID, o.GID)
		}
	}
	for value, part := range (m{"4294967295": "too large", "99999999999999999999999": "too large", "-1": "not a number", "postgres": "names mean nothing", "": "no value", "1.0": "not a number"}) {
		refuse(t, m{"uid": value}, nil, "uid: ", part)
		refuse(t, m{"gid": value}, nil, "gid: ", part)
	}
}

func TestTheSubdirectoryStaysInsideTheVolume(t *testing.T) {
	for _, v := range []string{"data", "/", "pg/data", ".hidden", "a..b", "v1.2", "a/lost+found", "..."} {
		if o := accept(t, m{"subdir": v}, nil); o.Subdir != v {
			t.Errorf("%q became %q", v, o.Subdir)
		}
	}
	for _, v := range []string{"..", "../x", "a/../b", "a/..", ".", "./a", "a/./b", "/data", "//", "a//b", "a/", "lost+found", "lost+found/x", "", "a b", "a\\b", "a\x00b", "a\nb",
		"\u00e4", strings.Repeat("a", 201), strings.Repeat("a/", 200) + "a"} {
		refuse(t, m{"subdir": v}, nil, "subdir")
	}
}

func TestZonesAreNames(t *testing.T) {
	for v, want := range (m{"eu-central-1a": "eu-central-1a", "EU-Central-1A": "eu-central-1a", "us-west-2-lax-1a": "us-west-2-lax-1a"}) {
		if o := accept(t, m{"az": v}, nil); o.Zone != want {
			t.Errorf("%q became %q", v, o.Zone)
		}
	}
	refuse(t, m{"zone": "use1-az1"}, nil, "ID of a zone")
	for _, v := range []string{"", "eu central", "-a", "a\nb", strings.Repeat("a", 65)} {
		refuse(t, m{"zone": v}, nil, "availability-zone")
	}
}

func TestTagsKeepToTheLimitsOfEC2(t *testing.T) {
	long := func(n int) string { return strings.Repeat("\u00e4", n) } // characters count, not bytes
	accept(t, m{"tag." + long(128): long(256), "tag.name": "allowed", "tag.a:b/c=d": " spaces "}, nil)
	refuse(t, m{"tag." + long(129): "v"}, nil, "key has 129 characters", "128")
	refuse(t, m{"tag.k": long(257)}, nil, "value has 257 characters", "256")
	for key, part := range (m{"tag.": "no key", "tag.Name": "leave it out", "tag.aws:x": "AWS's own", "tag.AWS:x": "AWS's own", "tag.blockvol:fs": "knows its volumes",
		"tag.BlockVol:cluster": "knows its volumes", "tag.a\nb": "cannot be printed", "tag.a\xff": "cannot be printed"}) {
		refuse(t, m{key: "v"}, nil, part)
	}
	refuse(t, m{"tag.a": "x\x00"}, nil, "cannot be printed")

	many := func(n int) m {
		r := m{}
		for i := range n {
			r["tag.k"+strings.Repeat("x", i)] = "v"
		}
		return r
	}
	if o := accept(t, many(maxTags-ownTags), nil); len(o.Tags) != 25 {
		t.Errorf("%d tags", len(o.Tags))
	}
	refuse(t, many(maxTags-ownTags+1), nil, "26 tags", "EC2 allows 50", "at most 25")
}

func TestWordsAreSplitAsAShellDoesAndJoinedBack(t *testing.T) {
	for s, want := range map[string][]string{
		"": nil, "  ": nil, "a": {"a"}, " a  b\tc\n": {"a", "b", "c"}, `"a b" c`: {"a b", "c"}, `'a "b"'`: {`a "b"`}, `a"b c"d`: {"ab cd"}, `""`: {""}, `a\ b`: {"a b"},
		`"a\"b\\c\d"`: {`a"b\c\d`}, `'a\b'`: {`a\b`}, `'it'\''s'`: {"it's"},
	} {
		got, err := splitWords(s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, %v", s, got, err)
		}
		if back, err := splitWords(joinWords(got)); err != nil || !reflect.DeepEqual(back, want) {
			t.Errorf("%q: %q came back as %q, %v", s, joinWords(got), back, err)
		}
	}
	for _, s := range []string{`"a`, `'a`, `a\`, `"a\"`} {
		if got, err := splitWords(s); err == nil {
			t.Errorf("%q was split into %q", s, got)
		}
	}
}

func TestDefaultsAreReadFromOneSetting(t *testing.T) {
	got, err := ParseDefaults(` size=50GiB volumeType=io2 iops=1000 "mkfs-options=-O bigalloc -C 65536" mount-options='context="a:b:c:s0:c1,c2",noatime' tag.Team='A B' encrypted kms-key-id=alias/db`)
	want := m{"size": "50GiB", "type": "io2", "iops": "1000", "mkfs-options": "-O bigalloc -C 65536", "mount-options": `context="a:b:c:s0:c1,c2",noatime`, "tag.Team": "A B",
		"encrypted": "", "kms-key-id": "alias/db"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	o := accept(t, nil, got)
	if o.SizeGiB != 50 || o.IOPS != 1000 || o.Tags["Team"] != "A B" || len(o.MountOptions) != 2 || !o.Encrypted {
		t.Errorf("got %+v", o)
	}
	if got, err := ParseDefaults(""); err != nil || len(got) != 0 {
		t.Errorf("nothing gave %v, %v", got, err)
	}
	if _, err := ParseDefaults("type=io2"); err != nil { // a request adds the IOPS
		t.Error(err)
	}
}

func TestAWrongDefaultIsNamed(t *testing.T) {
	for s, parts := range map[string][]string{
		"size=50 szie=60": {`entry "szie=60"`, "did you mean size"}, "size=ten": {`entry "size=ten"`, "not a size"}, "size": {`entry "size"`, "key=value"},
		"mkfs-options=-O bigalloc": {`entry "bigalloc"`}, "size=1 capacity=2": {`entry "capacity=2"`, "already", `"1"`}, "help": {`entry "help"`}, `size="1`: {"quote"},
		"backup=x": {`entry "backup=x"`, "snapshot-id="}, "tag.Name=x": {`entry "tag.Name=x"`}, "=x": {`entry "=x"`}, "uid=": {`entry "uid="`, "no value"},
	} {
		got, err := ParseDefaults(s)
		if err == nil {
			t.Errorf("%s was accepted: %v", s, got)
			continue
		}
		for _, p := range parts {
			if !strings.Contains(err.Error(), p) {
				t.Errorf("%s: %v does not contain %q", s, err, p)
			}
		}
	}
}

package options

import (
	"reflect"
	"strings"
	"testing"
)

func TestWhatShapesAFilesystemMayBeGivenToMkfs(t *testing.T) {
	for fs, all := range map[string][]string{
		"ext4": {"-O bigalloc -C 65536", "-m0", "-m 0.5", "-b 4096", "-I 512", "-i 16384", "-N 1000000", "-E stride=16,stripe-width=64", "-E lazy_itable_init=0", "-E lazy_itable_init",
			"-O ^has_journal", "-O quota,project -O ^metadata_csum", "-J size=128", "-T largefile4", "-G 64", "-g 8192"},
		"xfs": {"-m reflink=0", "-m bigtime=0,inobtcount=0,reflink=0 -i nrext64=0", "-d agcount=8", "-d su=64k,sw=4 -d noalign", "-l su=64k", "-n version=ci"},
	} {
		for _, value := range all {
			o := accept(t, m{"fstype": fs, "mkfs-options": value}, nil)
			if want, _ := splitWords(value); !reflect.DeepEqual(o.MkfsOptions, want) {
				t.Errorf("%s: %q became %q", fs, value, o.MkfsOptions)
			}
		}
	}
}

func TestNothingThatBreaksTheFormatRuleReachesMkfs(t *testing.T) {
	for fs, all := range map[string]m{
		"ext4": {
			"-F": whyForce, "-FF": whyForce, "-qF": "not for the user", "-S": whyForce, "-n": whyDry, "-V": whyDry, "-K": whyDiscard, "-t ext2": whyType, "-d /etc": whyFiles,
			"-l /list": whyFiles, "-z /undo": whyFiles, "-c": "whole volume", "-cc": "whole volume", "-L pg": whyLabel, "-U clear": whyLabel,
			"-E discard": whyDiscard, "-E stride=16,discard": whyDiscard, "-E offset=4096": whyPlace, "-E root_owner=1:1": whyOwner, "-E assume_storage_prezeroed=1": whyForce,
			"-J device=/dev/sda": whyPlace, "-O journal_dev": whyPlace, "-O ^journal_dev": whyPlace, "-E stride=1 -E resize=9": "given twice",
			"/dev/sda": "not a flag", "-m 0 /dev/sda": "not a flag", "100G": "not a flag", "--help": "not a flag", "-": "not a flag", "-O": "needs a value", "-b": "needs a value",
			"-b /dev/sda": "cannot be", "-m 5%": "cannot be", "-b -F": "cannot be", "-m -F": "cannot be", "-O bigalloc=1": "not of the form", "-O bigalloc,-F": "not for the user",
			"-E stride=/dev/sda": "not of the form", "-E stride": "not of the form", "-J size=1,": "not for the user", "-T 'a b'": "cannot be", "-X": "possible are", "''": "not a flag", "-\u00e9": "possible are",
			"-b '4096\n-F'": "cannot be",
		},
		"xfs": {
			"-f": whyForce, "-N": whyDry, "-V": whyDry, "-K": whyDiscard, "-p /proto": whyFiles, "-c options=/x": whyFiles, "-r rtdev=/dev/sda": whyPlace, "-L pg": whyLabel,
			"-d file": whyFiles, "-d name=/dev/sda": whyPlace, "-d size=1g": "possible are agcount", "-l logdev=/dev/sda": whyPlace, "-l internal=0": whyPlace, "-m crc=0": "newer kernels",
			"-m uuid=1": whyLabel, "/dev/sda": "not a flag", "-d agcount=-1": "not of the form", "-d agcount": "not of the form", "-d agcount=8,-f": "not for the user", "-m reflink=0 -f": whyForce, "-b size=": "not of the form", "-O bigalloc": "possible are -b",
		},
	} {
		for value, part := range all {
			refuse(t, m{"fstype": fs, "mkfs-options": value}, nil, "mkfs-options: ", part)
		}
	}
	refuse(t, m{"mkfs-options": `-O "bigalloc`}, nil, "not closed")
	refuse(t, m{"mkfs-options": "-m reflink=0"}, nil, "by default: fstype=ext4")
}

func TestMountOptionsOfTheFilesystemAreAccepted(t *testing.T) {
	for fs, all := range map[string][]string{
		"ext4": {"noatime", "noatime,commit=30,data=ordered", "errors=remount-ro", "barrier=1", "barrier", "discard", "defaults,noatime", "nosuid,nodev,noexec",
			`context="system_u:object_r:container_file_t:s0:c127,c456",noatime`, "context=system_u:object_r:container_file_t:s0", "lazytime", "init_itable=5"},
		"xfs": {"nouuid", "logbufs=8,logbsize=256k", "allocsize=64m", "inode64,noatime", "pquota"},
	} {
		for _, value := range all {
			o := accept(t, m{"fstype": fs, "mount-options": value}, nil)
			if got := strings.Join(o.MountOptions, ","); got != value {
				t.Errorf("%s: %q became %q", fs, value, got)
			}
		}
	}
	if o := accept(t, m{"mount-options": " noatime , nosuid,noatime"}, nil); !reflect.DeepEqual(o.MountOptions, []string{"noatime", "nosuid"}) {
		t.Errorf("got %q", o.MountOptions)
	}
}

func TestMountOptionsThatDoHarmOrMeanNothingAreRefused(t *testing.T) {
	for value, part := range (m{
		"ro": whyReadOnly, "noload": whyReadOnly, "norecovery": whyReadOnly, "bind": whyMount8, "rbind": whyMount8, "remount": whyMount8, "noatime,remount": whyMount8, "user": whyMount8,
		"users": whyMount8, "nofail": whyMount8, "_netdev": whyMount8, "x-systemd.automount": whyMount8, "X-mount.mkdir": whyMount8, "iversion": whyMount8,
		"loop": whyOther, "loop=/dev/loop0": whyOther, "offset=512": whyOther, "sb=32768": whyOther, "journal_path=/x": whyOther, "uid=1000": whyOwner, "gid=5": whyOwner, "umask=022": whyOwner,
		"errors=panic": whyHost, "errors=continue": whyHost, "errors": whyHost, "abort": "stops the filesystem",
		"noatim": "did you mean noatime?", "commmit=5": "did you mean commit?", "nonsense": "not a mount option", "commit=x": "not of the form", "commit": "not of the form", "noatime=1": "takes no value",
		"data=journaled": "not of the form", "noatime,": "empty option", ",": "empty option", "noatime,,nosuid": "empty option", `context="a,b`: "not closed", "logbufs=8": "option of xfs",
		"allocsize=1m": "option of xfs", "barrier=2": "not of the form", "context=a\nb": "not of the form", "NOATIME": "not a mount option", "noatime ro": "not a mount option",
	}) {
		refuse(t, m{"mount-options": value}, nil, "mount-options: ", part)
	}
	refuse(t, m{"fstype": "xfs", "mount-options": "data=ordered"}, nil, "option of ext4")
}

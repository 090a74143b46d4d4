package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// traces is all that a request can leave behind: in the account, in the kernel, in the plugin's folder, in dockerd.
type traces map[string]bool

// traces waits until nothing is being deleted: that is the end of what was there before.
func (e *Engine) traces(t testing.TB) traces {
	t.Helper()
	found := traces{}
	var volumes []SimVolume
	Eventually(t, settled, func() error {
		volumes = e.Plugin.Sim().Volumes(t, "")
		for _, v := range volumes {
			if v.State == "deleting" {
				return fmt.Errorf("%s is being deleted", v.ID)
			}
		}
		return nil
	})
	for _, v := range volumes {
		found["volume "+v.ID+" "+v.Tags["blockvol:name"]+" "+v.State+" "+v.Tags["blockvol:fs"]] = true
		for _, a := range v.Attachments {
			found["attachment of "+v.ID+" "+a.State] = true
		}
	}
	for _, err := range []error{loopsOf(e, e.simulated()), e.volumeMounts()} {
		if err != nil {
			found[err.Error()] = true
		}
	}
	err := filepath.WalkDir(e.Plugin.StateDir(), func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			found["file "+strings.TrimPrefix(path, e.Plugin.StateDir())] = true
		}
		return nil // What is removed at this moment is not there.
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Fields(e.Docker(t, "volume", "ls", "-q")) {
		found["docker volume "+v] = true
	}
	return found
}

// leavesNothing fails the test unless what is there becomes what was there before.
func (e *Engine) leavesNothing(t testing.TB, before traces) {
	t.Helper()
	Eventually(t, settled, func() error {
		var changed []string
		now := e.traces(t)
		for _, k := range slices.Sorted(maps.Keys(now)) {
			if !before[k] {
				changed = append(changed, "left: "+k)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(before)) {
			if !now[k] {
				changed = append(changed, "gone: "+k)
			}
		}
		if len(changed) > 0 {
			return fmt.Errorf("%s", strings.Join(changed, "\n"))
		}
		return nil
	})
}

// readable fails the test if a message is not for people: without one of the words, long, or with the marks of a program's insides in it.
func readable(t testing.TB, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("without %q it is said:\n  %s", w, said)
		}
	}
	for _, noise := range []string{"%!", "<nil>", "map[", "0xc0", "goroutine", "panic", "api error", "operation error", "StatusCode", "&{", "unexpected EOF", "EOF"} {
		if strings.Contains(said, noise) {
			t.Errorf("with %q in it, it is said:\n  %s", noise, said)
		}
	}
	if len(said) > 1200 || strings.Count(said, "\n") > 3 {
		t.Errorf("at length it is said:\n  %s", said)
	}
}

// refusesToCreate asks for a volume that must not be made, and returns what is said.
func (e *Engine) refusesToCreate(t testing.TB, name string, options ...string) string {
	t.Helper()
	args := []string{"volume", "create", "-d", e.driver()}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	said := e.DockerFails(t, nil, append(args, "--", name)...)
	return said
}

func wrongOptions(t *testing.T, e *Engine) {
	before := e.traces(t)
	s := e.Plugin.Sim()
	s.ResetCalls(t)
	// A volume whose refusal fails is removed all the same.
	v := e.VolumeName(t)
	for _, wrong := range []struct{ options, words []string }{
		// Names.
		{[]string{"sise=10"}, []string{`"sise"`, "unknown", "did you mean size?"}},
		{[]string{"troughput=10"}, []string{`"troughput"`, "unknown", "did you mean throughput?", "-o help"}},
		{[]string{"zzz=1"}, []string{`"zzz"`, "unknown", "availability-zone", "-o help"}},
		{[]string{"size=1", "Size_In_GiB=2"}, []string{"both size", "keep one"}},
		{[]string{"snapshot-id=snap-1"}, []string{"snapshot-id", "snap-1", "latest:NAME"}},
		{[]string{"device=/dev/sda", "o=bind"}, []string{"local driver", "-d local"}},
		// Values.
		{[]string{"size=big"}, []string{"size", `"big"`, "100GiB"}},
		{[]string{"size=0"}, []string{"size", "more than 0"}},
		{[]string{"size=-1"}, []string{"size", "negative"}},
		{[]string{"size=10XB"}, []string{"size", `"XB"`, "GiB"}},
		{[]string{"size="}, []string{"size", "no value"}},
		{[]string{"iops=many"}, []string{"iops", "whole number"}},
		{[]string{"throughput=fast"}, []string{"throughput", "250MiB/s"}},
		{[]string{"encrypted=maybe"}, []string{"encrypted", "neither true nor false"}},
		{[]string{"kms-key-id=mine"}, []string{"kms-key-id", "alias/NAME"}},
		{[]string{"encrypted=false", "kms-key-id=alias/mine"}, []string{"kms-key-id", "leave one of the two out"}},
		{[]string{"mode=488"}, []string{"mode", "octal", "0750"}},
		{[]string{"mode=rwx"}, []string{"mode", "octal"}},
		{[]string{"uid=root"}, []string{"uid", `"root"`}},
		{[]string{"gid=-1"}, []string{"gid", `"-1"`}},
		{[]string{"subdir=../../etc"}, []string{"subdir"}},
		{[]string{"fstype=zfs"}, []string{"fstype", "ext4 or xfs"}},
		{[]string{"mkfs-options=-F"}, []string{"mkfs-options", "-F"}},
		{[]string{"mount-options=bind"}, []string{"mount-options", "bind"}},
		{[]string{"mount-options=ro"}, []string{"mount-options", "ro"}},
		// What another plugin's users write.
		{[]string{"type=ext4"}, []string{"type", "fstype=ext4"}},
		{[]string{"type=nfs"}, []string{"type=nfs", "local driver", "-d local"}},
		{[]string{"type=gp4"}, []string{"type", "did you mean gp"}},
		// Limits of each type.
		{[]string{"type=gp3", "size=65537"}, []string{"65537", "gp3", "65536"}},
		{[]string{"type=gp3", "iops=2999"}, []string{"2999", "gp3", "3000"}},
		{[]string{"type=gp3", "size=10", "iops=6000"}, []string{"6000", "500 per GiB", "size=12GiB"}},
		{[]string{"type=gp3", "throughput=1000"}, []string{"1000", "iops=4000"}},
		{[]string{"type=gp3", "throughput=2001"}, []string{"2001", "125 to 2000"}},
		{[]string{"type=gp2", "iops=3000"}, []string{"iops", "gp2", "leave it out"}},
		{[]string{"type=gp2", "throughput=250"}, []string{"throughput", "gp2", "gp3"}},
		{[]string{"type=io1"}, []string{"io1", "needs iops"}},
		{[]string{"type=io1", "size=4", "iops=300"}, []string{"300", "50 per GiB", "size=6GiB"}},
		{[]string{"type=io2", "size=3", "iops=100"}, []string{"3 GiB", "io2", "4 to 65536"}},
		{[]string{"type=st1", "size=100"}, []string{"100 GiB", "st1", "125"}},
		{[]string{"type=sc1", "size=16385"}, []string{"16385", "sc1", "16384"}},
		{[]string{"type=standard", "size=2T"}, []string{"2048 GiB", "standard", "1024"}},
		// Tags.
		{[]string{"tag.aws:x=1"}, []string{"tag.aws:x", "AWS"}},
		{[]string{"tag.Name=x"}, []string{"tag.Name"}},
		{[]string{"tag.blockvol:fs=ext4"}, []string{"tag.blockvol:fs"}},
		{[]string{"tag.=x"}, []string{"tag."}},
		{[]string{"tag.long=" + strings.Repeat("x", 257)}, []string{"tag.long", "256"}},
		// The zone of another host.
		{[]string{"availability-zone=us-sim-1b"}, []string{"availability-zone=us-sim-1b", "this host", "us-sim-1a", "leave the option out"}},
		// All that is wrong is told at once.
		{[]string{"size=0", "mode=488", "fstype=zfs"}, []string{"size", "mode", "fstype"}},
	} {
		t.Run(strings.Join(wrong.options, ","), func(t *testing.T) {
			readable(t, e.refusesToCreate(t, v, wrong.options...), append(wrong.words, v)...)
			e.leavesNothing(t, before)
		})
	}
	if got := counted(s.Calls(t)); strings.Contains(got, "Create") {
		t.Errorf("wrong options took the calls %s", got)
	}
}

func help(t *testing.T, e *Engine) {
	before := e.traces(t)
	v := e.VolumeName(t)
	for _, options := range [][]string{{"help"}, {"size=1", "help=yes"}} {
		said := e.refusesToCreate(t, v, options...)
		for _, w := range []string{"size", "iops", "kms-key-id", "mkfs-options", "Default: gp3", "Volume types", "st1"} {
			if !strings.Contains(said, w) {
				t.Errorf("the help for %v is without %q:\n%s", options, w, said)
			}
		}
		for _, line := range strings.Split(said, "\n") {
			if len(line) > 100 && !strings.HasPrefix(line, "Error response from daemon: ") {
				t.Errorf("a line of the help has %d characters: %s", len(line), line)
			}
		}
	}
	e.leavesNothing(t, before)
}

func hostileNames(t *testing.T, e *Engine) {
	before := e.traces(t)
	s := e.Plugin.Sim()
	s.ResetCalls(t)
	for _, name := range []string{
		"../x", "../../../../etc/passwd", "a/b", "/etc", ".", "..", ".hidden", "x", "-lead", "a b", "a\nb", "a\tb", "a\x1b[31mred", "caf\u00e9", "\u202egnp",
		"$(reboot)", "a;b", "a%2fb", "a*", "a:b", "'", `a"b`, `a\b`, "{{.}}", strings.Repeat("n", 129), strings.Repeat("n", 4000),
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			said := e.refusesToCreate(t, name, "size=1GiB")
			if !strings.Contains(said, "is not allowed: use 2 to 128 letters, digits") {
				t.Errorf("the refusal of %q does not say what is allowed: %s", name, said)
			}
			if strings.Contains(said, "\x1b") && !strings.Contains(name, "\x1b") {
				t.Errorf("%q", said)
			}
			refusal, err := e.Plugin.Socket(t).Ask("Mount", map[string]string{"Name": name, "ID": "hostile"}, nil)
			if err != nil || !strings.Contains(refusal, "is not allowed") || strings.ContainsAny(refusal, "\n\t\x1b\u202e") || len(refusal) > 1200 {
				t.Errorf("Mount is refused with %q %v", refusal, err)
			}
			e.leavesNothing(t, before)
		})
	}
	for _, c := range s.Calls(t) {
		// docker volume ls lists the cluster. A look-up names a volume.
		if c.Action != "DescribeVolumes" || strings.Contains(fmt.Sprint(c.Params), "blockvol:name") {
			t.Errorf("names that no volume can have took the call %s %v", c.Action, c.Params)
		}
	}
}

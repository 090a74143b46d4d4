package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultyPlugin makes a copy of the plugin whose binary dies where it is told to, and returns its folder.
func faultyPlugin(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "plugin")
	binary := filepath.Join(dir, "rootfs", "blockvol")
	for _, args := range [][]string{
		{"cp", "-a", filepath.Join(buildDir, "plugin"), dir},
		{"rm", binary},
		{"go", "build", "-C", repo, "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-tags", "faultpoints", "-o", binary, "."},
	} {
		if err := command(5*time.Minute, []string{"CGO_ENABLED=0"}, "", args[0], args[1:]...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// superblock is what identifies the ext4 filesystem in a volume's file: the UUID in its superblock.
func superblock(t testing.TB, file string) string {
	t.Helper()
	out, err := exec.Command("dumpe2fs", "-h", file).Output()
	if err != nil {
		t.Fatalf("%s holds no ext4: %v", file, err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Filesystem UUID:") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("dumpe2fs tells no UUID: %s", out)
	return ""
}

// A plugin that is killed in the middle of a docker run is started again by dockerd; asked again or not, the volume has its data and is let
// go. Package driver kills it at every step; here dockerd takes part.
func TestAPluginKilledInTheMiddleLosesAndLeaksNothing(t *testing.T) {
	t.Parallel()
	dir := faultyPlugin(t)
	e := PrivateEngine(t)
	s := e.aloneSim(t, "--instance", "i-0a1b2c3d4e5f60718,type=m5.large,zone=us-sim-1b")
	p, err := e.installFrom(dir, "blockvol", "BACKEND=ebs", "dev.source="+s.Instances[0].DevDir, "AWS_ENDPOINT_URL="+s.Endpoint,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT="+s.Instances[0].Metadata, "CLUSTER=crash", "LOG_LEVEL=debug", "DETACH_GRACE=500ms")
	if err != nil {
		t.Fatal(err)
	}
	e.Plugin = p
	for _, c := range []struct {
		step  string
		again bool
	}{{"mkfs", true}, {"attach-sent", false}, {"fsck", true}, {"detach", false}} {
		t.Run(fmt.Sprintf("%s,again=%t", c.step, c.again), func(t *testing.T) { p.dieIn(t, s, c.step, c.again) })
	}
	t.Run("frozen", func(t *testing.T) { p.dieFrozen(t, s) })
}

func (p *Plugin) dieIn(t *testing.T, s *AloneSim, step string, again bool) {
	e := p.e
	v := e.NewVolume(t, "size=1GiB")
	on := []string{"--mount", e.on(v, "/data")}
	add := func(row string) Result {
		return e.Try("run", "--rm", "--name", e.Container(t), on[0], on[1], busybox, "sh", "-c", "echo "+row+" >>/data/rows && sync")
	}
	letGo := func() {
		t.Helper()
		Eventually(t, settled, func() error {
			vs := s.Volumes(t, v)
			if len(vs) != 1 {
				return fmt.Errorf("the account has %d volumes: %+v", len(vs), vs)
			}
			if len(vs[0].Attachments) > 0 {
				return fmt.Errorf("still attached: %+v", vs[0])
			}
			return e.volumeMounts()
		})
	}
	want, uuid := "", ""
	if step != "mkfs" {
		if err := add("first").Err(); err != nil {
			t.Fatal(err)
		}
		letGo()
		want, uuid = "first\n", superblock(t, s.Volumes(t, v)[0].File)
	}
	file := filepath.Join(p.StateDir(), "crash-at")
	if err := os.WriteFile(file, []byte(step), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := add("second"); r.Code == 0 {
		want += "second\n"
	}
	Eventually(t, settled, func() error {
		_, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("the step %s was never reached (%v)", step, err)
	})
	if again {
		Eventually(t, settled, func() error { return add("third").Err() })
		want += "third\n"
	}
	letGo()
	if got := e.Busybox(t, on, "cat /data/rows 2>/dev/null || true"); got != strings.TrimSpace(want) {
		t.Errorf("the volume holds %q, want %q", got, want)
	}
	if now := superblock(t, s.Volumes(t, v)[0].File); uuid != "" && now != uuid {
		t.Errorf("the volume was formatted again: %s, before %s", now, uuid)
	}
}

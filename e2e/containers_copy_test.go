package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// docker cp sends Mount and Unmount with the ID that the running container has.
func TestDockerCpDoesNotTakeTheVolumeFromARunningContainer(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, counter("/data/lines"))
	e.grows(t, c, "/data/lines")
	for range 3 {
		e.Docker(t, "cp", in, c+":/data/in")
		e.Docker(t, "cp", c+":/data/in", filepath.Join(dir, "out"))
	}
	if got, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(got) != "from the host\n" {
		t.Errorf("docker cp into the container and out again gives %q %v", got, err)
	}
	// The plugin's own mount may go; device and attachment must stay, far beyond the grace.
	id := e.cloudVolume(t, v).ID
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		e.grows(t, c, "/data/lines")
	}
	e.Docker(t, "cp", c+":/data/lines", filepath.Join(dir, "lines"))
	e.grows(t, c, "/data/lines")
	if got := e.callsFor(t, id); got != "AttachVolume 1, CreateTags 2" {
		t.Errorf("docker cp of a running container took these calls: %s", got)
	}
	if n := len(deviceFiles(id)); n != 1 {
		t.Errorf("the volume has %d devices", n)
	}
	// Another container on it, in this state, sees the same filesystem.
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/in"); got != "from the host" {
		t.Errorf("a second container reads %q", got)
	}
	e.grows(t, c, "/data/lines")
	e.Docker(t, "stop", c)
	e.Detached(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/in; awk '$1 != NR { exit 1 }' /data/lines && test $(wc -l </data/lines) -gt 9 && echo whole"); got != "from the host\nwhole" {
		t.Errorf("afterwards the volume holds:\n%s", got)
	}
}

func TestDockerCpOfAStoppedContainerLeavesNothingAttached(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file")
	e.Docker(t, "wait", c)
	e.Detached(t, v)
	e.Docker(t, "cp", c+":/data/file", filepath.Join(dir, "out"))
	if got, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(got) != "kept\n" {
		t.Errorf("docker cp out of a stopped container gives %q %v", got, err)
	}
	e.Detached(t, v)
	e.Docker(t, "cp", in, c+":/data/in")
	e.Detached(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/file /data/in"); got != "kept\nfrom the host" {
		t.Errorf("afterwards the volume holds:\n%s", got)
	}
}

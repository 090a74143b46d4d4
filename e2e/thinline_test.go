package e2e

import (
	"strings"
	"testing"
)

// The main job, as a user does it.
func TestWhatOneContainerWritesTheNextOneReads(t *testing.T) {
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	if got := e.Inspect(t, v); got.Driver != "blockvol:latest" || got.Status["state"] == nil {
		t.Errorf("docker volume inspect: driver %q, status %v", got.Driver, got.Status)
	}
	if ls := e.Docker(t, "volume", "ls", "-q"); !strings.Contains("\n"+ls+"\n", "\n"+v+"\n") {
		t.Errorf("docker volume ls does not show %s, but:\n%s", v, ls)
	}
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file && sync")
	got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/file; grep ' /data ' /proc/mounts")
	if !strings.HasPrefix(got, "kept\n") || !strings.Contains(got, " ext4 rw") || !strings.Contains(got, "/dev/nvme") {
		t.Errorf("the second container sees:\n%s", got)
	}
	if files := e.Busybox(t, []string{"-v", v + ":/data:ro"}, "ls -A /data"); files != "file" {
		t.Errorf("the volume's root holds %q, not only the file that was written", files)
	}
	e.Docker(t, "volume", "rm", v)
	if ls := e.Docker(t, "volume", "ls", "-q"); strings.Contains(ls, v) {
		t.Errorf("docker volume ls still shows %s", v)
	}
}

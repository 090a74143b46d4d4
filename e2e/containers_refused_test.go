package e2e

import (
	"strings"
	"testing"
)

// docker system prune removes the stopped containers of other tests too, so there must be none.
func volumesInUse(t *testing.T, e *Engine) {
	v, unused := e.NewVolume(t, "size=1GiB"), e.NewVolume(t, "size=1GiB")
	e.Busybox(t, []string{"--mount", e.on(unused, "/data")}, "echo kept >/data/file")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, counter("/data/lines"))
	e.grows(t, c, "/data/lines")
	e.DockerFails(t, []string{"volume is in use", v}, "volume", "rm", v)
	e.DockerFails(t, []string{"volume is in use", v}, "volume", "rm", "-f", v)
	e.grows(t, c, "/data/lines")
	// Docker counts the stopped container as a user too.
	e.Docker(t, "stop", c)
	e.DockerFails(t, []string{"volume is in use", v}, "volume", "rm", v)
	e.Detached(t, v)
	e.Docker(t, "start", c)
	e.grows(t, c, "/data/lines")

	// A local volume shows that pruning works.
	local := e.Docker(t, "volume", "create")
	if got := e.Docker(t, "volume", "prune", "-f"); !strings.Contains(got, local) {
		t.Errorf("docker volume prune says %q", got)
	}
	local = e.Docker(t, "volume", "create")
	if got := e.Docker(t, "system", "prune", "--volumes", "-f"); !strings.Contains(got, local) {
		t.Errorf("docker system prune says %q", got)
	}
	for _, v := range []string{v, unused} {
		if s := e.cloudVolume(t, v).State; s == "deleting" {
			t.Errorf("volume %s is %s after pruning", v, s)
		}
		if got := e.callsFor(t, e.cloudVolume(t, v).ID); strings.Contains(got, "DeleteVolume") {
			t.Errorf("pruning took these calls: %s", got)
		}
	}
	e.grows(t, c, "/data/lines")
	if got := e.Busybox(t, []string{"--mount", e.on(unused, "/data")}, "cat /data/file"); got != "kept" {
		t.Errorf("after pruning the unused volume holds %q", got)
	}
	e.Docker(t, "rm", "-f", c)
	e.Docker(t, "volume", "rm", v)
	if vs := e.Plugin.Sim().Volumes(t, v); len(vs) > 0 && vs[0].State != "deleting" {
		t.Errorf("after docker volume rm: %+v", vs)
	}
	e.Detached(t, unused)
}

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What people type, and wish that they had not: all of it can be undone for a while, but for what nobody has named.
func TestAWrongRemovalIsUndone(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	p := e.Install(t, "blockvol", "BACKEND=sim", "LOG_LEVEL=debug", "DELETE_DELAY=1h")
	sim := p.Sim()
	given := func(v string) int { t.Helper(); return len(sim.Volumes(t, "released:"+v)) }

	c := newCompose(t, e, composeFile(e.driver()+":latest", "      size: \"1\"\n      tag.team: shop"))
	v := c.project + "_data"
	c.run(t, "up", "-d")
	Eventually(t, 90*time.Second, func() error { return e.Try("exec", c.project+"_writer_1", "grep", "-qx", "up", "/data/starts").Err() })
	c.run(t, "down", "-v", "-t", "1")
	e.DockerFails(t, []string{"no such volume"}, "volume", "inspect", v)
	if given(v) != 1 {
		t.Fatalf("after docker-compose down -v EC2 has %+v", sim.Volumes(t, ""))
	}
	// The next `up` makes a new, empty one of the name. It goes, and the old one comes back.
	c.run(t, "up", "-d")
	id := sim.Volumes(t, "released:"+v)[0].ID
	e.verb(t, verbRefused, []string{id, `the name "` + v + `"`, "blockvol undelete " + id + " NEWNAME"}, "", "undelete", v)
	c.run(t, "down", "-v", "-t", "1")
	e.verb(t, verbRefused, []string{"2 volumes of the name", id}, "", "undelete", v)
	e.verb(t, verbDone, []string{id + " is the volume " + v}, "", "undelete", id)
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "test $(wc -l </data/starts) = 1")
	if got := e.Inspect(t, v).Status["id"]; got != id {
		t.Errorf("docker volume inspect shows %v, want %s", got, id)
	}

	// All at once, and an anonymous one.
	other := e.VolumeName(t)
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1", other)
	e.Busybox(t, []string{"--mount", e.on(other, "/data")}, "echo row >/data/row")
	e.Docker(t, "run", "--rm", "--network", "none", "--mount", "type=volume,dst=/data,volume-driver="+e.driver(), busybox, "sh", "-c", "echo row >/data/row")
	names := strings.Fields(e.Docker(t, "volume", "ls", "-q"))
	if len(names) != 2 {
		t.Errorf("docker volume ls shows %v", names)
	}
	Eventually(t, 90*time.Second, func() error { return e.Try(append([]string{"volume", "rm", "-f"}, names...)...).Err() })
	list := e.verb(t, verbDone, []string{v, other, "removed", "in 59m"}, "", "undelete", "--ls")
	if lines := strings.Split(strings.TrimSpace(list), "\n"); len(lines) != 4 { // the header, the two, and the one that `up` made in between
		t.Errorf("what can be brought back:\n%s", list)
	}
	for _, words := range [][]string{{"undelete", "nobody"}, {"undelete", "vol-0123456789abcdef0"}, {"undelete", other, "a/b"}} {
		e.verb(t, verbFailed, words[len(words)-1:], "", words...)
	}
	e.verb(t, verbDone, nil, "", "undelete", other, other+"-again")
	e.Busybox(t, []string{"--mount", e.on(other+"-again", "/data")}, "grep -qx row /data/row")

	// With a short delay they are gone for good after it.
	p.Restart(t, "DELETE_DELAY=2s")
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", other+"-again").Err() })
	Eventually(t, 90*time.Second, func() error {
		if n := given(other + "-again"); n != 0 {
			return fmt.Errorf("%d are there", n)
		}
		return nil
	})
	if given(v) != 2 {
		t.Errorf("of those whose time is not over EC2 has %+v", sim.Volumes(t, "released:"+v))
	}
}

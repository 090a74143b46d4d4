package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dockerd asks the plugin for the volume in each of these commands, and takes an error for "there is no such volume": it would forget labels
// and users, make a second volume, or delete the first.
func TestNoCommandDoesHarmWhileEC2IsThrottledOrSilent(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t, "--live-restore")
	s := e.aloneSim(t, "--delay-create", "200ms", "--delay-attach", "300ms", "--delay-detach", "300ms")
	s.install(t, e, "CLUSTER=outage", "LOG_LEVEL=debug", "DETACH_GRACE=500ms")
	create := func() string {
		v := e.VolumeName(t)
		e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", "--label", "team=db", v)
		return v
	}
	// One for each command, because dockerd lets those for one name wait for each other.
	inspected, removed, run, used, theirs := create(), create(), create(), create(), e.VolumeName(t)
	all := []string{inspected, removed, run, used}
	c := e.RunDetached(t, []string{"--mount", e.on(used, "/data")}, startAndCount)
	starts(t, e, c, 1)
	ids := map[string]string{}
	for _, v := range all {
		ids[v] = e.cloudVolume(t, v).ID
	}
	mounting := func(v string, command ...string) Result {
		return e.Try(append([]string{"run", "--rm", "--name", e.Container(t), "--mount", e.on(v, "/data"), busybox}, command...)...)
	}
	fails := func(what string, r Result, words ...string) {
		t.Logf("%s: after %.1f s %s", what, r.Took.Seconds(), r.Stderr)
		if r.Code == 0 {
			t.Errorf("%s: %s succeeded", what, r.Command)
		}
		for _, w := range words {
			if !strings.Contains(r.Stderr, w) {
				t.Errorf("%s: without %q it is said: %s", what, w, r.Stderr)
			}
		}
	}
	listed := func(what string) {
		ls := e.Try("volume", "ls", "-q", "--filter", "label=team=db")
		t.Logf("%s: docker volume ls took %.2f s", what, ls.Took.Seconds())
		if len(strings.Fields(ls.Stdout)) != len(all) || ls.Took > 20*time.Second {
			t.Errorf("%s: docker volume ls shows after %s: %s%s", what, ls.Took, ls.Stdout, ls.Stderr)
		}
	}
	trouble := func(what string, fault Fault, more ...func()) {
		time.Sleep(2 * time.Second) // What was learned a moment ago becomes too old to answer from.
		s.Inject(t, fault)
		listed(what)
		atOnce(append(more,
			func() {
				r := e.Try("volume", "inspect", inspected)
				if r.Code != 0 || !strings.Contains(r.Stdout, `"team": "db"`) || !strings.Contains(r.Stdout, `"error": `) {
					t.Errorf("%s: docker volume inspect is to tell the labels and an error: %s%s", what, r.Stdout, r.Stderr)
				}
			},
			func() { fails(what, e.Try("volume", "rm", removed), removed) },
			func() { fails(what, mounting(run, "true"), run) },
			func() {
				// A container that runs, and one that is started beside it, have all they need on the host.
				if r := e.Try("volume", "inspect", used); r.Code != 0 || !strings.Contains(r.Stdout, `"team": "db"`) || !strings.Contains(r.Stdout, ids[used]) {
					t.Errorf("%s: docker volume inspect of a volume in use says: %s%s", what, r.Stdout, r.Stderr)
				}
				fails(what, e.Try("volume", "rm", used), "volume is in use")
				if r := mounting(used, "cat", "/data/starts"); r.Stdout != "up" {
					t.Errorf("%s: beside the running container another one reads %q %s", what, r.Stdout, r.Stderr)
				}
				e.grows(t, c, "/data/lines")
			},
		)...)
		listed(what + ", after that")
		// What has begun and waits for EC2 gives up.
		time.Sleep(5 * time.Second)
		s.ClearFaults(t)
		for _, v := range all {
			if got := e.Inspect(t, v); got.Labels["team"] != "db" || got.Status["id"] != ids[v] {
				t.Errorf("%s: afterwards %s has the labels %v and the ID %v, not %s", what, v, got.Labels, got.Status["id"], ids[v])
			}
			if id := e.cloudVolume(t, v).ID; id != ids[v] {
				t.Errorf("%s: afterwards the account has %s for %s, not %s", what, id, v, ids[v])
			}
		}
		for _, v := range []string{inspected, removed, run} {
			e.letGo(t, v)
		}
	}
	trouble("throttled", Fault{Kind: "error", Code: "RequestLimitExceeded", Status: 503, Message: "Request limit exceeded.", Times: -1}, func() {
		// Another host has made it, and nobody here knows of it: to dockerd it does not exist, and it asks for a new one.
		id, _ := s.Import(t, "", 1, map[string]string{"blockvol:cluster": "outage", "blockvol:name": theirs, "blockvol:schema": "1", "blockvol:fs": "none",
			"blockvol:fstype": "ext4", "blockvol:subdir": "data"})
		fails("throttled", mounting(theirs, "true"), theirs)
		if got := e.cloudVolume(t, theirs).ID; got != id {
			t.Errorf("throttled: the account has %s for %s, not %s", got, theirs, id)
		}
	})
	trouble("silent", Fault{Kind: "hang", Times: -1})
	made := 0
	for _, call := range s.Calls(t) {
		if call.Action == "CreateVolume" {
			made++
		}
		if call.Action == "DeleteVolume" {
			t.Errorf("%s was called for %v", call.Action, call.Params)
		}
	}
	if made != len(all) {
		t.Errorf("CreateVolume was called %d times for %d volumes", made, len(all))
	}
	if r := mounting(run, "sh", "-c", "echo here >/data/file; cat /data/file"); r.Stdout != "here" {
		t.Errorf("after all the container says %s%s", r.Stdout, r.Stderr)
	}
	t.Run("dockerd's own record is lost", func(t *testing.T) { e.recordLost(t, c, used, inspected) })
	e.Docker(t, "rm", "-f", c)
	for _, v := range all {
		e.letGo(t, v)
	}
	if got := e.Busybox(t, []string{"--mount", e.on(used, "/data")}, wholeLines); got != "1" {
		t.Errorf("the volume holds after one start: %s", got)
	}
	e.letGo(t, used)
}

// recordLost takes away what dockerd knows of volumes, while a container uses one and dockerd does not run.
func (e *Engine) recordLost(t *testing.T, c, used, idle string) {
	e.Signal(t, syscall.SIGTERM)
	if err := os.Remove(filepath.Join(e.Dir, "data/volumes/metadata.db")); err != nil {
		t.Fatal(err)
	}
	e.Start(t)
	e.grows(t, c, "/data/lines")
	id := e.cloudVolume(t, used).ID
	for _, force := range []string{"--force=false", "--force=true"} {
		e.DockerFails(t, []string{used}, "volume", "rm", force, used)
	}
	e.grows(t, c, "/data/lines")
	if got := e.cloudVolume(t, used); got.ID != id || len(got.Attachments) != 1 || len(deviceFiles(id)) != 1 {
		t.Errorf("the volume in use is %+v, with the devices %v", got, deviceFiles(id))
	}
	// The volumes are still known by name, from EC2; the labels, which only dockerd knew, are gone.
	if ls := e.Docker(t, "volume", "ls", "-q"); !strings.Contains(ls, idle) || !strings.Contains(ls, used) {
		t.Errorf("docker volume ls shows %s", ls)
	}
	if got := e.Inspect(t, idle); got.Status["id"] != e.cloudVolume(t, idle).ID || len(got.Labels) != 0 {
		t.Errorf("docker volume inspect shows %+v", got)
	}
}

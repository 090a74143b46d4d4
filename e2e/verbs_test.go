package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Verb runs `blockvol ARGS` on the engine's host, with something on its standard input. It finds the plugin by itself.
func (e *Engine) Verb(stdin string, args ...string) Result {
	return e.Inside(append([]string{"sh", "-c", `input=$1; shift; printf %s "$input" | "$@"`, "sh", stdin, filepath.Join(buildDir, "blockvol")}, args...)...)
}

// verb runs `blockvol ARGS` and checks its exit status, and that it says all of the words.
func (e *Engine) verb(t testing.TB, code int, words []string, stdin string, args ...string) string {
	t.Helper()
	r := e.Verb(stdin, args...)
	if r.Code != code {
		t.Fatalf("blockvol %s: exit status %d, want %d\n  stdout: %s\n  stderr: %s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stdout+r.Stderr, w) {
			t.Errorf("blockvol %s said, without %q:\n  stdout: %s\n  stderr: %s", strings.Join(args, " "), w, r.Stdout, r.Stderr)
		}
	}
	return r.Stdout
}

// The exit statuses of the verbs, as the documents tell them.
const (
	verbDone    = 0
	verbFailed  = 1
	verbRefused = 3
)

func TestThePersonOnCallMovesVolumesAndDrainsAHost(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	a, b := p.engines[0], p.engines[1]
	idA, idB := p.Instances[0].ID, p.Instances[1].ID
	one, two := a.NewVolume(t, "size=1GiB"), a.NewVolume(t, "size=1GiB")
	writer := func(e *Engine, v string) string {
		t.Helper()
		c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "echo row >>/data/rows; sync; touch /synced; exec sleep 1000")
		Eventually(t, 60*time.Second, func() error { return e.Try("exec", c, "test", "-e", "/synced").Err() })
		return c
	}
	rows := func(e *Engine, v string, want int) {
		t.Helper()
		var got string
		Eventually(t, 90*time.Second, func() error {
			r := e.Try("run", "--rm", "--mount", e.on(v, "/data"), busybox, "cat", "/data/rows")
			got = r.Stdout
			return r.Err()
		})
		if n := strings.Count(got+"\n", "row\n"); n != want {
			t.Errorf("%s has %d rows, want %d: %q", v, n, want, got)
		}
	}

	// In use on a host that is well: refused wherever it is asked, with the holder and the way to find what uses it.
	c := writer(a, one)
	lines := strings.Fields(b.verb(t, verbDone, nil, "", "ls", "--format", "{{.Name}}={{.Host}}"))
	if slices.Sort(lines); !slices.Equal(lines, slices.Sorted(slices.Values([]string{one + "=" + idA, two + "="}))) {
		t.Errorf("blockvol ls: %q", lines)
	}
	p.ResetCalls(t)
	b.verb(t, verbRefused, []string{one, idA, "running", "system check", "--stop-instance"}, "y\n", "detach", one)
	var report struct{ Action, Refused string }
	if err := json.Unmarshal([]byte(b.verb(t, verbRefused, nil, "", "detach", one, "--dry-run", "--format", "json")), &report); err != nil || report.Action != "none" || report.Refused == "" {
		t.Errorf("in JSON: %v, %+v", err, report)
	}
	a.verb(t, verbRefused, []string{one, "docker ps -a --filter volume=" + one}, "", "detach", one)
	if got := a.Docker(t, "ps", "-a", "--filter", "volume="+one, "--format", "{{.Names}}"); got != c {
		t.Errorf("the way to find the container finds %q, not %q", got, c)
	}
	b.verb(t, verbDone, []string{"no instance has the volume"}, "", "detach", two)
	for _, call := range p.Calls(t) {
		if call.Action == "DetachVolume" || call.Action == "StopInstances" {
			t.Errorf("something was done: %+v", call)
		}
	}

	// Drained: nothing new, what is in use is waited for, and in the end nothing is attached.
	a.verb(t, verbFailed, []string{one, "docker ps --filter volume=" + one, idA}, "", "drain", "-y", "--timeout", "2s")
	a.DockerFails(t, []string{two, "drained", "--undo"}, "run", "--rm", "--mount", a.on(two, "/data"), busybox, "true")
	// As the hook in docs/fencing.md does it.
	stop := `for v in $(docker volume ls -q --filter driver=blockvol:latest); do docker ps -q --filter volume="$v"; done | sort -u | xargs -r docker stop`
	if err := command(commandTime, a.env(), "", "sh", "-c", stop).Err(); err != nil {
		t.Fatal(err)
	}
	a.verb(t, verbDone, []string{idA, "drained"}, "", "drain", "-y", "--timeout", "100s")
	for _, v := range p.Volumes(t, "") {
		if len(v.Attachments) > 0 {
			t.Errorf("drained, and still attached: %+v", v)
		}
	}
	rows(b, one, 1)
	a.verb(t, verbDone, []string{"takes volumes again"}, "", "drain", "--undo")
	rows(a, one, 1)

	a.verb(t, verbDone, []string{one, "detached"}, "", "detach", one) // its grace is not waited for

	// The other host loses its power, and EC2 calls it running.
	lost := []string{writer(b, one), writer(b, two)}
	b.PowerCut(t)
	a.verb(t, verbRefused, []string{one, idB, "running"}, "", "detach", one, "-y")
	a.verb(t, verbFailed, []string{"not confirmed"}, "y\n", "detach", one, "--force")
	a.verb(t, verbFailed, []string{"not confirmed"}, "", "detach", two, "--stop-instance")
	p.ResetCalls(t)
	a.verb(t, verbDone, []string{"lost", "by force", "detached"}, one+"\n", "detach", one, "--force")
	rows(a, one, 2)
	a.verb(t, verbDone, []string{two, idB, "stopping", "twice", "detached"}, "", "detach", a.cloudVolume(t, two).ID, "--stop-instance", "-y")
	rows(a, two, 1)
	stops, forced := 0, 0
	for _, call := range p.Calls(t) {
		switch {
		case call.Action == "StopInstances":
			stops++
		case call.Action == "DetachVolume" && call.Params["Force"] == "true":
			forced++
		}
	}
	if stops != 1 || forced != 1 {
		t.Errorf("%d stops and %d forced detaches, want one of each", stops, forced)
	}

	p.SetInstanceState(t, idB, "running")
	b.Start(t)
	rows(b, two, 1)
	a.Docker(t, "rm", "-f", c)
	b.Docker(t, append([]string{"rm", "-f"}, lost...)...)
	for _, v := range []string{one, two} {
		Eventually(t, 90*time.Second, func() error { return a.Try("volume", "rm", v).Err() })
		// A host that lost its power takes some time before it believes that its uses have ended.
		Eventually(t, 90*time.Second, func() error { return b.Try("volume", "rm", "-f", v).Err() })
	}
}

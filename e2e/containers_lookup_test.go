package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// dockerd forgets a volume's labels and users when the plugin answers a look-up with an error, and may then delete it. So a cloud that
// cannot be asked must never lead to such an answer.
func failingLookUps(t *testing.T, e *Engine) {
	sim := e.Plugin.Sim()
	create := func() string {
		v := e.VolumeName(t)
		e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", "--label", "team=db", v)
		e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file")
		return v
	}
	idle, used := create(), create()
	c := e.RunDetached(t, []string{"--mount", e.on(used, "/data")}, counter("/data/lines"))
	e.Detached(t, idle)
	ids := map[string]string{idle: e.cloudVolume(t, idle).ID, used: e.cloudVolume(t, used).ID}
	unknown := e.VolumeName(t)
	sim.ResetCalls(t)
	intact := func(t *testing.T) {
		t.Helper()
		for _, v := range []string{idle, used} {
			if got := e.Inspect(t, v); got.Labels["team"] != "db" || got.Status["id"] != ids[v] {
				t.Errorf("afterwards %s has the labels %v and the ID %v, not %s", v, got.Labels, got.Status["id"], ids[v])
			}
			if id := e.cloudVolume(t, v).ID; id != ids[v] {
				t.Errorf("afterwards the account has %s for %s, not %s", id, v, ids[v])
			}
		}
		if got := e.Busybox(t, []string{"--mount", e.on(idle, "/data")}, "cat /data/file"); got != "kept" {
			t.Errorf("afterwards %s holds %q", idle, got)
		}
		e.Detached(t, idle)
	}

	for _, fault := range []Fault{
		{Kind: "error", Code: "UnauthorizedOperation", Status: 403, Message: "You are not authorized to perform this operation."},
		{Kind: "error", Code: "RequestLimitExceeded", Status: 503, Message: "Request limit exceeded."}, // tried again for as long as a request may take
	} {
		t.Run(fault.Code, func(t *testing.T) {
			fault.Action, fault.Times = "DescribeVolumes", -1
			// Let what was learned a moment ago become too old to answer from.
			time.Sleep(2 * time.Second)
			sim.Inject(t, fault)
			for _, v := range []string{idle, used} {
				if ls := e.Try("volume", "ls", "-q", "--filter", "name="+v); ls.Stdout != v {
					t.Errorf("docker volume ls does not show %s, but: %s%s", v, ls.Stdout, ls.Stderr)
				}
			}
			// Each of these waits for the cloud; so they do it side by side.
			atOnce(
				func() {
					r := e.Try("volume", "inspect", idle)
					if r.Code != 0 || !strings.Contains(r.Stdout, `"team": "db"`) || !strings.Contains(r.Stdout, `"error": `) {
						t.Errorf("docker volume inspect is to tell the labels and an error: %s%s", r.Stdout, r.Stderr)
					}
					if fault.Status == 503 {
						return // removing and running do the same, each for 40 s
					}
					if r := e.Try("volume", "rm", idle); r.Code == 0 || !strings.Contains(r.Stderr, idle) {
						t.Errorf("%s says, with status %d: %s", r.Command, r.Code, r.Stderr)
					}
				},
				func() {
					if fault.Status == 503 {
						return
					}
					c := e.Container(t)
					if r := e.Try("run", "--name", c, "--mount", e.on(unknown, "/data"), busybox, "true"); r.Code == 0 {
						t.Errorf("%s succeeded", r.Command)
					}
				},
				func() {
					// A container that runs, and one that is started beside it, have all they need on the host.
					r := e.Try("volume", "inspect", used)
					if r.Code != 0 || !strings.Contains(r.Stdout, `"team": "db"`) || !strings.Contains(r.Stdout, ids[used]) {
						t.Errorf("docker volume inspect of a volume in use says: %s%s", r.Stdout, r.Stderr)
					}
					if r := e.Try("volume", "rm", used); r.Code == 0 || !strings.Contains(r.Stderr, "volume is in use") {
						t.Errorf("%s says, with status %d: %s", r.Command, r.Code, r.Stderr)
					}
					c := e.Container(t)
					if r := e.Try("run", "--name", c, "--mount", e.on(used, "/data"), busybox, "cat", "/data/file"); r.Stdout != "kept" {
						t.Errorf("beside the running container another one reads %q %s", r.Stdout, r.Stderr)
					}
				},
			)
			if vs := sim.Volumes(t, unknown); len(vs) != 0 {
				t.Errorf("a volume was made where it could not be told whether there is one: %+v", vs)
			}
			e.grows(t, c, "/data/lines")
			sim.ClearFaults(t)
			intact(t)
		})
	}

	t.Run("a stale view", func(t *testing.T) {
		time.Sleep(2 * time.Second)
		sim.Inject(t, Fault{Kind: "invisible", Action: "DescribeVolumes", Times: -1})
		ended := make(chan Result)
		go func() { ended <- e.Try("volume", "inspect", idle) }()
		// It is seen again before it has been missing for long enough to be gone.
		time.Sleep(2 * time.Second)
		sim.ClearFaults(t)
		if err := (<-ended).Err(); err != nil {
			t.Error(err)
		}
		intact(t)
	})

	// The last use ends while the cloud does not answer; it is let go when the cloud does.
	sim.Inject(t, Fault{Kind: "error", Action: "DescribeVolumes", Times: -1, Code: "RequestLimitExceeded", Status: 503})
	e.Docker(t, "rm", "-f", c)
	Eventually(t, settled, func() error {
		if got := e.callsFor(t, ids[used]); !strings.Contains(got, "DetachVolume") {
			return fmt.Errorf("the calls are %s", got)
		}
		return nil
	})
	sim.ClearFaults(t)
	e.Detached(t, used)
	for _, call := range sim.Calls(t) {
		if call.Action == "DeleteVolume" || call.Action == "CreateVolume" {
			t.Errorf("%s was called for %v", call.Action, call.Params)
		}
	}
	if got := e.Inspect(t, used); got.Labels["team"] != "db" {
		t.Errorf("at the end the labels are %v", got.Labels)
	}
	if got := e.Busybox(t, []string{"--mount", e.on(used, "/data")}, "cat /data/file && test -s /data/lines && echo lines"); got != "kept\nlines" {
		t.Errorf("at the end the volume holds %q", got)
	}
	e.Detached(t, used)
}

// atOnce runs functions side by side and returns when all have ended.
func atOnce(all ...func()) {
	var wg sync.WaitGroup
	for _, f := range all {
		wg.Add(1)
		go func() { defer wg.Done(); f() }()
	}
	wg.Wait()
}

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Swarm of real engines, each a host of its own: its nodes die, leave and come back, and the services take their volumes with them.
func TestASwarmMovesItsVolumesAndLosesNothing(t *testing.T) {
	t.Parallel()
	// Two nodes are replaced in the end, one of them in another zone.
	s := newSwarm(t, []string{"m", "w1", "w2"}, "w2,zone=us-sim-1b", "m", "w1")
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"PostgreSQL on a node that dies, and on one that is drained", s.database},
		{"a node whose plugin or engine is dead keeps its volumes while its instance runs", s.heldByTheLiving},
		{"an instance is terminated", s.terminated},
		{"another zone, another cluster", s.elsewhere},
		{"everything is built anew", s.rebuilt},
	} {
		if !t.Run(test.name, test.run) {
			return // the nodes are not what the next one expects
		}
	}
}

// mutations are the calls of an instance that change something.
func (s *swarm) mutations(t testing.TB, instance string) (calls []Call) {
	t.Helper()
	for _, c := range s.Calls(t) {
		if c.Instance == instance && !strings.HasPrefix(c.Action, "Describe") {
			calls = append(calls, c)
		}
	}
	return calls
}

// untouched proves that nobody but its holder has detached a volume, and that nobody has by force.
func (s *swarm) untouched(t testing.TB, holder string) {
	t.Helper()
	for _, c := range s.Calls(t) {
		if c.Action == "DetachVolume" && (c.Params["Force"] == "true" || c.Params["InstanceId"] == holder && c.Instance != holder) {
			t.Errorf("taken from a host that runs: %+v", c)
		}
	}
}

// quiet waits until nothing of blockvol is mounted on a node and none of its containers runs.
func (s *swarm) quiet(t testing.TB, n *node) {
	t.Helper()
	Eventually(t, slowly, func() error {
		if r := n.Try("ps", "-q"); r.Code != 0 || r.Stdout != "" {
			return fmt.Errorf("node %s runs containers: %s%s", n.Name, r.Stdout, r.Stderr)
		}
		return n.volumeMounts()
	})
}

func (s *swarm) heldByTheLiving(t *testing.T) {
	v, w := name(t), name(t)
	w1, w2 := s.node(t, "w1"), s.node(t, "w2")
	a := s.counter(t, "--constraint", "node.hostname==w1", "--mount", s.volume(v, "/data", "volume-opt=size=1GiB"))
	b := s.counter(t, "--constraint", "node.hostname==w2", "--mount", s.volume(w, "/data", "volume-opt=size=1GiB"))
	_, onW1 := s.runsOn(t, a, "w1")
	_, onW2 := s.runsOn(t, b, "w2")
	toldA, toldB := w1.told(t, onW1), w2.told(t, onW2)
	pid := w2.Docker(t, "inspect", "-f", "{{.State.Pid}}", onW2)
	s.ResetCalls(t)

	// The plugin of one and the engine of the other die, and stay dead. The containers go on writing.
	w1.Docker(t, "plugin", "disable", "-f", w1.driver())
	w2.Signal(t, syscall.SIGKILL)
	rows := func() string { return w2.Inside("cat", "/proc/"+pid+"/root/data/rows").Stdout }
	Eventually(t, slowly, func() error {
		if got, later := w1.told(t, onW1), len(strings.Fields(rows())); got <= toldA+3 || later <= toldB+3 {
			return fmt.Errorf("the containers do not go on: %d after %d, %d after %d", got, toldA, later, toldB)
		}
		return nil
	})
	move := []string{"service", "update", "-d", "--no-resolve-image", "--constraint-add", "node.hostname==m", "--constraint-rm"}
	s.manager().Docker(t, append(move, "node.hostname==w1", a)...)
	s.manager().Docker(t, append(move, "node.hostname==w2", b)...)
	s.refused(t, a, "m", v, w1.Instance, "is running")
	s.refused(t, b, "m", w, w2.Instance, "is running")
	if a, b := s.holder(t, v), s.holder(t, w); a != w1.Instance || b != w2.Instance {
		t.Errorf("the volumes are attached to %q and %q", a, b)
	}
	s.untouched(t, w1.Instance)
	s.untouched(t, w2.Instance)
	toldB = len(strings.Fields(rows()))

	// Both live again and let go by themselves, some time later: a use from before the start counts until then.
	w1.Docker(t, "plugin", "enable", w1.driver())
	w2.Start(t)
	s.ready(t, w1)
	s.ready(t, w2)
	t.Run("two replicas", s.replicas)
	for _, moved := range []struct {
		svc  string
		told int
	}{{a, toldA}, {b, toldB}} {
		m, c := s.runsOn(t, moved.svc, "m")
		checkRows(t, m.Docker(t, "exec", c, "cat", "/data/rows"), moved.told)
	}
	s.untouched(t, w1.Instance)
	s.untouched(t, w2.Instance)
	s.quiet(t, w1)
	s.quiet(t, w2)
}

func (s *swarm) replicas(t *testing.T) {
	v := name(t)
	twice := func(volume string) string {
		return s.counter(t, "--replicas", "2", "--replicas-max-per-node", "1", "--constraint", "node.role==worker",
			"--mount", s.volume(volume, "/data", "volume-opt=size=1GiB"))
	}
	one := twice(v)
	winner, c := s.runsOn(t, one)
	loser := "w1"
	if winner.Name == "w1" {
		loser = "w2"
	}
	s.refused(t, one, loser, v, winner.Instance, "is running")
	checkRows(t, winner.Docker(t, "exec", c, "cat", "/data/rows"), 0)
	s.remove(t, one)
	s.untouched(t, winner.Instance)

	each := twice(v + "-{{.Task.Slot}}")
	for _, w := range []string{"w1", "w2"} {
		n, c := s.runsOn(t, each, w)
		n.told(t, c)
		checkRows(t, n.Docker(t, "exec", c, "cat", "/data/rows"), 1)
	}
	have := map[string]bool{s.holder(t, v+"-1"): true, s.holder(t, v+"-2"): true}
	if !have[s.node(t, "w1").Instance] || !have[s.node(t, "w2").Instance] {
		t.Errorf("the volumes of the two replicas are on %v", have)
	}
}

func (s *swarm) terminated(t *testing.T) {
	w1, w2 := s.node(t, "w1"), s.node(t, "w2")
	s.label(t, w2, "pool=x")
	svc := s.counter(t, "--constraint", "node.labels.pool==x", "--mount", s.volume(s.lasting, "/data", "volume-opt=size=1GiB"))
	n, c := s.runsOn(t, svc, "w2")
	n.told(t, c)
	s.label(t, w1, "pool=x")
	told := n.told(t, c)
	died := time.Now()
	s.SetInstanceState(t, n.Instance, "terminated")
	n.PowerCut(t)
	next, c := s.runsOn(t, svc, "w1")
	t.Logf("the service is back %.1f s after its node was terminated", time.Since(died).Seconds())
	s.rows = checkRows(t, next.Docker(t, "exec", c, "cat", "/data/rows"), told)
	s.remove(t, svc)
}

func (s *swarm) label(t testing.TB, n *node, label string) {
	t.Helper()
	s.manager().Docker(t, "node", "update", "--label-add", label, s.id(n))
}

// In place of the terminated node there is one in another zone.
func (s *swarm) elsewhere(t *testing.T) {
	m, w1, w2 := s.node(t, "m"), s.node(t, "w1"), s.node(t, "w2")
	if err := w2.fresh(); err != nil {
		t.Fatal(err)
	}
	s.equip(t, w2)
	m.Docker(t, "node", "rm", "--force", "w2")
	s.join(t, w2)
	for n, zone := range map[*node]string{m: "us-sim-1a", w1: "us-sim-1a", w2: "us-sim-1b"} {
		s.label(t, n, "zone="+zone)
	}
	svc := s.counter(t, "--constraint", "node.labels.zone==us-sim-1b", "--mount", s.volume(s.lasting, "/data"))
	s.refused(t, svc, "w2", s.lasting, "us-sim-1a", "us-sim-1b")
	m.Docker(t, "service", "update", "-d", "--no-resolve-image",
		"--constraint-rm", "node.labels.zone==us-sim-1b", "--constraint-add", "node.labels.zone==us-sim-1a", svc)
	n, c := s.runsOn(t, svc, "m", "w1")
	s.rows = checkRows(t, n.Docker(t, "exec", c, "cat", "/data/rows"), s.rows)
	s.remove(t, svc)

	s.inB = name(t)
	here := []string{"--constraint", "node.labels.zone==us-sim-1b", "--mount", s.volume(s.inB, "/data", "volume-opt=size=1GiB")}
	svc = s.counter(t, here...)
	n, c = s.runsOn(t, svc, "w2")
	n.told(t, c)
	s.remove(t, svc)
	w2.Plugin.Restart(t, "CLUSTER=other")
	svc = s.counter(t, here...)
	s.refused(t, svc, "w2", `cluster "swarm"`, `cluster "other"`)
}

// Nothing is left of the hosts: no engine knows anything, no instance exists. Only EC2 has the volumes.
func (s *swarm) rebuilt(t *testing.T) {
	special := name(t)
	m, w1 := s.node(t, "m"), s.node(t, "w1")
	w1.Docker(t, "volume", "create", "-d", w1.driver(), "-o", "size=8GiB", "-o", "iops=4000", "-o", "fstype=xfs",
		"-o", "uid=1000", "-o", "mode=0700", "-o", "tag.team=shop", special)
	w1.Busybox(t, []string{"--mount", w1.on(special, "/data"), "--user", "1000"}, "echo kept >/data/file; sync /data/file")
	what := func(n *node) string {
		st := n.Inspect(t, special).Status
		return fmt.Sprint(st["id"], st["size"], st["type"], st["iops"], st["filesystem"], st["tags"], st["zone"])
	}
	before := what(w1)
	for _, n := range s.nodes {
		s.SetInstanceState(t, n.Instance, "terminated")
	}
	s.each(t, func(n *node) error { return n.script("kill", n.Dir).Err() })
	s.each(t, func(n *node) error { return n.stop() })
	s.nodes = []*node{m, w1}
	s.each(t, func(n *node) error { return n.start() })
	s.equip(t, s.nodes...)
	s.form(t, s.nodes...)
	for _, n := range s.nodes {
		Eventually(t, slowly, func() error {
			r := n.Try("volume", "ls", "-q", "--filter", "driver="+n.driver()+":latest")
			for _, v := range []string{s.lasting, s.inB, special} {
				if !contains(strings.Fields(r.Stdout), v) {
					return fmt.Errorf("node %s does not list %s: %s%s", n.Name, v, r.Stdout, r.Stderr)
				}
			}
			return nil
		})
		if got := what(n); got != before {
			t.Errorf("node %s shows %s, before it was %s", n.Name, got, before)
		}
	}
	svc := s.counter(t, "--mount", s.volume(s.lasting, "/data"))
	n, c := s.runsOn(t, svc)
	n.told(t, c)
	if now := checkRows(t, n.Docker(t, "exec", c, "cat", "/data/rows"), s.rows); now <= s.rows {
		t.Errorf("%d rows, after %d", now, s.rows)
	}
	got := m.Busybox(t, []string{"--mount", m.on(special, "/data"), "--user", "1000"}, "cat /data/file; stat -c '%u %a' /data; grep ' /data ' /proc/mounts")
	if !strings.HasPrefix(got, "kept\n1000 700\n") || !strings.Contains(got, " xfs ") {
		t.Errorf("the volume with options holds %q", got)
	}
	s.remove(t, svc)
	for _, n := range s.nodes {
		s.quiet(t, n)
	}
	for _, v := range s.Volumes(t, "") {
		Eventually(t, slowly, func() error { return m.Try("volume", "rm", v.Tags["blockvol:name"]).Err() })
	}
	for _, v := range s.Volumes(t, "") {
		if v.State != "deleting" {
			t.Errorf("the account still has %+v", v)
		}
	}
}

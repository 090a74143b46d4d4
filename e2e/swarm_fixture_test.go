package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowly is the limit of what takes some seconds on a machine that does nothing else.
const slowly = 2 * time.Minute

// swarm is a Docker Swarm of real engines on one simulated EC2: each node has a network namespace, a host name, an instance and a /dev of its
// own, and the managed plugin. The first node is the manager.
type swarm struct {
	*AloneSim
	net   string // the name that scripts/network knows it by
	nodes []*node
	spare int // the first instance that no node has been yet

	loading sync.WaitGroup // of the large image, on the workers
	loaded  [2]error

	lasting string // a volume with a counter in it that goes through several tests
	rows    int    // how far the counter was
	inB     string // a volume in the other zone
}

type node struct {
	*Engine
	Name     string
	Instance string
	address  string
}

// newSwarm starts an engine for each name. spares are instances for later: the name of the node that each will be, and its zone if that is
// another ("w2,zone=us-sim-1b").
func newSwarm(t *testing.T, names []string, spares ...string) *swarm {
	t.Helper()
	s := &swarm{lasting: name(t), net: fmt.Sprintf("blockvol-%08x", crc32.ChecksumIEEE([]byte(buildDir)))}
	for n, name := range names {
		e := NewEngine("swarm-" + name)
		e.where = []string{"--net", s.net + "-" + name, "--hostname", name}
		s.nodes = append(s.nodes, &node{Engine: e, Name: name, address: fmt.Sprintf("192.168.77.%d", n+1)})
		if err := e.stop(); err != nil { // what an interrupted run may have left
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := s.network("down", s.net); err != nil {
			t.Error(err)
		}
	})
	if err := s.network(append([]string{"up", s.net}, names...)...); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(buildDir, "swarm")
	t.Cleanup(func() {
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+".log")); err != nil {
			t.Error(err)
		}
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	args := []string{"--delay-create", "200ms", "--delay-attach", "500ms", "--delay-detach", "500ms"}
	for n, host := range append(slices.Clone(names), spares...) {
		name, zone, ok := strings.Cut(host, ",")
		if !ok {
			zone = "zone=us-sim-1a"
		}
		args = append(args, "--instance", fmt.Sprintf("i-%017x,netns=%s-%s,%s", 0xa1+n, s.net, name, zone))
	}
	s.AloneSim = startSim(t, dir, args...)
	t.Cleanup(func() {
		for _, n := range s.nodes {
			if t.Failed() {
				n.printLog(os.Stderr)
			}
		}
		s.each(t, func(n *node) error { return n.stop() })
	})
	s.each(t, func(n *node) error { return n.start() })
	t.Cleanup(s.loading.Wait)
	for n, w := range s.nodes[1:] {
		s.loading.Go(func() { s.loaded[n] = w.image("postgres") })
	}
	s.equip(t, s.nodes...)
	s.form(t, s.nodes...)
	return s
}

func (s *swarm) network(args ...string) error {
	return command(time.Minute, nil, "", filepath.Join(repo, "scripts", "network"), args...).Err()
}

// each does something for all nodes at once.
func (s *swarm) each(t *testing.T, do func(n *node) error) {
	t.Helper()
	var all sync.WaitGroup
	for _, n := range s.nodes {
		all.Go(func() {
			if err := do(n); err != nil {
				t.Errorf("node %s: %v", n.Name, err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// equip gives nodes whose engines are new the next instances that none has been, the plugin and the small image.
func (s *swarm) equip(t *testing.T, nodes ...*node) {
	t.Helper()
	var all sync.WaitGroup
	for _, n := range nodes {
		host := s.spare
		s.spare++
		n.Instance = s.Instances[host].ID
		all.Go(func() {
			p, err := n.install("blockvol", s.settings(host, "CLUSTER=swarm", "LOG_LEVEL=debug", "DETACH_GRACE=500ms")...)
			if err := errors.Join(err, n.image("busybox")); err != nil {
				t.Errorf("node %s: %v", n.Name, err)
			}
			n.Plugin = p
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// form makes a Swarm of nodes; the first becomes its manager. A node that is dead is known to be after 9 s instead of 15.
func (s *swarm) form(t *testing.T, nodes ...*node) {
	t.Helper()
	m := nodes[0]
	m.Docker(t, "swarm", "init", "--advertise-addr", m.address, "--listen-addr", m.address, "--dispatcher-heartbeat", "3s", "--task-history-limit", "20")
	for _, n := range nodes[1:] {
		s.join(t, n)
	}
}

// join makes a node a worker, with its zone as a label.
func (s *swarm) join(t *testing.T, n *node) {
	t.Helper()
	token := s.manager().Docker(t, "swarm", "join-token", "-q", "worker")
	n.Docker(t, "swarm", "join", "--advertise-addr", n.address, "--listen-addr", n.address, "--token", token, s.manager().address+":2377")
	s.ready(t, n)
}

// ready waits until the Swarm gives a node tasks that need the plugin, and tells how long it took.
func (s *swarm) ready(t *testing.T, n *node) {
	t.Helper()
	began := time.Now()
	defer func() { t.Logf("node %s is ready after %.1f s", n.Name, time.Since(began).Seconds()) }()
	Eventually(t, slowly, func() error {
		r := s.manager().Try("node", "inspect", "-f", "{{.Status.State}} {{range .Description.Engine.Plugins}}{{.Name}} {{end}}", s.id(n))
		if r.Code != 0 || !strings.HasPrefix(r.Stdout, "ready ") || !strings.Contains(r.Stdout, "blockvol:latest") {
			return fmt.Errorf("node %s: %s %s", n.Name, r.Stdout, r.Stderr)
		}
		return nil
	})
}

// down waits until the Swarm knows that a node is dead.
func (s *swarm) down(t *testing.T, id string) {
	t.Helper()
	Eventually(t, slowly, func() error {
		if r := s.manager().Try("node", "inspect", "-f", "{{.Status.State}}", id); r.Stdout != "down" {
			return fmt.Errorf("node %s: %s %s", id, r.Stdout, r.Stderr)
		}
		return nil
	})
}

// id is what the Swarm calls a node. The name of a node that was replaced belongs to two.
func (s *swarm) id(n *node) string { return n.Try("info", "-f", "{{.Swarm.NodeID}}").Stdout }

func (s *swarm) manager() *node { return s.nodes[0] }

func (s *swarm) node(t testing.TB, name string) *node {
	t.Helper()
	for _, n := range s.nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("there is no node %q", name)
	return nil
}

// volume is the flag that mounts a volume in the tasks of a service.
func (s *swarm) volume(v, dst string, more ...string) string { return s.manager().on(v, dst, more...) }

// service creates one and has it removed at the end of the test, with all its containers. args are flags, the image and its command.
func (s *swarm) service(t testing.TB, args ...string) string {
	t.Helper()
	svc := name(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("docker service ps %s:\n%s", svc, s.manager().Try("service", "ps", "--no-trunc", svc).Stdout)
		}
		s.remove(t, svc)
	})
	create := []string{"service", "create", "-d", "--no-resolve-image", "--name", svc, "--restart-delay", "1s", "--stop-grace-period", "20s"}
	s.manager().Docker(t, append(create, args...)...)
	return svc
}

// remove removes a service and waits until no node has a container of it.
func (s *swarm) remove(t testing.TB, svc string) {
	t.Helper()
	if r := s.manager().Try("service", "rm", svc); r.Code != 0 && !strings.Contains(r.Stderr, "not found") {
		t.Error(r.Err())
	}
	for _, n := range s.nodes {
		if n.dead {
			continue
		}
		if err := poll(slowly, func() error {
			if r := n.Try("ps", "-aq", "--filter", "label=com.docker.swarm.service.name="+svc); r.Code != 0 || r.Stdout != "" {
				return fmt.Errorf("node %s has containers of the service %s: %s", n.Name, svc, r.Stdout+r.Stderr)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// SwarmTask is a line of docker service ps.
type SwarmTask struct{ ID, Name, Node, DesiredState, CurrentState, Error string }

func (s *swarm) tasks(t testing.TB, svc string) (tasks []SwarmTask) {
	t.Helper()
	for line := range strings.Lines(s.manager().Docker(t, "service", "ps", "--no-trunc", "--format", "{{json .}}", svc)) {
		var task SwarmTask
		if err := json.Unmarshal([]byte(line), &task); err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, task)
	}
	return tasks
}

// runsOn waits until a task of the service runs on a node that the test accepts, and returns that node and the container.
func (s *swarm) runsOn(t testing.TB, svc string, accept ...string) (n *node, container string) {
	t.Helper()
	Eventually(t, slowly, func() error {
		tasks := s.tasks(t, svc)
		for _, task := range tasks {
			if task.DesiredState != "Running" || !strings.HasPrefix(task.CurrentState, "Running") || len(accept) > 0 && !contains(accept, task.Node) {
				continue
			}
			n = s.node(t, task.Node)
			container = n.Try("ps", "-q", "--filter", "label=com.docker.swarm.task.id="+task.ID).Stdout
			if container != "" {
				return nil
			}
		}
		return fmt.Errorf("no task of %s runs on one of %v: %+v", svc, accept, tasks)
	})
	return n, container
}

// refused waits until a task of the service has been refused on the node with an error that has all of the words.
func (s *swarm) refused(t testing.TB, svc, on string, words ...string) SwarmTask {
	t.Helper()
	var found SwarmTask
	Eventually(t, slowly, func() error {
		tasks := s.tasks(t, svc)
		for _, task := range tasks {
			if (on == "" || task.Node == on) && containsAll(task.Error, words) {
				found = task
				return nil
			}
		}
		return fmt.Errorf("no task of %s on %q has an error with %q: %+v", svc, on, words, tasks)
	})
	return found
}

func contains(list []string, one string) bool {
	for _, l := range list {
		if l == one {
			return true
		}
	}
	return false
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// holder is the one instance that has the volume; empty if none has.
func (s *swarm) holder(t testing.TB, v string) string {
	t.Helper()
	there := s.Volumes(t, v)
	if len(there) != 1 || len(there[0].Attachments) > 1 {
		t.Fatalf("the account has %+v", there)
	}
	if len(there[0].Attachments) == 0 {
		return ""
	}
	return there[0].Attachments[0].Instance
}

// counter is a service that writes the numbers 1, 2, 3, ... to its volume, each of 8 bytes and on the disk before it is told on the standard
// output. A new task goes on where the file ends.
func (s *swarm) counter(t testing.TB, flags ...string) string {
	t.Helper()
	const script = `trap 'exit 0' TERM
n=$(($(cat /data/rows 2>/dev/null | wc -c) / 8))
while :; do
	printf '%07d\n' $((n + 1)) | dd of=/data/rows bs=8 seek=$n conv=notrunc,fsync status=none || exit 1
	n=$((n + 1))
	echo $n
	sleep 0.1
done`
	return s.service(t, append(append([]string{"--stop-grace-period", "2s"}, flags...), busybox, "sh", "-c", script)...)
}

// told is the last number that a container of counter has told, which is at least one.
func (n *node) told(t testing.TB, container string) (last int) {
	t.Helper()
	Eventually(t, slowly, func() error {
		r := n.Try("logs", "--tail", "1", container)
		if r.Code != 0 {
			return r.Err()
		}
		var err error
		last, err = strconv.Atoi(r.Stdout)
		return err
	})
	return last
}

// checkRows proves that the rows of counter are 1, 2, 3, ... without a gap, and not fewer than were told; it returns how many there are.
func checkRows(t testing.TB, rows string, told int) int {
	t.Helper()
	lines := strings.Fields(rows)
	for i, l := range lines {
		if n, err := strconv.Atoi(l); err != nil || n != i+1 {
			t.Fatalf("row %d of %d is %q", i+1, len(lines), l)
		}
	}
	lost := max(told-len(lines), 0)
	t.Logf("rows written: %d; told to be on the disk: %d; lost: %d", len(lines), told, lost)
	if lost > 0 {
		t.Errorf("%d rows are lost", lost)
	}
	return len(lines)
}

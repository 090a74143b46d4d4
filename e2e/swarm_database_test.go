package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// clients write transactions to a PostgreSQL in a container, each over its own connection and one after the other, and know outside of it
// which ones were committed.
type clients struct {
	committed []int // by client: the last transaction whose end was told
	all       sync.WaitGroup
	stop      chan struct{}
	mu        sync.Mutex
}

const numClients = 3

const schema = `create table accounts (id int primary key, balance bigint not null);
insert into accounts select n, 0 from generate_series(0, 2) n;
create table history (client int, n int, delta int, primary key (client, n))`

// write starts them; each goes on with the number after its last one, and ends with its connection or with stop.
func (c *clients) write(t *testing.T, n *node, container string) {
	t.Helper()
	c.stop = make(chan struct{})
	for id := range c.committed {
		cmd := exec.Command("docker", "exec", "-i", container, "psql", "-qtA", "shop")
		cmd.Env = append(cmd.Environ(), n.env()...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.all.Go(func() {
			defer cmd.Wait()
			guard := time.AfterFunc(2*slowly, func() { cmd.Process.Kill() })
			defer guard.Stop()
			defer in.Close()
			c.client(id, in, bufio.NewReader(out))
		})
	}
}

// client sends one transaction, and the next once the server has said that it is committed: PostgreSQL answers after the commit is on the disk.
func (c *clients) client(id int, in io.Writer, out *bufio.Reader) {
	for n := c.count(id) + 1; ; n++ {
		select {
		case <-c.stop:
			return
		default:
		}
		sql := fmt.Sprintf("with moved as (update accounts set balance = balance + %[2]d where id = %[1]d returning id) "+
			"insert into history select id, %[2]d, %[2]d from moved returning n;\n", id, n)
		if _, err := io.WriteString(in, sql); err != nil {
			return
		}
		if answer, err := out.ReadString('\n'); err != nil || strings.TrimSpace(answer) != fmt.Sprint(n) {
			return
		}
		c.mu.Lock()
		c.committed[id] = n
		c.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *clients) count(id int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.committed[id]
}

func (c *clients) total() (sum int) {
	for id := range c.committed {
		sum += c.count(id)
	}
	return sum
}

// check proves that a PostgreSQL has every transaction that was committed, each once and whole, and at most one more of each client: the one
// whose answer was lost. Those count as committed from now on.
func (c *clients) check(t *testing.T, n *node, container, when string) {
	t.Helper()
	committed, lost, unanswered := c.total(), 0, 0
	for id := range c.committed {
		var known, highest, count int
		sql := fmt.Sprintf("select count(*) filter (where n <= %[2]d), coalesce(max(n), 0), count(*) from history where client = %[1]d", id, c.committed[id])
		got := n.Docker(t, "exec", container, "psql", "-tA", "-F", " ", "-c", sql, "shop")
		if _, err := fmt.Sscan(got, &known, &highest, &count); err != nil {
			t.Fatalf("psql: %q: %v", got, err)
		}
		lost += c.committed[id] - known
		unanswered += highest - c.committed[id]
		if highest > c.committed[id]+1 || count != highest {
			t.Errorf("client %d committed %d transactions, and the database has %d up to number %d", id, c.committed[id], count, highest)
		}
		c.committed[id] = highest
	}
	t.Logf("%s: transactions committed %d, lost %d, committed without an answer %d", when, committed, lost, unanswered)
	if lost != 0 || committed == 0 {
		t.Errorf("%s: %d of %d committed transactions are lost", when, lost, committed)
	}
	const sums = "select (select sum(balance) from accounts) = (select sum(delta) from history)"
	if got := n.Docker(t, "exec", container, "psql", "-tA", "-c", sums, "shop"); got != "t" {
		t.Errorf("%s: half of a transaction is there", when)
	}
}

// moreThan waits until so many more transactions have been committed.
func (c *clients) moreThan(t *testing.T, more int) {
	t.Helper()
	begin := c.total()
	Eventually(t, slowly, func() error {
		if now := c.total(); now < begin+more {
			return fmt.Errorf("%d transactions after %d", now, begin)
		}
		return nil
	})
}

func (s *swarm) database(t *testing.T) {
	w1, w2 := s.node(t, "w1"), s.node(t, "w2")
	s.loading.Wait()
	if err := errors.Join(s.loaded[:]...); err != nil {
		t.Fatal(err)
	}
	v := name(t)
	svc := s.service(t, "--constraint", "node.role==worker", "--mount", s.volume(v, "/var/lib/postgresql/data", "volume-opt=size=2GiB"), postgres)
	answers := func(n *node, c string) {
		t.Helper()
		Eventually(t, slowly, func() error { return n.Try("exec", c, "psql", "-qc", "select 1", "postgres").Err() })
	}
	first, c := s.runsOn(t, svc)
	second := w1
	if first == w1 {
		second = w2
	}
	answers(first, c)
	first.Docker(t, "exec", c, "createdb", "shop")
	first.Docker(t, "exec", c, "psql", "-qc", schema, "shop")
	work := &clients{committed: make([]int, numClients)}
	work.write(t, first, c)
	work.moreThan(t, 100)

	// The power fails under the writing database: first its disk is cut off, then everything on the host ends.
	s.ResetCalls(t)
	dead := s.id(first)
	s.SetInstanceState(t, first.Instance, "stopped")
	died := time.Now()
	first.PowerCut(t)
	work.all.Wait()
	s.down(t, dead)
	t.Logf("its node is known to be down %.1f s after it died", time.Since(died).Seconds())
	got, c := s.runsOn(t, svc, second.Name)
	answers(got, c)
	t.Logf("PostgreSQL is back %.1f s after its node died", time.Since(died).Seconds())
	work.check(t, got, c, "after the node died")
	for _, call := range s.Calls(t) {
		if call.Action == "DetachVolume" && call.Params["Force"] == "true" {
			t.Errorf("taken by force: %+v", call)
		}
	}

	// The dead node returns, while the database is written to elsewhere, and harms nothing.
	work.write(t, got, c)
	work.moreThan(t, 20)
	s.ResetCalls(t)
	s.SetInstanceState(t, first.Instance, "running")
	first.Start(t)
	s.ready(t, first)
	s.quiet(t, first)
	work.moreThan(t, 50)
	if did := s.mutations(t, first.Instance); len(did) > 0 {
		t.Errorf("the node that came back has changed something: %+v", did)
	}
	if h := s.holder(t, v); h != second.Instance {
		t.Errorf("the volume is attached to %q", h)
	}

	// The second node is drained while the database is written to.
	s.ResetCalls(t)
	s.manager().Docker(t, "node", "update", "--availability", "drain", second.Name)
	t.Cleanup(func() { s.manager().Docker(t, "node", "update", "--availability", "active", second.Name) })
	drained := time.Now()
	work.all.Wait()
	got, c = s.runsOn(t, svc, first.Name)
	answers(got, c)
	t.Logf("PostgreSQL is back %.1f s after its node was drained", time.Since(drained).Seconds())
	work.check(t, got, c, "after the node was drained")
	s.untouched(t, second.Instance)
	s.quiet(t, second)
}

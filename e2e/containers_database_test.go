package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestMariaDBsRowsSurviveItsContainer(t *testing.T) {
	t.Parallel()
	e := shared
	e.Image(t, mariadb)
	v := e.VolumeName(t)
	start := func() string {
		c := e.Container(t)
		// The short form makes the volume, with the defaults.
		e.Docker(t, "run", "-d", "--name", c, "--network", "none", "-v", v+":/var/lib/mysql", "--volume-driver", e.driver(), mariadb)
		Eventually(t, 2*time.Minute, func() error { return e.Try("exec", c, "mariadb-admin", "ping").Err() })
		return c
	}
	query := func(c, sql string) string { return e.Docker(t, "exec", c, "mariadb", "-N", "-B", "-e", sql) }
	c := start()
	query(c, "create database shop; use shop; create table orders (id int primary key, what varchar(40)) engine=innodb; insert into orders select seq, md5(seq) from seq_1_to_20000")
	sum := "select count(*), sum(crc32(what)) from shop.orders"
	before := query(c, sum)
	if !strings.HasPrefix(before, "20000\t") {
		t.Fatalf("the table holds %q", before)
	}
	if got := e.Docker(t, "exec", c, "stat", "-c", "%U:%G %a", "/var/lib/mysql"); got != "mysql:mysql 700" {
		t.Errorf("the data folder belongs to %s", got)
	}
	e.Docker(t, "kill", c) // committed rows survive this too
	e.Docker(t, "rm", c)
	e.Detached(t, v)
	c = start()
	if after := query(c, sum); after != before {
		t.Errorf("the next container finds %q, not %q", after, before)
	}
	e.Docker(t, "stop", c)
	e.Docker(t, "rm", c)
	e.Detached(t, v)
}

// pgbench checks its own transactions; a connection or a write that fails ends it with an error.
func pgbenchWhileThePluginIsKilled(t *testing.T, e *Engine) {
	e.Image(t, postgres)
	v := e.NewVolume(t, "size=2GiB")
	start := func() string {
		c := e.Container(t)
		e.Docker(t, "run", "-d", "--name", c, "--network", "none", "--shm-size", "128m", "--mount", e.on(v, "/var/lib/postgresql/data"), postgres)
		Eventually(t, 2*time.Minute, func() error { return e.Try("exec", c, "psql", "-qc", "select 1", "postgres").Err() })
		return c
	}
	c := start()
	e.Docker(t, "exec", c, "createdb", "shop")
	e.Docker(t, "exec", c, "pgbench", "-i", "-q", "shop")
	bench := exec.Command("docker", "exec", c, "pgbench", "-c", "4", "-T", "12", "shop")
	bench.Env = append(bench.Environ(), e.env()...)
	var out strings.Builder
	bench.Stdout, bench.Stderr = &out, &out
	began := time.Now()
	if err := bench.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bench.Wait() }()
	t.Cleanup(func() { bench.Process.Kill() })
	kills := 0
	for ; kills < 4 && time.Since(began) < 10*time.Second; kills++ {
		time.Sleep(2 * time.Second)
		select {
		case err := <-ended:
			t.Fatalf("pgbench ended after %s: %v\n%s", time.Since(began), err, &out)
		default:
		}
		e.Plugin.Kill(t)
	}
	if kills < 2 {
		t.Errorf("only %d kills in %s", kills, time.Since(began))
	}
	select {
	case err := <-ended:
		done := regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`).FindStringSubmatch(out.String())
		if err != nil || !strings.Contains(out.String(), "number of failed transactions: 0 ") || done == nil || len(done[1]) < 2 {
			t.Fatalf("pgbench: %v\n%s", err, &out)
		}
	case <-time.After(time.Minute):
		t.Fatalf("pgbench does not end\n%s", &out)
	}
	Eventually(t, 20*time.Second, func() error { return e.isAttached(t, v) })
	sums := "select (select count(*) from pgbench_history), (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)"
	before := e.Docker(t, "exec", c, "psql", "-tA", "-c", sums, "shop")
	var rows, accounts, branches, history int
	if _, err := fmt.Sscanf(strings.ReplaceAll(before, "|", " "), "%d %d %d %d", &rows, &accounts, &branches, &history); err != nil || rows == 0 || accounts != history || branches != history {
		t.Errorf("the balances after pgbench (rows, accounts, branches, history): %s %v", before, err)
	}
	e.Docker(t, "stop", c)
	e.Docker(t, "rm", c)
	e.Detached(t, v)
	c = start()
	if after := e.Docker(t, "exec", c, "psql", "-tA", "-c", sums, "shop"); after != before {
		t.Errorf("the next container finds %s, not %s", after, before)
	}
	e.Docker(t, "rm", "-f", c)
	e.Detached(t, v)
	// The simulator, which is killed with the plugin, counts from the last kill on: no kill made the plugin attach the volume again.
	if id := e.cloudVolume(t, v).ID; e.callsFor(t, id) != "AttachVolume 1, DetachVolume 2" {
		t.Errorf("the end of the first database and the whole of the second took these calls: %s", e.callsFor(t, id))
	}
}

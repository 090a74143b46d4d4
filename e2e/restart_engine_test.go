package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Without live-restore the containers die with the engine, or when it starts again.
func TestAnEngineThatDiesOrRestartsLosesNothingThatWasSynced(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	s := e.aloneSim(t, "--instance", "")
	s.install(t, e, "CLUSTER=restart", "LOG_LEVEL=debug")
	always := e.newWriter(t, s, "--restart", "always")
	again := e.newWriter(t, s)
	bank := e.newBank(t, s)
	var never []*writer
	for _, end := range []struct {
		name string
		sig  syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"restarted in order", syscall.SIGTERM}} {
		w := e.newWriter(t, s)
		never = append(never, w)
		t.Run(end.name, func(t *testing.T) {
			bank.clients(t)
			e.Signal(t, end.sig)
			e.Start(t)
			always.writes(t)
			always.intact(t)
			for _, w := range []*writer{again, w} {
				if got := w.state(t, "Status"); got != "exited" {
					t.Errorf("a container that nobody starts again is %s", got)
				}
			}
			e.Docker(t, "start", again.container)
			again.writes(t)
			again.intact(t)
			bank.balanced(t)
		})
	}
	// Their Unmount was lost, or came while the engine ended.
	for _, w := range never {
		w.free(t)
		w.whole(t, e)
		w.once(t)
		w.removed(t)
	}
	always.gone(t)
	again.gone(t)
	e.Docker(t, "stop", bank.container)
	bank.free(t)
	bank.once(t)
	bank.removed(t)
}

// bank is a PostgreSQL with two clients: pgbench, and one that notes each row once its transaction is committed.
type bank struct{ *writer }

func (e *Engine) newBank(t *testing.T, s *AloneSim) bank {
	t.Helper()
	e.Image(t, postgres)
	b := bank{e.newNoted(t, s)}
	e.Docker(t, "run", "-d", "--name", b.container, "--restart", "always", "--network", "none", "--shm-size", "128m",
		"--mount", e.on(b.volume, "/var/lib/postgresql/data"), "-v", b.notes+":/notes", postgres)
	b.answers(t)
	e.Docker(t, "exec", b.container, "createdb", "shop")
	e.Docker(t, "exec", b.container, "pgbench", "-i", "-q", "shop")
	b.query(t, "create table noted (n int primary key)")
	return b
}

func (b bank) answers(t *testing.T) {
	t.Helper()
	Eventually(t, letGo, func() error { return b.e.Try("exec", b.container, "psql", "-qc", "select 1", "postgres").Err() })
}

func (b bank) query(t *testing.T, sql string) string {
	t.Helper()
	return b.e.Docker(t, "exec", b.container, "psql", "-qtA", "-c", sql, "shop")
}

// clients starts both clients and waits until they are at work. They end with their container.
func (b bank) clients(t *testing.T) {
	t.Helper()
	b.e.Docker(t, "exec", "-d", b.container, "pgbench", "-n", "-c", "2", "-T", "900", "shop")
	b.e.Docker(t, "exec", "-d", b.container, "sh", "-c", "n=$(cat /notes/row || echo 0); while n=$((n+1)); do "+
		`psql -qc "insert into noted values ($n) on conflict do nothing" shop && echo $n >/notes/new && mv /notes/new /notes/row; done`)
	b.writes(t)
	before := b.query(t, "select count(*) from pgbench_history")
	Eventually(t, letGo, func() error {
		if now := b.query(t, "select count(*) from pgbench_history"); now == before {
			return fmt.Errorf("pgbench has made %s transactions, and makes no more", now)
		}
		return nil
	})
}

// balanced fails the test unless every noted transaction is there, and every other one is there whole or not at all.
func (b bank) balanced(t *testing.T) {
	t.Helper()
	noted := b.noted()
	b.answers(t)
	if there, err := strconv.Atoi(b.query(t, fmt.Sprintf("select count(*) from noted where n <= %d", noted))); err != nil || there != noted || noted == 0 {
		t.Errorf("%d transactions were committed, and %d of them are there (%v)", noted, there, err)
	}
	sums := b.query(t, "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)")
	for _, sum := range strings.Split(sums, "|") {
		if sum == "" || sum != strings.Split(sums, "|")[0] {
			t.Errorf("the balances of accounts, branches and tellers, and the history: %s", sums)
		}
	}
	t.Logf("%d committed transactions noted, none lost; pgbench has made %s", noted, b.query(t, "select count(*) from pgbench_history"))
}

// Live-restore, or a plugin that is gone for a while: the containers are the same processes before and after.
func TestContainersLiveOnWhileTheirEngineOrTheirPluginIsAway(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t, "--live-restore")
	s := e.aloneSim(t, "--instance", "")
	p := s.install(t, e, "CLUSTER=restart", "LOG_LEVEL=debug")
	w := e.newWriter(t, s)
	away := func(sig syscall.Signal, also func()) {
		e.Signal(t, sig)
		also()
		w.writes(t)
		e.Start(t)
	}
	nothing := func() {}
	for _, event := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"the engine is killed", func(*testing.T) { away(syscall.SIGKILL, nothing) }},
		{"the engine is restarted in order", func(*testing.T) { away(syscall.SIGTERM, nothing) }},
		{"the engine is killed and the plugin with it", func(t *testing.T) { away(syscall.SIGKILL, func() { p.end(t, nil) }) }},
		{"the plugin is disabled by force", func(t *testing.T) {
			e.Docker(t, "plugin", "disable", "-f", p.Name)
			w.writes(t)
			e.Docker(t, "plugin", "enable", p.Name)
		}},
		{"the ledger is missing", damaged(p, rm)},
		{"the ledger is truncated", damaged(p, truncate)},
		{"the ledger is garbage", damaged(p, garbage)},
		{"the ledger is of a newer version", damaged(p, newer)},
	} {
		if !t.Run(event.name, func(t *testing.T) {
			event.do(t)
			w.intact(t)
			w.livedOn(t)
			e.DockerFails(t, []string{"in use"}, "volume", "rm", w.volume)
		}) {
			t.FailNow()
		}
	}
	// The plugin has lost its list of uses: it takes its own mount away, and finds that the container still has the device.
	Eventually(t, letGo, func() error {
		if st := e.Inspect(t, w.volume).Status; st["state"] != "draining" {
			return fmt.Errorf("%v", st)
		}
		return nil
	})
	w.livedOn(t)
	// A second container gets the same device.
	if got := e.Busybox(t, []string{"--mount", e.on(w.volume, "/data")}, "head -n 1 /data/rows"); got != "1" {
		t.Errorf("a second container reads %q", got)
	}
	w.livedOn(t)
	if n := w.once(t); n != 1 {
		t.Errorf("the volume was attached %d times while its container lived", n)
	}
	e.Docker(t, "stop", w.container)
	w.free(t)
	e.Docker(t, "start", w.container)
	w.writes(t)
	w.gone(t)
}

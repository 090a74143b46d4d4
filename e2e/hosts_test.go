package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair is two engines, each with the plugin as a host of its own of one cluster in one simulated EC2.
type pair struct {
	*AloneSim
	engines []*Engine
}

// newPair starts them. At the end neither must know of a volume any more.
func newPair(t *testing.T) *pair {
	t.Helper()
	both := []*Engine{PrivateEngine(t), PrivateEngine(t)}
	s := both[0].aloneSim(t, "--instance", "", "--instance", "", "--delay-create", "200ms", "--delay-attach", "500ms", "--delay-detach", "500ms")
	for n, e := range both {
		s.installOn(t, e, n, "CLUSTER=pair", "LOG_LEVEL=debug")
	}
	t.Cleanup(func() {
		for n, e := range both {
			err := poll(40*time.Second, func() error {
				r := e.Try("volume", "ls", "-q", "--filter", "driver="+e.driver()+":latest")
				if r.Code == 0 && r.Stdout != "" {
					return fmt.Errorf("host %s still lists %s", s.Instances[n].ID, strings.ReplaceAll(r.Stdout, "\n", " "))
				}
				return r.Err()
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	return &pair{s, both}
}

// atOnce runs a docker command on each engine at the same time.
func (p *pair) atOnce(args func(n int, e *Engine) []string) []Result {
	out := make([]Result, len(p.engines))
	var all sync.WaitGroup
	begin := make(chan struct{})
	for n, e := range p.engines {
		all.Go(func() {
			<-begin
			out[n] = e.Try(args(n, e)...)
		})
	}
	close(begin)
	all.Wait()
	return out
}

func TestTwoHostsOfOneCluster(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	t.Run("that create one name at once get one volume", p.createAtOnce)
	t.Run("that mount one volume at once have one winner and the other says who", p.mountAtOnce)
	t.Run("read what the other wrote", p.readOther)
}

func (p *pair) createAtOnce(t *testing.T) {
	both := p.engines
	const times, together = 20, 5
	var names []string
	for range times {
		names = append(names, both[0].VolumeName(t))
	}
	for round := 0; round < times; round += together {
		var all sync.WaitGroup
		for _, v := range names[round : round+together] {
			all.Go(func() {
				for host, r := range p.atOnce(func(_ int, e *Engine) []string {
					return []string{"volume", "create", "-d", e.driver(), "-o", "size=1GiB", v}
				}) {
					if r.Code != 0 {
						t.Errorf("host %s: %v", p.Instances[host].ID, r.Err())
					}
				}
			})
		}
		all.Wait()
	}
	for _, v := range names {
		if got := p.Volumes(t, v); len(got) != 1 {
			t.Errorf("the account has %d volumes of one name: %+v", len(got), got)
		}
	}
	created := 0
	for _, c := range p.Calls(t) {
		if c.Action == "CreateVolume" && c.Code == "" {
			created++
		}
	}
	// Otherwise one host has always been so late that it found the other's volume, and nothing was tried.
	if created <= times {
		t.Errorf("%d names and %d calls of CreateVolume: the hosts never met", times, created)
		for _, c := range p.Calls(t) {
			t.Logf("%+v", c)
		}
	}
	if got := len(p.Volumes(t, "")); got != times {
		t.Errorf("the account has %d volumes, not %d", got, times)
	}
	both[0].Docker(t, append([]string{"volume", "rm"}, names...)...)
	// The second host believes that a volume is gone only after it has looked twice, some seconds apart: all at the same time.
	var all sync.WaitGroup
	for _, v := range names {
		all.Go(func() {
			if r := both[1].Try("volume", "rm", "-f", v); r.Code != 0 {
				t.Error(r.Err())
			}
		})
	}
	all.Wait()
}

func (p *pair) mountAtOnce(t *testing.T) {
	both := p.engines
	v := both[0].NewVolume(t, "size=1GiB")
	t.Cleanup(func() {
		if r := both[1].Try("volume", "rm", "-f", v); r.Code != 0 && !strings.Contains(r.Stderr, "in use") {
			t.Error(r.Err())
		}
	})
	for round := range 2 {
		var names []string
		for _, e := range both {
			names = append(names, e.Container(t))
		}
		mine := fmt.Sprintf("round %d", round)
		results := p.atOnce(func(n int, e *Engine) []string {
			return []string{"run", "-d", "--name", names[n], "--stop-timeout", "1", "--mount", e.on(v, "/data"), busybox, "sh", "-c", "echo " + mine + " >>/data/rows; sync; exec sleep 1000"}
		})
		winner := 0
		if results[0].Code != 0 {
			winner = 1
		}
		loser := 1 - winner
		if results[winner].Code != 0 || results[loser].Code == 0 {
			t.Fatalf("round %d: not one winner and one loser:\n%v\n%v", round, results[0], results[1])
		}
		for _, word := range []string{v, p.Instances[winner].ID} {
			if !strings.Contains(results[loser].Stderr, word) {
				t.Errorf("round %d: the loser does not say %q: %s", round, word, results[loser].Stderr)
			}
		}
		there := p.Volumes(t, v)
		if len(there) != 1 || len(there[0].Attachments) != 1 || there[0].Attachments[0].Instance != p.Instances[winner].ID {
			t.Fatalf("round %d, won by %s: the account has %+v", round, p.Instances[winner].ID, there)
		}
		both[winner].Docker(t, "rm", "-f", names[winner])
		both[loser].Try("rm", "-f", names[loser])
		var got string
		Eventually(t, 60*time.Second, func() error {
			r := both[loser].Try("run", "--rm", "--mount", both[loser].on(v, "/data"), busybox, "cat", "/data/rows")
			got = r.Stdout
			return r.Err()
		})
		if rows := strings.Split(got, "\n"); len(rows) != round+1 || rows[round] != mine {
			t.Errorf("round %d: the other host reads %q", round, got)
		}
		// Both start from a volume that nobody has.
		Eventually(t, 30*time.Second, func() error {
			if there := p.Volumes(t, v); len(there) != 1 || len(there[0].Attachments) > 0 {
				return fmt.Errorf("%+v", there)
			}
			return nil
		})
	}
	for _, c := range p.Calls(t) {
		if c.Action == "DetachVolume" && c.Params["Force"] == "true" {
			t.Errorf("a volume was detached by force: %+v", c)
		}
	}
}

func (p *pair) readOther(t *testing.T) {
	a, b := p.engines[0], p.engines[1]
	v := a.NewVolume(t, "size=1GiB")
	sum := a.Busybox(t, []string{"--mount", a.on(v, "/data")}, "head -c 20000000 /dev/urandom >/data/blob; md5sum /data/blob")
	var got string
	Eventually(t, 60*time.Second, func() error {
		r := b.Try("run", "--rm", "--mount", b.on(v, "/data"), busybox, "md5sum", "/data/blob")
		got = r.Stdout
		return r.Err()
	})
	if got != sum {
		t.Errorf("host A wrote %s, host B reads %s", sum, got)
	}
	if err := errors.Join(a.Try("volume", "inspect", v).Err(), b.Try("volume", "inspect", v).Err()); err != nil {
		t.Error(err)
	}
	if n := len(p.Volumes(t, v)); n != 1 {
		t.Errorf("%d volumes", n)
	}
	b.Docker(t, "volume", "rm", v)
}

func TestAVolumeMovesFromADeadHostOnlyWhenEC2SaysSoAndTheHostMayReturn(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	a, b := p.engines[0], p.engines[1]
	id := p.Instances[0].ID
	v := a.NewVolume(t, "size=1GiB")
	c := a.RunDetached(t, []string{"--mount", a.on(v, "/data")}, "echo committed >/data/rows; sync; touch /synced; exec sleep 1000")
	Eventually(t, 30*time.Second, func() error { return a.Try("exec", c, "test", "-e", "/synced").Err() })
	read := []string{"run", "--rm", "--mount", b.on(v, "/data"), busybox, "cat", "/data/rows"}

	a.PowerCut(t) // Of engine, plugin and containers. For EC2 the instance runs: it may only be deaf.
	b.DockerFails(t, []string{v, id, "running"}, read...)

	p.SetInstanceState(t, id, "stopped")
	p.ResetCalls(t)
	var got string
	Eventually(t, 90*time.Second, func() error {
		r := b.Try(read...)
		got = r.Stdout
		return r.Err()
	})
	if got != "committed" {
		t.Errorf("the other host reads %q", got)
	}
	taken := false
	for _, call := range p.Calls(t) {
		if call.Action == "DetachVolume" && call.Params["InstanceId"] == id {
			taken = true
			if call.Params["Force"] == "true" {
				t.Errorf("taken by force: %+v", call)
			}
		}
	}
	if !taken {
		t.Error("no DetachVolume names the dead host")
	}

	p.SetInstanceState(t, id, "running")
	a.Start(t)
	Eventually(t, 90*time.Second, func() error {
		r := a.Try("run", "--rm", "--mount", a.on(v, "/data"), busybox, "cat", "/data/rows")
		got = r.Stdout
		return r.Err()
	})
	if got != "committed" {
		t.Errorf("the host that came back reads %q", got)
	}
	a.Docker(t, "rm", "-f", c)
	// A plugin that was killed with a volume in use takes some time before it believes that the use has ended.
	Eventually(t, 60*time.Second, func() error { return a.Try("volume", "rm", v).Err() })
	if r := b.Try("volume", "rm", "-f", v); r.Code != 0 {
		t.Error(r.Err())
	}
}

package e2e

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// startAndCount is a script that notes its start in /data/starts, and then writes lines without end.
var startAndCount = "echo up >>/data/starts && sync -d /data/starts; " + counter("/data/lines")

// starts waits until a container with startAndCount has started n times and writes.
func starts(t *testing.T, e *Engine, c string, n int) {
	t.Helper()
	Eventually(t, 30*time.Second, func() error {
		r := e.Try("exec", c, "sh", "-c", "wc -l </data/starts; tail -n 1 /data/lines")
		if err := r.Err(); err != nil {
			return err
		}
		if got := strings.Fields(r.Stdout); len(got) != 2 || got[0] != strconv.Itoa(n) {
			return fmt.Errorf("started and written: %v, not %d times", got, n)
		}
		return nil
	})
}

// wholeLines checks what startAndCount has left: each start begins at 1, and no number is missing.
const wholeLines = "wc -l </data/starts; awk '$1 != 1 && $1 != last + 1 { print \"line \" NR \" is \" $1 \" after \" last } { last = $1 }' /data/lines"

func TestTwentyRestartsKeepTheDataAndLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name  string
		again func(e *Engine, c string) [][]string
	}{
		{"restart", func(_ *Engine, c string) [][]string { return [][]string{{"restart", "-t", "1", c}} }},
		{"kill and start", func(_ *Engine, c string) [][]string { return [][]string{{"kill", c}, {"start", c}} }},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			e := shared
			v := e.NewVolume(t, "size=1GiB")
			c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
			starts(t, e, c, 1)
			const times = 20
			var ends []time.Time // of the uses
			for i := range times {
				for _, command := range how.again(e, c) {
					e.Docker(t, command...)
				}
				starts(t, e, c, i+2)
				end, err := time.Parse(time.RFC3339Nano, e.Docker(t, "inspect", "-f", "{{.State.FinishedAt}}", c))
				if err != nil {
					t.Fatal(err)
				}
				ends = append(ends, end)
			}
			if err := e.isAttached(t, v); err != nil {
				t.Error(err)
			}
			// On a slow machine a restart may take longer than the grace, and then a detachment is right; before its end none is.
			id := e.cloudVolume(t, v).ID
			for _, call := range e.Plugin.Sim().Calls(t) {
				if call.Action != "DetachVolume" || call.Params["VolumeId"] != id {
					continue
				}
				last := sort.Search(len(ends), func(i int) bool { return ends[i].After(call.Time) }) - 1
				if last < 0 {
					t.Errorf("the volume was detached before the first restart")
				} else if unused := call.Time.Sub(ends[last]); unused < 1900*time.Millisecond {
					t.Errorf("the volume was detached %s after its use number %d, before the end of the grace", unused, last+1)
				}
			}
			e.Docker(t, "rm", "-f", c)
			e.Detached(t, v)
			if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, wholeLines); got != strconv.Itoa(times+1) {
				t.Errorf("the volume holds after %d starts: %s", times+1, got)
			}
			e.Detached(t, v)
		})
	}
}

// The pauses that dockerd makes between its attempts (0.1 s, 0.2 s, ... 3.2 s) are shorter and longer than the grace.
func TestAContainerThatFailsAndIsStartedAgainKeepsItsData(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--restart", "on-failure:6", "--mount", e.on(v, "/data")}, "echo up >>/data/starts && cp /data/starts /data/copy && exit 7")
	Eventually(t, 90*time.Second, func() error {
		if got := e.Docker(t, "inspect", "-f", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", c); got != "6 exited 7" {
			return fmt.Errorf("restarts, state and exit status: %s", got)
		}
		return nil
	})
	e.Detached(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "wc -l </data/starts; cmp /data/starts /data/copy"); got != "7" {
		t.Errorf("the volume holds after 7 starts: %s", got)
	}
	e.Detached(t, v)
}

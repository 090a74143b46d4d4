package driver

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// stateLines collects the lines of the log that tell of changes of a volume's state.
type stateLines struct {
	mu    sync.Mutex
	lines []string
	all   []logrus.Fields
}

func (s *stateLines) Levels() []logrus.Level { return logrus.AllLevels }

func (s *stateLines) Fire(e *logrus.Entry) error {
	if e.Message != "state" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, e.Data)
	s.lines = append(s.lines, fmt.Sprintf("%s -> %s by %s", e.Data["from"], e.Data["to"], e.Data["cause"]))
	return nil
}

// take returns the lines since the last time.
func (s *stateLines) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.lines, "; ")
	s.lines = nil
	return text
}

func TestEachChangeOfAVolumeIsOneLineOfTheLogAndEachCallOfEC2NamesItsReason(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	lines := &stateLines{}
	r.log.AddHook(lines)
	r.start()
	step := func(want string) {
		t.Helper()
		if got := lines.take(); got != want {
			t.Errorf("the log says %q, want %q", got, want)
		}
	}
	free := func() bool {
		lines.mu.Lock()
		defer lines.mu.Unlock()
		return len(lines.lines) > 0 && strings.Contains(lines.lines[len(lines.lines)-1], "-> free")
	}
	r.create("vol")
	step("none -> free by create")
	id := r.status("vol")["id"].(string)

	p := r.mount("vol", "c1")
	step("free -> attaching by mount; attaching -> attached by mount; attached -> mounted by mount")
	write(t, filepath.Join(p, "f"), "x")
	r.mount("vol", "c2")
	r.unmount("vol", "c1")
	step("")
	r.unmount("vol", "c2")
	r.eventually("detached", free)
	step("mounted -> attached by unmount; attached -> detaching by let-go; detaching -> free by let-go")

	p = r.mount("vol", "c3")
	release := r.hold(p)
	lines.take()
	r.unmount("vol", "c3")
	step("mounted -> draining by unmount")
	release()
	r.eventually("detached", free)
	step("draining -> attached by let-go; attached -> detaching by let-go; detaching -> free by let-go")

	r.must("Remove", m{"Name": "vol"})
	step("free -> deleted by remove")

	r.create("kept", "reclaim", "retain")
	r.must("Remove", m{"Name": "kept"})
	step("none -> free by create; free -> released by remove")

	for _, f := range lines.all {
		if f["volume"] == "vol" && f["id"] != id || f["host"] != r.host.ID {
			t.Errorf("a line does not name the volume and this host: %v", f)
		}
		d, _ := f["duration"].(string)
		if _, err := time.ParseDuration(d); err != nil && f["from"] == "attaching" {
			t.Errorf("a line does not tell how long it took: %v", f)
		}
	}

	want := map[string]string{"CreateVolume": "create", "AttachVolume": "mount", "DetachVolume": "let-go", "DeleteVolume": "remove"}
	agent := regexp.MustCompile(`(?:^| )blockvol/\S+ .*blockvol-cluster/(\S+) blockvol-operation/(\S+)`)
	seen := map[string]bool{}
	for _, c := range r.sim.Calls() {
		told := agent.FindStringSubmatch(c.UserAgent)
		if told == nil || told[1] != r.settings.Cluster {
			t.Errorf("%s: the user agent does not tell the cluster and the operation: %s", c.Action, c.UserAgent)
			continue
		}
		if want[c.Action] == told[2] {
			seen[c.Action] = true
		} else if want[c.Action] != "" {
			t.Errorf("%s was made for %s, want %s", c.Action, told[2], want[c.Action])
		}
	}
	for action := range want {
		if !seen[action] {
			t.Errorf("no %s named its operation", action)
		}
	}
}

func TestTheLogTellsOfTheRemovalAndOfTheEndThatComesLater(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = time.Second
	lines := &stateLines{}
	r.log.AddHook(lines)
	r.start()
	r.create("vol")
	r.must("Remove", m{"Name": "vol"})
	all := ""
	r.eventually("the end is told", func() bool {
		all += lines.take() + ";"
		return strings.Contains(all, "-> deleted")
	})
	all = strings.Trim(regexp.MustCompile(`;+`).ReplaceAllString(all, ";"), ";")
	if want := "none -> free by create;free -> removed by remove;removed -> deleted by purge"; strings.ReplaceAll(all, "; ", ";") != want {
		t.Errorf("the log says %q, want %q", all, want)
	}
}

func TestOnlyEnterChangesThePhase(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	assigned := regexp.MustCompile(`\.phase(, [a-z.A-Z]+)* = `)
	var where []string
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for n, line := range strings.Split(read(t, f), "\n") {
			if assigned.MatchString(line) {
				where = append(where, fmt.Sprintf("%s:%d", f, n+1))
			}
		}
	}
	if len(where) != 1 || !slices.ContainsFunc(where, func(w string) bool { return strings.HasPrefix(w, "changes.go:") }) {
		t.Errorf("the phase is changed at %v: use enter, so that the log tells of each change", where)
	}
}

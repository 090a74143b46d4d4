package driver

import (
	"os"
	"strings"
	"testing"
)

func TestThePageOfTheLogKnowsEveryStateAndOperation(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	s := &Server{Manager: &Manager{}}
	names := []string{OpStart, OpSweep, OpLetGo, OpPurge, OpHealth, OpSchedule, OpShutdown}
	for path := range s.calls() {
		if strings.HasPrefix(path, callPath("")) && path != callPath("Capabilities") {
			names = append(names, operationOf(path))
		}
	}
	for _, p := range []phase{phaseNone, phaseFree, phaseAttaching, phaseAttached, phaseMounted, phaseDraining, phaseDetaching, phaseBusy, phaseRemoved, phaseDeleted, phaseReleased} {
		names = append(names, string(p))
	}
	for _, n := range names {
		if !strings.Contains(page, "`"+n+"`") {
			t.Errorf("docs/logs.md does not tell what %s is", n)
		}
	}
}

func TestARequestIsNamedByItsPathAndAnUnknownOneIsNotRepeated(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		callPath("Mount"): "mount", AdminPath("Detach"): "verb-detach", "/Plugin.Activate": "activate", "/x/y": "unknown", "": "unknown",
	} {
		if got := operationOf(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
}

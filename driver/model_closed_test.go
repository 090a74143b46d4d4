package driver

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// modelScope is a part of the model that is small enough to be explored to its end.
type modelScope struct {
	fencing string   // the rule by which the volume may be taken from the other host
	root    []string // what has happened before
	events  []string // all that can happen from then on, any number of times
}

// What modelScopes are made of.
var (
	modelUse   = []string{"c1 is to be mounted", "c1 is unmounted", "EC2 goes on", "a while passes"}
	modelRun   = append(slices.Clone(modelUse), "c1 starts", "c1 ends")
	modelLife  = append(slices.Clone(modelRun), "create")
	modelOther = []string{"the other host takes the volume", "the other host lets go"}
	modelPower = append(slices.Clone(modelOther), "the other host is stopped", "the other host is started")
	modelSick  = []string{"the other host takes the volume", "the other host falls ill", "the other host recovers", "a long time passes"}
)

// scope is a modelScope by the default rule, with events in two parts.
func scope(root, events []string, more ...string) modelScope {
	return modelScope{fenceStopped, root, append(slices.Clone(events), more...)}
}

// delayed ends the names of the parts in which a removal can be undone for a while.
const delayed = ", and what is removed can be brought back"

var modelScopes = map[string]modelScope{
	"made, used and removed":       scope(nil, modelUse, "create", "remove"),
	"used by two containers":       scope(modelNew, modelRun, "c2 is to be mounted", "c2 starts", "c2 ends", "c2 is unmounted"),
	"EC2 shows what was" + delayed: scope(modelNew, modelUse, "remove", "EC2 will show once how things were"),
	"uses that Docker forgets":     scope(modelNew, modelRun, "c1 ends and Docker forgets it", "mount, and the answer is lost"),
	"requests that are given up":   scope(modelNew, modelUse, "docker gives up waiting", "remove"),
	"the plugin is killed":         scope(modelNew, modelRun, "the plugin is killed", "the plugin is killed and its ledger lost"),
	"killed by its own requests":   scope(modelNew, modelUse, "the plugin will be killed when it sends a request", "the plugin will be killed when EC2 has accepted a request"),
	"the host is reset":            scope(modelNew, modelRun, "the host is reset"),
	"taken away by force":          scope(modelNew, modelRun, "a person force-detaches the volume"),
	"EC2 fails":                    scope(modelNew, modelUse, "EC2 will refuse to answer once", "EC2 will do what it is asked and its answer will be lost"),
	"EC2 shows what was":           scope(modelNew, modelUse, "EC2 will show once how things were", "EC2 will show old tags once"),
	"wanted by another host":       scope(modelNew, modelUse, modelPower...),
	"on a host that may be ill":    {fenceImpaired, modelNew, append(slices.Clone(modelUse), modelSick...)},
	"shown on a host as it was":    scope(modelNew, modelUse, "the other host takes the volume", "the other host is stopped", "the other host is started", "EC2 will show once how the other host was"),
	"shown as ill when it is not":  {fenceImpaired, modelNew, append(slices.Clone(modelUse), append([]string{"EC2 will show once how the other host was"}, modelSick...)...)},
}

// modelWideScopes take minutes.
var modelWideScopes = map[string]modelScope{
	"wide: made, used, run and removed":             scope(nil, modelLife, "remove"),
	"wide: killed at any moment from the beginning": scope(nil, modelLife, "the plugin is killed"),
	"wide: used here and wanted by another host":    scope(nil, modelLife, modelPower...),
	"wide: used here and on a host that may be ill": {fenceImpaired, nil, append(slices.Clone(modelLife), append(slices.Clone(modelSick), "the other host lets go")...)},
}

// TestEveryStateThatAVolumeCanComeToIsExplored goes on from each of modelScopes until there is no state that was not seen before: what holds in
// all of them (see TestNoReachableStateHarmsOrStrandsAnybody) holds however long the events go on, in whatever order. To come to an end, a state
// tells of each time only whether it is over, volumes have no names but their places, and Docker has at most two requests waiting; the world
// that stands for a state is the first that came to it. BLOCKVOL_MODEL (see there) adds modelWideScopes.
func TestEveryStateThatAVolumeCanComeToIsExplored(t *testing.T) {
	t.Parallel()
	depth, scopes := math.MaxInt, []map[string]modelScope{modelScopes}
	if testing.Short() || underRace { // scripts/test runs it without the race detector too
		depth = 5
	}
	if os.Getenv("BLOCKVOL_MODEL") != "" {
		scopes = append(scopes, modelWideScopes)
	}
	for _, all := range scopes {
		for name, scope := range all {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				x := newExplorer(t)
				for _, name := range scope.events {
					if _, ok := x.events[name]; !ok {
						t.Fatalf("there is no event %q", name)
					}
				}
				x.delayed = strings.HasSuffix(name, delayed)
				x.fencing, x.only, x.coarse = scope.fencing, scope.events, true
				states, open := x.explore([][]string{scope.root}, depth, math.MaxInt)
				if depth == math.MaxInt && (open > 0 || states < 100) {
					t.Errorf("%d states, %d of them not gone on from", states, open)
				}
			})
		}
	}
}

// fenceFromEnv is the rule with which a path is repeated.
func fenceFromEnv() string {
	if rule := os.Getenv("BLOCKVOL_FENCING"); rule != "" {
		return rule
	}
	return fenceStopped
}

// repeat is how a path is repeated; see TestWhatOnceDidHarmDoesNoMore.
func (x *explorer) repeat(path string) string {
	text := fmt.Sprintf("BLOCKVOL_FENCING=%s BLOCKVOL_PATH='%s'", x.fencing, path)
	if x.delayed {
		text = "BLOCKVOL_DELAYED=yes " + text
	}
	return text
}

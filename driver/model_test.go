package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/sirupsen/logrus"
)

// glimpse is what a run has shown.
type glimpse struct {
	next  []string // the events that can happen then, if the state is new
	cost  int      // the disturbances on the way
	stray string   // an event of the path that was not possible
}

// explorer walks through the states of the model.
type explorer struct {
	t      *testing.T
	dir    string
	log    *logrus.Logger
	events map[string]modelEvent

	fencing string   // the rule by which a volume may be taken from the other host
	only    []string // the events that an exploration goes on with; nil: all
	delayed bool     // what is removed can be brought back
	coarse  bool     // times do not count in a state, only whether they are over

	runs, failed int
}

func newExplorer(t *testing.T) *explorer {
	x := &explorer{t: t, dir: modelDir(t), log: logrus.New(), events: map[string]modelEvent{}, fencing: fenceStopped}
	x.log.SetLevel(logrus.PanicLevel)
	for _, e := range modelEvents {
		x.events[e.name] = e
	}
	return x
}

// run lets a path of events happen to a new world and looks at the state.
func (x *explorer) run(path []string, isNew func(key string) bool) glimpse {
	return x.runOn(path, isNew, func(*model) string { return "" })
}

// walk goes on at random at the end of a path.
func (x *explorer) walk(path []string, r *rand.Rand, length, disturbances int) {
	cost, n := 0, 0
	x.runOn(path, func(string) bool { return true }, func(w *model) string {
		if n++; n > length {
			return ""
		}
		var can []string
		for name, e := range x.events {
			if cost+e.cost <= disturbances && w.possible(e) {
				can = append(can, name)
			}
		}
		sort.Strings(can)
		name := can[r.IntN(len(can))]
		if x.events[name].cost > 0 && r.IntN(3) > 0 { // disturbances are many, and are to be few
			name = can[r.IntN(len(can))]
		}
		cost += x.events[name].cost
		return name
	})
}

// runOn lets a path of events happen to a new world, and what more says at its end. If the state that it ends in is new, everything comes to
// rest, and what became of everybody is looked at.
func (x *explorer) runOn(path []string, isNew func(key string) bool, more func(w *model) string) (now glimpse) {
	x.runs++
	dir := filepath.Join(x.dir, fmt.Sprint(x.runs))
	synctest.Test(x.t, func(t *testing.T) {
		w := newModel(dir, x.fencing, x.log)
		w.coarse, w.delayed = x.coarse, x.delayed
		w.start()
		synctest.Wait()
		for i := 0; len(w.violations()) == 0; i++ {
			if i == len(path) {
				name := more(w)
				if name == "" {
					break
				}
				path = append(path, name)
			}
			e := x.events[path[i]]
			if !w.possible(e) {
				now.stray = path[i]
				break
			}
			x.log.Infof("--- %s (%s)", e.name, time.Now().Format(time.TimeOnly))
			e.do(w)
			synctest.Wait()
			w.revive()
			w.check()
		}
		if now.stray == "" && len(w.violations()) == 0 && isNew(w.key()) {
			for name, e := range x.events {
				if (x.only == nil || slices.Contains(x.only, name)) && w.possible(e) {
					now.next = append(now.next, name)
				}
			}
			sort.Strings(now.next)
			x.log.Infof("--- everything comes to rest (%s)", time.Now().Format(time.TimeOnly))
			w.rest()
		}
		w.close()
		if wrong := w.violations(); len(wrong) > 0 {
			x.failed++
			now.next = nil
			x.t.Errorf("%s\n%s", x.repeat(strings.Join(path, "; ")), strings.Join(wrong, "\n"))
		}
	})
	if err := os.RemoveAll(dir); err != nil {
		x.t.Error(err)
	}
	return now
}

// rest ends all faults and lets time pass: whoever waits gets an answer, whoever asks again gets the volume or a true reason, and what
// nobody uses is let go of.
func (w *model) rest() {
	w.mu.Lock()
	w.fault, w.calm = "", true
	w.mu.Unlock()
	w.progress()
	time.Sleep(time.Minute)
	w.check()
	w.mu.Lock()
	for r := range w.requests {
		w.violate("a minute after the last fault a %s has no answer", r.what)
	}
	w.mu.Unlock()
	if len(w.violations()) > 0 {
		return
	}
	w.tryMount("while others may use it")
	w.endAll()
	w.letGo("the last use has ended")

	w.mu.Lock() // the other host gives up what it can
	if v := w.live(); v != nil && v.holder == modelThere {
		w.there.mounted = false
		v.at = cloud.Detaching
		w.changed()
	}
	w.mu.Unlock()
	time.Sleep(10 * time.Second)
	w.tryMount("when nobody else has it")
	w.endAll()
	w.letGo("one more use has ended")
	w.tryRemove()
	w.letGo("the volume was removed")
}

// tryMount is a container that is started, and started again when that fails, as Docker's restart policies do.
func (w *model) tryMount(when string) {
	w.mu.Lock()
	m, v, there := w.process.m, w.live(), w.there
	formats, had := w.formats, v != nil && v.content == contentUsed
	w.mu.Unlock()
	var err error
	for try := 0; try < 6; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), m.timing.Request)
		_, _, err = m.Mount(ctx, modelName, "again")
		cancel()
		if err == nil {
			break
		}
		time.Sleep(10 * time.Second)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var holder *cloud.HolderError
	taken := w.fencing == fenceImpaired && (there.power == cloud.Stopping || there.power == cloud.Running && !there.ill.IsZero()) // it is ill for longer than a minute
	held := v != nil && v.holder == modelThere && !there.state().Dead() && !taken
	switch {
	case v == nil:
		if !errors.Is(err, cloud.ErrNotFound) {
			w.violate("%s: a mount of no volume answers %v", when, err)
		}
		return
	case held:
		if !errors.As(err, &holder) || holder.Host != modelThere {
			w.violate("%s: a mount of a volume that the other host has answers %v", when, err)
		}
		return
	case err != nil:
		w.violate("%s: six mounts in a row fail, the last with %v", when, err)
		return
	}
	if had && w.formats != formats {
		w.violate("%s: a volume with data was formatted", when)
	}
	c := &guest{state: guestAnswered, at: time.Now()}
	w.uses["again"] = c
}

// endAll ends all containers, with the Unmounts that follow. Those that Docker has lost count of are only found by the next process.
func (w *model) endAll() {
	w.mu.Lock()
	m, lost := w.process.m, w.lost
	w.lost = false
	var ids []string
	for id, c := range w.uses {
		if id == "again" {
			w.mu.Unlock()
			w.bind(id)
			w.mu.Lock()
		}
		c.own = nil
		ids = append(ids, id)
	}
	clear(w.uses)
	w.mu.Unlock()
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(context.Background(), m.timing.Request)
		if err := m.Unmount(ctx, modelName, id); err != nil {
			w.violate("the unmount of %s answers %v", id, err)
		}
		cancel()
	}
	if lost {
		w.restart(true)
	}
}

// letGo gives the plugin time and looks whether it has let go of everything.
func (w *model) letGo(when string) {
	time.Sleep(3 * time.Minute)
	w.check()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.mounts {
		w.violate("three minutes after %s %s is mounted", when, m.id)
	}
	for _, v := range w.volumes {
		if v.holder == modelHere {
			w.violate("three minutes after %s %s is %s", when, v.id, v.at)
		}
	}
	for id := range w.devices {
		w.violate("three minutes after %s the device of %s is there", when, id)
	}
	if left, err := os.ReadDir(w.process.m.mounts); err != nil || len(left) > 0 {
		w.violate("three minutes after %s these mountpoints are left: %v %v", when, left, err)
	}
}

// tryRemove deletes the volume, which nobody uses.
func (w *model) tryRemove() {
	w.mu.Lock()
	m := w.process.m
	w.removing = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), m.timing.Request)
	defer cancel()
	if err := m.Remove(ctx, modelName); err != nil {
		w.violate("removing a volume that nobody uses answers %v", err)
	}
}

// modelRoots are the states that the exploration begins with: paths from nothing.
var modelRoots = map[string][]string{
	"nothing":         nil,
	"a new volume":    modelNew,
	"in use":          modelUsed,
	"just mounted":    modelUsed[:len(modelUsed)-1],
	"with data":       append(slices.Clone(modelUsed), "c1 ends", "c1 is unmounted", "a while passes", "EC2 goes on", "EC2 goes on", "a while passes"),
	"leaving":         append(slices.Clone(modelUsed), "c1 ends", "c1 is unmounted", "a while passes"),
	"draining":        append(slices.Clone(modelUsed), "c1 is unmounted"),
	"half formatted":  append(slices.Clone(modelNew), "c1 is to be mounted", "a moment passes", "EC2 goes on", "a moment passes", "EC2 goes on", "a moment passes", "a moment passes", "the plugin is killed"),
	"given back":      modelGiven,
	"given back late": append(slices.Clone(modelGiven), "a moment passes"),
	"elsewhere":       append(slices.Clone(modelNew), "the other host takes the volume", "a while passes"),
	"holder stopped":  append(slices.Clone(modelNew), "the other host takes the volume", "a while passes", "the other host is stopped"),
	"holder back":     append(slices.Clone(modelNew), "the other host takes the volume", "a while passes", "the other host is stopped", "the other host is started", "a while passes", "a while passes"),
}

// modelNew makes a volume, modelUsed gives it to a container.
var (
	modelNew   = []string{"create", "a moment passes", "EC2 goes on", "a while passes"}
	modelGiven = append(slices.Clone(modelNew), "the other host takes the volume", "a moment passes", "a moment passes", "a moment passes", "the other host lets go", "EC2 goes on")
	modelUsed  = append(slices.Clone(modelNew), "c1 is to be mounted", "a moment passes", "EC2 goes on", "a moment passes", "EC2 goes on", "a while passes", "a while passes", "c1 starts")
)

// The bounds of the exploration in CI: so many events after each root, so many disturbances (faults, kills, force detachments) among them.
const (
	modelDepth        = 3
	modelDisturbances = 1
)

// TestNoReachableStateHarmsOrStrandsAnybody explores, breadth first, what one volume can go through on a host with a real Manager: every
// order of modelDepth events, at most modelDisturbances of them disturbances, from each of modelRoots. It is not closed at that depth (see
// TestEveryStateThatAVolumeCanComeToIsExplored); how many states and transitions it has seen is in its log. States that differ in less than key tells are taken for one; time passes in steps
// of 1, 7 and 40 s, and EC2 goes on when it is told to.
//
// At every moment: no two kernels have the volume, nothing but a blank or half formatted volume is formatted, nothing in use is unmounted,
// detached or deleted. From every new state, when the faults end: who waits is answered, a mount succeeds or is refused for a true reason,
// and what nobody uses is let go of. BLOCKVOL_MODEL=DEPTH,DISTURBANCES goes further.
func TestNoReachableStateHarmsOrStrandsAnybody(t *testing.T) {
	t.Parallel()
	x := newExplorer(t)
	depth, disturbances := modelDepth, modelDisturbances
	if testing.Short() || underRace { // scripts/test runs it without the race detector too
		depth = 2
	}
	if further := os.Getenv("BLOCKVOL_MODEL"); further != "" {
		if _, err := fmt.Sscanf(further, "%d,%d", &depth, &disturbances); err != nil {
			t.Fatalf("BLOCKVOL_MODEL=%s: %v", further, err)
		}
	}
	var roots [][]string
	for _, name := range slices.Sorted(maps.Keys(modelRoots)) {
		roots = append(roots, modelRoots[name])
	}
	x.explore(roots, depth, disturbances)
}

// explore goes through the states, breadth first, to a depth or until there is nothing new. What was not possible when it was repeated, because
// the order of what happens at one moment is open, is tried a few times.
func (x *explorer) explore(roots [][]string, depth, disturbances int) (states, open int) {
	seen := map[string]bool{}
	isNew := func(key string) bool {
		was := seen[key]
		seen[key] = true
		return !was
	}
	type node struct {
		path []string
		now  glimpse
	}
	var reached []node
	for _, path := range roots {
		now := x.run(path, isNew)
		if now.stray != "" {
			x.t.Fatalf("the root %q is impossible: %s", path, now.stray)
		}
		reached = append(reached, node{path, now})
	}
	transitions, impossible := 0, 0
	for d := 1; d <= depth && len(reached) > 0; d++ {
		before := reached
		reached = nil
		for _, n := range before {
			for _, name := range n.now.next {
				cost := n.now.cost + x.events[name].cost
				if cost > disturbances {
					continue
				}
				path := append(slices.Clone(n.path), name)
				now := x.run(path, isNew)
				for try := 0; try < 5 && now.stray != ""; try++ {
					now = x.run(path, isNew)
				}
				transitions++
				if now.stray != "" {
					impossible++
				}
				if now.next != nil {
					now.cost = cost
					reached = append(reached, node{path, now})
				}
				if x.failed >= 5 {
					x.t.FailNow()
				}
			}
		}
		x.t.Logf("%d events after a root: %d states, %d transitions, %d of them not possible when repeated, %d states to go on from",
			d, len(seen), transitions, impossible, len(reached))
	}
	return len(seen), len(reached)
}

// TestRandomWalksHarmAndStrandNobody goes where the exploration does not reach: long random paths with up to four disturbances.
func TestRandomWalksHarmAndStrandNobody(t *testing.T) {
	t.Parallel()
	walks, seed := 400, time.Now().UnixNano()
	if testing.Short() || underRace {
		walks = 50
	}
	for name, value := range map[string]any{"BLOCKVOL_WALKS": &walks, "BLOCKVOL_SEED": &seed} {
		if given := os.Getenv(name); given != "" {
			if _, err := fmt.Sscan(given, value); err != nil {
				t.Fatalf("%s=%s: %v", name, given, err)
			}
		}
	}
	t.Logf("BLOCKVOL_SEED=%d", seed)
	x := newExplorer(t)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	roots := slices.Sorted(maps.Keys(modelRoots))
	for n := range walks {
		x.fencing = []string{fenceStopped, fenceImpaired}[n%2]
		x.walk(slices.Clone(modelRoots[roots[r.IntN(len(roots))]]), r, 25, 4)
		if x.failed >= 5 {
			t.FailNow()
		}
	}
}

// TestWhatOnceDidHarmDoesNoMore repeats the paths that found a bug. With BLOCKVOL_PATH='create; a moment passes; ...' it repeats that one
// (under the rule BLOCKVOL_FENCING) and shows the log.
func TestWhatOnceDidHarmDoesNoMore(t *testing.T) {
	paths := modelHarm
	level := logrus.PanicLevel
	if given := os.Getenv("BLOCKVOL_PATH"); given != "" {
		paths, level = map[string][]string{given: strings.Split(given, "; ")}, logrus.DebugLevel
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			x := newExplorer(t)
			x.log.SetLevel(level)
			x.fencing, x.delayed = fenceFromEnv(), os.Getenv("BLOCKVOL_DELAYED") != ""
			if now := x.run(path, func(string) bool { return true }); now.stray != "" {
				t.Errorf("the path is impossible: %s", now.stray)
			}
		})
	}
}

// modelHarm are paths that found a bug.
var modelHarm = map[string][]string{
	"a Remove right after a start without a ledger unmounts what a container is about to get": append(slices.Clone(modelUsed),
		"c2 is to be mounted", "the plugin is killed and its ledger lost", "remove", "a moment passes", "c2 starts"),
	"an Unmount right after a start without a ledger unmounts what a container is about to get": append(slices.Clone(modelUsed),
		"c2 is to be mounted", "c1 ends", "the plugin is killed and its ledger lost", "c1 is unmounted", "a moment passes", "c2 starts"),
	"a Mount and an Unmount right after a start without a ledger unmount what another container is about to get": append(slices.Clone(modelUsed),
		"c2 is to be mounted", "c1 ends", "c1 is unmounted", "the plugin is killed and its ledger lost", "c1 is to be mounted", "a moment passes", "c1 is unmounted", "a moment passes", "c2 starts"),
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/sirupsen/logrus"
)

// model is all that a plugin meets: EC2, the kernels of two hosts, and a Docker. It lives in a synctest bubble, so its time is not ours.
type model struct {
	dir string
	log logrus.FieldLogger

	mu         sync.Mutex
	process    *life
	volumes    []*modelVolume
	generation int
	views      []modelView // what EC2 has shown, oldest first
	there      otherHost
	before     otherHost // how the other host was before it was stopped, started, ill or well
	doubted    bool      // EC2 was wrong about the other host once; it is not twice
	fault      string    // what happens to the next request to EC2
	calm       bool      // EC2 goes on by itself, at once
	delayed    bool      // what is removed can be brought back
	fencing    string    // the rule by which a volume may be taken from the other host
	coarse     bool      // times do not count in the state, only whether they are over

	devices    map[string]uint32 // by volume: the device in this host's kernel
	lastDev    uint32
	mounts     []modelMount
	claims     map[uint32]int
	formatting uint32
	formats    int

	uses     map[string]*guest
	requests map[*modelRequest]bool
	removing bool // Docker has asked for a Remove
	lost     bool // an Unmount that a container's end called for will never come

	wrongMu sync.Mutex // taken with or without mu
	wrong   []string
}

// The life of a container, as far as its volume goes.
const (
	guestAsked    = "asked"    // Mount was sent
	guestAnswered = "answered" // the path is known, the container is being started
	guestRunning  = "running"  // it has a mount of its own
	guestEnded    = "ended"    // it has not, and Docker has not sent Unmount
)

type guest struct {
	state     string
	at        time.Time   // of the answer
	own       *modelMount // the container's own mount, which outlives ours
	disturbed bool        // a person took the volume away
}

type modelRequest struct {
	what   string
	cancel context.CancelFunc
}

// life is one life of the plugin.
type life struct {
	w      *model
	m      *Manager
	dead   bool
	ledger []byte // as it was at the end of the process; nil if there was none
}

// noListener stands for the lock that keeps a second plugin away. A real socket would block outside the bubble.
type noListener struct{ net.Listener }

func (noListener) Close() error { return nil }

func newModel(dir, fencing string, log logrus.FieldLogger) *model {
	w := &model{dir: dir, log: log, fencing: fencing, devices: map[string]uint32{}, claims: map[uint32]int{}, uses: map[string]*guest{}, requests: map[*modelRequest]bool{},
		there: otherHost{power: cloud.Running}}
	w.before = w.there
	w.changed()
	return w
}

// start starts the plugin.
func (w *model) start() {
	p := &life{w: w}
	settings := Settings{Backend: "ebs", Cluster: modelCluster, Fencing: w.fencing, ImpairedAfter: modelIll, DetachGrace: 2 * time.Second}
	if w.delayed {
		settings.DeleteDelay = 24 * time.Hour
	}
	m, err := New(Config{Settings: settings, Disk: &disk.Host{}, StateDir: w.dir, Log: w.log})
	if err != nil {
		w.violate("%v", err)
		return
	}
	m.cloud, m.disk = &modelCloud{w: w, p: p}, modelKernel{w: w, p: p}
	m.lock = func(string, string, string) (*instanceLock, error) { return &instanceLock{noListener{}}, nil }
	p.m = m
	m.Start(context.Background())
	w.mu.Lock()
	w.process = p
	w.mu.Unlock()
}

// kill ends a process as SIGKILL does. Called with mu held.
func (w *model) kill(p *life) {
	if p.dead {
		return
	}
	p.dead = true
	p.ledger, _ = os.ReadFile(p.m.ledger.path)
	clear(w.claims)
	w.formatting = 0
	p.m.mu.Lock()
	p.m.closing = true
	p.m.mu.Unlock()
	p.m.stop()
}

// restart starts the plugin after its process was killed, with the ledger that it had then, or without.
func (w *model) restart(ledger bool) {
	w.mu.Lock()
	p := w.process
	w.kill(p)
	w.mu.Unlock()
	p.m.working.Wait()
	if ledger && p.ledger != nil {
		if err := os.WriteFile(p.m.ledger.path, p.ledger, 0o600); err != nil {
			w.violate("%v", err)
		}
	} else if err := os.Remove(p.m.ledger.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.violate("%v", err)
	}
	w.start()
}

// revive starts the plugin anew if it was killed in the middle of what it did.
func (w *model) revive() {
	w.mu.Lock()
	dead := w.process.dead
	w.mu.Unlock()
	if dead {
		w.restart(true)
		synctest.Wait()
	}
}

func (p *life) isDead() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.dead
}

// sleep lets a part of a process wait.
func (p *life) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return &cloud.Error{Kind: cloud.ErrUnavailable, Text: "no answer in time", Cause: context.Cause(ctx)}
	}
	if p.isDead() {
		return errKilled
	}
	return nil
}

// violate takes note that something happened that must not. Called with or without mu.
func (w *model) violate(format string, args ...any) {
	w.wrongMu.Lock()
	defer w.wrongMu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// violations is what happened that must not.
func (w *model) violations() []string {
	w.wrongMu.Lock()
	defer w.wrongMu.Unlock()
	return slices.Clone(w.wrong)
}

// request sends one request to the plugin, with the time that it has.
func (w *model) request(what string, do func(ctx context.Context, m *Manager)) {
	ctx, cancel := context.WithTimeout(context.Background(), DefaultTiming().Request)
	r := &modelRequest{what: what, cancel: cancel}
	w.mu.Lock()
	w.requests[r] = true
	p := w.process
	w.mu.Unlock()
	go func() {
		do(ctx, p.m)
		cancel()
		w.mu.Lock()
		delete(w.requests, r)
		w.mu.Unlock()
	}()
}

// mount is a Mount for a container. When its answer is lost there is no container, and Unmount will never be sent.
func (w *model) mount(id string, lost bool) {
	c := &guest{state: guestAsked}
	w.mu.Lock()
	w.uses[id] = c
	p := w.process
	w.mu.Unlock()
	w.request("mount", func(ctx context.Context, m *Manager) {
		_, undo, err := m.Mount(ctx, modelName, id)
		lost := lost || ctx.Err() != nil
		if err == nil && lost && !p.isDead() {
			undo()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.uses[id] != c {
			return
		}
		if err != nil || lost || p.dead {
			delete(w.uses, id)
			return
		}
		c.state, c.at = guestAnswered, time.Now()
	})
}

// unmount is an Unmount for a container; docker cp sends one for a container that goes on.
func (w *model) unmount(id string) {
	w.mu.Lock()
	if c := w.uses[id]; c != nil && c.state != guestRunning {
		delete(w.uses, id)
	}
	w.mu.Unlock()
	w.request("unmount", func(ctx context.Context, m *Manager) { _ = m.Unmount(ctx, modelName, id) })
}

func (w *model) create() {
	w.request("create", func(ctx context.Context, m *Manager) { _ = m.Create(ctx, modelName, map[string]string{"size": "1"}) })
}

func (w *model) remove() {
	w.mu.Lock()
	w.removing = true
	w.mu.Unlock()
	w.request("remove", func(ctx context.Context, m *Manager) { _ = m.Remove(ctx, modelName) })
}

// get is a look-up. Docker takes "not found" for a fact.
func (w *model) get() {
	w.request("get", func(ctx context.Context, m *Manager) {
		_, err := m.Get(ctx, modelName)
		w.mu.Lock()
		defer w.mu.Unlock()
		if v := w.live(); errors.Is(err, cloud.ErrNotFound) && v != nil && time.Since(v.created) > 2*modelStale {
			w.violate("Get says that a volume does not exist which does")
		}
	})
}

// bind is the container taking its own mount of the volume.
func (w *model) bind(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.uses[id]
	for i := range w.mounts {
		own := w.mounts[i]
		own.target = ""
		c.state, c.own = guestRunning, &own
	}
	if c.own != nil {
		return
	}
	if time.Since(c.at) < DefaultTiming().HandOver && !c.disturbed {
		w.violate("%s after its Mount was answered the container %s finds nothing mounted", time.Since(c.at), id)
	}
	c.state = guestEnded
}

// end is a container's end, without the Unmount that follows.
func (w *model) end(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.uses[id].state, w.uses[id].own = guestEnded, nil
}

// forceDetach is a person who takes the volume away under everybody on this host.
func (w *model) forceDetach() {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.live()
	v.holder, v.at = "", ""
	delete(w.devices, v.id)
	for _, c := range w.uses {
		c.disturbed = true
	}
	w.changed()
}

// reboot is a reset of this host: everything in its memory is gone, what is attached stays attached.
func (w *model) reboot() {
	w.mu.Lock()
	w.kill(w.process)
	w.mounts = nil
	clear(w.uses)
	for id := range w.devices {
		w.plug(id)
	}
	w.mu.Unlock()
	w.restart(true)
}

// check is what must be true at any time.
func (w *model) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.volumes {
		if who := w.usedHere(v.id); who != "" && w.there.mounted && v.holder == modelThere {
			w.violate("two kernels: %s uses what the other host has mounted", who)
		}
	}
}

// spans puts a time that is left into steps of five seconds, or, where the exploration shall come to an end, into none and some.
func (w *model) spans(d time.Duration) int {
	switch {
	case d <= 0:
		return 0
	case w.coarse:
		return 1
	}
	return int((min(d, 45*time.Second)-1)/(5*time.Second)) + 1
}

func (w *model) leftOf(t time.Time, limit time.Duration) int {
	if t.IsZero() {
		return -1
	}
	return w.spans(limit - time.Since(t))
}

// key is the state: everything that decides what happens next. Volumes have the number of their place, so that a hundred volumes made one
// after the other are one. Two worlds with one key are taken for one.
func (w *model) key() string {
	var b strings.Builder
	w.mu.Lock()
	spans, leftOf := w.spans, w.leftOf
	place := map[string]int{}
	for i, v := range w.volumes {
		place[v.id] = i + 1
		fmt.Fprintf(&b, "%s %s %s %s %s|", v.state, v.tag(), v.content, v.holder, v.at)
		if v.state == modelRemoved {
			fmt.Fprintf(&b, "forgotten %v|", w.forgotten(v))
		}
	}
	if old, now := w.look(modelStale), w.look(0); old.since != now.since {
		fmt.Fprintf(&b, "stale%d", leftOf(now.since, modelStale))
		for _, v := range old.volumes {
			fmt.Fprintf(&b, " %s %s %v", v.State, v.Attrs[attrFS], len(v.Attachments))
		}
	}
	fmt.Fprintf(&b, "there %s %v %v ill%d before %s %v fault %s\n", w.there.power, w.there.hibernated, w.there.mounted, leftOf(w.there.ill, modelIll), w.before.power, w.before.ill.IsZero(), w.fault)
	for _, v := range w.volumes {
		if dev := w.devices[v.id]; dev != 0 {
			fmt.Fprintf(&b, "dev %d claims%d format%v ", place[v.id], w.claims[dev], w.formatting == dev)
		}
	}
	for _, m := range w.mounts {
		fmt.Fprintf(&b, "mount %d %v ", place[m.id], w.alive(m))
	}
	var all []string
	for _, c := range w.uses {
		s := c.state
		if c.own != nil {
			s += fmt.Sprint(place[c.own.id], w.alive(*c.own))
		}
		if c.state == guestAnswered {
			s += fmt.Sprint(leftOf(c.at, DefaultTiming().HandOver), c.disturbed)
		}
		all = append(all, s)
	}
	for r := range w.requests {
		all = append(all, r.what)
	}
	sort.Strings(all)
	fmt.Fprintf(&b, "%v %v %v\n", all, w.removing, w.lost)
	m := w.process.m
	w.mu.Unlock()

	m.mu.Lock()
	v := m.records[modelName]
	fmt.Fprintf(&b, "ready %v started%d trusted %v deleted %d ", m.isReady, leftOf(m.started, m.timing.HandOver), m.ledger.trusted, min(len(m.deleted), 1))
	m.mu.Unlock()
	if v == nil {
		return b.String()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	inherited := 0
	for _, u := range v.users {
		if u.inherited {
			inherited++
		}
	}
	fmt.Fprintf(&b, "%d %s %q taken%d attached %v leaving %v path %v users %d %d ", place[v.id], v.phase, v.doing, len(v.turn), v.attached, v.leaving, v.path != "", len(v.users), inherited)
	fmt.Fprintf(&b, "seen%d absent%d hold%d free%d detached%d ", leftOf(v.seenAt, m.timing.Fresh), leftOf(v.absentAt, m.timing.Sweep/2), spans(time.Until(v.holdUntil)),
		leftOf(v.freeSince, m.timing.Grace), leftOf(v.detachedAt, modelStale))
	if v.timer != nil {
		fmt.Fprintf(&b, "due%d ", spans(time.Until(v.due)))
	}
	if v.seen != nil {
		fmt.Fprintf(&b, "saw %s %s", v.seen.State, v.seen.Attrs[attrFS])
		for _, a := range v.seen.Attachments {
			fmt.Fprintf(&b, " %s %s", a.Host, a.State)
		}
	}
	return b.String()
}

// close ends everything that goes on.
func (w *model) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = false
	w.kill(w.process)
	for r := range w.requests {
		r.cancel()
	}
}

// modelDir is a folder for ledgers, in memory where that can be had: they are written many thousand times.
func modelDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "blockvol-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

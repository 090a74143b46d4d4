package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/metrics"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"
)

// Timing is how long the Manager waits for what. DefaultTiming has the values and their reasons.
type Timing struct {
	Request   time.Duration // how long a request may take
	Fresh     time.Duration // how long one look-up serves what follows it
	Grace     time.Duration // from the last use to DetachVolume
	HandOver  time.Duration // from a Mount answer that may be on its way to the first unmount
	Absent    time.Duration // between the two looks that make the absence of a known volume a fact
	Listing   time.Duration // how long List waits for the cloud before it answers from memory
	ListFresh time.Duration // how long one listing serves those that follow
	Attach    time.Duration // from AttachVolume to giving up on the device
	AskCloud  time.Duration // from AttachVolume to asking the cloud what became of it
	Detach    time.Duration // from DetachVolume to giving up on waiting for its end
	Stop      time.Duration // from StopInstances to giving up on waiting for its end
	Sweep     time.Duration // between two looks for attached devices that nobody uses
	Slots     time.Duration // between two looks whether a snapshot is due by a schedule
	SlotRetry time.Duration // from a snapshot that was not made by its schedule to the next try, at first; and to the look what became of one
	Tags      time.Duration // how old what is known of an attached volume's tags may be
	Freeze    time.Duration // how long a filesystem stands still for a snapshot at most
	Snapshots time.Duration // between two snapshots of one volume
	Purge     time.Duration // between two looks for removed volumes whose time is over

	// For Health alone.
	Stuck      time.Duration // how long an attach or a detach may take
	Drain      time.Duration // how long something may still have what Docker has given back
	Silence    time.Duration // from the last call of the cloud to one for the sake of health
	HealthWait time.Duration // how long Health waits for that call
}

// DefaultTiming returns the values for real use.
func DefaultTiming() Timing {
	return Timing{
		// dockerd gives up after 30 s when the plugin was enabled by hand (its CLI sets that time-out), retries what failed in transport
		// with an empty body, and never sends Unmount for a Mount it gave up on.
		Request:   24 * time.Second,
		Fresh:     1500 * time.Millisecond, // docker run asks Get twice within about a second
		Grace:     2 * time.Second,
		HandOver:  30 * time.Second, // dockerd's own time-out, after which runc binds nothing any more
		Absent:    5 * time.Second,
		Listing:   1500 * time.Millisecond,
		ListFresh: 3 * time.Second,
		Attach:    3 * time.Minute,
		AskCloud:  8 * time.Second, // attaching takes 1 to 4 s; until then the kernel tells first
		Detach:    2 * time.Minute,
		Stop:      10 * time.Minute, // EC2 cuts the power of a system that does not shut down "within a few minutes"
		Sweep:     time.Minute,
		Slots:     30 * time.Second, // schedules are to the minute
		SlotRetry: 2 * time.Minute,
		Tags:      time.Hour,
		Freeze:    10 * time.Second, // EC2 answers within about one; a database that waits this long for a write tells nobody yet
		Snapshots: 15 * time.Second, // EC2 refuses another one before
		Purge:     15 * time.Minute, // each host of the cluster looks

		Stuck:      time.Minute, // a few seconds are usual
		Drain:      10 * time.Minute,
		Silence:    time.Minute,
		HealthWait: 3 * time.Second,
	}
}

// Config is what a Manager is made of.
type Config struct {
	Settings    Settings
	SettingsErr error       // told at every request; Cloud may be nil then
	Cloud       cloud.Cloud // the provider
	Disk        *disk.Host
	StateDir    string // everything that blockvol keeps on this host: ledger, mounts
	Simulated   bool   // say in every answer that this is not real storage
	Timing      Timing
	Now         func() time.Time // what schedules go by; nil: time.Now
	Log         logrus.FieldLogger
	Metrics     *metrics.Metrics // counts; nil: one of its own
	// Step, if set, is called at each of Steps, with the process of the filesystem tool that is running, or 0. It is for builds and tests
	// that end the process there.
	Step func(s Step, tool int)
}

// Manager is blockvol on one host: one record per volume, and the ways of each from nothing to a mounted path and back.
type Manager struct {
	cfg      Config
	cloud    cloud.Cloud
	heard    *heard // cloud, as Health sees it
	disk     kernel
	timing   Timing
	log      logrus.FieldLogger
	mounts   string // the folder under which volumes are mounted, each under its ID
	started  time.Time
	metrics  *metrics.Metrics
	ledger   *ledger
	profiles *profiles
	lock     func(cluster, instance, stateDir string) (*instanceLock, error)
	flights  singleflight.Group
	purging  purging
	slots    *schedules

	base    context.Context // ends when the Manager closes
	stop    context.CancelFunc
	working sync.WaitGroup

	host atomic.Pointer[cloud.Host] // nil until isReady

	// mu may be held while a record's mu is taken, never the other way round.
	mu        sync.Mutex
	isReady   bool
	closing   bool
	draining  time.Time // since when this host takes no volume any more; zero: it does
	instance  *instanceLock
	records   map[string]*record
	deleted   map[string]time.Time     // IDs that this host deleted; a look-up that still shows one is stale
	lettingGo map[string]chan struct{} // by ID: closed at its end
	listed    []string                 // names of the last listing
	listedAt  time.Time
	probed    time.Time // when Health last asked the cloud

	metricsErr error // why METRICS_ADDR is not served
}

// New makes a Manager. It makes no network call; Start begins what goes on in the background.
func New(cfg Config) (*Manager, error) {
	if cfg.Timing == (Timing{}) {
		cfg.Timing = DefaultTiming()
		cfg.Timing.Grace = cfg.Settings.DetachGrace
	}
	mounts := filepath.Join(cfg.StateDir, "mounts")
	if err := os.MkdirAll(mounts, 0o711); err != nil {
		// What is mounted and attached is looked after all the same, and each Mount tries again.
		cfg.Log.WithError(err).Errorf("nothing can be mounted until the folder for mounts, %s, can be made", hostPath(mounts))
	}
	m := &Manager{
		cfg: cfg, cloud: cfg.Cloud, disk: hostKernel{cfg.Disk}, timing: cfg.Timing, log: cfg.Log, mounts: mounts, started: time.Now(),
		ledger:    openLedger(cfg.StateDir, bootID(), cfg.Log),
		profiles:  openProfiles(cfg.StateDir, cfg.Settings),
		lock:      lockInstance,
		records:   map[string]*record{},
		deleted:   map[string]time.Time{},
		lettingGo: map[string]chan struct{}{},
	}
	m.purging.changed, m.purging.mine = make(chan struct{}, 1), map[string]bool{}
	if m.metrics = cfg.Metrics; m.metrics == nil {
		m.metrics = metrics.New("")
	}
	m.slots = &schedules{m: m, now: cfg.Now, room: make(chan struct{}, volumesAtOnce), of: map[string]*scheduled{}}
	if cfg.Now == nil {
		m.slots.now = time.Now
	}
	if cfg.Cloud != nil {
		m.heard = listen(cfg.Cloud)
		m.cloud = m.heard
	}
	if cfg.Step != nil {
		told := *cfg.Disk
		told.Tool = m.toolStep
		m.disk = hostKernel{&told}
	}
	for name, e := range m.ledger.entries() {
		v := m.record(name)
		v.id = e.ID
		for _, id := range e.Users {
			v.users[id] = use{since: m.started, inherited: true}
		}
	}
	return m, nil
}

// Start begins the background work: getting ready, the sweep for what nobody uses, and the snapshots that are due. It ends with ctx or Close.
func (m *Manager) Start(ctx context.Context) {
	m.base, m.stop = context.WithCancel(ctx)
	m.thawAll()
	m.goOn("sweep", m.sweepLoop)
	m.goOn("purge", m.purgeLoop)
	m.goOn("schedules", m.slots.loop)
}

// goOn runs fn apart from any request, until it ends or the Manager closes. Once it closes nothing begins any more, and false is returned:
// Close waits for what has begun before, and for nothing else.
func (m *Manager) goOn(what string, fn func(ctx context.Context)) bool {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return false
	}
	m.working.Add(1)
	m.mu.Unlock()
	go func() {
		defer m.working.Done()
		defer func() {
			if p := recover(); p != nil {
				m.log.Errorf("%s: panic: %v\n%s", what, p, debug.Stack())
			}
		}()
		fn(m.base)
	}()
	return true
}

// errPanicked is what those hear who waited for work that ended in a panic.
var errPanicked = errors.New("blockvol failed unexpectedly: see the plugin's log")

// flight runs fn once for all who ask for key at the same time. A panic in it is an error: singleflight would end the process with it.
func (m *Manager) flight(key string, fn func() (any, error)) <-chan singleflight.Result {
	return m.flights.DoChan(key, func() (v any, err error) {
		defer func() {
			if p := recover(); p != nil {
				m.log.Errorf("%q: panic: %v\n%s", key, p, debug.Stack())
				err = errPanicked
			}
		}()
		return fn()
	})
}

// record returns the record of name, new or known.
func (m *Manager) record(name string) *record {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.records[name]
	if !ok {
		v = &record{name: name, turn: newTurn(), users: map[string]use{}, phase: phaseFree, changed: m.changed}
		m.records[name] = v
	}
	return v
}

// all returns all records.
func (m *Manager) all() []*record {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*record, 0, len(m.records))
	for _, v := range m.records {
		out = append(out, v)
	}
	return out
}

// save writes what is known of v to the ledger.
func (m *Manager) save(v *record) {
	id, _ := v.known()
	if id == "" {
		m.ledger.forget(v.name)
		return
	}
	m.ledger.put(v.name, entry{ID: id, Users: v.userIDs()})
}

// errClosing is told to requests that come too late.
var errClosing = errors.New("blockvol is shutting down: try again in a moment")

// ready makes sure that this host knows itself and may serve: settings, identity, and that no second plugin does. It is cheap once it has
// succeeded, and tried again by every request until then.
func (m *Manager) ready(ctx context.Context) error {
	m.mu.Lock()
	ok, closing := m.isReady, m.closing
	m.mu.Unlock()
	switch {
	case closing:
		return errClosing
	case ok:
		return nil
	case m.cfg.SettingsErr != nil:
		return m.cfg.SettingsErr
	}
	select {
	case r := <-m.flight("\x00ready", func() (any, error) { return nil, m.getReady() }):
		return r.Err
	case <-ctx.Done():
		return &cloud.Error{Kind: cloud.ErrUnavailable, Text: "blockvol is still finding out which host this is (instance metadata and EC2 do not answer)", Cause: ctx.Err()}
	}
}

func (m *Manager) getReady() error {
	ctx, cancel := context.WithTimeout(as(m.base, OpStart), 30*time.Second)
	defer cancel()
	host, err := m.cloud.Host(ctx)
	if err != nil {
		return err
	}
	id := identity{Backend: m.cfg.Settings.Backend, Account: host.Account, Region: host.Region, Cluster: m.cfg.Settings.Cluster}
	if err := m.ledger.belongsTo(id); err != nil {
		return &cloud.Error{Kind: cloud.ErrConfig, Text: err.Error(), Cause: errStrangers}
	}
	lock, err := m.lock(m.cfg.Settings.Cluster, host.ID, m.cfg.StateDir)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.closing { // Close has not seen this lock
		m.mu.Unlock()
		lock.release()
		return errClosing
	}
	m.instance, m.isReady = lock, true
	m.host.Store(&host)
	m.mu.Unlock()
	m.log.WithFields(logrus.Fields{"instance": host.ID, "type": host.Type, "zone": host.Zone, "cluster": m.cfg.Settings.Cluster}).Info("ready")
	return nil
}

// self returns the host; valid once ready. It takes no lock: it is asked with and without those of records.
func (m *Manager) self() cloud.Host {
	if host := m.host.Load(); host != nil {
		return *host
	}
	return cloud.Host{}
}

// work runs fn with v's turn, apart from the request: when ctx ends first, fn goes on and the caller is told what is being done. A caller
// that gives up before its turn comes has asked for nothing: its retry will ask again.
func (m *Manager) work(ctx context.Context, v *record, fn func(ctx context.Context) error) error {
	tooLate := fmt.Errorf("volume %q: blockvol is shutting down; nothing is lost, try again in a moment", v.name)
	done := make(chan error, 1)
	began := m.goOn(v.name, func(base context.Context) {
		err := errPanicked
		defer func() { done <- err }()
		if terr := v.turn.take(either(base, ctx)); terr != nil {
			err = terr
			return
		}
		defer v.turn.give()
		v.set(func() { v.cause = cloud.Operation(ctx) })
		err = fn(cloud.WithOperation(base, cloud.Operation(ctx)))
	})
	if !began {
		return tooLate
	}
	select {
	case err := <-done:
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			return m.stillDoing(v)
		}
		if errors.Is(err, context.Canceled) && m.base.Err() != nil {
			return tooLate
		}
		return err
	case <-ctx.Done():
		return m.stillDoing(v)
	}
}

// either returns a context that is done when one of the two is.
func either(a, b context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(a)
	stop := context.AfterFunc(b, func() { cancel(context.Cause(b)) })
	context.AfterFunc(ctx, func() { stop(); cancel(nil) })
	return ctx
}

// stillDoing tells what a request that ran out of time was waiting for.
func (m *Manager) stillDoing(v *record) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	what := v.doing
	if what == "" {
		return fmt.Errorf("volume %q: not done in time; nothing is lost, try again", v.name)
	}
	return fmt.Errorf("volume %q (%s): still %s, since %s; the work goes on, try again", v.name, v.id, what,
		time.Since(v.doingSince).Round(100*time.Millisecond))
}

// Close lets go of what nobody uses and ends the background work.
func (m *Manager) Close(ctx context.Context) {
	m.mu.Lock()
	m.closing = true
	lock := m.instance
	m.mu.Unlock()
	if m.stop == nil {
		return
	}
	m.parkAll(ctx)
	m.stop()
	ended := make(chan struct{})
	go func() { m.working.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		m.log.Warn("some work did not end in time; the next start takes it up again")
	}
	if lock != nil {
		lock.release()
	}
}

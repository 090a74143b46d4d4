package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Config says what a simulator is. Only Dir is required.
type Config struct {
	Dir     string             // holds everything: state.json, volumes/, snapshots/, hosts/<instance ID>/dev, calls.log; made if missing
	Region  string             // default us-sim-1; its zones are a, b and c
	Account string             // default 123456789012
	Delays  Delays             // the zero value is DefaultDelays
	Log     logrus.FieldLogger // default: nothing is logged
	Bus     Bus                // how volumes get into hosts; default: loop devices in each host's DevDir
}

// Delays are how long things take.
type Delays struct {
	Create     time.Duration // from CreateVolume to available
	Attach     time.Duration // from AttachVolume to attached; the device appears with it
	Detach     time.Duration // from DetachVolume to detached, if the host has let go by then
	Delete     time.Duration // from DeleteVolume to not found
	Snapshot   time.Duration // from CreateSnapshot to completed
	Initialize time.Duration // from available to all data there, of a volume made of a snapshot or of another volume
	Modify     time.Duration // from ModifyVolume to optimizing: the volume has its new size
	Optimize   time.Duration // from optimizing to completed
	Start      time.Duration // from StartInstances or RunInstances to running, and of a reboot
	Stop       time.Duration // from StopInstances to stopped
	Terminate  time.Duration // from TerminateInstances to terminated
	Checks     time.Duration // from running to the first results of status checks
	Terminated time.Duration // how long a terminated instance is shown; 0 is an hour, as in EC2
	Visible    time.Duration // every Describe sees the world as it was so long ago
	Call       time.Duration // of every call, half before it is carried out and half after
}

// DefaultDelays resemble a quiet day in EC2.
var DefaultDelays = Delays{
	Create:     700 * time.Millisecond,
	Attach:     1600 * time.Millisecond,
	Detach:     1600 * time.Millisecond,
	Delete:     500 * time.Millisecond,
	Snapshot:   3 * time.Second,
	Initialize: 10 * time.Second,
	Modify:     1500 * time.Millisecond,
	Optimize:   10 * time.Second,
	Start:      3 * time.Second,
	Stop:       4 * time.Second,
	Terminate:  4 * time.Second,
	Checks:     5 * time.Second,
	Terminated: time.Hour,
	Call:       10 * time.Millisecond,
}

// Sim is one simulated region of one account. Its methods are safe for concurrent use.
type Sim struct {
	cfg  Config
	log  logrus.FieldLogger
	now  func() time.Time
	disk hardware
	lock *os.File

	stop context.CancelFunc
	done sync.WaitGroup
	wake chan struct{}
	life context.Context // ends with the simulator

	mu       sync.Mutex
	state    state
	dirty    bool // the state on disk is older
	closed   bool
	changed  chan struct{} // closed and made anew whenever an instance changes its state
	delays   Delays
	gone     map[string]*volume // deleted, for reads that lag behind
	patience time.Duration      // see writersPatience
	faults   []*Fault
	throttle map[string]*bucket
	keys     map[string]string // access key of an instance's role -> instance ID
	sessions map[string]session

	goneSnapshots map[string]*snapshot

	callsMu  sync.Mutex
	calls    []Call
	callsLog *os.File
}

// New opens the simulator whose state is in cfg.Dir, or makes a new one. Devices of attachments are found again, or made anew when
// they are gone. One folder has one simulator at a time; it needs root (CAP_SYS_ADMIN, CAP_MKNOD) and /dev/loop-control.
func New(cfg Config) (*Sim, error) {
	if cfg.Dir == "" {
		return nil, errors.New("ec2sim: no folder given")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("ec2sim: %w", err)
	}
	cfg.Dir = dir
	if cfg.Region == "" {
		cfg.Region = "us-sim-1"
	}
	if cfg.Account == "" {
		cfg.Account = "123456789012"
	}
	if cfg.Delays == (Delays{}) {
		cfg.Delays = DefaultDelays
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = quiet
	}
	s := &Sim{
		cfg: cfg, log: cfg.Log, now: time.Now, wake: make(chan struct{}, 1), changed: make(chan struct{}), delays: cfg.Delays,
		gone: map[string]*volume{}, goneSnapshots: map[string]*snapshot{}, patience: writersPatience, throttle: map[string]*bucket{}, keys: map[string]string{}, sessions: map[string]session{},
	}
	if err := s.open(); err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("ec2sim: open %s: %w", cfg.Dir, err)
	}
	ctx, stop := context.WithCancel(context.Background()) // The simulator's own life: Close ends it.
	s.stop, s.life = stop, ctx
	s.done.Add(1)
	go s.run(ctx)
	return s, nil
}

func (s *Sim) open() error {
	for _, folder := range []string{"volumes", "snapshots", "sources"} {
		if err := os.MkdirAll(filepath.Join(s.cfg.Dir, folder), 0o700); err != nil {
			return err
		}
	}
	lock, err := os.OpenFile(filepath.Join(s.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	// A child that another goroutine has forked holds a copy of the last simulator's lock until it calls exec: a moment, so more than one try.
	for end := time.Now().Add(2 * time.Second); unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			lock.Close()
			return errors.New("another simulator is using this folder")
		}
	}
	s.lock = lock
	if err := s.load(); err != nil {
		return err
	}
	if s.callsLog, err = os.OpenFile(filepath.Join(s.cfg.Dir, "calls.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	if s.cfg.Bus == nil {
		s.disk = newDisks(s.cfg.Dir, s.log)
	} else {
		s.disk = bussed{s.cfg.Bus, s.log}
	}
	for _, i := range s.state.Instances {
		s.keys[roleKey(i.ID)] = i.ID
		if err := makeDevDir(s.DevDir(i.ID)); err != nil {
			return err
		}
	}
	s.dropHalfMade()
	s.restore()
	s.save()
	return nil
}

// DevDir is the folder that stands for /dev of a simulated host. It holds the nodes of attached volumes, the devices that every host has
// (null, zero, ...), and under .sysfs/block the part of sysfs that shows the serials of volumes.
func (s *Sim) DevDir(instanceID string) string {
	return filepath.Join(s.cfg.Dir, "hosts", instanceID, "dev")
}

// BackingFile is the sparse file that holds a volume's data.
func (s *Sim) BackingFile(volumeID string) string {
	return filepath.Join(s.cfg.Dir, "volumes", volumeID)
}

// SetDelays changes how long things take from now on. What is under way keeps its time.
func (s *Sim) SetDelays(d Delays) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays = d
}

// Delays returns how long things take.
func (s *Sim) Delays() Delays {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delays
}

// Close stops the simulator and keeps its state for the next New. Devices that nobody uses go away; those still in use go when
// their holder lets go, unless a simulator has come back by then.
func (s *Sim) Close() error {
	return s.end(func(a *attachment) { s.disk.release(s.DevDir(a.Instance), a.Plug) })
}

// Destroy closes the simulator and deletes its volumes, devices and state. Devices that somebody still holds answer I/O errors from
// then on and go away when they are let go. Files in Dir that the simulator did not make stay.
func (s *Sim) Destroy() error {
	var dead []int
	errs := []error{s.end(func(a *attachment) {
		left, err := s.disk.unplug(s.DevDir(a.Instance), a.Plug, true)
		if err != nil {
			s.log.WithError(err).Warn("ec2sim: cannot take a device away")
		}
		if left {
			dead = append(dead, a.Plug.Loop)
		}
		a.Plug = plug{}
	})}
	for _, e := range s.state.Events {
		if e.Kind == evReaped {
			dead = append(dead, e.Loop)
		}
	}
	for _, n := range dead {
		s.disk.removeSoon(n)
	}
	for _, name := range []string{"state.json", "calls.log", "lock", "volumes", "snapshots", "sources", "hosts", "nodes"} {
		errs = append(errs, os.RemoveAll(filepath.Join(s.cfg.Dir, name)))
	}
	os.Remove(s.cfg.Dir) // Succeeds when nothing else is in it.
	return errors.Join(errs...)
}

// end stops the simulator, once, and lets go of every attachment.
func (s *Sim) end(letGo func(*attachment)) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.stop()
	s.done.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.sortedVolumes() {
		for _, a := range v.Attachments {
			letGo(a)
		}
	}
	s.dirty = true
	s.save()
	s.callsMu.Lock()
	defer s.callsMu.Unlock()
	return errors.Join(s.callsLog.Close(), s.lock.Close())
}

// sortedVolumes returns all volumes by ID. Callers hold s.mu.
func (s *Sim) sortedVolumes() []*volume {
	out := make([]*volume, 0, len(s.state.Volumes))
	for _, v := range s.state.Volumes {
		out = append(out, v)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

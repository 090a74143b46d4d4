package ec2sim

import (
	"context"
	"slices"
	"time"
)

// event is a change of state that is due at a time. Events are part of the state on disk: after a restart they still come.
type event struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"` // a key of transitions
	Volume   string    `json:"volume,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Snapshot string    `json:"snapshot,omitempty"`
	Loop     int       `json:"loop,omitempty"`

	running bool
}

// A transition makes an event happen. It is called without s.mu, takes it for the state, and may work on devices in between; no two
// events of one volume run at the same time. What it returns, if not zero, is the time after which the same event comes again.
type transition func(s *Sim, e *event) (again time.Duration)

// transitions is the one table of what can happen to volumes, snapshots and instances by themselves.
var transitions = map[string]transition{
	evCreated:   (*Sim).finishCreate,
	evDeleted:   (*Sim).finishDelete,
	evAttached:  (*Sim).finishAttach,
	evPlugged:   (*Sim).finishPlug,
	evUnplugged: (*Sim).finishUnplug,
	evDetached:  (*Sim).finishDetach,
	evReaped:    (*Sim).finishReap,
	evReset:     (*Sim).finishReset,
	evModified:  (*Sim).finishModify,
	evOptimized: (*Sim).finishOptimize,

	evSnapshotted: (*Sim).finishSnapshot,
	evPurged:      (*Sim).finishPurge,

	evStarted:    (*Sim).finishStart,
	evChecked:    (*Sim).finishChecks,
	evStopped:    (*Sim).finishStop,
	evTerminated: (*Sim).finishTerminate,
	evForgotten:  (*Sim).finishForget,
}

// The kinds of events.
const (
	evCreated   = "created"   // a new volume becomes available
	evDeleted   = "deleted"   // a deleting volume is gone
	evAttached  = "attached"  // attaching becomes attached
	evPlugged   = "plugged"   // the host of an attached volume sees the device, later than the attachment
	evUnplugged = "unplugged" // the host of an attached volume has ended and loses the device
	evDetached  = "detached"  // detaching ends, or is busy while the host holds the device
	evReaped    = "reaped"    // a device that was cut off under its holder is removed once the holder lets go
	evReset     = "reset"     // the host of an attached volume is rebooted
	evModified  = "modified"  // modifying becomes optimizing: the volume has its new form
	evOptimized = "optimized" // optimizing becomes completed

	evSnapshotted = "snapshotted" // pending becomes completed
	evPurged      = "purged"      // something leaves the Recycle Bin for good

	evStarted    = "started"    // pending becomes running
	evChecked    = "checked"    // the first status checks of a started instance end
	evStopped    = "stopped"    // stopping becomes stopped
	evTerminated = "terminated" // shutting-down becomes terminated
	evForgotten  = "forgotten"  // a terminated instance is not shown any more
)

// schedule adds an event. Callers hold s.mu.
func (s *Sim) schedule(after time.Duration, e event) {
	e.At = s.now().Add(after)
	s.state.Events = append(s.state.Events, &e)
	s.dirty = true
	s.wakeUp()
}

// cancel removes the events of a kind that wait for one attachment. Callers hold s.mu.
func (s *Sim) cancel(kind, volume, instance string) {
	kept := s.state.Events[:0]
	for _, e := range s.state.Events {
		if e.running || e.Kind != kind || e.Volume != volume || e.Instance != instance {
			kept = append(kept, e)
		}
	}
	s.state.Events = kept
	s.dirty = true
}

// cancelSnapshot removes the events of a kind that wait for one snapshot. Callers hold s.mu.
func (s *Sim) cancelSnapshot(kind, snapshot string) {
	s.state.Events = slices.DeleteFunc(s.state.Events, func(e *event) bool { return !e.running && e.Kind == kind && e.Snapshot == snapshot })
	s.dirty = true
}

func (s *Sim) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run is the scheduler: it starts events that are due and sleeps until the next one.
func (s *Sim) run(ctx context.Context) {
	defer s.done.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		next := s.startDue(ctx)
		s.mu.Unlock()
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
	}
}

// startDue starts every event that is due and whose volume has none running, and returns the time to the next one. Callers hold s.mu.
func (s *Sim) startDue(ctx context.Context) time.Duration {
	next := time.Hour
	if ctx.Err() != nil {
		return next
	}
	busy := map[string]bool{}
	for _, e := range s.state.Events {
		if e.running {
			busy[e.Volume] = true
		}
	}
	now := s.now()
	for _, e := range s.state.Events {
		if e.running || (e.Volume != "" && busy[e.Volume]) {
			continue
		}
		if wait := e.At.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		e.running = true
		busy[e.Volume] = true
		s.done.Add(1)
		go s.fire(e)
	}
	return next
}

// fire runs one event and takes it off the list, or puts it back for later.
func (s *Sim) fire(e *event) {
	defer s.done.Done()
	var again time.Duration
	if do := transitions[e.Kind]; do != nil {
		again = do(s, e)
	} else {
		s.log.WithField("event", e.Kind).Error("ec2sim: the state holds an event that this program does not know")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.running = false
	if again > 0 {
		e.At = s.now().Add(again)
	} else {
		kept := s.state.Events[:0]
		for _, other := range s.state.Events {
			if other != e {
				kept = append(kept, other)
			}
		}
		s.state.Events = kept
	}
	s.dirty = true
	s.save()
	s.wakeUp()
}

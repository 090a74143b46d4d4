package ec2sim

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The life of an instance: pending -> running -> stopping -> stopped -> pending, and shutting-down -> terminated from any of them.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html

// Reason is why an instance changed its state.
type Reason struct {
	Code    string `json:"code"`    // such as Client.UserInitiatedShutdown
	Message string `json:"message"` // for people
	Text    string `json:"text"`    // StateTransitionReason: who and when
}

const (
	// settleRetry is how often it is looked whether the devices of a host that loses its power are gone.
	settleRetry = 5 * time.Millisecond
	// defaultTerminated is how long EC2 shows a terminated instance.
	defaultTerminated = time.Hour
	// shortcutPatience bounds SetInstanceState. Cutting a device off takes milliseconds.
	shortcutPatience = 30 * time.Second
)

// userInitiated is the reason of a change that a call has asked for.
func (s *Sim) userInitiated(what string) Reason {
	verb := map[string]string{"Shutdown": "shutdown", "Hibernate": "hibernate"}[what]
	code := "Client.UserInitiated" + what
	return Reason{Code: code, Message: code + ": User initiated " + verb, Text: "User initiated (" + s.now().UTC().Format("2006-01-02 15:04:05") + " GMT)"}
}

// setState changes an instance's state and tells those who wait for that. Callers hold s.mu.
func (s *Sim) setState(i *Instance, state string) {
	i.State = state
	s.dirty = true
	close(s.changed)
	s.changed = make(chan struct{})
}

// beginStart lets a stopped instance start. Callers hold s.mu.
func (s *Sim) beginStart(i *Instance, after time.Duration) {
	s.setState(i, StatePending)
	i.Reason = Reason{Code: "pending", Message: "pending"}
	i.Launched = s.now().UTC().Truncate(time.Second)
	s.schedule(after, event{Kind: evStarted, Instance: i.ID})
}

// beginStop lets a running instance stop; hibernated, it keeps its memory, and so its mounts. Callers hold s.mu.
func (s *Sim) beginStop(i *Instance, hibernate bool, after time.Duration) {
	s.cancel(evChecked, "", i.ID)
	s.setState(i, StateStopping)
	i.Hibernated = hibernate
	i.Reason = s.userInitiated("Shutdown")
	if hibernate {
		i.Reason = s.userInitiated("Hibernate")
	}
	s.schedule(after, event{Kind: evStopped, Instance: i.ID})
}

// beginTerminate ends an instance in any state. Callers hold s.mu.
func (s *Sim) beginTerminate(i *Instance, after time.Duration) {
	for _, kind := range []string{evStarted, evStopped, evChecked} {
		s.cancel(kind, "", i.ID)
	}
	s.setState(i, StateShuttingDown)
	i.Reason = s.userInitiated("Shutdown")
	s.schedule(after, event{Kind: evTerminated, Instance: i.ID})
}

// hasten makes a change that is under way end as soon as it can. Callers hold s.mu.
func (s *Sim) hasten(i *Instance, kind string) {
	i.NeverStops = false
	s.cancel(kind, "", i.ID)
	s.schedule(0, event{Kind: kind, Instance: i.ID})
}

// attachmentsOf calls do for every volume that an instance has. Callers hold s.mu.
func (s *Sim) attachmentsOf(instance string, do func(*volume, *attachment)) {
	for _, v := range s.sortedVolumes() {
		if a := v.on(instance); a != nil {
			do(v, a)
		}
	}
}

// powerOff takes the devices away from a host: what it has not written by then it never will. It has to be called again until it returns
// true: only then is the host known to be off. Callers hold s.mu.
func (s *Sim) powerOff(i *Instance) (off bool) {
	off = true
	s.attachmentsOf(i.ID, func(v *volume, a *attachment) {
		asked, atWork := false, false
		for _, e := range s.state.Events {
			asked = asked || (e.Volume == v.ID && e.Instance == i.ID && e.Kind == evUnplugged)
			atWork = atWork || (e.Volume == v.ID && e.running)
		}
		if a.Plug.Node != 0 && !asked {
			s.schedule(0, event{Kind: evUnplugged, Volume: v.ID, Instance: i.ID})
			asked = true
		}
		off = off && !asked && !atWork
	})
	return off
}

// finishStart makes a pending instance run; its devices come back.
func (s *Sim) finishStart(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[e.Instance]
	if i == nil || i.State != StatePending {
		return 0
	}
	s.setState(i, StateRunning)
	i.Hibernated, i.Reason, i.Checks = false, Reason{}, Checks{}
	if s.delays.Checks > 0 {
		i.Checks = allChecks(CheckInitializing)
		s.schedule(s.delays.Checks, event{Kind: evChecked, Instance: i.ID})
	}
	s.attachmentsOf(i.ID, func(v *volume, _ *attachment) {
		s.schedule(0, event{Kind: evPlugged, Volume: v.ID, Instance: i.ID})
	})
	return 0
}

// finishStop makes a stopping instance stopped, after its devices are gone: who reads "stopped" can rely on it that the host writes
// nothing any more. A hibernated host would find its devices where they were, so it keeps them until somebody detaches them.
func (s *Sim) finishStop(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[e.Instance]
	switch {
	case i == nil || i.State != StateStopping:
		return 0
	case i.NeverStops:
		return busyRetry
	case !i.Hibernated && !s.powerOff(i):
		return settleRetry
	}
	s.setState(i, StateStopped)
	return 0
}

// finishTerminate makes an instance that shuts down terminated, after its devices are gone; then its volumes come off.
func (s *Sim) finishTerminate(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[e.Instance]
	if i == nil || i.State != StateShuttingDown {
		return 0
	}
	if !s.powerOff(i) {
		return settleRetry
	}
	s.setState(i, StateTerminated)
	i.Hibernated = false
	if !i.KeepsVolumes {
		s.attachmentsOf(i.ID, func(v *volume, a *attachment) {
			for _, kind := range []string{evAttached, evPlugged, evDetached} {
				s.cancel(kind, v.ID, i.ID)
			}
			a.State, a.Force, a.Quirks.NeverDetached = "detaching", true, false
			s.touch(v)
			s.schedule(0, event{Kind: evDetached, Volume: v.ID, Instance: i.ID})
		})
	}
	visible := s.delays.Terminated
	if visible == 0 {
		visible = defaultTerminated
	}
	s.schedule(visible, event{Kind: evForgotten, Instance: i.ID})
	return 0
}

// finishForget removes a terminated instance from what EC2 shows. Its folder stays: somebody may still have it as /dev.
func (s *Sim) finishForget(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	holds := false
	s.attachmentsOf(e.Instance, func(*volume, *attachment) { holds = true })
	if holds {
		return busyRetry
	}
	delete(s.state.Instances, e.Instance)
	delete(s.keys, roleKey(e.Instance))
	s.dirty = true
	return 0
}

// off tells whether an instance has no power: it can hold nothing. Callers hold s.mu.
func (s *Sim) off(instance string) bool {
	i := s.state.Instances[instance]
	return i == nil || i.State == StateStopped || i.State == StateTerminated
}

// SetInstanceState makes a host running, stopped or terminated and returns once it is. It is what the calls StartInstances, StopInstances
// with Force, and TerminateInstances do, without delays, protections and faults.
func (s *Sim) SetInstanceState(id, state string) error {
	if !slices.Contains([]string{StateRunning, StateStopped, StateTerminated}, state) {
		return fmt.Errorf("ec2sim: an instance can be made running, stopped or terminated, not %q", state)
	}
	ctx, cancel := context.WithTimeout(s.life, shortcutPatience)
	defer cancel()
	for {
		changed, err := s.push(id, state)
		if changed == nil || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("ec2sim: instance %s did not become %s: %w", id, state, ctx.Err())
		}
	}
}

// push brings an instance one step towards a state. It returns what is closed at its next change, or nil when it is there.
func (s *Sim) push(id, state string) (changed chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[id]
	switch {
	case s.closed:
		return nil, errShutDown()
	case i == nil:
		return nil, fmt.Errorf("ec2sim: there is no instance %q", id)
	case i.State == state:
		return nil, nil
	case i.State == StateTerminated || (i.State == StateShuttingDown && state != StateTerminated):
		return nil, fmt.Errorf("ec2sim: instance %s is %s", id, i.State)
	case i.State == StateShuttingDown:
		s.hasten(i, evTerminated)
	case state == StateTerminated:
		s.beginTerminate(i, 0)
	case i.State == StatePending:
		s.hasten(i, evStarted)
	case i.State == StateStopping:
		s.hasten(i, evStopped)
	case state == StateRunning:
		s.beginStart(i, 0)
	default:
		s.beginStop(i, false, 0)
	}
	s.save()
	return s.changed, nil
}

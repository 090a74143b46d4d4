package driver

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// drainLook is how often a drain looks what is left.
const drainLook = 500 * time.Millisecond

// DrainRequest is what `blockvol drain` asks for.
type DrainRequest struct {
	Undo    bool          `json:"undo,omitempty"`    // take volumes again
	Timeout time.Duration `json:"timeout,omitempty"` // how long to wait for what is in use; 0: not at all
}

// DrainLeft is a volume that is still here.
type DrainLeft struct {
	Volume string `json:"volume"`
	ID     string `json:"id"`
	State  string `json:"state"`
	Why    string `json:"why"`
}

// Drained is how a drain has ended. Nothing of the cluster is attached to this host any more if Left is empty.
type Drained struct {
	Instance string      `json:"instance"`
	Draining bool        `json:"draining"` // this host takes no volumes
	Left     []DrainLeft `json:"left"`
}

// drainingSince returns since when this host takes no volume any more, or the zero time.
func (m *Manager) drainingSince() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.draining
}

// refuseWhileDraining refuses a volume that is not mounted yet on a host that is being drained.
func (m *Manager) refuseWhileDraining(v *record) error {
	since := m.drainingSince()
	if since.IsZero() {
		return nil
	}
	return cloud.Errorf(cloud.ErrState, "volume %q is not mounted here: this host (%s) is being drained since %s and takes no volumes; run the container on another host, "+
		"or let this one take volumes again with: blockvol drain --undo", v.name, m.self().ID, since.UTC().Format(time.RFC3339))
}

// drain makes this host take no volumes any more, lets go of all that nobody uses, and waits for the rest. A restart of the plugin undoes it.
func (m *Manager) drain(ctx context.Context, req DrainRequest, say Say) (Drained, error) {
	if err := m.ready(ctx); err != nil {
		return Drained{}, err
	}
	out := Drained{Instance: m.self().ID, Draining: !req.Undo, Left: []DrainLeft{}}
	m.mu.Lock()
	was := m.draining
	switch {
	case req.Undo:
		m.draining = time.Time{}
	case was.IsZero():
		m.draining = time.Now()
	}
	m.mu.Unlock()
	if req.Undo {
		m.log.Warn("this host takes volumes again")
		return out, nil
	}
	if was.IsZero() {
		m.log.Warn("this host is being drained: it takes no volumes any more")
	}
	var err error
	out.Left, err = m.drainAll(ctx, time.Now().Add(req.Timeout), say)
	return out, err
}

// drainAll lets go of everything until the cloud and the kernel show nothing here any more, or until the deadline; it returns what is left.
func (m *Manager) drainAll(ctx context.Context, deadline time.Time, say Say) ([]DrainLeft, error) {
	said := map[string]string{}
	var lookErr error
	for stocked := false; ; {
		if !stocked {
			// What only EC2 knows of, and what an earlier process left mounted.
			if lookErr = m.takeStock(ctx); lookErr == nil {
				stocked = true
				m.sweep(ctx)
			}
		}
		left := m.letGoOfAll(ctx)
		for _, l := range left {
			if said[l.Volume] != l.Why {
				say("%s (%s) is %s: %s", l.Volume, l.ID, l.State, l.Why)
				said[l.Volume] = l.Why
			}
		}
		if len(left) == 0 && stocked {
			// Only a listing that is younger than the last detach proves that nothing is left.
			if lookErr = m.takeStock(ctx); lookErr == nil && len(m.here()) == 0 {
				return left, nil
			}
		}
		late := time.Now().After(deadline)
		if late && lookErr != nil {
			return left, fmt.Errorf("whether anything is still attached to %s cannot be told: %w", m.self().ID, lookErr)
		}
		if late && len(left) > 0 {
			return left, nil
		}
		if err := m.pause(ctx, drainLook); err != nil {
			return left, err
		}
	}
}

// here are the records of volumes that are attached to this host, or may be.
func (m *Manager) here() []*record {
	self := m.self().ID
	var out []*record
	for _, v := range m.all() {
		v.mu.Lock()
		here := v.attached || v.phase != phaseFree
		if v.seen != nil && !here {
			_, here = v.seen.On(self)
		}
		v.mu.Unlock()
		if here {
			out = append(out, v)
		}
	}
	sort.Slice(out, func(a, b int) bool { return out[a].name < out[b].name })
	return out
}

// letGoOfAll releases all volumes of this host that nobody uses, at the same time, and returns what is here after that. One that is busy with
// something else is looked at again the next time.
func (m *Manager) letGoOfAll(ctx context.Context) []DrainLeft {
	var all sync.WaitGroup
	for _, v := range m.here() {
		if m.usedFor(v) != 0 {
			continue
		}
		done := make(chan struct{})
		all.Go(func() {
			select {
			case <-done:
			case <-time.After(drainLook):
			case <-ctx.Done():
			}
		})
		began := m.goOn(v.name, func(base context.Context) {
			defer close(done)
			turn, cancel := context.WithTimeout(base, drainLook)
			defer cancel()
			if v.turn.take(turn) != nil {
				return
			}
			defer v.turn.give()
			v.set(func() { v.cause = cloud.Operation(ctx) })
			m.settle(as(base, cloud.Operation(ctx)), v, atOnce)
		})
		if !began {
			close(done)
		}
	}
	all.Wait()
	left := []DrainLeft{}
	for _, v := range m.here() {
		left = append(left, m.leftOf(v))
	}
	return left
}

// leftOf tells why a volume is still here.
func (m *Manager) leftOf(v *record) DrainLeft {
	used := m.usedFor(v)
	v.mu.Lock()
	defer v.mu.Unlock()
	l := DrainLeft{Volume: v.name, ID: v.id, State: string(v.phase)}
	find := "find the container with `docker ps --filter volume=" + v.name + "` and stop it"
	switch {
	case used < 0:
		l.Why = fmt.Sprintf("in use (%d): %s", len(v.users), find)
	case used > 0:
		l.Why = "handed to a container that may still be starting: " + find
	case v.lastErr != nil:
		l.Why = v.lastErr.Error()
	case v.doing != "":
		l.Why = v.doing
	default:
		l.Why = "being released"
	}
	return l
}

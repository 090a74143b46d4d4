package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/metrics"
)

// errHeld says that something on this host still uses the volume.
var errHeld = errors.New("still in use on this host")

// Unmount notes that Docker gave back a mount ID, and if that was the last, lets go of the volume as far as the kernel proves that nobody
// uses it. What cannot be done now goes on in the background; Docker does nothing with an error but to log it.
func (m *Manager) Unmount(ctx context.Context, name, id string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if m.cfg.SettingsErr != nil {
		return m.cfg.SettingsErr
	}
	v := m.record(name)
	last := false
	v.set(func() {
		delete(v.users, id)
		last = len(v.users) == 0
	})
	m.save(v)
	m.step(StepUnmountNoted)
	if !last {
		return nil
	}
	// It is noted; what follows from that need not be waited for when the cloud has not answered since the start.
	soon, cancel := context.WithTimeout(ctx, m.timing.Listing)
	defer cancel()
	if err := m.ready(soon); err != nil {
		m.wake(v, time.Second)
		return nil
	}
	err := m.work(ctx, v, func(base context.Context) error {
		m.settle(base, v, keepAttached)
		return nil
	})
	if err != nil {
		m.log.WithField("volume", name).Infof("unmount goes on in the background: %v", err)
		m.wake(v, 0)
	}
	return nil
}

// wake makes the volume be settled after d, or earlier if that was planned already.
func (m *Manager) wake(v *record, d time.Duration) {
	if m.base == nil || m.base.Err() != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	due := time.Now().Add(d)
	if v.timer != nil && v.due.After(time.Now()) && v.due.Before(due) {
		return
	}
	if v.timer != nil {
		v.timer.Stop()
	}
	v.due = due
	v.timer = time.AfterFunc(d, func() {
		m.goOn(v.name, func(base context.Context) {
			if m.ready(base) != nil {
				m.wake(v, time.Second)
				return
			}
			if v.turn.take(base) != nil {
				return
			}
			defer v.turn.give()
			v.set(func() { v.cause = OpLetGo })
			m.settle(as(base, OpLetGo), v, afterGrace)
		})
	})
}

// settle moves the volume towards "nothing unused stays mounted or attached", with v's turn taken, and plans the next look.
func (m *Manager) settle(ctx context.Context, v *record, far reach) {
	if wait := m.usedFor(v); wait != 0 {
		if wait > 0 {
			m.wake(v, wait)
		}
		return
	}
	again, err := m.release(ctx, v, far)
	v.set(func() {
		v.lastErr = err
		if err == nil || errors.Is(err, errHeld) {
			v.failing = failing{}
		} else {
			v.failing.again(err)
		}
	})
	if err != nil && !errors.Is(err, errHeld) {
		m.log.WithField("volume", v.name).Warnf("letting go: %v", err)
		m.metrics.Reconciled(metrics.ActionRetry)
	}
	if again > 0 {
		m.wake(v, again)
	}
}

// usedFor tells whether somebody who counts uses the volume: 0 for nobody, -1 for as long as Docker does not say otherwise, else the time
// after which to look again. A mount ID from before this process counts for 30 s: its Unmount may have been lost, and the kernel knows better.
func (m *Manager) usedFor(v *record) time.Duration {
	m.holdAtStart(v)
	now := time.Now()
	trust := m.started.Add(m.timing.HandOver)
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, u := range v.users {
		if !u.inherited {
			return -1
		}
		if now.After(trust) {
			delete(v.users, id)
		}
	}
	if len(v.users) > 0 {
		return trust.Sub(now)
	}
	if v.holdUntil.After(now) {
		return v.holdUntil.Sub(now)
	}
	return 0
}

// reach is how far release goes with a volume that nobody uses.
type reach int

const (
	keepAttached reach = iota // unmount: what a request waits for, which must not hang on EC2
	afterGrace                // and detach, once the grace is over
	atOnce                    // and detach
)

// release lets go of a volume that Docker does not use, as far as the kernel proves that nobody else does: unmount, probe, detach. It
// returns when to look again (0: done). It is the only way to umount and DetachVolume.
func (m *Manager) release(ctx context.Context, v *record, far reach) (again time.Duration, err error) {
	v.mu.Lock()
	seen, attached := v.seen, v.attached
	v.mu.Unlock()
	if seen == nil {
		return 0, nil // the sweep looks it up
	}
	done, err := m.letGoOf(ctx, seen.ID)
	if err != nil {
		return time.Second, err
	}
	defer done()
	if m.usedAs(v, seen.ID) != "" {
		return m.renamed(ctx, v, seen.ID, far)
	}
	dev, err := m.disk.Find(seen.Serial)
	if errors.Is(err, disk.ErrNoDevice) {
		if err := m.unmountTarget(m.target(seen.ID)); err != nil {
			return m.timing.Grace + time.Second, err
		}
		v.set(func() { v.path = "" })
		if !attached {
			v.rest(phaseFree)
			return 0, nil
		}
		if far == keepAttached {
			return time.Millisecond, nil
		}
		return m.detach(ctx, v, *seen, nil)
	}
	if err != nil {
		return m.timing.HandOver, err
	}
	if err := m.unmount(v, dev); err != nil {
		return m.backOff(v), err
	}
	hold, err := m.disk.Claim(dev)
	if errors.Is(err, disk.ErrInUse) {
		v.set(func() {
			if v.phase != phaseDraining {
				v.enter(phaseDraining)
				v.doingSince = time.Now()
			}
			v.freeSince = time.Time{}
		})
		return m.backOff(v), fmt.Errorf("volume %q (%s): %w: find the container with `docker ps --filter volume=%s`, or any process with `grep -l %s /proc/*/mountinfo`",
			v.name, seen.ID, errHeld, v.name, seen.ID)
	}
	if err != nil {
		return m.timing.HandOver, fmt.Errorf("whether %s is in use cannot be told, so it stays attached: %w", dev.Path, err)
	}
	defer hold.Release()
	m.step(StepFree)
	now := time.Now()
	var left time.Duration
	v.set(func() {
		if v.freeSince.IsZero() {
			v.freeSince = now
		}
		v.enter(phaseAttached)
		v.doing, v.path = "", ""
		left = v.freeSince.Add(m.timing.Grace).Sub(now)
	})
	if far == keepAttached || far == afterGrace && left > 0 {
		m.step(StepGrace)
		return max(left, time.Millisecond), nil
	}
	return m.detach(ctx, v, *seen, hold)
}

// letGoOf begins to let go of a volume, which one name at a time may do, and returns what ends it.
func (m *Manager) letGoOf(ctx context.Context, id string) (done func(), err error) {
	for {
		m.mu.Lock()
		other, busy := m.lettingGo[id]
		if !busy {
			ended := make(chan struct{})
			m.lettingGo[id] = ended
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.lettingGo, id)
				m.mu.Unlock()
				close(ended)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// notLetGoOf waits until nobody lets go of v's volume under another name. To be called with v's turn and ID: who begins after that sees both in
// usedAs and takes nothing away.
func (m *Manager) notLetGoOf(ctx context.Context, v *record) error {
	id, _ := v.known()
	for {
		m.mu.Lock()
		other, busy := m.lettingGo[id]
		m.mu.Unlock()
		if !busy {
			return nil
		}
		v.set(func() { v.doing, v.doingSince = "waiting until the volume is let go of under another name", time.Now() })
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// usedAs returns another name under which this host uses the volume or is at work on it: one that was given up on another host, and adopted
// again here, has a new name, and the record of the old one knows nothing of that.
func (m *Manager) usedAs(v *record, id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, other := range m.records {
		if other == v {
			continue
		}
		other.mu.Lock()
		used := other.id == id && (len(other.users) > 0 || len(other.turn) > 0 || other.holdUntil.After(time.Now()))
		other.mu.Unlock()
		if used {
			return name
		}
	}
	return ""
}

// renamed lets go of nothing: it finds out whether the volume still has the record's name, and if not, the record forgets it.
func (m *Manager) renamed(ctx context.Context, v *record, id string, far reach) (again time.Duration, err error) {
	if far == keepAttached {
		return time.Second, nil
	}
	vol, err := m.cloud.ByID(ctx, id)
	if err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return 5 * time.Second, fmt.Errorf("volume %q (%s): whether it still has that name cannot be told: %w", v.name, id, err)
	}
	if err != nil || vol.Name == v.name {
		return time.Second, nil
	}
	m.log.WithField("volume", v.name).Infof("%s is volume %q now", id, vol.Name)
	v.set(func() {
		v.id, v.seen, v.absentAt, v.attached, v.path = "", nil, time.Now(), false, ""
	})
	v.rest(phaseFree)
	m.save(v)
	return 0, nil
}

// backOff is the time until a volume that is held is probed again.
func (m *Manager) backOff(v *record) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	held := time.Since(v.doingSince)
	return min(max(held/4, 500*time.Millisecond), 5*time.Second)
}

// unmount takes away the mounts of dev that are ours: those under our folder.
func (m *Manager) unmount(v *record, dev disk.Device) error {
	targets, err := m.disk.Mounts(dev)
	if err != nil {
		return err
	}
	for _, t := range targets {
		if filepath.Dir(t) == m.mounts {
			if err := m.unmountTarget(t); err != nil {
				return err
			}
		}
	}
	id, _ := v.known()
	v.set(func() { v.path = "" })
	return m.unmountTarget(m.target(id)) // and what is left there of a device that is gone
}

// unmountTarget unmounts one of our mountpoints, if anything is mounted there, and removes the folder. A folder that cannot be removed, because
// nothing can be written there, is said and left to the sweep: it keeps no volume attached.
func (m *Manager) unmountTarget(target string) error {
	points, err := m.disk.MountsUnder(m.mounts)
	if err != nil {
		return err
	}
	for _, p := range points {
		if p.Target == target {
			m.step(StepUnmount)
			if err := m.disk.Unmount(target); err != nil {
				return err
			}
			m.step(StepUnmounted)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.log.WithError(err).Warnf("the empty mountpoint %s stays for now", hostPath(target))
	}
	return nil
}

// detach sends DetachVolume for a device that is proven free (hold is the proof, kept until EC2 has accepted) or that is not in this kernel,
// and waits for the end.
func (m *Manager) detach(ctx context.Context, v *record, vol cloud.Volume, hold claimed) (time.Duration, error) {
	v.begin(phaseDetaching, "detaching the volume from "+m.self().ID)
	m.step(StepDetach)
	err := m.cloud.Detach(ctx, vol.ID)
	if hold != nil {
		hold.Release()
	}
	if err != nil {
		v.rest(phaseAttached)
		return m.backOff(v), err
	}
	m.step(StepDetachSent)
	v.set(func() { v.seenAt, v.leaving = time.Time{}, true })
	ctx, cancel := context.WithTimeout(ctx, m.timing.Detach)
	defer cancel()
	gone, stop := context.WithTimeout(ctx, m.timing.AskCloud)
	// The kernel tells first; if it does not, the cloud is asked all the same.
	_ = m.disk.WaitGone(gone, vol.Serial)
	stop()
	if err := m.cloud.WaitDetached(ctx, vol.ID); err != nil {
		p := phaseDetaching
		if errors.Is(err, cloud.ErrBusy) {
			p = phaseBusy
		}
		v.set(func() { v.enter(p) })
		return 5 * time.Second, fmt.Errorf("volume %q (%s): waiting for the end of the detachment: %w", v.name, vol.ID, err)
	}
	if _, err := m.disk.Find(vol.Serial); !errors.Is(err, disk.ErrNoDevice) {
		v.set(func() { v.enter(phaseDetaching) })
		return 5 * time.Second, fmt.Errorf("volume %q (%s): EC2 says that it is detached, but its device is still here", v.name, vol.ID)
	}
	m.step(StepDetached)
	v.set(func() {
		v.leaving = false
		v.attached, v.freeSince, v.detachedAt, v.lastErr = false, time.Time{}, time.Now(), nil
		if v.seen != nil {
			free := *v.seen
			free.Attachments, free.State = nil, cloud.Available
			v.seen, v.seenAt = &free, time.Time{}
		}
	})
	v.rest(phaseFree)
	return 0, nil
}

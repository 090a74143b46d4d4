package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/metrics"
)

// sweepLoop brings the world and the records together: at start, and then once a minute. It finds what no request will ever ask about: a
// volume whose Unmount was lost, a device that a killed process attached, a mount that outlived us.
func (m *Manager) sweepLoop(ctx context.Context) {
	ctx = as(ctx, OpSweep)
	wait := 250 * time.Millisecond
	if m.cloud != nil {
		if err := m.cloud.Warm(ctx); err != nil {
			m.log.Debugf("looking up what attaching needs: %v", err)
		}
	}
	for stocked := false; ; {
		err := m.ready(ctx)
		if err == nil && (!stocked || m.ledger.lost()) {
			if err = m.takeStock(ctx); err == nil {
				stocked = true
			}
		}
		if err == nil {
			m.sweep(ctx)
			wait = m.timing.Sweep
		} else {
			m.log.Warnf("not ready yet: %v", err)
			wait = min(2*wait, m.timing.Sweep)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// sweep looks at every device and every mount of this host, without a request to the cloud for those that are known.
func (m *Manager) sweep(ctx context.Context) {
	bySerial := map[string]*record{}
	byID := map[string]*record{}
	for _, v := range m.all() {
		if id, seen := v.known(); seen != nil {
			bySerial[seen.Serial], byID[id] = v, v
		}
	}
	m.ledger.retry()
	m.adoptMounts(ctx, byID)
	devices, err := m.disk.List()
	if err != nil {
		m.log.Warnf("looking for attached devices: %v", err)
	}
	for _, d := range devices {
		if v := bySerial[d.Serial]; v != nil {
			v.set(func() {
				if !v.attached && len(v.turn) == 0 {
					m.log.WithField("volume", v.name).Warnf("its device %s is on this host, and nobody asked for it", d.Name)
					m.metrics.Leaked(metrics.LeakDevice)
				}
				v.attached = true
			})
			m.growLater(v, d)
		}
	}
	for _, v := range bySerial {
		v.mu.Lock()
		here := v.attached
		v.mu.Unlock()
		if here {
			m.wake(v, 0)
		}
	}
	m.tidy(byID)
	m.pruneRecords()
}

// tidy removes mountpoints that could not be removed when they were unmounted. Where something is mounted the kernel refuses it.
func (m *Manager) tidy(byID map[string]*record) {
	left, err := os.ReadDir(m.mounts)
	if err != nil {
		return // nothing was mounted there yet
	}
	for _, e := range left {
		v := byID[e.Name()]
		if v == nil {
			continue
		}
		select {
		case v.turn <- struct{}{}: // else somebody may be about to mount there
			if os.Remove(filepath.Join(m.mounts, e.Name())) == nil {
				m.metrics.Leaked(metrics.LeakMountpoint)
			}
			v.turn.give()
		default:
		}
	}
}

// adoptMounts looks up the volumes of mounts under our folder that no record knows.
func (m *Manager) adoptMounts(ctx context.Context, byID map[string]*record) {
	points, err := m.disk.MountsUnder(m.mounts)
	if err != nil {
		m.log.Warnf("looking for mounts: %v", err)
		return
	}
	for _, p := range points {
		id := filepath.Base(p.Target)
		if byID[id] != nil {
			continue
		}
		vol, err := m.cloud.ByID(ctx, id)
		if err != nil {
			m.log.Warnf("%s is mounted on %s, but its volume cannot be looked up: %v; it is left alone", id, p.Target, err)
			continue
		}
		m.metrics.Leaked(metrics.LeakMount)
		v := m.record(vol.Name)
		v.saw(vol, m.self().ID)
		v.set(func() { v.attached = true })
		byID[id] = v
	}
}

// holdAtStart keeps what an earlier process left mounted for a while, where the ledger does not tell who has it: a Mount that was answered
// may not have reached its container yet. It is asked before anything is let go of: a request may come before the first sweep.
func (m *Manager) holdAtStart(v *record) {
	until := m.started.Add(m.timing.HandOver)
	if m.ledger.trusted || time.Now().After(until) {
		return
	}
	if _, ok := m.mountedAt(v); !ok {
		return
	}
	v.set(func() {
		if !v.mountedNow && v.holdUntil.Before(until) {
			v.holdUntil = until
		}
	})
}

// pruneRecords drops records of names that turned out not to be volumes, and the memory of volumes deleted long ago.
func (m *Manager) pruneRecords() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, at := range m.deleted {
		if time.Since(at) > time.Hour {
			delete(m.deleted, id)
		}
	}
	for name, v := range m.records {
		v.mu.Lock()
		idle := v.id == "" && v.ambiguous == nil && v.changing == 0 && v.looking == 0 && len(v.users) == 0 && len(v.turn) == 0 &&
			time.Since(v.absentAt) > m.timing.Sweep
		v.mu.Unlock()
		if idle {
			delete(m.records, name)
		}
	}
}

// parkAll ends the grace of all volumes at once, when the process ends: what is proven free is asked to be detached, without waiting for it.
func (m *Manager) parkAll(ctx context.Context) {
	m.mu.Lock()
	ready := m.isReady
	m.mu.Unlock()
	if !ready {
		return
	}
	ctx = as(ctx, OpShutdown)
	var wg sync.WaitGroup
	for _, v := range m.all() {
		if m.usedFor(v) != 0 {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if v.turn.take(ctx) != nil {
				return
			}
			defer v.turn.give()
			v.set(func() { v.cause = OpShutdown })
			if err := m.park(ctx, v); err != nil && !errors.Is(err, errHeld) {
				m.log.WithField("volume", v.name).Warnf("letting go at the end: %v", err)
			}
		}()
	}
	wg.Wait()
}

// park unmounts, probes and sends DetachVolume.
func (m *Manager) park(ctx context.Context, v *record) error {
	_, seen := v.known()
	if seen == nil {
		return nil
	}
	done, err := m.letGoOf(ctx, seen.ID)
	if err != nil {
		return err
	}
	defer done()
	if m.usedAs(v, seen.ID) != "" {
		return nil // as the volume that it is now
	}
	dev, err := m.disk.Find(seen.Serial)
	if err != nil {
		return nil // not here
	}
	if err := m.unmount(v, dev); err != nil {
		return err
	}
	hold, err := m.disk.Claim(dev)
	if err != nil {
		return errors.Join(errHeld, err)
	}
	defer hold.Release()
	v.set(func() { v.enter(phaseAttached) })
	if err := m.cloud.Detach(ctx, seen.ID); err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return err
	}
	v.set(func() { v.enter(phaseDetaching) })
	return nil
}

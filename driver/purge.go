package driver

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// purgesAtOnce is how many volumes a host deletes for good at the same time: each waits some seconds for claims of others.
const purgesAtOnce = 8

// purging is when to look for removed volumes next, beside the looks that come by themselves.
type purging struct {
	mu      sync.Mutex
	at      time.Time // the end of the time of one that this host knows of; zero: it knows of none
	changed chan struct{}
	mine    map[string]bool // by ID: volumes removed here that are to become snapshots; other hosts look at them less often
}

// purgeLoop deletes for good what was removed with a delay, once its time is over. Each host of the cluster does it, because the one that
// removed a volume may be gone by then; which of them comes first is decided by the cloud. They look rarely, and at different times; the host
// that removed a volume, or has seen that its time is over soon, looks then too.
func (m *Manager) purgeLoop(ctx context.Context) {
	ctx = as(ctx, OpPurge)
	next := time.Now().Add(m.timing.Purge/10 + jitter(m.timing.Purge))
	for {
		m.purging.mu.Lock()
		when := next
		if !m.purging.at.IsZero() && m.purging.at.Before(next) {
			when = m.purging.at
		}
		m.purging.mu.Unlock()
		select {
		case <-m.purging.changed:
			continue
		case <-ctx.Done():
			return
		case <-time.After(time.Until(when)):
		}
		m.purging.mu.Lock()
		m.purging.at = time.Time{}
		m.purging.mu.Unlock()
		if err := m.purge(ctx); err != nil && ctx.Err() == nil {
			m.log.Warnf("looking for removed volumes whose time is over: %v", err)
		}
		next = time.Now().Add(m.timing.Purge*3/4 + jitter(m.timing.Purge/2))
	}
}

// jitter is any duration less than d.
func jitter(d time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(max(d, 1)))) }

// purgeAfter has the volumes looked at that were removed, when d is over.
func (m *Manager) purgeAfter(d time.Duration) {
	at := time.Now().Add(d + time.Second) // EC2 tells its time in seconds
	m.purging.mu.Lock()
	if m.purging.at.IsZero() || at.Before(m.purging.at) {
		m.purging.at = at
	}
	m.purging.mu.Unlock()
	select {
	case m.purging.changed <- struct{}{}:
	default:
	}
}

// purge deletes for good the removed volumes whose time is over.
func (m *Manager) purge(ctx context.Context) error {
	if err := m.ready(ctx); err != nil {
		return nil // which is said elsewhere
	}
	all, err := m.cloud.GivenUp(ctx)
	if err != nil {
		return err
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) // hosts that look at the same moment get less into each other's way
	var jobs []func(context.Context)
	for _, g := range all {
		switch {
		case !g.Retired || g.Newer != nil:
		case g.Snapshot:
			jobs = append(jobs, func(ctx context.Context) { m.preserveOne(ctx, g) })
		case g.Left > m.timing.Purge:
		case g.Left > 0:
			m.purgeAfter(g.Left + jitter(m.timing.Purge/10))
		default:
			jobs = append(jobs, func(ctx context.Context) { m.purgeOne(ctx, g) })
		}
	}
	var going sync.WaitGroup
	slots := make(chan struct{}, purgesAtOnce)
	for _, job := range jobs {
		going.Add(1)
		slots <- struct{}{}
		began := m.goOn("purge", func(base context.Context) {
			defer func() { <-slots; going.Done() }()
			job(as(base, OpPurge))
		})
		if !began {
			going.Done()
			return nil
		}
	}
	going.Wait()
	return nil
}

// preserveOne makes a snapshot of a removed volume that is to become one, and deletes the volume once the snapshot is completed.
func (m *Manager) preserveOne(ctx context.Context, g cloud.GivenUp) {
	log := m.log.WithField("volume", g.Name)
	m.step(StepPreserve)
	attrs := options.Inherited(g.Attrs)
	attrs[attrConsistency] = consistentUnmounted
	s, err := m.cloud.Preserve(ctx, g.ID, cloud.SnapshotSpec{Description: "volume " + g.Name + ", removed with reclaim=snapshot", Attrs: attrs})
	switch {
	case err == nil && s.State == cloud.SnapshotCompleted:
		m.step(StepPreserved)
		log.Infof("snapshot %s of %s is completed", s.ID, g.ID)
		m.purgeOne(ctx, g)
	case err == nil:
		m.step(StepPreserved)
		log.Debugf("snapshot %s of %s is %s (%d %%)", s.ID, g.ID, s.State, s.Progress)
		m.lookAgainSoon(g.ID)
	case errors.Is(err, cloud.ErrThrottled):
		m.lookAgainSoon(g.ID)
	case errors.Is(err, cloud.ErrNotFound), errors.Is(err, cloud.ErrState): // it is gone, or back
		log.Debugf("%v", err)
	default:
		log.Warnf("%v; the volume is kept, and it is tried again", err)
	}
}

// lookAgainSoon has a snapshot that goes on looked at again, by the host that removed its volume.
func (m *Manager) lookAgainSoon(id string) {
	m.purging.mu.Lock()
	mine := m.purging.mine[id]
	m.purging.mu.Unlock()
	if mine {
		m.purgeAfter(m.timing.Purge / 30)
	}
}

func (m *Manager) purgeOne(ctx context.Context, g cloud.GivenUp) {
	log := m.log.WithField("volume", g.Name)
	m.step(StepPurge)
	err := m.cloud.Purge(ctx, g.ID)
	switch {
	case err == nil:
		m.step(StepPurged)
		m.purging.mu.Lock()
		delete(m.purging.mine, g.ID)
		m.purging.mu.Unlock()
		m.changed(change{volume: g.Name, id: g.ID, from: phaseRemoved, to: phaseDeleted, cause: OpPurge})
		log.Infof("deleted %s for good: it was removed at %s", g.ID, g.Since.UTC().Format(time.RFC3339))
	case errors.Is(err, cloud.ErrClaimed), errors.Is(err, cloud.ErrNotFound): // by another host, or it is back
		log.Debugf("%v", err)
	default:
		log.Warnf("%v; it is tried again", err)
	}
}

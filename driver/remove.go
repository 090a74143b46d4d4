package driver

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/options"
)

// Remove deletes the volume, or gives it up where it is to be kept, after it has proved for itself that nobody uses it: dockerd's own count of users is lost when one of its
// look-ups fails. A volume that is gone already is success, so that a Remove whose answer was lost can be repeated.
func (m *Manager) Remove(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := m.ready(ctx); err != nil {
		return err
	}
	v := m.record(name)
	v.set(func() { v.changing++ })
	defer v.set(func() { v.changing-- })
	return m.work(ctx, v, func(ctx context.Context) error {
		looked := time.Now()
		vol, err := m.exists(ctx, v, m.timing.Fresh)
		if errors.Is(err, cloud.ErrNotFound) {
			// Another host may have made it a moment ago. Whoever is told that it is removed never looks again, so the name is looked up
			// twice with time between, also when this host has just deleted a volume of that name: it may be another one by now.
			if err := m.pause(ctx, time.Until(looked.Add(m.timing.Absent))); err != nil {
				return err
			}
			if vol, err = m.exists(ctx, v, 0); errors.Is(err, cloud.ErrNotFound) {
				return nil
			}
		}
		if err != nil {
			return err
		}
		if vol.Newer != nil {
			v.set(func() { v.seenAt = time.Time{} })
			return fmt.Errorf("not removed: %w", vol.Newer)
		}
		if err := m.freeHere(ctx, v, vol); err != nil {
			return err
		}
		if other, ok := vol.Elsewhere(m.self().ID); ok {
			v.set(func() { v.seenAt = time.Time{} })
			return fmt.Errorf("volume %q (%s) is not removed: it is %s to %s; remove its containers there first", name, vol.ID, other.State, other.Host)
		}
		end, err := m.reclaim(ctx, v, vol)
		if err != nil {
			v.set(func() { v.seenAt = time.Time{} })
			return err
		}
		v.set(func() { v.tell(phaseFree, end) })
		v.set(func() { v.id, v.seen, v.absentAt, v.users = "", nil, time.Now(), map[string]use{} })
		m.save(v)
		m.step(StepRemoveNoted)
		return nil
	})
}

// anonymous are the names that Docker gives to volumes that nobody has named.
var anonymous = regexp.MustCompile(`^[0-9a-f]{64}$`)

// reclaim does with a volume that nobody uses what its tag says, and returns what has become of it.
func (m *Manager) reclaim(ctx context.Context, v *record, vol cloud.Volume) (end phase, err error) {
	rule, err := options.ReclaimOf(vol.Attrs)
	if err != nil {
		return "", fmt.Errorf("volume %q (%s) is not removed: %w; upgrade the plugin on this host, or correct the tag", v.name, vol.ID, err)
	}
	log := m.log.WithField("volume", v.name)
	defer v.rest(phaseFree)
	delay := m.cfg.Settings.DeleteDelay
	switch {
	case rule == options.ReclaimRetain:
		v.begin(phaseFree, "giving the volume up")
		m.step(StepRelease)
		if err := m.giveUp(ctx, v, func() error { return m.cloud.Release(ctx, vol.ID) }); err != nil {
			return "", err
		}
		m.step(StepReleaseSent)
		log.Infof("released %s: it is kept, as reclaim=retain says", vol.ID)
		return phaseReleased, nil
	case rule == options.ReclaimSnapshot && holdsData(vol):
		v.begin(phaseFree, "giving the volume up")
		m.step(StepRetire)
		if err := m.giveUp(ctx, v, func() error { return m.cloud.RetireToSnapshot(ctx, vol.ID) }); err != nil {
			return phaseNone, err
		}
		m.step(StepRetireSent)
		m.purging.mu.Lock()
		m.purging.mine[vol.ID] = true
		m.purging.mu.Unlock()
		m.purgeAfter(0)
		log.Infof("removed: %s is deleted for good when a snapshot of it is completed, as reclaim=snapshot says; until then `blockvol undelete %s` brings it back", vol.ID, v.name)
		return phaseRemoved, nil
	case delay > 0 && !anonymous.MatchString(v.name) && vol.State != cloud.Failed: // what could not be made holds nothing
		v.begin(phaseFree, "giving the volume up")
		m.step(StepRetire)
		if err := m.giveUp(ctx, v, func() error { return m.cloud.Retire(ctx, vol.ID, delay) }); err != nil {
			return "", err
		}
		m.step(StepRetireSent)
		m.purgeAfter(delay)
		log.Infof("removed: %s is deleted for good in %s; until then `blockvol undelete %s` brings it back", vol.ID, delay, v.name)
		return phaseRemoved, nil
	}
	v.begin(phaseFree, "deleting the volume")
	m.step(StepRemove)
	if err := m.cloud.Delete(ctx, vol.ID); err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return "", err
	}
	m.step(StepRemoveSent)
	m.mu.Lock()
	m.deleted[vol.ID] = time.Now()
	m.mu.Unlock()
	return phaseDeleted, nil
}

// holdsData tells whether something may have been written to the volume.
func holdsData(vol cloud.Volume) bool {
	fs := vol.Attrs[attrFS]
	return vol.State != cloud.Failed && fs != disk.TagNone && !strings.HasPrefix(fs, disk.TagFormatting)
}

// giveUp takes a volume out of the cluster's volumes.
func (m *Manager) giveUp(ctx context.Context, v *record, do func() error) error {
	err := do()
	if errors.Is(err, cloud.ErrNotFound) { // removed by another host, or an answer that is not true
		if _, again := m.exists(ctx, v, 0); errors.Is(again, cloud.ErrNotFound) {
			err = nil
		}
	}
	return err
}

// freeHere makes sure that the volume is neither mounted nor attached on this host, or refuses.
func (m *Manager) freeHere(ctx context.Context, v *record, vol cloud.Volume) error {
	m.holdAtStart(v)
	var newest time.Time
	users := 0
	v.set(func() {
		users = len(v.users)
		for _, u := range v.users {
			if u.since.After(newest) {
				newest = u.since
			}
		}
		if v.holdUntil.Add(-m.timing.HandOver).After(newest) {
			newest = v.holdUntil.Add(-m.timing.HandOver)
		}
	})
	if age := time.Since(newest); age < m.timing.HandOver {
		return fmt.Errorf("volume %q (%s) is not removed: it was handed to a container %s ago, which may still be starting (%d uses): "+
			"stop the container first; find it with `docker ps -a --filter volume=%s`", v.name, vol.ID, age.Round(time.Second), users, v.name)
	}
	// Older uses are a hint; the kernel decides.
	if _, err := m.releaseNow(ctx, v); err != nil {
		if errors.Is(err, errHeld) {
			return fmt.Errorf("not removed: %w", err)
		}
		return err
	}
	v.mu.Lock()
	p := v.phase
	v.mu.Unlock()
	if p != phaseFree {
		return fmt.Errorf("volume %q (%s) is not removed: it is still %s on this host; try again in a moment", v.name, vol.ID, p)
	}
	return nil
}

// linger is how long something may still hold a volume whose use has ended: the kernel takes the mounts of an ended container away a moment
// later, and a process that starts has a copy of everything that its parent had open until it becomes its program.
const linger = 2 * time.Second

// releaseNow is release for somebody who waits for the end: what only lingers is no reason to refuse.
func (m *Manager) releaseNow(ctx context.Context, v *record) (again time.Duration, err error) {
	for end := time.Now().Add(linger); ; {
		again, err = m.release(ctx, v, atOnce)
		if !errors.Is(err, errHeld) || time.Now().After(end) {
			return again, err
		}
		if err := m.pause(ctx, linger/20); err != nil {
			return again, err
		}
	}
}

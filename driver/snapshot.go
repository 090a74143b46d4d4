package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/options"
)

// attrConsistency is the attribute of a snapshot that says in what state the filesystem was.
const attrConsistency = "consistency"

// What attrConsistency may say. A filesystem recovers from each by itself, and so does a database; only a crash leaves that to do.
const (
	consistentFrozen    = "frozen"    // it was mounted, and stood still
	consistentUnmounted = "unmounted" // nobody had it mounted
	consistentCrash     = "crash"     // it was in use: as after a power failure
)

// leftoverFor is how long a snapshot is looked for whose CreateSnapshot was given up, and that nobody wants any more.
const leftoverFor = time.Minute

// snapshotVolume makes a snapshot of a volume of the cluster, with v's turn taken; vol is what was last seen of it. What is mounted on this host stands still
// until EC2 has the moment, which is before it answers, and for Timing.Freeze at the longest: the answer comes too late then, and is an error. What
// another host has in use is kept as it is on the device, as after a power failure. The snapshot carries the attributes that a volume made of it
// needs (options.Inherited), attrConsistency, and those of spec. With a slot that is filled it returns what is there, and freezes nothing.
func (m *Manager) snapshotVolume(ctx context.Context, v *record, vol cloud.Volume, spec cloud.SnapshotSpec, say Say) (cloud.Snapshot, error) {
	bad := func(err error) (cloud.Snapshot, error) {
		return cloud.Snapshot{}, fmt.Errorf("no snapshot of volume %q (%s) is made: %w", v.name, vol.ID, err)
	}
	if vol.Newer != nil {
		return bad(vol.Newer)
	}
	if fs := vol.Attrs[attrFS]; fs == "" || fs == disk.TagNone || strings.HasPrefix(fs, disk.TagFormatting) {
		return bad(fmt.Errorf("it has no filesystem yet (tag blockvol:fs=%s), which it gets when it is mounted for the first time", fs))
	}
	before, err := m.cloud.Snapshots(ctx, vol.ID)
	if err != nil {
		return bad(err)
	}
	if spec.Slot == "" {
		spec.Slot = "once:" + rand.Text()
	} else if there, ok := inSlot(before, spec.Slot); ok {
		return there, nil
	}
	if err := m.afterTheLast(ctx, v, before, say); err != nil {
		return bad(err)
	}
	spec.VolumeID = vol.ID
	attrs := options.Inherited(vol.Attrs)
	maps.Copy(attrs, spec.Attrs)
	spec.Attrs = attrs

	s, err := m.takeSnapshot(ctx, v, vol, spec, say)
	if errors.Is(err, cloud.ErrThrottled) {
		// Another host has made one that is deleted by now, or the volume has as many pending ones as it may.
		say("EC2 allows no snapshot of the volume yet; trying again in %s: %v", m.timing.Snapshots, err)
		if err := m.pause(ctx, m.timing.Snapshots); err != nil {
			return bad(err)
		}
		s, err = m.takeSnapshot(ctx, v, vol, spec, say)
	}
	return s, err
}

// takeSnapshot is snapshotVolume when all is known.
func (m *Manager) takeSnapshot(ctx context.Context, v *record, vol cloud.Volume, spec cloud.SnapshotSpec, say Say) (cloud.Snapshot, error) {
	bad := func(err error) (cloud.Snapshot, error) {
		return cloud.Snapshot{}, fmt.Errorf("no snapshot of volume %q (%s) is made: %w", v.name, vol.ID, err)
	}
	state, err := m.holdStill(ctx, v, vol, say)
	if err != nil {
		return bad(err)
	}
	defer state.end()
	spec.Attrs[attrConsistency] = state.consistency
	v.set(func() { v.doing, v.doingSince = "making a snapshot", time.Now() })
	defer v.set(func() { v.doing = "" })
	if state.consistency == consistentFrozen {
		m.step(StepFrozen)
	}
	asking := ctx
	if !state.until.IsZero() {
		var cancel context.CancelFunc
		asking, cancel = context.WithDeadline(ctx, state.until)
		defer cancel()
	}
	s, err := m.cloud.CreateSnapshot(asking, spec)
	if err == nil {
		v.set(func() { v.snapped = time.Now() })
		m.step(StepSnapshotSent)
	}
	late := err != nil && asking.Err() != nil && ctx.Err() == nil
	held, thawErr := state.end()
	if thawErr != nil {
		m.log.WithField("volume", v.name).Error(thawErr)
		say("the filesystem may still be frozen: %v", thawErr)
	}
	if late || err == nil && !held {
		// Whether EC2 took the moment before or after it thawed cannot be told, so its tag may not be true.
		m.dropLeftover(vol.ID, spec.Slot)
		if late {
			err = fmt.Errorf("EC2 did not answer while the filesystem stood still, which is for %s at most (%w)", m.timing.Freeze, err)
		} else {
			err = errors.New("the filesystem did not stay frozen until EC2 had answered")
		}
		return bad(fmt.Errorf("%w; what EC2 may have made of it is deleted; try again", err))
	}
	if err != nil {
		return cloud.Snapshot{}, err
	}
	m.step(StepThawed)
	m.log.WithField("volume", v.name).Infof("made snapshot %s of %s (%s)", s.ID, vol.ID, state.consistency)
	return s, nil
}

// inSlot returns the snapshot of a slot.
func inSlot(all []cloud.Snapshot, slot string) (cloud.Snapshot, bool) {
	for _, s := range all {
		if s.Slot == slot && s.State != cloud.SnapshotFailed {
			return s, true
		}
	}
	return cloud.Snapshot{}, false
}

// afterTheLast waits until EC2 allows the next snapshot of a volume: a filesystem must not stand still for that wait.
func (m *Manager) afterTheLast(ctx context.Context, v *record, before []cloud.Snapshot, say Say) error {
	var wait time.Duration
	v.set(func() { wait = m.timing.Snapshots - time.Since(v.snapped) }) // also of one that was deleted since
	for _, s := range before {
		// What is said to be in the future tells of clocks, not of a snapshot.
		if age := time.Since(s.Started); age > -m.timing.Snapshots {
			wait = max(wait, m.timing.Snapshots-age)
		}
	}
	if wait <= 0 {
		return nil
	}
	say("the last snapshot of the volume is only seconds old; EC2 allows the next one in %s", wait.Round(time.Second))
	return m.pause(ctx, wait)
}

// dropLeftover deletes, in the background, a snapshot that was made by a call that is an error. That may show only after a while.
func (m *Manager) dropLeftover(id, slot string) {
	m.goOn("snapshots of "+id, func(ctx context.Context) {
		for end := time.Now().Add(leftoverFor); time.Now().Before(end) && m.pause(ctx, m.timing.Absent) == nil; {
			all, err := m.cloud.Snapshots(ctx, id)
			if s, ok := inSlot(all, slot); ok && err == nil {
				if err = m.cloud.DeleteSnapshot(ctx, s.ID); err == nil {
					m.log.Infof("deleted snapshot %s of %s, whose making was given up", s.ID, id)
					return
				}
			}
			if err != nil && ctx.Err() == nil {
				m.log.WithError(err).Warnf("a snapshot of %s whose making was given up may be left over (tag blockvol:slot=%s)", id, slot)
			}
		}
	})
}

// stillness is the state of a volume's filesystem while a snapshot is made.
type stillness struct {
	consistency string
	until       time.Time            // when it ends by itself; zero: it does not
	end         func() (bool, error) // ends it and tells whether it lasted; may be called again
}

// holdStill brings a volume's filesystem to stand still, where this host can do that.
func (m *Manager) holdStill(ctx context.Context, v *record, vol cloud.Volume, say Say) (stillness, error) {
	as := func(consistency string) stillness {
		return stillness{consistency: consistency, end: func() (bool, error) { return true, nil }}
	}
	if other, ok := vol.Elsewhere(m.self().ID); ok {
		say("%s has the volume: the snapshot is what a power failure would leave; made on that host, with the filesystem frozen, it needs no recovery", other.Host)
		return as(consistentCrash), nil
	}
	dev, err := m.disk.Find(vol.Serial)
	if errors.Is(err, disk.ErrNoDevice) {
		return as(consistentUnmounted), nil
	}
	if err != nil {
		return stillness{}, err
	}
	if _, mounted := m.mountedAt(v); !mounted {
		hold, err := m.disk.Claim(dev)
		if errors.Is(err, disk.ErrInUse) {
			say("a container or another process of this host still has the volume, which is not mounted here any more: the snapshot is what a power failure would leave")
			return as(consistentCrash), nil
		}
		if err != nil {
			return stillness{}, fmt.Errorf("whether %s is in use cannot be told: %w", dev.Path, err)
		}
		free := as(consistentUnmounted)
		free.end = func() (bool, error) { return true, hold.Release() }
		return free, nil
	}
	m.step(StepFreeze)
	say("freezing the filesystem")
	freezing, cancel := context.WithTimeout(ctx, m.timing.Request)
	defer cancel()
	f, err := m.disk.Freeze(freezing, dev, m.target(vol.ID), m.timing.Freeze)
	if err != nil {
		return stillness{}, err
	}
	return stillness{consistency: consistentFrozen, until: f.Ends(), end: f.Thaw}, nil
}

// thawAll thaws what an earlier process has frozen and was killed before it could thaw.
func (m *Manager) thawAll() {
	points, err := m.disk.MountsUnder(m.mounts)
	if err != nil {
		m.log.Errorf("looking for frozen filesystems: %v", err)
		return
	}
	for _, p := range points {
		// Each for itself: one whose device does not answer keeps none of the others frozen.
		m.goOn("thawing "+p.Target, func(context.Context) {
			was, err := m.disk.Thaw(p)
			if err != nil {
				m.log.Error(err)
			} else if was {
				m.log.Warnf("thawed the filesystem at %s, which a process that was killed had frozen for a snapshot", p.Target)
			}
		})
	}
}

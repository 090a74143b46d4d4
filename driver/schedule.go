package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/options"
)

// attrScheduled is the attribute of a snapshot that a schedule has made: the schedule. Only what has it, and a slot of the form that schedules
// give, is ever deleted by one.
const attrScheduled = "scheduled"

const (
	volumesAtOnce   = 8               // of this host whose snapshots are looked after at the same time
	snapshotAnswers = 5 * time.Minute // how long EC2 may take for all that is asked about one volume
	slotTries       = 3               // snapshots of one slot that EC2 accepts and then cannot complete
	deletedAtOnce   = 10              // old snapshots of one volume; the others a little later
	lookDaily       = 24 * time.Hour  // at the snapshots of a volume without any other reason
	longestPause    = time.Hour       // until the next try
)

// schedules makes the snapshots of those volumes that have a schedule, and deletes old ones. The host that has a volume attached does it, and
// after that for one slot more: what was written since the last one is kept then. Nothing of it is kept on this host: which slots are filled is
// what EC2 shows, so a crash, another host or a clock that jumps can neither forget one nor fill it twice for good.
type schedules struct {
	m    *Manager
	now  func() time.Time
	room chan struct{} // one place for each volume that is being looked after

	mu sync.Mutex
	of map[string]*scheduled // by the ID of the volume
}

// attrSchedule and attrKeep are the attributes of a volume with its schedule and with which of its snapshots are kept.
const (
	attrSchedule = "snapshot-schedule"
	attrKeep     = "snapshot-keep"
)

// scheduled is what is known of one volume's schedule. All but v and id is guarded by schedules.mu.
type scheduled struct {
	v  *record
	id string

	tags     [2]string // what schedule and keep were read from
	schedule options.Schedule
	keep     options.Keep
	wrong    error // why they cannot be read
	wrongAt  time.Time

	here    bool
	left    time.Time // when the volume has left this host; zero: it is here
	busy    bool
	asked   time.Time // the cloud, for its tags
	slot    time.Time // the latest that was looked after
	look    time.Time // when to look the next time, whether a slot has come or not; zero: at once
	pause   time.Duration
	again   time.Time // not before
	failing failing
}

// loop looks once in a while whether a slot has come. That costs no request.
func (s *schedules) loop(ctx context.Context) {
	for {
		s.m.mu.Lock()
		ready := s.m.isReady
		s.m.mu.Unlock()
		if ready {
			s.round()
		}
		select {
		case <-time.After(s.m.timing.Slots):
		case <-ctx.Done():
			return
		}
	}
}

// round begins all that is due.
func (s *schedules) round() {
	known := map[string]bool{}
	for _, v := range s.m.all() {
		v.mu.Lock()
		here := v.attached && !v.leaving && v.ambiguous == nil && v.phase != phaseAttaching && v.phase != phaseDetaching
		seen, seenAt := v.seen, v.seenAt
		v.mu.Unlock()
		if seen == nil {
			continue
		}
		known[seen.ID] = true
		if e, do, counts := s.consider(v, *seen, seenAt, here); do != nil {
			s.begin(e, do, counts)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.of {
		if !known[id] {
			delete(s.of, id)
		}
	}
}

// consider looks whether anything is due for one volume, and marks it as busy then. counts tells whether the end of what is to be done says
// anything of the volume's snapshots.
func (s *schedules) consider(v *record, vol cloud.Volume, seenAt time.Time, here bool) (e *scheduled, do func(context.Context, *scheduled) error, counts bool) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e = s.of[vol.ID]
	if e == nil || e.v != v {
		if !here {
			return nil, nil, false
		}
		e = &scheduled{v: v, id: vol.ID, asked: time.Now()}
		s.of[vol.ID] = e
	}
	switch {
	case here:
		e.here, e.left = true, time.Time{}
	case e.here:
		e.here, e.left = false, now
	}
	e.read(vol.Attrs)
	if e.busy {
		return nil, nil, false
	}
	if here && time.Since(seenAt) > s.m.timing.Tags && time.Since(e.asked) > s.m.timing.Tags { // another host may have changed them
		e.busy, e.asked = true, time.Now()
		return e, s.refresh, false
	}
	if e.schedule.String() == "" || blank(vol) || e.again.After(now) && e.again.Before(now.Add(2*longestPause)) {
		return nil, nil, false
	}
	slot := e.schedule.Last(now)
	if slot.After(e.slot) || e.slot.After(now) || (here || e.pause > 0) && !e.look.After(now) || e.look.After(now.Add(2*lookDaily)) {
		e.busy = true
		return e, s.attend, true
	}
	return nil, nil, false
}

// blank tells whether a volume has no filesystem yet that would be worth a snapshot.
func blank(vol cloud.Volume) bool {
	fs := vol.Attrs[attrFS]
	return fs == "" || fs == disk.TagNone || fs == options.FSAdopted || strings.HasPrefix(fs, disk.TagFormatting)
}

// read takes over what a volume's attributes say.
func (e *scheduled) read(attrs map[string]string) {
	tags := [2]string{attrs[attrSchedule], attrs[attrKeep]}
	if tags == e.tags {
		return
	}
	if e.tags != [2]string{} { // the new rule has its own first look
		e.look, e.again, e.failing = time.Time{}, time.Time{}, failing{}
	}
	e.tags = tags
	e.schedule, e.keep, e.wrong = options.ScheduleOf(attrs)
	e.wrongAt = time.Now()
}

// begin runs do for a volume that is marked as busy, as soon as there is room.
func (s *schedules) begin(e *scheduled, do func(context.Context, *scheduled) error, counts bool) {
	s.m.goOn("snapshots of "+e.id, func(ctx context.Context) {
		err := errPanicked
		defer func() { s.done(e, err, counts) }()
		ctx, cancel := context.WithTimeout(as(ctx, OpSchedule), snapshotAnswers)
		defer cancel()
		select {
		case s.room <- struct{}{}:
			defer func() { <-s.room }()
			err = do(ctx, e)
		case <-ctx.Done():
			err = ctx.Err()
		}
	})
}

// done notes how it has ended.
func (s *schedules) done(e *scheduled, err error, counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.busy = false
	if !counts || s.m.base.Err() != nil {
		return
	}
	if err == nil {
		e.failing, e.again = failing{}, time.Time{}
		return
	}
	e.failing.again(err)
	pause := min(s.m.timing.SlotRetry<<min(e.failing.times-1, 10), longestPause)
	e.again = s.now().Add(pause + rand.N(pause/4+1)) // not all hosts at the same moment
	s.m.log.WithField("volume", e.v.name).Warnf("snapshots by schedule: %v", err)
}

// refresh looks a volume up, for the sake of its tags.
func (s *schedules) refresh(ctx context.Context, e *scheduled) error {
	vol, err := s.m.cloud.ByID(ctx, e.id)
	if err == nil && vol.Name == e.v.name {
		e.v.saw(vol, s.m.self().ID)
	}
	return err
}

// attend makes the snapshot of the latest slot, if there is none, and deletes those that the rule for keeping has no place for.
func (s *schedules) attend(ctx context.Context, e *scheduled) error {
	m := s.m
	vol, err := m.cloud.ByID(ctx, e.id)
	if err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return err
	}
	if _, elsewhere := vol.Elsewhere(m.self().ID); err != nil || m.gone(vol) || vol.Name != e.v.name || elsewhere {
		s.drop(e) // of the host that has it, or of nobody
		return nil
	}
	vol = e.v.saw(vol, m.self().ID)
	s.mu.Lock()
	e.read(vol.Attrs)
	schedule, keep, left := e.schedule, e.keep, e.left
	s.mu.Unlock()
	if schedule.String() == "" {
		return nil
	}
	all, err := m.cloud.Snapshots(ctx, vol.ID)
	if err != nil {
		return err
	}
	now := s.now()
	slot := schedule.Last(now)
	p := planSnapshots(all, slot, now, keep)
	made := false
	if !p.filled && slot.After(vol.Created) {
		if len(p.failed) >= slotTries {
			return fmt.Errorf("the snapshot for %s: EC2 has accepted it and then could not complete it, %d times (%s); it is tried again at %s", slot.Format(time.RFC3339),
				len(p.failed), strings.Join(p.failed, ", "), timeText(schedule.Next(now)))
		}
		snap, err := s.make(ctx, e.v, vol, schedule, slot)
		if err != nil {
			return fmt.Errorf("the snapshot for %s: %w", slot.Format(time.RFC3339), err)
		}
		made = true
		if !slices.ContainsFunc(all, func(o cloud.Snapshot) bool { return o.ID == snap.ID }) {
			all = append(all, snap)
		}
		p = planSnapshots(all, slot, now, keep)
	}
	more, err := s.remove(ctx, e.v.name, p.remove)

	s.mu.Lock()
	defer s.mu.Unlock()
	e.slot = slot
	switch {
	case made || more || err != nil:
		e.pause = m.timing.SlotRetry // did EC2 complete it, and is it still there?
	case p.waits:
		e.pause = min(max(2*e.pause, m.timing.SlotRetry), longestPause)
	default:
		e.pause = 0
	}
	e.look = now.Add(cmp.Or(e.pause, lookDaily))
	if e.pause == 0 && !left.IsZero() && slot.After(left) {
		delete(s.of, e.id) // it has all that was written here
	}
	return err
}

// make makes the snapshot of a slot.
func (s *schedules) make(ctx context.Context, v *record, vol cloud.Volume, schedule options.Schedule, slot time.Time) (cloud.Snapshot, error) {
	turn, cancel := context.WithTimeout(ctx, s.m.timing.Request)
	defer cancel()
	if err := v.turn.take(turn); err != nil {
		return cloud.Snapshot{}, fmt.Errorf("the volume is busy with something else: %w", err)
	}
	defer v.turn.give()
	quiet := func(format string, args ...any) { s.m.log.WithField("volume", v.name).Debugf(format, args...) }
	return s.m.snapshotVolume(ctx, v, vol, cloud.SnapshotSpec{
		Slot: slot.Format(time.RFC3339), Attrs: map[string]string{attrScheduled: schedule.String()},
		Description: "by schedule, for " + slot.Format(time.RFC3339),
	}, quiet)
}

// remove deletes snapshots, not too many at once, and tells whether some are left. One that something uses, such as an image, stays.
func (s *schedules) remove(ctx context.Context, volume string, old []cloud.Snapshot) (more bool, err error) {
	deleted := 0
	for _, snap := range old {
		if deleted == deletedAtOnce {
			return true, nil
		}
		err := s.m.cloud.DeleteSnapshot(ctx, snap.ID)
		switch {
		case errors.Is(err, cloud.ErrState):
			s.m.log.WithField("volume", volume).Infof("the old snapshot %s stays: %v", snap.ID, err)
		case err == nil:
			deleted++
			s.m.log.WithField("volume", volume).Infof("deleted the snapshot %s of %s, which its schedule keeps no longer", snap.ID, snap.Slot)
		case !errors.Is(err, cloud.ErrNotFound):
			return true, fmt.Errorf("old snapshots are not deleted: %w", err)
		}
	}
	return false, nil
}

// drop forgets a volume.
func (s *schedules) drop(e *scheduled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[e.id] == e {
		delete(s.of, e.id)
	}
}

// snapshotPlan is what is to be done about the snapshots of one volume.
type snapshotPlan struct {
	filled bool             // the slot has one, or a later one has
	failed []string         // IDs of those of the slot that EC2 could not complete
	waits  bool             // some are not complete yet
	remove []cloud.Snapshot // the oldest first
}

// planSnapshots decides by what EC2 shows. Of several snapshots of one slot the first is kept. Only completed ones count as kept, the latest of
// them always is, and age is counted back from it by EC2's own clock, so that no clock of a host that is wrong deletes anything.
func planSnapshots(all []cloud.Snapshot, slot, now time.Time, keep options.Keep) (p snapshotPlan) {
	ours := slices.DeleteFunc(slices.Clone(all), func(s cloud.Snapshot) bool { return slotOf(s).IsZero() })
	slices.SortFunc(ours, func(a, b cloud.Snapshot) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	first := map[string]cloud.Snapshot{}
	var good []cloud.Snapshot // completed ones, the first of each slot
	for _, s := range ours {
		at := slotOf(s)
		if s.State == cloud.SnapshotFailed {
			if at.Equal(slot) {
				p.failed = append(p.failed, s.ID)
			}
			continue
		}
		p.filled = p.filled || !at.Before(slot) && !at.After(now) // one from the future tells of a clock that was wrong
		p.waits = p.waits || s.State == cloud.SnapshotPending
		before, twice := first[s.Slot]
		switch {
		case !twice:
			first[s.Slot] = s
			if s.State == cloud.SnapshotCompleted {
				good = append(good, s)
			}
		case before.State == cloud.SnapshotCompleted:
			p.remove = append(p.remove, s)
		}
	}
	for i, s := range good {
		newer := len(good) - 1 - i
		if keep.Count > 0 && newer >= keep.Count || keep.Age > 0 && good[len(good)-1].Started.Sub(s.Started) > keep.Age {
			p.remove = append(p.remove, s)
		}
	}
	for _, s := range ours { // what EC2 could not complete goes when there is something later
		if s.State == cloud.SnapshotFailed && len(good) > 0 && !slotOf(good[len(good)-1]).Before(slotOf(s)) {
			p.remove = append(p.remove, s)
		}
	}
	p.remove = slices.DeleteFunc(p.remove, func(s cloud.Snapshot) bool { return s.Newer != nil })
	slices.SortFunc(p.remove, func(a, b cloud.Snapshot) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	return p
}

// slotOf is the slot of a snapshot that a schedule has made, or the zero time.
func slotOf(s cloud.Snapshot) time.Time {
	at, err := time.Parse(time.RFC3339, s.Slot)
	if err != nil || s.Attrs[attrScheduled] == "" || at.UTC().Format(time.RFC3339) != s.Slot {
		return time.Time{}
	}
	return at
}

// ScheduleRow is what `blockvol inspect` tells of a volume's snapshots on the host that makes them.
type ScheduleRow struct {
	Schedule string    `json:"schedule"`
	Keep     string    `json:"keep,omitempty"` // empty: all
	Last     time.Time `json:"last,omitzero"`  // the latest slot that has a snapshot, as far as this host has looked
	Next     time.Time `json:"next,omitzero"`  // slot
	Problem  string    `json:"problem,omitempty"`
}

// row tells of one volume; nil if it has no schedule, or none that this host looks after.
func (s *schedules) row(id string) *ScheduleRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of[id]
	if e == nil || e.tags[0] == "" {
		return nil
	}
	row := &ScheduleRow{Schedule: e.tags[0], Keep: e.tags[1], Last: e.slot, Next: e.schedule.Next(s.now())}
	if err := cmp.Or(e.wrong, e.failing.err); err != nil {
		row.Problem = err.Error()
	}
	return row
}

// problems tells which volumes get no snapshots, for Health.
func (s *schedules) problems() []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Problem
	for _, e := range s.of {
		p := Problem{Kind: ProblemSnapshot, Volume: e.v.name, ID: e.id, Since: e.failing.since}
		switch {
		case e.wrong != nil:
			p.Since, p.Text, p.WayOut = e.wrongAt, e.wrong.Error(), "set it anew with: blockvol update "+e.v.name+" snapshot-schedule='0 3 * * *'"
		case e.failing.times > 1 || e.failing.times == 1 && time.Since(e.failing.since) > s.m.timing.Stuck:
			p.Text, p.WayOut = e.failing.err.Error(), "it is tried again by itself, at the latest at "+timeText(e.again)+"; see docs/schedules.md"
		default:
			continue
		}
		list = append(list, p)
	}
	return list
}

// timeText shows a time that may not be there.
func timeText(t time.Time) string {
	if t.IsZero() {
		return "no time"
	}
	return t.UTC().Format(time.RFC3339)
}

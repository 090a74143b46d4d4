package driver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
	"github.com/sirupsen/logrus"
)

func TestOnlyWhatAScheduleHasMadeIsOfASlot(t *testing.T) {
	t.Parallel()
	by := map[string]string{"scheduled": "@daily"}
	for slot, is := range map[string]bool{"2026-11-21T03:00:00Z": true, "2026-11-21T03:00:00+00:00": false, "2026-11-21T04:00:00+01:00": false,
		"2026-11-21T03:00:00.5Z": false, "2026-11-21": false, "once:2026-11-21T03:00:00Z": false, "": false} {
		if got := !slotOf(cloud.Snapshot{Slot: slot, Attrs: by}).IsZero(); got != is {
			t.Errorf("%q is a slot: %v", slot, got)
		}
		if !slotOf(cloud.Snapshot{Slot: slot, Attrs: map[string]string{"by": "hand"}}).IsZero() {
			t.Errorf("what no schedule has made is of the slot %q", slot)
		}
	}
}

// deletions is a Cloud that deletes snapshots, or does not.
type deletions struct {
	cloud.Cloud
	not  map[string]error
	done []string
}

func (c *deletions) DeleteSnapshot(_ context.Context, id string) error {
	if err := c.not[id]; err != nil {
		return err
	}
	c.done = append(c.done, id)
	return nil
}

func TestOldSnapshotsAreDeletedAFewAtATimeAndOneThatIsInUseKeepsNoOther(t *testing.T) {
	t.Parallel()
	log := logrus.New()
	log.SetOutput(testWriter{t})
	c := &deletions{not: map[string]error{}}
	s := &schedules{m: &Manager{cloud: c, log: log}}
	var old []cloud.Snapshot
	for n := range 3 * deletedAtOnce {
		id := fmt.Sprint("snap-", n)
		old = append(old, cloud.Snapshot{ID: id})
		if n < deletedAtOnce {
			c.not[id] = cloud.Errorf(cloud.ErrState, "an image uses it")
		} else if n < 2*deletedAtOnce {
			c.not[id] = cloud.ErrNotFound
		}
	}
	old = append(old, cloud.Snapshot{ID: "last"})
	if more, err := s.remove(t.Context(), "db", old); !more || err != nil || len(c.done) != deletedAtOnce {
		t.Errorf("more %v, %v, deleted %v", more, err, c.done)
	}
	if more, err := s.remove(t.Context(), "db", old[len(old)-1:]); more || err != nil || c.done[len(c.done)-1] != "last" {
		t.Errorf("more %v, %v, deleted %v", more, err, c.done)
	}
	c.not["last"] = cloud.ErrDenied
	if _, err := s.remove(t.Context(), "db", old[len(old)-1:]); !errors.Is(err, cloud.ErrDenied) {
		t.Errorf("a denial is %v", err)
	}
}

func TestWhatASchedulePrunes(t *testing.T) {
	t.Parallel()
	day := func(n int) time.Time { return time.Date(2026, 11, n, 3, 0, 0, 0, time.UTC) }
	// made is a snapshot of the schedule: "12" for that day, with ! for one that failed, ~ for one that is pending, and + for one that comes later in the slot.
	made := func(text string) cloud.Snapshot {
		s := cloud.Snapshot{ID: text, State: cloud.SnapshotCompleted, Attrs: map[string]string{attrScheduled: "0 3 * * *"}}
		var n int
		fmt.Sscan(strings.Trim(text, "!~+"), &n)
		s.Slot, s.Started = day(n).Format(time.RFC3339), day(n).Add(time.Second)
		if strings.Contains(text, "+") {
			s.Started = s.Started.Add(time.Minute)
		}
		if strings.Contains(text, "!") {
			s.State = cloud.SnapshotFailed
		}
		if strings.Contains(text, "~") {
			s.State = cloud.SnapshotPending
		}
		return s
	}
	for _, c := range []struct {
		keep, have, remove string
		filled, waits      bool
		failed             int
	}{
		{keep: "2"},
		{keep: "2", have: "19 20", remove: ""},
		{keep: "2", have: "18 19 20", remove: "18"},
		{keep: "2", have: "21 18 20 19", remove: "18 19", filled: true},
		{keep: "2", have: "18 19 20 21~", remove: "18", filled: true, waits: true}, // what is pending is not kept yet
		{keep: "1", have: "20 21~", filled: true, waits: true},
		{keep: "1", have: "20 21!", failed: 1},
		{keep: "1", have: "19 20 21! 21+!", remove: "19", failed: 2},
		{keep: "1", have: "20 21! 21+", remove: "20 21!", filled: true, failed: 1},
		{keep: "3", have: "19! 20 21", remove: "19!", filled: true},
		{keep: "", have: "1 2 3 20 20+", remove: "20+"},
		{keep: "", have: "20 20+~", remove: "20+~", waits: true},
		{keep: "", have: "20~ 20+", waits: true}, // the first may still fail
		{keep: "2d", have: "18 19 20 21", remove: "18", filled: true},
		{keep: "2d", have: "1 2 3 4", remove: "1"}, // nobody has used the volume since, and what there is stays
		{keep: "1h", have: "19 20", remove: "19"},
		{keep: "1h", have: "3"},
		{keep: "", have: "20 22"}, // tomorrow's is of a clock that was wrong
	} {
		keep := options.Keep{}
		if c.keep != "" {
			var err error
			if keep, err = options.ParseKeep(c.keep); err != nil {
				t.Fatal(err)
			}
		}
		var have []cloud.Snapshot
		for _, text := range strings.Fields(c.have) {
			have = append(have, made(text))
		}
		p := planSnapshots(have, day(21), day(21).Add(time.Hour), keep)
		var remove []string
		for _, s := range p.remove {
			remove = append(remove, s.ID)
		}
		if strings.Join(remove, " ") != c.remove || p.filled != c.filled || p.waits != c.waits || len(p.failed) != c.failed {
			t.Errorf("keep %q of %q: removed are %q, filled %v, waits %v, failed %v; want %+v", c.keep, c.have, remove, p.filled, p.waits, p.failed, c)
		}
	}
}

// Whatever is there and whatever the rule and the clock: only what the schedule has made is deleted, and never the latest that is complete.
func TestTheLatestCompleteSnapshotAndThoseOfOthersAreNeverPruned(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	states := []cloud.SnapshotState{cloud.SnapshotCompleted, cloud.SnapshotCompleted, cloud.SnapshotPending, cloud.SnapshotFailed}
	base := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for range 5000 {
		var all []cloud.Snapshot
		for n := range rng.IntN(12) {
			at := base.Add(time.Duration(rng.IntN(200)) * time.Hour)
			s := cloud.Snapshot{ID: fmt.Sprint("snap-", n), State: states[rng.IntN(len(states))], Started: at.Add(time.Duration(rng.Int64N(int64(48 * time.Hour)))), Slot: at.Format(time.RFC3339)}
			switch rng.IntN(6) {
			case 0:
				s.Slot = "once:" + s.Slot
			case 1:
				s.Slot = at.In(time.FixedZone("", 3600)).Format(time.RFC3339)
			case 2:
			default:
				s.Attrs = map[string]string{attrScheduled: "x"}
			}
			if rng.IntN(10) == 0 {
				s.Newer = cloud.ErrState
			}
			all = append(all, s)
		}
		keep := []options.Keep{{}, {Count: 1}, {Count: 3}, {Age: time.Hour}, {Age: 72 * time.Hour}}[rng.IntN(5)]
		now := base.Add(time.Duration(rng.IntN(400)-100) * time.Hour)
		p := planSnapshots(all, now.Truncate(time.Hour), now, keep)
		gone := map[string]bool{}
		for _, s := range p.remove {
			if gone[s.ID] || slotOf(s).IsZero() || s.Newer != nil {
				t.Fatalf("seed %d: %+v is to be deleted", seed, s)
			}
			gone[s.ID] = true
		}
		complete, left := 0, 0
		slots := map[string]bool{}
		for _, s := range all {
			if slotOf(s).IsZero() || s.State != cloud.SnapshotCompleted {
				continue
			}
			complete++
			if !gone[s.ID] {
				left++
				slots[s.Slot] = true
			}
		}
		if complete > 0 && left == 0 {
			t.Fatalf("seed %d: none of %d is left of %+v by %+v", seed, complete, all, keep)
		}
	}
}

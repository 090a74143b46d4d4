package driver

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/options"
)

// handClock is a clock that a test sets.
type handClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// to sets the clock.
func (c *handClock) to(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

func (c *handClock) add(d time.Duration) { c.to(c.now().Add(d)) }

// next and last are times of a schedule around what the clock shows.
func (c *handClock) next(t *testing.T, schedule string) time.Time {
	return hourly(t, schedule).Next(c.now())
}
func (c *handClock) last(t *testing.T, schedule string) time.Time {
	return hourly(t, schedule).Last(c.now())
}

func hourly(t *testing.T, schedule string) options.Schedule {
	t.Helper()
	s, err := options.ParseSchedule(schedule)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newScheduleRig is a rig whose schedules go by a clock of its own, with a schedule of every hour whose next time is a minute away. The time before
// that is older than any volume of the test.
func newScheduleRig(t *testing.T, change ...func(*rig)) (r *rig, clock *handClock, schedule string) {
	t.Helper()
	t.Parallel()
	r = newMachine(t, func(t *Timing) { t.Slots, t.Stuck, t.Purge = 10*time.Millisecond, 20*time.Millisecond, time.Hour })
	for _, c := range change {
		c(r)
	}
	r.oftenSnapshots()
	began := time.Now().UTC().Truncate(time.Minute)
	clock = &handClock{at: began.Add(59 * time.Minute)}
	r.startWith(func(c *Config) { c.Now = clock.now })
	return r, clock, fmt.Sprintf("%d * * * *", began.Minute())
}

// twinAt is twin with that clock.
func (r *rig) twinAt(clock *handClock) *rig {
	r.t.Helper()
	host, err := r.sim.AddInstance(ec2sim.Instance{Zone: r.host.Zone})
	if err != nil {
		r.t.Fatal(err)
	}
	two := *r
	two.host, two.state = host, filepath.Join(r.t.TempDir(), "state")
	two.startWith(func(c *Config) { c.Now = clock.now })
	return &two
}

// slots are the slots of the snapshots of a volume that its schedule has made, each as often as it is there, in order.
func (r *rig) slots(volume string) (slots []string) {
	r.t.Helper()
	for _, s := range r.snapshots() {
		if s.Volume == volume && !slotOf(s).IsZero() {
			slots = append(slots, s.Slot)
		}
	}
	slices.Sort(slots)
	return slots
}

// keeps waits until the snapshots of a volume are those of these slots.
func (r *rig) keeps(volume string, want ...time.Time) {
	r.t.Helper()
	var texts []string
	for _, w := range want {
		texts = append(texts, w.UTC().Format(time.RFC3339))
	}
	var got []string
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = r.slots(volume); slices.Equal(got, texts) {
			return
		}
	}
	r.t.Fatalf("the snapshots of %s are those of %v, want %v", volume, got, texts)
}

// settled waits until nothing of schedules is under way and nothing is due.
func (r *rig) settled() {
	r.t.Helper()
	s := r.manager.slots
	calm := 0
	r.eventually("nothing of schedules is due", func() bool {
		s.round()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.of {
			if e.busy {
				calm = 0
				return false
			}
		}
		calm++
		return calm > 2
	})
}

func TestEachSlotHasOneSnapshotAndOldOnesOfTheScheduleAloneAreDeleted(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	r.create("db", "snapshot-schedule", schedule, "snapshot-keep", "2")
	r.create("plain")
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.mount("plain", "c1")
	id := r.status("db")["id"].(string)
	if st := r.status("db"); st["snapshotSchedule"] != schedule || st["snapshotKeep"] != "2" {
		t.Errorf("inspect shows %v", st)
	}
	if _, _, err := r.keep("db", cloud.SnapshotSpec{Description: "by hand"}); err != nil {
		t.Fatal(err)
	}
	first := clock.now().Add(time.Minute)
	by := r.person()
	stranger, err := by.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &id, TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot,
		Tags: tagsOf(map[string]string{"blockvol:cluster": r.settings.Cluster, "blockvol:name": "db", "blockvol:schema": "1", "blockvol:slot": first.Add(-5 * time.Hour).Format(time.RFC3339)})}}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := by.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &id, TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot,
		Tags: tagsOf(map[string]string{"blockvol:cluster": "other", "blockvol:name": "db", "blockvol:schema": "1", "blockvol:slot": first.Add(-5 * time.Hour).Format(time.RFC3339), "blockvol:scheduled": schedule})}}})
	if err != nil {
		t.Fatal(err)
	}

	r.settled()
	if got := r.slots("db"); len(got) != 0 {
		t.Errorf("there are snapshots for %v, before the first slot that the volume has seen", got)
	}
	r.calls()
	r.settled()
	if n := r.calls(); len(n) != 0 {
		t.Errorf("with nothing due EC2 was asked %v", n)
	}
	clock.to(first)
	r.keeps("db", first)
	for _, s := range r.snapshots() {
		if s.Slot == first.Format(time.RFC3339) && (s.Attrs["consistency"] != "frozen" || s.Attrs["scheduled"] != schedule || s.VolumeID != id || s.Attrs["fstype"] != "ext4") {
			t.Errorf("the snapshot is %+v", s)
		}
	}
	for n := 1; n <= 4; n++ {
		clock.to(first.Add(time.Duration(n) * time.Hour))
		r.keepsLast("db", clock.now())
		clock.add(5 * time.Minute) // the look what became of it
		r.settled()
	}
	r.keeps("db", first.Add(3*time.Hour), first.Add(4*time.Hour))
	if row := r.manager.slots.row(id); row == nil || !row.Last.Equal(first.Add(4*time.Hour)) || !row.Next.Equal(first.Add(5*time.Hour)) || row.Problem != "" {
		t.Errorf("inspect tells %+v", row)
	}
	scraped := r.scrape()
	for name, at := range map[string]time.Time{"last": first.Add(4 * time.Hour), "next": first.Add(5 * time.Hour)} {
		shows(t, scraped, fmt.Sprintf(`blockvol_volume_snapshot_%s_timestamp_seconds\{volume="[a-z]+",volume_id="%s"\} %s`, name, id, regexp.QuoteMeta(strconv.FormatFloat(float64(at.Unix()), 'g', -1, 64))))
	}
	others := map[string]bool{}
	out, err := by.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range out.Snapshots {
		others[*s.SnapshotId] = true
	}
	if len(others) != 5 || !others[*stranger.SnapshotId] || !others[*foreign.SnapshotId] {
		t.Errorf("%d snapshots are there, want the two of the schedule and three that it has not made: %v", len(others), others)
	}
	if got := r.slots("plain"); len(got) != 0 {
		t.Errorf("a volume without a schedule has %v", got)
	}
	// Nothing else deletes them: neither the end of the schedule nor that of the volume.
	r.unmount("db", "c1")
	r.eventually("removed", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
	clock.add(5 * time.Hour)
	r.settled()
	r.keeps("db", first.Add(3*time.Hour), first.Add(4*time.Hour))
	r.heals()
}

// keepsLast waits until a volume's latest snapshot by schedule is that of the slot.
func (r *rig) keepsLast(volume string, slot time.Time) {
	r.t.Helper()
	r.eventually("a snapshot for "+slot.Format(time.RFC3339), func() bool {
		got := r.slots(volume)
		return len(got) > 0 && got[len(got)-1] == slot.UTC().Format(time.RFC3339)
	})
}

func tagsOf(tags map[string]string) (out []types.Tag) {
	for key, value := range tags {
		out = append(out, types.Tag{Key: &key, Value: &value})
	}
	return out
}

func TestMissedSlotsAreCaughtUpOnceAndClocksThatJumpDoNoHarm(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	r.create("db", "snapshot-schedule", schedule, "snapshot-keep", "30d")
	r.mount("db", "c1")
	first := clock.now().Add(time.Minute)
	r.settled()
	r.crash() // the plugin is away for four slots
	clock.to(first.Add(3*time.Hour + 20*time.Minute))
	r.startWith(func(c *Config) { c.Now = clock.now })
	r.keeps("db", first.Add(3*time.Hour))
	clock.to(first.Add(10 * time.Minute)) // back: what is later now says nothing of this slot
	r.keeps("db", first, first.Add(3*time.Hour))
	clock.to(first.Add(50 * time.Minute))
	r.settled()
	clock.to(first.AddDate(20, 0, 0)) // a clock that is quite wrong, and comes back
	r.keeps("db", first, first.Add(3*time.Hour), first.AddDate(20, 0, 0))
	clock.to(first.Add(4 * time.Hour))
	r.keeps("db", first, first.Add(3*time.Hour), first.Add(4*time.Hour), first.AddDate(20, 0, 0))
	r.heals()
}

// The volume is used for a while and then not: what was written is kept by the next slot, and then nothing more is made. The next host that
// gets it catches up the slot that nobody has made.
func TestAVolumeThatNobodyHasGetsOneMoreSnapshotAndAnotherHostCatchesUp(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	two := r.twinAt(clock)
	r.create("db", "snapshot-schedule", schedule)
	first := clock.now().Add(time.Minute)
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.settled()
	r.unmount("db", "c1")
	r.free("db")
	r.settled()
	clock.to(first)
	r.keeps("db", first)
	for _, s := range r.snapshots() {
		if s.Attrs["consistency"] != "unmounted" {
			t.Errorf("the snapshot is %+v", s)
		}
	}
	clock.add(5 * time.Minute)
	r.settled()
	clock.to(first.Add(time.Hour))
	r.settled()
	two.settled()
	r.keeps("db", first)
	r.manager.slots.mu.Lock()
	left := len(r.manager.slots.of)
	r.manager.slots.mu.Unlock()
	if left != 0 {
		t.Errorf("%d volumes are still looked after", left)
	}
	two.mount("db", "c1")
	two.keeps("db", first, first.Add(time.Hour))
	clock.to(first.Add(2 * time.Hour))
	r.settled()
	two.keeps("db", first, first.Add(time.Hour), first.Add(2*time.Hour))
	two.unmount("db", "c1")
	two.free("db")
	two.settled()
	r.mount("db", "c2") // and the host that had it before leaves it alone
	r.settled()
	clock.to(first.Add(3 * time.Hour))
	r.keeps("db", first, first.Add(time.Hour), first.Add(2*time.Hour), first.Add(3*time.Hour))
	clock.add(time.Minute)
	two.settled()
	r.settled()
	r.keeps("db", first, first.Add(time.Hour), first.Add(2*time.Hour), first.Add(3*time.Hour))
}

// stuckAnswer is a Cloud whose CreateSnapshot is carried out, and whose answer does not come before the process ends.
type stuckAnswer struct {
	cloud.Cloud
	done chan struct{}
}

func (c stuckAnswer) CreateSnapshot(ctx context.Context, spec cloud.SnapshotSpec) (cloud.Snapshot, error) {
	if _, err := c.Cloud.CreateSnapshot(ctx, spec); err != nil {
		return cloud.Snapshot{}, err
	}
	close(c.done)
	<-ctx.Done()
	return cloud.Snapshot{}, context.Cause(ctx)
}

func TestACrashBetweenASnapshotAndItsAnswerMakesNoSecondOne(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	r.stop()
	done := make(chan struct{})
	r.startWith(func(c *Config) { c.Now, c.Cloud = clock.now, stuckAnswer{c.Cloud, done} })
	r.create("db", "snapshot-schedule", schedule)
	path := r.mount("db", "c1")
	r.settled()
	slot := clock.now().Add(time.Minute)
	clock.to(slot)
	select {
	case <-done:
	case <-time.After(patient):
		t.Fatal("no snapshot is made")
	}
	r.crash()
	r.startWith(func(c *Config) { c.Now = clock.now })
	r.eventually("looked after", func() bool {
		row := r.manager.slots.row(r.status("db")["id"].(string))
		return row != nil && row.Last.Equal(slot)
	})
	r.keeps("db", slot)
	r.eventually("it can be written to again", func() bool { return writeThrough(filepath.Join(path, "row"), "42") == nil })
}

func TestOfTwoSnapshotsOfOneSlotTheFirstIsKept(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	r.create("db", "snapshot-schedule", schedule)
	r.mount("db", "c1")
	slot := clock.now().Add(time.Minute)
	clock.to(slot)
	r.keeps("db", slot)
	r.settled()
	first := r.snapshots()[0]
	id := r.status("db")["id"].(string)
	if _, err := r.person().CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &id, TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot,
		Tags: tagsOf(map[string]string{"blockvol:cluster": r.settings.Cluster, "blockvol:name": "db", "blockvol:schema": "1", "blockvol:slot": first.Slot, "blockvol:scheduled": schedule})}}}); err != nil {
		t.Fatal(err)
	}
	r.keeps("db", slot, slot)
	clock.add(5 * time.Minute)
	r.keeps("db", slot)
	if s := r.snapshots(); s[0].ID != first.ID {
		t.Errorf("kept is %s, want %s", s[0].ID, first.ID)
	}
}

// A host that had the volume a moment ago, and does not know yet that another one has it, fills the slot at the same moment.
func TestTwoHostsThatFillOneSlotAtOnceLeaveOneSnapshot(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	two := r.twinAt(clock)
	r.create("db", "snapshot-schedule", schedule)
	r.mount("db", "c1")
	r.settled()
	other := two.manager.record("db")
	vol, err := two.manager.exists(t.Context(), other, 0)
	if err != nil {
		t.Fatal(err)
	}
	const lag = 200 * time.Millisecond // so neither sees the other's in time
	r.delays(func(d *ec2sim.Delays) { d.Visible = lag })
	var slots []time.Time
	for range 4 {
		slot := clock.next(t, schedule)
		made := make(chan error, 1)
		go func() {
			_, err := two.manager.slots.make(t.Context(), other, vol, hourly(t, schedule), slot)
			made <- err
		}()
		clock.to(slot)
		if err := <-made; err != nil {
			t.Fatal(err)
		}
		slots = append(slots, slot)
		r.keepsLast("db", slot)
		r.settled()
		time.Sleep(2 * lag) // by then the next look sees both
		clock.add(5 * time.Minute)
		r.keeps("db", slots...)
	}
	r.heals()
}

func TestAVolumeWhoseSnapshotsFailIsToldOfAndStopsNoOther(t *testing.T) {
	r, clock, schedule := newScheduleRig(t, func(r *rig) { r.ebs.Attempt, r.ebs.MaxBackoff = time.Second, 100*time.Millisecond })
	for _, name := range []string{"ill", "well"} {
		r.create(name, "snapshot-schedule", schedule, "snapshot-keep", "1")
		r.mount(name, "c1")
	}
	r.settled()
	id := r.status("ill")["id"].(string)
	for _, f := range []ec2sim.Fault{
		{Kind: "error", Action: "CreateSnapshot", Code: "UnauthorizedOperation", Status: 403},
		{Kind: "error", Action: "CreateSnapshot", Code: "SnapshotLimitExceeded"},
	} {
		slot := clock.next(t, schedule)
		f.Volume, f.Times = id, -1
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
		clock.to(slot)
		r.keepsLast("well", slot)
		r.shows(ProblemSnapshot, "ill", slot.Format(time.RFC3339), "tried again", "docs/schedules.md")
		e, err := r.manager.explain(t.Context(), HolderRequest{Volume: "ill"}, nil)
		if told := fmt.Sprint(e.Facts, e.Follows, e.WaysOut); err != nil || !strings.Contains(told, "by schedule "+schedule) || !strings.Contains(told, "the snapshot for "+slot.Format(time.RFC3339)) {
			t.Errorf("explain tells %s, %v", told, err)
		}
		if st := r.status("ill"); !strings.Contains(fmt.Sprint(st["snapshotError"]), slot.Format(time.RFC3339)) {
			t.Errorf("inspect shows %v", st)
		}
		r.sim.ClearFaults()
		clock.add(10 * time.Minute)
		r.keepsLast("ill", slot)
		r.heals()
	}
	clock.add(5 * time.Minute)
	r.settled()

	// EC2 accepts it and cannot complete it: it is made again, and a person hears of it when that does not help.
	slot := clock.next(t, schedule)
	if err := r.sim.Inject(ec2sim.Fault{Kind: "snapshot-failed", Volume: id, Times: -1}); err != nil {
		t.Fatal(err)
	}
	before := r.slots("ill")
	clock.to(slot)
	for n := 1; n <= 3; n++ {
		r.eventually(fmt.Sprint("try ", n), func() bool { return len(r.slots("ill")) == len(before)+n })
		r.settled()
		clock.add(3 * time.Minute)
	}
	r.shows(ProblemSnapshot, "ill", "could not complete it, 3 times", slot.Add(time.Hour).Format(time.RFC3339))
	r.keepsLast("well", slot)
	r.sim.ClearFaults()
	slot = slot.Add(time.Hour)
	clock.to(slot.Add(2 * time.Hour).Add(-time.Second)) // the pause is over
	r.keepsLast("ill", slot.Add(time.Hour))
	r.heals()
	clock.add(10 * time.Minute)
	r.settled()
	r.eventually("the failed ones are deleted", func() bool {
		return !slices.ContainsFunc(r.snapshots(), func(s cloud.Snapshot) bool { return s.State == cloud.SnapshotFailed })
	})

	// Old ones that cannot be deleted.
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "DeleteSnapshot", Code: "UnauthorizedOperation", Status: 403, Times: -1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		clock.add(time.Hour)
		r.keepsLast("ill", clock.last(t, schedule))
		r.settled()
	}
	r.shows(ProblemSnapshot, "ill", "old snapshots are not deleted")
	r.sim.ClearFaults()
	clock.add(10 * time.Minute) // no slot comes in that time
	r.heals()
}

func TestASchedulesTagsAreFollowedWhoeverSetsThem(t *testing.T) {
	r, clock, schedule := newScheduleRig(t, func(r *rig) { r.timing.Tags = 50 * time.Millisecond })
	r.create("db")
	r.mount("db", "c1")
	id := r.status("db")["id"].(string)
	r.settled()
	r.tag(id, "blockvol:snapshot-schedule", "* * * * *") // by another host, or by a person
	r.shows(ProblemSnapshot, "db", "blockvol:snapshot-schedule", "at least 15 minutes", "blockvol update db snapshot-schedule=")
	r.tag(id, "blockvol:snapshot-schedule", schedule)
	r.heals()
	slot := clock.now().Add(time.Minute)
	clock.to(slot)
	r.keeps("db", slot)
	r.tag(id, "blockvol:snapshot-schedule", "none")
	r.eventually("the end of the schedule is seen", func() bool {
		_, known := r.manager.record("db").known()
		return known.Attrs["snapshot-schedule"] == "none"
	})
	clock.add(3 * time.Hour)
	time.Sleep(20 * r.timing.Slots)
	r.keeps("db", slot)
}

func TestAScheduleOfAVolumeWithoutAFilesystemMakesNothing(t *testing.T) {
	t.Parallel()
	for fs, due := range map[string]bool{"": false, "none": false, "formatting:i-1": false, options.FSAdopted: false, "ext4": true, "xfs": true} {
		s := &schedules{m: &Manager{timing: DefaultTiming()}, now: time.Now, of: map[string]*scheduled{}}
		vol := cloud.Volume{ID: "vol-1", Attrs: map[string]string{"fs": fs, "snapshot-schedule": "@hourly"}}
		if _, do, _ := s.consider(&record{name: "db"}, vol, time.Now(), true); (do != nil) != due {
			t.Errorf("with the tag %q a snapshot is due: %v", fs, do != nil)
		}
	}
}

func TestAScheduleThatIsSetByAnUpdateCountsAtOnce(t *testing.T) {
	r, clock, schedule := newScheduleRig(t)
	r.create("db")
	r.mount("db", "c1")
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("snapshot-schedule", "*/5 * * * *")}, "every 5 minutes")
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("snapshot-keep", "7d")}, "no schedule")
	r.update(UpdateRequest{Volume: "db", Set: m2s("snapshot-schedule", schedule, "snapshot-keep", "1")})
	first := clock.next(t, schedule)
	clock.to(first)
	r.keeps("db", first)
	clock.to(first.Add(time.Hour))
	r.keepsLast("db", clock.now())
	clock.add(5 * time.Minute)
	r.keeps("db", first.Add(time.Hour))
	r.update(UpdateRequest{Volume: "db", Unset: []string{"snapshot-schedule"}})
	clock.add(3 * time.Hour)
	r.settled()
	r.keeps("db", first.Add(time.Hour))
}

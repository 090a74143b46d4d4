package ec2sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sys/unix"
)

func (b *bench) limits(change func(*Limits)) {
	l := b.Limits()
	change(&l)
	b.SetLimits(l)
}

// snapshotOf makes a snapshot and waits until it is completed.
func (b *bench) snapshotOf(volume string, tags ...types.Tag) string {
	b.t.Helper()
	in := &ec2.CreateSnapshotInput{VolumeId: &volume}
	if len(tags) > 0 {
		in.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot, Tags: tags}}
	}
	made, err := b.ec2.CreateSnapshot(within(b.t, time.Minute), in)
	if err != nil {
		b.t.Fatal(err)
	}
	b.snapshotBecomes(*made.SnapshotId, "completed")
	return *made.SnapshotId
}

// snapshotState is the state of a snapshot, or gone.
func (b *bench) snapshotState(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.Sim.state.Snapshots[id]; n != nil {
		return n.State
	}
	return "gone"
}

func (b *bench) snapshotBecomes(id, state string) {
	b.t.Helper()
	eventually(b.t, id+" "+state, func() bool { return b.snapshotState(id) == state })
}

// snapshots describes snapshots.
func (b *bench) snapshots(in ec2.DescribeSnapshotsInput) ([]types.Snapshot, error) {
	out, err := b.ec2.DescribeSnapshots(within(b.t, time.Minute), &in)
	if err != nil {
		return nil, err
	}
	return out.Snapshots, nil
}

// from makes a volume of a snapshot, available, and returns it.
func (b *bench) from(snapshot string, fields ...string) *volume {
	b.t.Helper()
	v, err := b.create(append([]string{"Size=", "SnapshotId=" + snapshot}, fields...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.becomes(v.ID, "available")
	return v
}

func tagOf(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }

func filters(pairs ...string) (out []types.Filter) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, types.Filter{Name: &pairs[i], Values: []string{pairs[i+1]}})
	}
	return out
}

func TestASnapshotHoldsTheVolumeAsItWasAtTheCall(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	device := b.attached(id, hostA, "/dev/xvdf")
	writeThrough(t, device, "before", 4096)
	b.SetDelays(Delays{Snapshot: time.Hour})
	made, err := b.ec2.CreateSnapshot(within(t, time.Minute), &ec2.CreateSnapshotInput{VolumeId: &id, Description: aws.String("nightly")})
	if err != nil {
		t.Fatal(err)
	}
	if made.State != "pending" || *made.VolumeId != id || *made.VolumeSize != 1 || *made.OwnerId != "123456789012" || *made.Description != "nightly" || *made.Encrypted {
		t.Errorf("made: %+v", made)
	}
	writeThrough(t, device, "after!", 4096)
	if _, err := b.create("Size=", "SnapshotId="+*made.SnapshotId); err == nil || !strings.Contains(err.Error(), "IncorrectState: Snapshot is in invalid state - pending") {
		t.Errorf("a volume of a pending snapshot: %v", err)
	}
	b.SetDelays(quick)
	b.mu.Lock()
	b.cancelSnapshot(evSnapshotted, *made.SnapshotId)
	b.schedule(0, event{Kind: evSnapshotted, Snapshot: *made.SnapshotId})
	b.mu.Unlock()
	b.snapshotBecomes(*made.SnapshotId, "completed")
	found, err := b.snapshots(ec2.DescribeSnapshotsInput{SnapshotIds: []string{*made.SnapshotId}})
	if err != nil || len(found) != 1 || *found[0].Progress != "100%" || found[0].CompletionTime == nil || *found[0].FullSnapshotSizeInBytes < 4096 || found[0].StorageTier != "standard" {
		t.Errorf("completed: %+v, %v", found, err)
	}
	v := b.from(*made.SnapshotId)
	if v.SizeGiB != 1 || v.SnapshotID != *made.SnapshotId {
		t.Errorf("the volume: %+v", v)
	}
	if got := read(t, b.attached(v.ID, hostB, "/dev/xvdf"), 6, 4096); got != "before" {
		t.Errorf("the volume made of the snapshot reads %q", got)
	}
	if got := read(t, device, 6, 4096); got != "after!" {
		t.Errorf("the volume itself reads %q", got)
	}
}

// writeThrough writes to a device so that it is there when it returns.
func writeThrough(t *testing.T, device, text string, at int64) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

// A writer puts the same number first into one block and then into a far one. At any one moment the first is the second, or one more.
func TestASnapshotOfABusyVolumeIsOneMoment(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) { l.SnapshotSeconds = 0 })
	id := b.volume()
	bulk, err := os.OpenFile(b.BackingFile(id), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bulk.WriteAt(make([]byte, 48<<20), 1<<20); err != nil { // so that a copy takes some time between the two
		t.Fatal(err)
	}
	bulk.Close()
	f, err := os.OpenFile(b.attached(id, hostA, "/dev/xvdf"), os.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const far = 900 << 20
	var pausing atomic.Bool
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		block := make([]byte, 4096)
		pause := 50 * time.Millisecond
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if n%16 == 0 && pausing.Load() {
				time.Sleep(pause)
				pause += pause / 2 // one of them is long enough on any machine
			}
			binary.LittleEndian.PutUint64(block, n)
			for _, at := range []int64{0, far} {
				if _, err := f.WriteAt(block, at); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	check := func(file string) {
		t.Helper()
		number := func(at int64) uint64 { return binary.LittleEndian.Uint64([]byte(read(t, file, 8, at))) }
		if first, second := number(0), number(far); first != second && first != second+1 {
			t.Errorf("the snapshot mixes moments: %d, then %d", first, second)
		}
	}
	// Without a pause: one moment, or refused.
	b.patience = 200 * time.Millisecond
	made, err := b.ec2.CreateSnapshot(within(t, time.Minute), &ec2.CreateSnapshotInput{VolumeId: &id})
	if err == nil {
		check(b.SnapshotFile(*made.SnapshotId))
	} else if code(err) != "UnsupportedOperation" || !strings.Contains(err.Error(), "freeze the filesystem") {
		t.Errorf("a volume that is always written to: %v", err)
	}
	if files, _ := os.ReadDir(filepath.Join(b.cfg.Dir, "snapshots")); err != nil && len(files) > 0 {
		t.Errorf("the refused snapshot left %v", files)
	}
	pausing.Store(true)
	b.patience = time.Minute
	for range 3 {
		made, err := b.ec2.CreateSnapshot(within(t, time.Minute), &ec2.CreateSnapshotInput{VolumeId: &id})
		if err != nil {
			t.Fatal(err)
		}
		check(b.SnapshotFile(*made.SnapshotId))
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

func TestOnAFilesystemWithReflinksACopyTakesNoRoomAndNoPause(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "xfs")
	if err := makeSparse(image, 400<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v: %s", err, out)
	}
	l := &loops{dev: "/dev", sys: "/sys", nodes: t.TempDir()}
	cable, n, added, err := l.create(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cable.Close()
		if added {
			eventually(t, "the device is gone", func() bool { return l.remove(n) })
		}
	})
	dir, unmount := mountAs(t, "xfs", cable.Name())
	defer unmount()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, file := range []string{from, to} {
		if err := makeSparse(file, 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(from, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := []byte(strings.Repeat("data", 1<<20))
	if _, err := f.WriteAt(text, 1<<20); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Statfs_t
	if err := errors.Join(f.Sync(), unix.Statfs(dir, &before)); err != nil {
		t.Fatal(err)
	}
	if err := copyMoment(t.Context(), to, from, 1<<30, 0); err != nil { // with no patience at all
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("DATA"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := read(t, to, len(text), 1<<20); got != string(text) {
		t.Errorf("the copy begins with %q", got[:8])
	}
	if err := unix.Statfs(dir, &after); err != nil || int64(before.Bfree-after.Bfree)*after.Bsize > 1<<20 {
		t.Errorf("the copy takes %d blocks of %d bytes, %v", before.Bfree-after.Bfree, after.Bsize, err)
	}
}

func TestSnapshotsAreRefusedForAReason(t *testing.T) {
	b := newBench(t)
	b.SetDelays(Delays{Create: time.Hour, Snapshot: time.Hour})
	b.limits(func(l *Limits) { l.SnapshotSeconds = 0; l.Snapshots = 7 })
	id := b.volume()
	slow, err := b.Import(ImportSpec{SizeGiB: 125, Type: "sc1"})
	if err != nil {
		t.Fatal(err)
	}
	creating, err := b.create()
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Minute)
	snap := func(volume string, dry bool) error {
		_, err := b.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &volume, DryRun: &dry})
		return err
	}
	for _, c := range []struct{ volume, want string }{
		{"vol-0123456789abcdef0", "InvalidVolume.NotFound"}, {"disk", "InvalidParameterValue"}, {"vol-x", "InvalidVolumeID.Malformed"}, {creating.ID, "IncorrectState"},
	} {
		if err := snap(c.volume, false); code(err) != c.want {
			t.Errorf("a snapshot of %s: %v, want %s", c.volume, err, c.want)
		}
	}
	if err := snap(id, true); code(err) != "DryRunOperation" {
		t.Errorf("dry run: %v", err)
	}
	for n := range 5 {
		if err := snap(id, false); err != nil {
			t.Fatalf("snapshot %d: %v", n, err)
		}
	}
	if err := snap(id, false); code(err) != "ConcurrentSnapshotLimitExceeded" {
		t.Errorf("the 6th pending one: %v", err)
	}
	if err := snap(slow, false); err != nil {
		t.Fatal(err)
	}
	if err := snap(slow, false); code(err) != "ConcurrentSnapshotLimitExceeded" {
		t.Errorf("the 2nd pending one of sc1: %v", err)
	}
	other := b.volume()
	b.limits(func(l *Limits) { l.SnapshotSeconds = 60 })
	if err := snap(other, false); err != nil {
		t.Fatal(err)
	}
	b.limits(func(l *Limits) { l.Snapshots = 100 })
	if err := snap(other, false); code(err) != "SnapshotCreationPerVolumeRateExceeded" {
		t.Errorf("again at once: %v", err)
	}
	b.limits(func(l *Limits) { l.Snapshots = 7 })
	if err := snap(b.volume(), false); code(err) != "SnapshotLimitExceeded" {
		t.Errorf("the 8th of 7: %v", err)
	}
	_, err = b.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &id, Description: aws.String(strings.Repeat("x", 256))})
	if code(err) != "InvalidParameterValue" {
		t.Errorf("a long description: %v", err)
	}
}

func TestVolumesOfASnapshotObeyIt(t *testing.T) {
	b := newBench(t)
	large, err := b.Import(ImportSpec{SizeGiB: 3, Encrypted: true, KMSKeyID: "ours"})
	if err != nil {
		t.Fatal(err)
	}
	snap := b.snapshotOf(large)
	for _, c := range []struct{ fields, want string }{
		{"Size=2 SnapshotId=" + snap, "InvalidParameterValue"},
		{"SnapshotId=snap-0123456789abcdef0", "InvalidSnapshot.NotFound"},
		{"SnapshotId=disk", "InvalidParameterValue"},
		{"SnapshotId=snap-x", "InvalidSnapshotID.Malformed"},
	} {
		if _, err := b.create(strings.Fields(c.fields)...); err == nil || err.(*apiError).Code != c.want {
			t.Errorf("%s: %v, want %s", c.fields, err, c.want)
		}
	}
	v := b.from(snap, "VolumeType=gp3", "Size=5")
	if v.SizeGiB != 5 || !v.Encrypted || !strings.HasSuffix(v.KMSKeyID, "key/ours") {
		t.Errorf("larger, encrypted: %+v", v)
	}
	if info, err := os.Stat(b.BackingFile(v.ID)); err != nil || info.Size() != 5<<30 {
		t.Errorf("its file: %v, %v", info.Size(), err)
	}
	if left, _ := os.ReadDir(filepath.Join(b.cfg.Dir, "sources")); len(left) > 0 {
		t.Errorf("left after the creation: %v", left)
	}
}

func TestASnapshotCanBeDeletedWhileItBecomesAVolume(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	writeThrough(t, b.BackingFile(id), "kept", 8192)
	snap := b.snapshotOf(id)
	b.SetDelays(Delays{Create: time.Hour})
	v, err := b.create("Size=", "SnapshotId="+snap)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ec2.DeleteSnapshot(within(t, time.Minute), &ec2.DeleteSnapshotInput{SnapshotId: &snap}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.SnapshotFile(snap)); !os.IsNotExist(err) {
		t.Errorf("the file of the deleted snapshot: %v", err)
	}
	// A restart in the middle changes nothing.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Dir: b.cfg.Dir, Delays: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Destroy() })
	c := serve(t, again)
	c.mu.Lock()
	c.cancel(evCreated, v.ID, "")
	c.schedule(0, event{Kind: evCreated, Volume: v.ID})
	c.mu.Unlock()
	c.becomes(v.ID, "available")
	if got := read(t, c.BackingFile(v.ID), 4, 8192); got != "kept" {
		t.Errorf("the volume reads %q", got)
	}
}

func TestSnapshotsAreFilteredPagedAndOwned(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) { l.SnapshotSeconds = 0 })
	one, two := b.volume(), b.volume()
	var last string
	for n := range 7 {
		volume := one
		if n > 4 {
			volume = two
		}
		last = b.snapshotOf(volume, tagOf("n", fmt.Sprint(n)), tagOf("team", "x"))
	}
	for _, c := range []struct {
		in   ec2.DescribeSnapshotsInput
		want int
	}{
		{ec2.DescribeSnapshotsInput{}, 7},
		{ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}}, 7},
		{ec2.DescribeSnapshotsInput{OwnerIds: []string{"123456789012"}}, 7},
		{ec2.DescribeSnapshotsInput{OwnerIds: []string{"amazon"}}, 0},
		{ec2.DescribeSnapshotsInput{Filters: filters("volume-id", two)}, 2},
		{ec2.DescribeSnapshotsInput{Filters: filters("volume-id", two, "tag:n", "6")}, 1},
		{ec2.DescribeSnapshotsInput{Filters: filters("tag-key", "te*", "status", "completed", "volume-size", "1", "progress", "100%")}, 7},
		{ec2.DescribeSnapshotsInput{Filters: filters("status", "pending")}, 0},
		{ec2.DescribeSnapshotsInput{SnapshotIds: []string{last}}, 1},
	} {
		found, err := b.snapshots(c.in)
		if err != nil || len(found) != c.want {
			t.Errorf("%+v: %d snapshots, %v; want %d", c.in, len(found), err, c.want)
		}
	}
	pages := ec2.NewDescribeSnapshotsPaginator(b.ec2, &ec2.DescribeSnapshotsInput{MaxResults: aws.Int32(5)})
	seen := map[string]bool{}
	for pages.HasMorePages() {
		page, err := pages.NextPage(within(t, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range page.Snapshots {
			seen[*n.SnapshotId] = true
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d of 7 on pages", len(seen))
	}
	for _, c := range []struct {
		in   ec2.DescribeSnapshotsInput
		want string
	}{
		{ec2.DescribeSnapshotsInput{SnapshotIds: []string{"snap-0123456789abcdef0"}}, "InvalidSnapshot.NotFound"},
		{ec2.DescribeSnapshotsInput{SnapshotIds: []string{"snap-1"}}, "InvalidSnapshotID.Malformed"},
		{ec2.DescribeSnapshotsInput{OwnerIds: []string{"me"}}, "InvalidUserID.Malformed"},
		{ec2.DescribeSnapshotsInput{Filters: filters("colour", "red")}, "InvalidParameterValue"},
		{ec2.DescribeSnapshotsInput{MaxResults: aws.Int32(4)}, "InvalidParameterValue"},
	} {
		if _, err := b.snapshots(c.in); code(err) != c.want {
			t.Errorf("%+v: %v, want %s", c.in, err, c.want)
		}
	}
	ctx := within(t, time.Minute)
	tag(t, ctx, b, last, "team", "y")
	tags, err := b.ec2.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: filters("resource-type", "snapshot", "key", "team", "value", "y")})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].ResourceId != last {
		t.Errorf("tags: %+v, %v", tags, err)
	}
}

func TestADeletedSnapshotIsGoneAndADescribeLagsBehindWhenTold(t *testing.T) {
	b := newBench(t)
	snap := b.snapshotOf(b.volume())
	b.SetDelays(Delays{Visible: 3 * time.Second})
	visible := func() error {
		_, err := b.snapshots(ec2.DescribeSnapshotsInput{SnapshotIds: []string{snap}})
		return err
	}
	eventually(t, "the snapshot shows", func() bool { return visible() == nil })
	ctx := within(t, time.Minute)
	if _, err := b.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap, DryRun: aws.Bool(true)}); code(err) != "DryRunOperation" {
		t.Errorf("dry run: %v", err)
	}
	if _, err := b.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap}); err != nil {
		t.Fatal(err)
	}
	if err := visible(); err != nil {
		t.Errorf("a deleted snapshot is missing at once: %v", err)
	}
	eventually(t, "the snapshot is gone", func() bool { return code(visible()) == "InvalidSnapshot.NotFound" })
	if _, err := b.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap}); code(err) != "InvalidSnapshot.NotFound" {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := os.Stat(b.SnapshotFile(snap)); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
}

func TestASnapshotFailsOrHidesWhenTold(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) { l.SnapshotSeconds = 0 })
	id := b.volume()
	for _, f := range []Fault{{Kind: "snapshot-failed"}, {Kind: "invisible", Action: "CreateSnapshot", Duration: time.Hour, Skip: 1}, {Kind: "error", Action: "DeleteSnapshot", Code: "InvalidSnapshot.InUse"}} {
		if err := b.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, time.Minute)
	made, err := b.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &id})
	if err != nil {
		t.Fatal(err)
	}
	b.snapshotBecomes(*made.SnapshotId, "error")
	if _, err := b.create("Size=", "SnapshotId="+*made.SnapshotId); err == nil || err.(*apiError).Code != "IncorrectState" {
		t.Errorf("a volume of a failed snapshot: %v", err)
	}
	hidden := b.snapshotOf(id)
	if _, err := b.snapshots(ec2.DescribeSnapshotsInput{SnapshotIds: []string{hidden}}); code(err) != "InvalidSnapshot.NotFound" {
		t.Errorf("a hidden snapshot: %v", err)
	}
	if _, err := b.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: made.SnapshotId}); code(err) != "InvalidSnapshot.InUse" {
		t.Errorf("a snapshot in use: %v", err)
	}
}

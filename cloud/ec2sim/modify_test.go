package ec2sim

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sys/unix"
)

// modify asks for a modification with EC2's parameters, as KEY=VALUE.
func (b *bench) modify(id string, fields ...string) error {
	p := params{"VolumeId": id}
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		p[key] = value
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.modifyVolume(&call{action: "ModifyVolume", params: p})
	return err
}

// modification is what DescribeVolumesModifications says of a volume.
func (b *bench) modification(id string) types.VolumeModification {
	b.t.Helper()
	out, err := b.ec2.DescribeVolumesModifications(within(b.t, time.Minute), &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}})
	if err != nil || len(out.VolumesModifications) != 1 {
		b.t.Fatal(out, err)
	}
	return out.VolumesModifications[0]
}

func (b *bench) modified(id string, state types.VolumeModificationState) {
	b.t.Helper()
	eventually(b.t, id+" is "+string(state), func() bool { return b.modification(id).ModificationState == state })
}

func sectors(t *testing.T, device string) int64 {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := f.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	return end / 512
}

func TestAVolumeGrowsUnderItsHolder(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	device := b.attached(id, hostA, "/dev/xvdf")
	dir, unmount := mounted(t, device)
	defer unmount()
	ctx := within(t, time.Minute)
	out, err := b.ec2.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(3), Iops: aws.Int32(4000), Throughput: aws.Int32(200)})
	if err == nil || code(err) != "InvalidParameterValue" {
		t.Errorf("4000 IOPS of 3 GiB: %+v, %v", out, err)
	}
	out, err = b.ec2.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(3), Throughput: aws.Int32(200)})
	if err != nil {
		t.Fatal(err)
	}
	if m := out.VolumeModification; m.ModificationState != "modifying" || *m.OriginalSize != 1 || *m.TargetSize != 3 || *m.OriginalThroughput != 125 || *m.TargetThroughput != 200 || *m.TargetIops != 3000 {
		t.Errorf("modified: %+v", m)
	}
	b.modified(id, "completed")
	if m := b.modification(id); *m.Progress != 100 || m.EndTime == nil {
		t.Errorf("completed: %+v", m)
	}
	seen, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil || *seen.Volumes[0].Size != 3 || *seen.Volumes[0].Throughput != 200 {
		t.Errorf("the volume: %+v, %v", seen, err)
	}
	if got := sectors(t, device); got != 3<<30/512 {
		t.Errorf("the device has %d sectors", got)
	}
	if got := strings.TrimSpace(mustRead(t, b.DevDir(hostA)+"/.sysfs/block/nvme1n1/size")); got != fmt.Sprint(3<<30/512) {
		t.Errorf("sysfs shows %s sectors", got)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize > 1<<30 {
		t.Errorf("the filesystem has grown by itself: %d blocks, %v", st.Blocks, err)
	}
}

func TestAModificationRunsThroughItsStates(t *testing.T) {
	b := newBench(t)
	b.SetDelays(Delays{Modify: time.Hour, Optimize: time.Hour})
	id := b.volume()
	if err := b.modify(id, "Size=2"); err != nil {
		t.Fatal(err)
	}
	skip := func(kind string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.cancel(kind, id, "")
		b.schedule(0, event{Kind: kind, Volume: id})
	}
	size := func() int32 {
		out, err := b.ec2.DescribeVolumes(within(t, time.Minute), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Volumes[0].Size
	}
	if m := b.modification(id); m.ModificationState != "modifying" || size() != 1 || m.EndTime != nil {
		t.Errorf("%+v, size %d", m, size())
	}
	for _, state := range []string{"MODIFYING", "OPTIMIZING"} {
		if err := b.modify(id, "Size=3"); err == nil || !strings.Contains(err.Error(), "IncorrectModificationState: Volume "+id+" cannot be modified in modification state "+state) {
			t.Errorf("while %s: %v", state, err)
		}
		if state == "MODIFYING" {
			skip(evModified)
			b.modified(id, "optimizing")
			if size() != 2 {
				t.Errorf("while optimizing the size is %d", size())
			}
		}
	}
	skip(evOptimized)
	b.modified(id, "completed")
	if err := b.modify(id, "Size=3"); err != nil {
		t.Errorf("after the first is completed: %v", err)
	}
}

func TestModificationsObeyTheRules(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) { l.ProvisionedGiB = 890; l.IOPS = 5000 })
	for _, c := range []struct {
		spec   ImportSpec
		fields string
		want   string
	}{
		{ImportSpec{SizeGiB: 10}, "Size=20", "gp3 20 GiB iops 3000 throughput 125"},
		{ImportSpec{SizeGiB: 100, Type: "gp2"}, "Size=200", "gp2 200 GiB iops 600 throughput 0"},
		{ImportSpec{SizeGiB: 10, Type: "gp2"}, "VolumeType=gp3", "gp3 10 GiB iops 3000 throughput 125"},
		{ImportSpec{SizeGiB: 10, IOPS: 4000, Throughput: 500}, "VolumeType=gp2", "gp2 10 GiB iops 100 throughput 0"},
		{ImportSpec{SizeGiB: 60}, "VolumeType=io1", "io1 60 GiB iops 3000 throughput 0"},
		{ImportSpec{SizeGiB: 10, IOPS: 4000}, "Size=12", "gp3 12 GiB iops 4000 throughput 125"},
		{ImportSpec{SizeGiB: 125, Type: "st1"}, "VolumeType=sc1", "sc1 125 GiB iops 0 throughput 0"},
		{ImportSpec{SizeGiB: 10, Type: "io2", IOPS: 100}, "MultiAttachEnabled=true", "io2 10 GiB iops 100 throughput 0"},
		{ImportSpec{SizeGiB: 10}, "Size=10", "gp3 10 GiB iops 3000 throughput 125"},
		{ImportSpec{SizeGiB: 10}, "Size=9", "InvalidParameterValue"},
		{ImportSpec{SizeGiB: 10}, "Size=ten", "InvalidParameterValue"},
		{ImportSpec{SizeGiB: 10}, "", "InvalidParameterCombination"},
		{ImportSpec{SizeGiB: 10}, "VolumeType=gp4", "UnknownVolumeType"},
		{ImportSpec{SizeGiB: 10}, "VolumeType=standard", "InvalidParameterValue"},
		{ImportSpec{SizeGiB: 10}, "VolumeType=st1", "InvalidParameterValue"},
		{ImportSpec{SizeGiB: 10}, "VolumeType=io1", "InvalidParameterValue"},
		{ImportSpec{SizeGiB: 10, Type: "gp2"}, "Iops=3000", "InvalidParameterCombination"},
		{ImportSpec{SizeGiB: 10}, "Iops=2999", "InvalidParameterValue"},
		{ImportSpec{SizeGiB: 10, Type: "standard"}, "Size=20", "UnsupportedOperation"},
		{ImportSpec{SizeGiB: 10}, "MultiAttachEnabled=true", "UnsupportedOperation"},
		{ImportSpec{SizeGiB: 10, Type: "io2", IOPS: 100, MultiAttach: true}, "VolumeType=gp3", "UnsupportedOperation"},
		{ImportSpec{SizeGiB: 10}, "Size=900", "VolumeModificationSizeLimitExceeded"},
		{ImportSpec{SizeGiB: 10, Type: "io2", IOPS: 100}, "Iops=5001", "MaxIOPSLimitExceeded"},
	} {
		id, err := b.Import(c.spec)
		if err != nil {
			t.Fatal(c.fields, err)
		}
		got := ""
		err = b.modify(id, strings.Fields(c.fields)...)
		if api, ok := err.(*apiError); ok {
			got = api.Code
		} else if err == nil {
			b.modified(id, "completed")
			b.mu.Lock()
			v := b.Sim.state.Volumes[id]
			got = fmt.Sprintf("%s %d GiB iops %d throughput %d", v.Type, v.SizeGiB, v.IOPS, v.Throughput)
			b.mu.Unlock()
		}
		if got != c.want {
			t.Errorf("%+v to %s: %s (%v), want %s", c.spec, c.fields, got, err, c.want)
		}
		if _, err := b.ec2.DeleteVolume(within(t, time.Minute), &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
			t.Fatal(err)
		}
		b.becomes(id, "gone")
	}
	ctx := within(t, time.Minute)
	id := b.volume()
	if _, err := b.ec2.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(2), DryRun: aws.Bool(true)}); code(err) != "DryRunOperation" {
		t.Errorf("dry run: %v", err)
	}
	if err := b.modify("vol-0123456789abcdef0", "Size=2"); err == nil || err.(*apiError).Code != "InvalidVolume.NotFound" {
		t.Errorf("no volume: %v", err)
	}
	describe := func(in ec2.DescribeVolumesModificationsInput) (int, string) {
		out, err := b.ec2.DescribeVolumesModifications(ctx, &in)
		if err != nil {
			return 0, code(err)
		}
		return len(out.VolumesModifications), ""
	}
	if _, got := describe(ec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}}); got != "InvalidVolumeModification.NotFound" {
		t.Errorf("never modified: %s", got)
	}
	if _, got := describe(ec2.DescribeVolumesModificationsInput{VolumeIds: []string{"vol-0123456789abcdef0"}}); got != "InvalidVolume.NotFound" {
		t.Errorf("no volume: %s", got)
	}
	if _, got := describe(ec2.DescribeVolumesModificationsInput{MaxResults: aws.Int32(501)}); got != "InvalidParameterValue" {
		t.Errorf("501 results: %s", got)
	}
	if err := b.modify(id, "Size=2"); err != nil {
		t.Fatal(err)
	}
	b.modified(id, "completed")
	for _, c := range []struct {
		filters []types.Filter
		want    int
	}{
		{filters("modification-state", "completed", "target-size", "2", "original-size", "1", "volume-id", id), 1}, {filters("modification-state", "failed"), 0}, {nil, 1},
	} {
		if n, got := describe(ec2.DescribeVolumesModificationsInput{Filters: c.filters}); n != c.want {
			t.Errorf("%d modifications (%s), want %d", n, got, c.want)
		}
	}
}

func TestAVolumeIsModifiedFourTimesADay(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	for n := range 4 { // One that changes nothing counts, too.
		if err := b.modify(id, "Size=1"); err != nil {
			t.Fatalf("modification %d: %v", n, err)
		}
		b.modified(id, "completed")
	}
	b.mu.Lock()
	next := b.Sim.state.Volumes[id].Modified[0].Add(24 * time.Hour).UTC().Format(time.RFC3339)
	b.mu.Unlock()
	if err := b.modify(id, "Size=2"); err == nil || err.(*apiError).Code != "VolumeModificationRateExceeded" || !strings.Contains(err.Error(), "Wait until "+next) {
		t.Errorf("the 5th within a day: %v; want the time %s", err, next)
	}
	b.mu.Lock()
	b.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
	b.mu.Unlock()
	if err := b.modify(id, "Size=2"); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestAModificationFailsWhenTold(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	if err := b.Inject(Fault{Kind: "modify-failed", Message: "out of luck"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ec2.ModifyVolume(within(t, time.Minute), &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(2)}); err != nil {
		t.Fatal(err)
	}
	b.modified(id, "failed")
	if m := b.modification(id); *m.StatusMessage != "out of luck" {
		t.Errorf("%+v", m)
	}
	if info, err := os.Stat(b.BackingFile(id)); err != nil || info.Size() != 1<<30 {
		t.Errorf("the volume has grown: %v, %v", info, err)
	}
	if err := b.modify(id, "Size=2"); err != nil {
		t.Errorf("after a failure: %v", err)
	}
}

func TestTheStatusOfAVolumeIsTold(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	snap := b.snapshotOf(id)
	ctx := within(t, time.Minute)
	status := func(id string) (types.VolumeStatusItem, string) {
		t.Helper()
		out, err := b.ec2.DescribeVolumeStatus(ctx, &ec2.DescribeVolumeStatusInput{VolumeIds: []string{id}})
		if err != nil || len(out.VolumeStatuses) != 1 {
			t.Fatal(out, err)
		}
		item := out.VolumeStatuses[0]
		text := string(item.VolumeStatus.Status)
		for _, d := range item.VolumeStatus.Details {
			text += fmt.Sprintf(" %s=%s", d.Name, *d.Status)
		}
		return item, text
	}
	if _, got := status(id); got != "ok io-enabled=passed io-performance=not-applicable" {
		t.Error(got)
	}
	if err := b.SetVolumeStatus(id, "impaired"); err != nil {
		t.Fatal(err)
	}
	item, got := status(id)
	if got != "impaired io-enabled=failed io-performance=stalled" || *item.Events[0].EventType != "potential-data-inconsistency" || *item.Actions[0].Code != "enable-volume-io" {
		t.Errorf("%s: %+v", got, item)
	}
	out, err := b.ec2.DescribeVolumeStatus(ctx, &ec2.DescribeVolumeStatusInput{Filters: filters("volume-status.status", "impaired", "action.code", "enable-volume-io")})
	if err != nil || len(out.VolumeStatuses) != 1 {
		t.Errorf("impaired ones: %+v, %v", out, err)
	}
	for id, status := range map[string]string{id: "ill", "vol-0123456789abcdef0": "ok"} {
		if err := b.SetVolumeStatus(id, status); err == nil {
			t.Errorf("%s became %s", id, status)
		}
	}
	if _, err := b.ec2.DescribeVolumeStatus(ctx, &ec2.DescribeVolumeStatusInput{VolumeIds: []string{"vol-0123456789abcdef0"}}); code(err) != "InvalidVolume.NotFound" {
		t.Errorf("no volume: %v", err)
	}
	b.SetDelays(Delays{Initialize: time.Hour})
	copied, err := b.ec2.CopyVolumes(ctx, &ec2.CopyVolumesInput{SourceVolumeId: &id})
	if err != nil {
		t.Fatal(err)
	}
	b.becomes(*copied.Volumes[0].VolumeId, "available")
	if item, got := status(*copied.Volumes[0].VolumeId); !strings.HasSuffix(got, " initialization-state=initializing") || item.InitializationStatusDetails.InitializationType != "volume-copy" {
		t.Errorf("%s: %+v", got, item)
	}
	b.SetDelays(quick)
	if item, got := status(b.from(snap).ID); !strings.HasSuffix(got, " initialization-state=completed") || *item.InitializationStatusDetails.Progress != 100 {
		t.Errorf("%s: %+v", got, item)
	}
}

func TestTheRecycleBinGivesBackWhatWasDeleted(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) {
		l.Retention = []Retention{{Resource: "volume", Tags: map[string]string{"keep": "yes"}, For: 24 * time.Hour}, {Resource: "snapshot", For: time.Hour}}
		l.SnapshotSeconds = 0
	})
	ctx := within(t, time.Minute)
	kept, err := b.Import(ImportSpec{SizeGiB: 1, Tags: map[string]string{"keep": "yes", "Name": "db"}})
	if err != nil {
		t.Fatal(err)
	}
	writeThrough(t, b.BackingFile(kept), "data", 4096)
	snap, lost := b.snapshotOf(kept), b.volume()
	for _, id := range []string{kept, lost} {
		if _, err := b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
			t.Fatal(err)
		}
		b.becomes(id, "gone")
	}
	if _, err := b.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.BackingFile(lost)); !os.IsNotExist(err) {
		t.Errorf("the volume that no rule is for: %v", err)
	}
	check := func(b *bench) {
		t.Helper()
		volumes, err := b.ec2.ListVolumesInRecycleBin(ctx, &ec2.ListVolumesInRecycleBinInput{})
		if err != nil || len(volumes.Volumes) != 1 {
			t.Fatal(volumes, err)
		}
		v := volumes.Volumes[0]
		if *v.VolumeId != kept || *v.Size != 1 || v.VolumeType != "gp3" || *v.AvailabilityZone != zoneA || v.RecycleBinExitTime.Sub(*v.RecycleBinEnterTime) != 24*time.Hour {
			t.Errorf("in the bin: %+v", v)
		}
		snapshots, err := b.ec2.ListSnapshotsInRecycleBin(ctx, &ec2.ListSnapshotsInRecycleBinInput{SnapshotIds: []string{snap}})
		if err != nil || len(snapshots.Snapshots) != 1 || *snapshots.Snapshots[0].VolumeId != kept || snapshots.Snapshots[0].RecycleBinExitTime.Sub(*snapshots.Snapshots[0].RecycleBinEnterTime) != time.Hour {
			t.Errorf("in the bin: %+v, %v", snapshots, err)
		}
	}
	check(b)
	if state := b.controlState(); len(state.RecycleBin.Volumes) != 1 || len(state.RecycleBin.Snapshots) != 1 || len(state.Snapshots) != 0 {
		t.Errorf("the control shows %+v", state.RecycleBin)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Dir: b.cfg.Dir, Delays: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Destroy() })
	c := serve(t, again)
	check(c)
	for _, dry := range []bool{true, false} {
		_, err := c.ec2.RestoreVolumeFromRecycleBin(ctx, &ec2.RestoreVolumeFromRecycleBinInput{VolumeId: &kept, DryRun: &dry})
		if dry && code(err) != "DryRunOperation" || !dry && err != nil {
			t.Error(dry, err)
		}
	}
	out, err := c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: filters("tag:Name", "db")})
	if err != nil || len(out.Volumes) != 1 || *out.Volumes[0].VolumeId != kept || out.Volumes[0].State != "available" {
		t.Errorf("restored: %+v, %v", out, err)
	}
	if got := read(t, c.attached(kept, hostA, "/dev/xvdf"), 4, 4096); got != "data" {
		t.Errorf("the restored volume reads %q", got)
	}
	restored, err := c.ec2.RestoreSnapshotFromRecycleBin(ctx, &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: &snap})
	if err != nil || restored.State != "completed" || *restored.VolumeId != kept {
		t.Errorf("restored: %+v, %v", restored, err)
	}
	c.from(snap)
	for _, id := range []string{kept, lost} {
		if _, err := c.ec2.RestoreVolumeFromRecycleBin(ctx, &ec2.RestoreVolumeFromRecycleBinInput{VolumeId: &id}); code(err) != "InvalidVolume.NotFound" {
			t.Errorf("%s, which is not in the bin: %v", id, err)
		}
	}
	if _, err := c.ec2.RestoreSnapshotFromRecycleBin(ctx, &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: &snap}); code(err) != "InvalidSnapshot.NotFound" {
		t.Errorf("a snapshot that is not in the bin: %v", err)
	}
}

func TestTheRecycleBinIsEmptiedInTime(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) {
		l.Retention = []Retention{{Resource: "volume", For: 50 * time.Millisecond}, {Resource: "snapshot", For: 50 * time.Millisecond}}
	})
	ctx := within(t, time.Minute)
	id := b.volume()
	snap := b.snapshotOf(id)
	if _, err := b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap}); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{b.BackingFile(id), b.SnapshotFile(snap)} {
		eventually(t, file+" is gone", func() bool { _, err := os.Stat(file); return os.IsNotExist(err) })
	}
	if _, err := b.ec2.ListVolumesInRecycleBin(ctx, &ec2.ListVolumesInRecycleBinInput{VolumeIds: []string{id}}); code(err) != "InvalidVolume.NotFound" {
		t.Errorf("after its time: %v", err)
	}
}

func TestRulesOfTheRecycleBinAreChecked(t *testing.T) {
	for raw, good := range map[string]bool{
		`{"resource":"volume","for":"24h"}`: true, `{"resource":"snapshot","tags":{"a":"b"},"for":"1s"}`: true,
		`{"resource":"image","for":"24h"}`: false, `{"resource":"volume"}`: false, `{"resource":"volume","for":"0"}`: false, `{"resource":"volume","for":"1h","tag":{}}`: false,
	} {
		var r Retention
		if err := strictJSON([]byte(raw), &r); (err == nil) != good {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

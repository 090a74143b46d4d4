package ec2sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestACopyOfAVolumeIsAnotherVolumeWithItsData(t *testing.T) {
	b := newBench(t)
	source, err := b.Import(ImportSpec{SizeGiB: 2, Zone: "us-sim-1b", Encrypted: true, KMSKeyID: "ours", Tags: map[string]string{"Name": "db"}})
	if err != nil {
		t.Fatal(err)
	}
	writeThrough(t, b.BackingFile(source), "data", 1<<20)
	ctx := within(t, time.Minute)
	in := &ec2.CopyVolumesInput{SourceVolumeId: &source, VolumeType: "gp3", Size: aws.Int32(3), ClientToken: aws.String("t"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{tagOf("Name", "copy")}}}}
	out, err := b.ec2.CopyVolumes(ctx, in)
	if err != nil || len(out.Volumes) != 1 {
		t.Fatal(out, err)
	}
	v := out.Volumes[0]
	if v.State != "creating" || *v.SourceVolumeId != source || *v.Size != 3 || *v.AvailabilityZone != "us-sim-1b" || !*v.Encrypted || !strings.HasSuffix(*v.KmsKeyId, "key/ours") ||
		len(v.Tags) != 1 || *v.Tags[0].Value != "copy" || v.SnapshotId != nil && *v.SnapshotId != "" {
		t.Errorf("copied: %+v", v)
	}
	b.becomes(*v.VolumeId, "available")
	writeThrough(t, b.BackingFile(source), "DATA", 1<<20)
	if got := read(t, b.BackingFile(*v.VolumeId), 4, 1<<20); got != "data" {
		t.Errorf("the copy reads %q", got)
	}
	again, err := b.ec2.CopyVolumes(ctx, in)
	if err != nil || *again.Volumes[0].VolumeId != *v.VolumeId || again.Volumes[0].State != "available" {
		t.Errorf("the same call again: %+v, %v", again, err)
	}
	if _, err := b.create("ClientToken=t"); err != nil {
		t.Errorf("the token of another action: %v", err)
	}
	missing := "vol-0123456789abcdef0"
	for _, c := range []struct {
		change func(*ec2.CopyVolumesInput)
		want   string
	}{
		{func(in *ec2.CopyVolumesInput) { in.Size = aws.Int32(4) }, "IdempotentParameterMismatch"},
		{func(in *ec2.CopyVolumesInput) { in.ClientToken, in.Size = nil, aws.Int32(1) }, "InvalidParameterValue"},
		{func(in *ec2.CopyVolumesInput) { in.ClientToken, in.SourceVolumeId = nil, &missing }, "InvalidVolume.NotFound"},
		{func(in *ec2.CopyVolumesInput) { in.ClientToken, in.VolumeType, in.Size = nil, "io2", aws.Int32(4) }, "MissingParameter"},
		{func(in *ec2.CopyVolumesInput) { in.ClientToken, in.DryRun = nil, aws.Bool(true) }, "DryRunOperation"},
	} {
		changed := *in
		c.change(&changed)
		if _, err := b.ec2.CopyVolumes(ctx, &changed); code(err) != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: v.VolumeId}); err != nil {
		t.Fatal(err)
	}
	b.becomes(*v.VolumeId, "gone")
	if _, err := b.ec2.CopyVolumes(ctx, in); code(err) != "IdempotentParameterMismatch" || !strings.Contains(err.Error(), "already deleted") {
		t.Errorf("the token of a deleted copy: %v", err)
	}
}

func TestWhatAKilledSimulatorWasCopyingHasNeverBeen(t *testing.T) {
	b := newBench(t)
	source := b.volume()
	snap := b.snapshotOf(source)
	half := &volume{ID: newID("vol"), Type: "gp3", Zone: zoneA, State: "creating", SizeGiB: 1, SourceID: source}
	b.mu.Lock()
	b.Sim.state.Volumes[half.ID] = half
	b.touch(half)
	b.mu.Unlock()
	stray := filepath.Join(b.cfg.Dir, "snapshots", newID("snap"))
	for _, file := range []string{stray, b.BackingFile(half.ID)} {
		if err := makeSparse(file, 1<<30); err != nil {
			t.Fatal(err)
		}
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
	if got := c.state(half.ID); got != "gone" {
		t.Errorf("the half copied volume is %s", got)
	}
	for _, file := range []string{stray, b.BackingFile(half.ID)} {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if found, err := c.snapshots(ec2.DescribeSnapshotsInput{SnapshotIds: []string{snap}}); err != nil || found[0].State != "completed" {
		t.Errorf("the snapshot after the restart: %+v, %v", found, err)
	}
	if _, err := os.Stat(c.SnapshotFile(snap)); err != nil {
		t.Error(err)
	}
}

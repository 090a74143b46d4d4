package ec2sim

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestTheSDKDrivesAVolumeThroughItsLife(t *testing.T) {
	b := newBench(t)
	ctx := within(t, 30*time.Second)
	made, err := b.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zoneA), Size: aws.Int32(2), VolumeType: types.VolumeTypeGp3, ClientToken: aws.String("one"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("db")}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if made.State != types.VolumeStateCreating || *made.Iops != 3000 || *made.Throughput != 125 || len(made.Attachments) != 0 {
		t.Fatalf("created: %+v", made)
	}
	id := *made.VolumeId
	byID := &ec2.DescribeVolumesInput{VolumeIds: []string{id}}
	fast := func(o *ec2.VolumeAvailableWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, 50*time.Millisecond
	}
	if err := ec2.NewVolumeAvailableWaiter(b.ec2, fast).Wait(ctx, byID, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: aws.String(hostA), Device: aws.String("/dev/xvdf")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "attached", func() bool {
		out, err := b.ec2.DescribeVolumes(ctx, byID)
		if err != nil || len(out.Volumes) != 1 || out.Volumes[0].State != types.VolumeStateInUse {
			t.Fatal(out, err)
		}
		return out.Volumes[0].Attachments[0].State == types.VolumeAttachmentStateAttached
	})
	if got := strings.TrimSpace(mustRead(t, b.DevDir(hostA)+"/.sysfs/block/nvme1n1/device/serial")); got != strings.ReplaceAll(id, "-", "") {
		t.Fatalf("serial %q for %s", got, id)
	}
	if _, err := b.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id}); err != nil {
		t.Fatal(err)
	}
	if err := ec2.NewVolumeAvailableWaiter(b.ec2, fast).Wait(ctx, byID, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
		t.Fatal(err)
	}
	gone := ec2.NewVolumeDeletedWaiter(b.ec2, func(o *ec2.VolumeDeletedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, 50*time.Millisecond
	})
	if err := gone.Wait(ctx, byID, 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

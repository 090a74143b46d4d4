package ec2sim

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestTheAWSCLIDrivesAnInstanceThroughItsLife(t *testing.T) {
	b := newBench(t)
	d := quick
	d.Start, d.Stop, d.Terminate = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	b.SetDelays(d)
	do := func(args string) string {
		t.Helper()
		out, complaint := b.aws(args + " --output text")
		if complaint != "" {
			t.Fatalf("aws ec2 %s: %s", args, complaint)
		}
		return out
	}
	ids := strings.Fields(do("run-instances --image-id ami-0123456789abcdef0 --instance-type c5.large --count 2 --placement AvailabilityZone=us-sim-1b " +
		"--tag-specifications ResourceType=instance,Tags=[{Key=Name,Value=db}] --query Instances[].InstanceId"))
	if len(ids) != 2 {
		t.Fatalf("run-instances --count 2 made %v", ids)
	}
	id := ids[0]
	do("wait instance-running --instance-ids " + id)
	if got := do("describe-instances --filters Name=tag:Name,Values=db Name=availability-zone,Values=us-sim-1b --query length(Reservations[].Instances[])"); got != "2" {
		t.Errorf("%s of the two are found", got)
	}
	do("modify-instance-attribute --disable-api-stop --instance-id " + id)
	if got := do("describe-instance-attribute --attribute disableApiStop --query DisableApiStop.Value --instance-id " + id); got != "True" {
		t.Errorf("disableApiStop: %q", got)
	}
	want := "(OperationNotPermitted) when calling the StopInstances operation"
	if _, complaint := b.aws("stop-instances --instance-ids " + id); !strings.Contains(complaint, want) || !strings.Contains(complaint, "Modify its 'disableApiStop' instance attribute") {
		t.Errorf("stop-instances of a protected one: %s", complaint)
	}
	do("modify-instance-attribute --attribute disableApiStop --value false --instance-id " + id)
	if got := do("stop-instances --force --query StoppingInstances[].[PreviousState.Name,CurrentState.Name] --instance-ids " + id); got != "running\tstopping" {
		t.Errorf("stop-instances: %q", got)
	}
	do("wait instance-stopped --instance-ids " + id)
	if got := do("describe-instance-status --include-all-instances --query InstanceStatuses[].[InstanceState.Name,InstanceStatus.Status] --instance-ids " + id); got != "stopped\tnot-applicable" {
		t.Errorf("describe-instance-status: %q", got)
	}
	do("start-instances --instance-ids " + id)
	do("wait instance-status-ok --instance-ids " + id)
	do("reboot-instances --instance-ids " + id)
	do("terminate-instances --instance-ids " + strings.Join(ids, " "))
	do("wait instance-terminated --instance-ids " + strings.Join(ids, " "))
}

func TestRunInstancesMakesHostsThatTakeVolumes(t *testing.T) {
	b := newBench(t)
	ctx := within(t, 20*time.Second)
	in := &ec2.RunInstancesInput{
		ImageId: aws.String("ami-0123456789abcdef0"), InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(2), ClientToken: aws.String("once"),
		HibernationOptions: &types.HibernationOptionsRequest{Configured: aws.Bool(true)},
		InstanceMarketOptions: &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot,
			SpotOptions: &types.SpotMarketOptions{SpotInstanceType: types.SpotInstanceTypePersistent}},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("db")}}}},
	}
	made, err := b.ec2.RunInstances(ctx, in)
	must(t, err)
	if len(made.Instances) != 2 || made.Instances[0].State.Name != "pending" || *made.Instances[1].AmiLaunchIndex != 1 {
		t.Fatalf("made %+v", made.Instances)
	}
	again, err := b.ec2.RunInstances(ctx, in)
	if err != nil || *again.ReservationId != *made.ReservationId || len(b.Instances()) != 4 {
		t.Errorf("the same ClientToken makes others: %+v, %v", again, err)
	}
	in.InstanceType = "c5.large"
	if _, err := b.ec2.RunInstances(ctx, in); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("the same ClientToken for another type: %v", err)
	}
	id := *made.Instances[0].InstanceId
	b.reaches(id, "running")
	out, err := b.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("instance-lifecycle"), Values: []string{"spot"}}}})
	if err != nil || len(out.Reservations) != 1 || len(out.Reservations[0].Instances) != 2 {
		t.Fatalf("%+v, %v", out, err)
	}
	i := b.instance(id)
	if i.InstanceType != "t3.micro" || !*i.HibernationOptions.Configured || *i.ImageId != *in.ImageId || *i.Tags[0].Value != "db" || *i.ClientToken != "once" {
		t.Errorf("%+v", i)
	}
	if info, err := os.Stat(b.DevDir(id) + "/null"); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("its /dev: %v, %v", info, err)
	}
	write(t, b.attached(b.volume(), id, "/dev/xvdf"), "works", 0)
	if got := b.metadata(id)["meta-data/instance-life-cycle"]; got != "spot" {
		t.Errorf("metadata says %q", got)
	}
}

func TestALaunchIsRefusedForAReason(t *testing.T) {
	b := newBench(t)
	for want, change := range map[string]func(*ec2.RunInstancesInput){
		"InvalidAMIID.Malformed": func(in *ec2.RunInstancesInput) { in.ImageId = aws.String("debian") },
		"MissingParameter":       func(in *ec2.RunInstancesInput) { in.ImageId = nil },
		"InvalidParameterValue":  func(in *ec2.RunInstancesInput) { in.InstanceType = "z9.huge" },
		"UnknownParameter":       func(in *ec2.RunInstancesInput) { in.KeyName = aws.String("k") },
		"InstanceLimitExceeded":  func(in *ec2.RunInstancesInput) { in.MaxCount = aws.Int32(1000) },
		"UnsupportedOperation": func(in *ec2.RunInstancesInput) {
			in.DisableApiStop = aws.Bool(true)
			in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}
		},
		"DryRunOperation": func(in *ec2.RunInstancesInput) { in.DryRun = aws.Bool(true) },
	} {
		in := &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
		change(in)
		if _, err := b.ec2.RunInstances(within(t, time.Minute), in); code(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if got := len(b.Instances()); got != 2 {
		t.Errorf("%d hosts", got)
	}
}

func TestAnAttributeIsSetOneAtATimeAndOnlyWhereItCanBe(t *testing.T) {
	b := newBench(t)
	spot, err := b.AddInstance(Instance{Spot: SpotPersistent})
	must(t, err)
	on := &types.AttributeBooleanValue{Value: aws.Bool(true)}
	for _, c := range []struct {
		want string
		in   ec2.ModifyInstanceAttributeInput
	}{
		{"InvalidParameterCombination", ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(hostA)}},
		{"InvalidParameterCombination", ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(hostA), DisableApiStop: on, DisableApiTermination: on}},
		{"UnsupportedOperation", ec2.ModifyInstanceAttributeInput{InstanceId: &spot.ID, DisableApiStop: on}},
		{"UnknownParameter", ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(hostA), EbsOptimized: on}},
		{"InvalidInstanceAttributeValue", ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(hostA),
			BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{{DeviceName: aws.String("/dev/xvdf")}}}},
	} {
		if _, err := b.ec2.ModifyInstanceAttribute(within(t, time.Minute), &c.in); code(err) != c.want {
			t.Errorf("%+v: %v, want %s", c.in, err, c.want)
		}
	}
	_, err = b.ec2.ModifyInstanceAttribute(within(t, time.Minute), &ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(hostA), DisableApiTermination: on})
	must(t, err)
	out, err := b.ec2.DescribeInstanceAttribute(within(t, time.Minute), &ec2.DescribeInstanceAttributeInput{InstanceId: aws.String(hostA), Attribute: types.InstanceAttributeNameDisableApiTermination})
	if err != nil || !*out.DisableApiTermination.Value || out.DisableApiStop != nil {
		t.Errorf("%+v, %v", out, err)
	}
	if err := b.terminate(hostA); code(err) != "OperationNotPermitted" {
		t.Errorf("terminate a protected host: %v", err)
	}
}

package ec2sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// create asks for a volume with EC2's parameters, as KEY=VALUE.
func (b *bench) create(fields ...string) (*volume, error) {
	p := params{"AvailabilityZone": zoneA, "Size": "1"}
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		p[key] = value
		if value == "" {
			delete(p, key)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	answer, err := b.createVolume(&call{action: "CreateVolume", params: p})
	if err != nil {
		return nil, err
	}
	return b.Sim.state.Volumes[answer.(volumeCreated).VolumeID], nil
}

func TestVolumesObeyTheLimitsOfTheirType(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ fields, want string }{
		{"", "gp2 iops 100 throughput 0"},
		{"VolumeType=gp2 Size=1000", "gp2 iops 3000 throughput 0"},
		{"VolumeType=gp2 Size=10000", "gp2 iops 16000 throughput 0"},
		{"VolumeType=gp3", "gp3 iops 3000 throughput 125"},
		{"VolumeType=gp3 Iops=3000 Throughput=750", "gp3 iops 3000 throughput 750"},
		{"VolumeType=gp3 Size=160 Iops=80000 Throughput=2000", "gp3 iops 80000 throughput 2000"},
		{"VolumeType=io1 Size=4 Iops=200", "io1 iops 200 throughput 0"},
		{"VolumeType=io2 Size=4 Iops=4000", "io2 iops 4000 throughput 0"},
		{"VolumeType=st1 Size=125", "st1 iops 0 throughput 0"},
		{"VolumeType=gp4", "UnknownVolumeType"},
		{"Size=", "MissingParameter"},
		{"Size=ten", "InvalidParameterValue"},
		{"Size=0", "InvalidParameterValue"},
		{"Size=16385", "InvalidParameterValue"},
		{"VolumeType=io1 Size=3 Iops=100", "InvalidParameterValue"},
		{"VolumeType=st1 Size=124", "InvalidParameterValue"},
		{"VolumeType=standard Size=1025", "InvalidParameterValue"},
		{"VolumeType=gp2 Iops=3000", "InvalidParameterCombination"},
		{"VolumeType=io1 Size=4", "MissingParameter"},
		{"VolumeType=gp3 Iops=2999", "InvalidParameterValue"},
		{"VolumeType=gp3 Iops=80001 Size=1000", "InvalidParameterValue"},
		{"VolumeType=gp3 Size=10 Iops=5001", "InvalidParameterValue"},
		{"VolumeType=gp3 Throughput=124", "InvalidParameterValue"},
		{"VolumeType=gp3 Throughput=2001 Iops=10000 Size=100", "InvalidParameterValue"},
		{"VolumeType=gp3 Throughput=751", "InvalidParameterValue"},
		{"VolumeType=io2 Size=4 Iops=100 Throughput=125", "InvalidParameterCombination"},
		{"VolumeType=gp3 MultiAttachEnabled=true", "InvalidParameterCombination"},
		{"AvailabilityZone=", "MissingParameter"},
		{"AvailabilityZoneId=us-sim-1-az1", "InvalidParameterCombination"},
		{"AvailabilityZone=us-sim-1d", "InvalidZone.NotFound"},
		{"KmsKeyId=k", "InvalidParameterDependency"},
		{"SnapshotId=snap-0123456789abcdef0", "InvalidSnapshot.NotFound"},
		{"Encrypted=maybe", "InvalidParameterValue"},
		{"ClientToken=" + strings.Repeat("x", 65), "InvalidParameterValue"},
	} {
		v, err := b.create(strings.Fields(c.fields)...)
		got := ""
		if api, ok := err.(*apiError); ok {
			got = api.Code
		} else if err == nil {
			got = fmt.Sprintf("%s iops %d throughput %d", v.Type, v.IOPS, v.Throughput)
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.fields, got, err, c.want)
		}
	}
}

func TestTheAccountsQuotasAreKept(t *testing.T) {
	b := newBench(t)
	b.SetLimits(Limits{Volumes: 2, IOPS: 500})
	if _, err := b.create("VolumeType=io1", "Size=20", "Iops=501"); err == nil || err.(*apiError).Code != "MaxIOPSLimitExceeded" {
		t.Errorf("501 of 500 IOPS: %v", err)
	}
	if _, err := b.create("ClientToken=t"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.create(); err != nil {
		t.Fatal(err)
	}
	for _, fields := range []string{"", "ClientToken=t"} { // EC2 checks the quota before the token.
		if _, err := b.create(strings.Fields(fields)...); err == nil || err.(*apiError).Code != "VolumeLimitExceeded" {
			t.Errorf("third of two volumes, %s: %v", fields, err)
		}
	}
}

func TestAClientTokenMakesOneVolume(t *testing.T) {
	b := newBench(t)
	first, err := b.create("ClientToken=t")
	if err != nil {
		t.Fatal(err)
	}
	b.becomes(first.ID, "available")
	again, err := b.create("ClientToken=t")
	if err != nil || again.ID != first.ID || again.State != "available" {
		t.Fatalf("the same request: %+v, %v; want %s as it is now", again, err, first.ID)
	}
	if _, err := b.create("ClientToken=t", "Size=2"); err == nil || !strings.Contains(err.Error(), "IdempotentParameterMismatch: The client token provided is inconsistent") {
		t.Errorf("other parameters: %v", err)
	}
	if _, err := b.ec2.DeleteVolume(within(t, time.Minute), &ec2.DeleteVolumeInput{VolumeId: &first.ID}); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{false, true} {
		if gone {
			b.becomes(first.ID, "gone")
		}
		for _, size := range []string{"1", "2"} {
			if _, err := b.create("ClientToken=t", "Size="+size); err == nil || !strings.Contains(err.Error(), "associated with a resource that is already deleted") {
				t.Errorf("after deletion (gone: %v), size %s: %v", gone, size, err)
			}
		}
	}
	b.mu.Lock()
	b.now = func() time.Time { return time.Now().Add(tokenLife + time.Minute) }
	b.mu.Unlock()
	if other, err := b.create("ClientToken=t", "Size=2"); err != nil || other.ID == first.ID {
		t.Errorf("after 12 hours: %+v, %v", other, err)
	}
}

func TestAVolumeWithABadKeyIsCreatedAndThenVanishes(t *testing.T) {
	b := newBench(t)
	l := b.Limits()
	l.BadKMSKeys = []string{"0000-1111"}
	b.SetLimits(l)
	good, err := b.create("Encrypted=true", "KmsKeyId=alias/mine")
	if err != nil || good.KMSKeyID != "arn:aws:kms:us-sim-1:123456789012:alias/mine" {
		t.Fatal(good, err)
	}
	for n, key := range []string{"0000-1111", "key-is-bad", "arn:aws:kms:us-sim-1:123456789012:key/0000-1111"} {
		v, err := b.create("Encrypted=true", "KmsKeyId="+key, "ClientToken="+itoa(int64(n)))
		if err != nil || v.State != "creating" {
			t.Fatal(v, err)
		}
		b.becomes(v.ID, "gone")
		if _, err := b.create("Encrypted=true", "KmsKeyId="+key, "ClientToken="+itoa(int64(n))); err == nil || !strings.Contains(err.Error(), "already deleted") {
			t.Errorf("again with the same token: %v", err)
		}
	}
	b.becomes(good.ID, "available")
}

func TestADryRunDoesNothing(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	ctx := within(t, time.Minute)
	yes := aws.Bool(true)
	before := b.state(id)
	_, err := b.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{DryRun: yes, AvailabilityZone: aws.String(zoneA), Size: aws.Int32(1)})
	if code(err) != "DryRunOperation" {
		t.Error(err)
	}
	_, err = b.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{DryRun: yes, AvailabilityZone: aws.String(zoneA), Size: aws.Int32(1), VolumeType: "io1", Iops: aws.Int32(1)})
	if code(err) != "InvalidParameterValue" {
		t.Errorf("errors in parameters come first: %v", err)
	}
	_, err = b.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{DryRun: yes, VolumeId: &id, InstanceId: aws.String(hostA), Device: aws.String("/dev/xvdf")})
	if code(err) != "DryRunOperation" {
		t.Error(err)
	}
	_, err = b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{DryRun: yes, VolumeId: &id})
	if code(err) != "DryRunOperation" {
		t.Error(err)
	}
	_, err = b.ec2.CreateTags(ctx, &ec2.CreateTagsInput{DryRun: yes, Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
	if code(err) != "DryRunOperation" {
		t.Error(err)
	}
	out, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
	if err != nil || len(out.Volumes) != 1 || len(out.Volumes[0].Tags) != 0 || b.state(id) != before {
		t.Errorf("after dry runs: %+v, %v", out, err)
	}
}

func ids(volumes []types.Volume) []string {
	var out []string
	for _, v := range volumes {
		out = append(out, *v.VolumeId)
	}
	return out
}

func TestPagesHoldEveryVolumeOnce(t *testing.T) {
	b := newBench(t)
	want := []string{}
	for range 12 {
		want = append(want, b.volume())
	}
	slices.Sort(want)
	ctx := within(t, time.Minute)
	var got []string
	pages := ec2.NewDescribeVolumesPaginator(b.ec2, &ec2.DescribeVolumesInput{MaxResults: aws.Int32(5)})
	count := 0
	for ; pages.HasMorePages(); count++ {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ids(page.Volumes)...)
	}
	slices.Sort(got)
	if count != 3 || !slices.Equal(got, want) {
		t.Errorf("%d pages: %v, want %v", count, got, want)
	}
	l := b.Limits()
	l.PageSize = 7
	b.SetLimits(l)
	out, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
	if err != nil || len(out.Volumes) != 7 || out.NextToken == nil {
		t.Errorf("with pages of 7, unasked: %d, %v", len(out.Volumes), err)
	}
	tampered := []byte(*out.NextToken)
	tampered[3] ^= 1
	for token, want := range map[string]string{"abc": "InvalidPaginationToken", string(tampered): "InvalidPaginationToken"} {
		if _, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{NextToken: aws.String(token)}); code(err) != want {
			t.Errorf("token %q: %v", token, err)
		}
	}
	if _, err := b.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{NextToken: out.NextToken}); code(err) != "InvalidPaginationToken" {
		t.Errorf("a token of another action: %v", err)
	}
	for _, n := range []int32{4, 1001} {
		if _, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{MaxResults: aws.Int32(n)}); code(err) != "InvalidParameterValue" {
			t.Errorf("MaxResults %d: %v", n, err)
		}
	}
	if _, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{MaxResults: aws.Int32(5), VolumeIds: want[:1]}); code(err) != "InvalidParameterCombination" {
		t.Errorf("IDs and MaxResults: %v", err)
	}
}

func TestOneMissingVolumeFailsTheWholeDescribe(t *testing.T) {
	b := newBench(t)
	id, missing := b.volume(), "vol-0123456789abcdef0"
	ctx := within(t, time.Minute)
	_, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id, missing}})
	if code(err) != "InvalidVolume.NotFound" || !strings.Contains(err.Error(), "The volume '"+missing+"' does not exist.") {
		t.Errorf("one of two is missing: %v", err)
	}
	_, err = b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{missing, "vol-0123456789abcdef1"}})
	if code(err) != "InvalidVolume.NotFound" || !strings.Contains(err.Error(), missing+", vol-0123456789abcdef1") {
		t.Errorf("two are missing: %v", err)
	}
	out, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("volume-id"), Values: []string{missing}}}})
	if err != nil || len(out.Volumes) != 0 {
		t.Errorf("by filter: %v, %v", out, err)
	}
}

func TestResultsComeInNoOrder(t *testing.T) {
	b := newBench(t)
	for range 8 {
		b.volume()
	}
	orders := map[string]bool{}
	for range 20 {
		out, err := b.ec2.DescribeVolumes(within(t, time.Minute), &ec2.DescribeVolumesInput{})
		if err != nil {
			t.Fatal(err)
		}
		orders[strings.Join(ids(out.Volumes), " ")] = true
	}
	if len(orders) < 2 {
		t.Error("20 answers had the same order")
	}
}

func TestADescribeLagsBehindWhenTold(t *testing.T) {
	b := newBench(t)
	b.SetDelays(Delays{Visible: 1500 * time.Millisecond})
	ctx := within(t, time.Minute)
	id := b.volume()
	visible := func() error {
		_, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
		return err
	}
	if err := visible(); code(err) != "InvalidVolume.NotFound" {
		t.Fatalf("a new volume is seen at once: %v", err)
	}
	eventually(t, "the volume shows", func() bool { return visible() == nil })
	tag(t, ctx, b, id, "a", "1")
	out, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil || len(out.Volumes[0].Tags) != 0 {
		t.Errorf("a new tag is seen at once: %+v, %v", out, err)
	}
	if _, err := b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
		t.Fatal(err)
	}
	b.becomes(id, "gone")
	if err := visible(); err != nil {
		t.Errorf("a deleted volume is missing at once: %v", err)
	}
	eventually(t, "the volume is gone", func() bool { return code(visible()) == "InvalidVolume.NotFound" })
}

func tag(t *testing.T, ctx context.Context, b *bench, id, key, value string) {
	t.Helper()
	if _, err := b.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: &key, Value: &value}}}); err != nil {
		t.Fatal(err)
	}
}

func TestTagsAreChangedAndLimited(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	ctx := within(t, time.Minute)
	tag(t, ctx, b, id, "a", "1")
	tag(t, ctx, b, id, "a", "2")
	tag(t, ctx, b, id, "b", "")
	now := func() map[string]string {
		out, err := b.ec2.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{{Name: aws.String("resource-id"), Values: []string{id}}}})
		if err != nil {
			t.Fatal(err)
		}
		tags := map[string]string{}
		for _, tag := range out.Tags {
			tags[*tag.Key] = *tag.Value
		}
		return tags
	}
	if got := fmt.Sprint(now()); got != "map[a:2 b:]" {
		t.Errorf("tags are %s", got)
	}
	remove := func(tags ...types.Tag) {
		if _, err := b.ec2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: tags}); err != nil {
			t.Fatal(err)
		}
	}
	remove(types.Tag{Key: aws.String("a"), Value: aws.String("1")})
	if got := fmt.Sprint(now()); got != "map[a:2 b:]" {
		t.Errorf("deleted a tag that has another value: %s", got)
	}
	remove(types.Tag{Key: aws.String("a")})
	if got := fmt.Sprint(now()); got != "map[b:]" {
		t.Errorf("tags are %s", got)
	}
	long := strings.Repeat("\u00fc", 128)
	tag(t, ctx, b, id, long, long+long)
	for n := range 48 {
		tag(t, ctx, b, id, fmt.Sprint(n), "")
	}
	for _, c := range []struct{ id, key, value, want string }{
		{id, "51st", "", "TagLimitExceeded"},
		{id, long + "x", "", "InvalidParameterValue"},
		{id, "k", long + long + "x", "InvalidParameterValue"},
		{id, "aws:k", "", "InvalidParameterValue"},
		{id, "", "", "InvalidParameterValue"},
		{"vol-0123456789abcdef0", "k", "", "InvalidVolume.NotFound"},
		{"disk", "k", "", "InvalidID"},
	} {
		_, err := b.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{c.id}, Tags: []types.Tag{{Key: &c.key, Value: &c.value}}})
		if code(err) != c.want {
			t.Errorf("tag %s with %.10q: %v, want %s", c.id, c.key, err, c.want)
		}
	}
	remove()
	if got := now(); len(got) != 0 {
		t.Errorf("after deleting all: %v", got)
	}
}

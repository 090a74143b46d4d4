package ec2sim

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

const anySignature = "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-sim-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"

// post sends a form with an Authorization header and returns status, error code and request ID of the answer.
func (b *bench) post(authorization string, fields ...string) (status int, code, requestID string) {
	b.t.Helper()
	form := url.Values{}
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		form.Set(key, value)
	}
	r, err := http.NewRequestWithContext(within(b.t, 10*time.Second), http.MethodPost, b.url, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var parsed struct {
		XMLName xml.Name
		Code    string `xml:"Errors>Error>Code"`
		Upper   string `xml:"RequestID"`
		Lower   string `xml:"requestId"`
	}
	if err := xml.Unmarshal(raw, &parsed); err != nil {
		b.t.Fatalf("%v in %s", err, raw)
	}
	return answer.StatusCode, parsed.Code, parsed.Upper + parsed.Lower
}

func TestRequestsThatAreNoEC2CallsAreRefused(t *testing.T) {
	b := newBench(t)
	const version = "Version=2016-11-15"
	for _, c := range []struct {
		authorization string
		fields        string
		status        int
		code          string
	}{
		{anySignature, "Action=DescribeVolumes " + version, 200, ""},
		{"", "Action=DescribeVolumes " + version, 403, "MissingAuthenticationToken"},
		{"Bearer x", "Action=DescribeVolumes " + version, 400, "IncompleteSignature"},
		{strings.Replace(anySignature, "us-sim-1", "us-east-1", 1), "Action=DescribeVolumes " + version, 401, "AuthFailure"},
		{anySignature, version, 400, "MissingAction"},
		{anySignature, "Action=DescribeMoons " + version, 400, "InvalidAction"},
		{anySignature, "Action=DescribeVolumes", 400, "MissingParameter"},
		{anySignature, "Action=DescribeVolumes Version=2012-01-01", 400, "InvalidParameterValue"},
		{anySignature, "Action=DescribeVolumes Volumes.1=x " + version, 400, "UnknownParameter"},
		{anySignature, "Action=DescribeVolumes DryRun=perhaps " + version, 400, "InvalidParameterValue"},
		{anySignature, "Action=AttachVolume VolumeId=vol-0123456789abcdef0 " + version, 400, "MissingParameter"},
		{anySignature, "Action=DescribeVolumes VolumeId.1=vol-0123456789ABCDEF0 " + version, 400, "InvalidVolumeID.Malformed"},
	} {
		status, code, id := b.post(c.authorization, strings.Fields(c.fields)...)
		if status != c.status || code != c.code || len(id) != 36 {
			t.Errorf("%s: %d %s, request ID %q; want %d %s", c.fields, status, code, id, c.status, c.code)
		}
	}
}

func TestKeysAndActionsCanBeDenied(t *testing.T) {
	b := newBench(t)
	l := b.Limits()
	l.AccessKeys = map[string]string{"AKIAGOOD": "right"}
	l.DeniedKeys = []string{"AKIADENIED"}
	l.DeniedActions = []string{"DeleteVolume"}
	b.SetLimits(l)
	id := b.volume()
	for _, c := range []struct{ key, secret, want string }{
		{"AKIAGOOD", "right", ""}, {"AKIAGOOD", "wrong", "AuthFailure"}, {"AKIAOTHER", "right", "AuthFailure"}, {"AKIADENIED", "right", "AuthFailure"},
		{roleKey(hostA), "simulated", ""},
	} {
		_, err := client(b.url, c.key, c.secret).DescribeVolumes(within(t, time.Minute), &ec2.DescribeVolumesInput{
			Filters: []types.Filter{{Name: aws.String("tag:Name"), Values: []string{"a b/c~*+%"}}},
		})
		if (err == nil) != (c.want == "") || (err != nil && code(err) != c.want) {
			t.Errorf("key %s, secret %s: %v, want %q", c.key, c.secret, err, c.want)
		}
	}
	_, err := client(b.url, "AKIAGOOD", "right").DeleteVolume(within(t, time.Minute), &ec2.DeleteVolumeInput{VolumeId: &id})
	if code(err) != "UnauthorizedOperation" || !strings.Contains(err.Error(), "Encoded authorization failure message: ") || b.state(id) != "available" {
		t.Errorf("denied action: %v; the volume is %s", err, b.state(id))
	}
}

func TestTooManyCallsAreThrottledPerAction(t *testing.T) {
	b := newBench(t)
	l := b.Limits()
	l.Throttle = map[string]Rate{"DescribeVolumes": {Burst: 3, PerSecond: 0.001}} // however long the five take
	b.SetLimits(l)
	ctx := within(t, time.Minute)
	var codes []string
	for range 5 {
		_, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
		if err != nil {
			codes = append(codes, code(err))
		}
	}
	if len(codes) == 0 || codes[0] != "RequestLimitExceeded" {
		t.Errorf("5 calls at once with a burst of 3: %v", codes)
	}
	if _, err := b.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{}); err != nil {
		t.Errorf("another action has another bucket: %v", err)
	}
	l.Throttle["DescribeVolumes"] = Rate{Burst: 3, PerSecond: 20}
	b.SetLimits(l)
	patient := ec2.New(b.ec2.Options(), func(o *ec2.Options) { o.RetryMaxAttempts = 10 })
	for range 5 {
		if _, err := patient.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{}); err != nil {
			t.Errorf("the SDK retries a throttled call: %v", err)
		}
	}
}

func TestInstancesAndTheirTypesAreDescribed(t *testing.T) {
	b := newBench(t)
	if _, err := b.AddInstance(Instance{ID: "i-0cccccccccccccccc", Type: "t2.micro", Zone: "us-sim-1c", State: StateStopped, Tags: map[string]string{"Name": "old"}}); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Minute)
	id := b.volume()
	b.attached(id, hostA, "/dev/xvdf")
	out, err := b.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{hostA}})
	if err != nil {
		t.Fatal(err)
	}
	i := out.Reservations[0].Instances[0]
	if *i.InstanceId != hostA || i.State.Name != "running" || *i.State.Code != 16 || *i.Placement.AvailabilityZone != zoneA || len(i.BlockDeviceMappings) != 1 ||
		*i.BlockDeviceMappings[0].Ebs.VolumeId != id || *i.BlockDeviceMappings[0].DeviceName != "/dev/xvdf" || i.BlockDeviceMappings[0].Ebs.Status != "attached" {
		t.Errorf("%+v", i)
	}
	for name, value := range map[string]string{"instance-state-name": "stopped", "tag:Name": "ol?", "availability-zone": "*c", "instance-type": "t2.*"} {
		out, err := b.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: &name, Values: []string{value}}}})
		if err != nil || len(out.Reservations) != 1 || *out.Reservations[0].Instances[0].InstanceId != "i-0cccccccccccccccc" {
			t.Errorf("filter %s=%s: %+v, %v", name, value, out, err)
		}
	}
	status, err := b.ec2.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{})
	if err != nil || len(status.InstanceStatuses) != 2 || status.InstanceStatuses[0].SystemStatus.Status != "ok" {
		t.Errorf("%+v, %v", status, err)
	}
	every, err := b.ec2.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{IncludeAllInstances: aws.Bool(true)})
	if err != nil || len(every.InstanceStatuses) != 3 {
		t.Errorf("%+v, %v", every, err)
	}
	kinds, err := b.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"m5.large", "m7i.large", "t2.micro"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds.InstanceTypes {
		want := map[types.InstanceType]string{"m5.large": "nitro 27 shared", "m7i.large": "nitro 32 dedicated", "t2.micro": "xen 39 dedicated"}[k.InstanceType]
		if got := string(k.Hypervisor) + " " + itoa(int64(*k.EbsInfo.MaximumEbsAttachments)) + " " + string(k.EbsInfo.AttachmentLimitType); got != want {
			t.Errorf("%s: %s, want %s", k.InstanceType, got, want)
		}
	}
	if _, err := b.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"m5.tiny"}}); code(err) != "InvalidInstanceType" {
		t.Error(err)
	}
	zones, err := b.ec2.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{ZoneNames: []string{"us-sim-1b"}})
	if err != nil || len(zones.AvailabilityZones) != 1 || *zones.AvailabilityZones[0].ZoneId != "us-sim-1-az2" {
		t.Errorf("%+v, %v", zones, err)
	}
}

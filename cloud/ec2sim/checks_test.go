package ec2sim

import (
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func (b *bench) statuses(in *ec2.DescribeInstanceStatusInput) map[string]types.InstanceStatus {
	b.t.Helper()
	out, err := b.ec2.DescribeInstanceStatus(within(b.t, 10*time.Second), in)
	must(b.t, err)
	found := map[string]types.InstanceStatus{}
	for _, s := range out.InstanceStatuses {
		found[*s.InstanceId] = s
	}
	return found
}

func TestStatusChecksAreWhatTheyWereSetTo(t *testing.T) {
	b := newBench(t)
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	put := func(id string, change any) error {
		return steer(within(t, time.Minute), b.url, http.MethodPut, "/_sim/instances/"+id+"/status", change, nil)
	}
	must(t, put(hostA, StatusChange{Instance: CheckImpaired, AttachedEBS: CheckNoData, Since: since}))
	a := b.statuses(&ec2.DescribeInstanceStatusInput{})[hostA]
	d := a.InstanceStatus.Details
	if a.InstanceStatus.Status != "impaired" || len(d) != 1 || d[0].Name != "reachability" || d[0].Status != "failed" || !d[0].ImpairedSince.Equal(since) {
		t.Errorf("instance status %+v", a.InstanceStatus)
	}
	if s := a.SystemStatus; s.Status != "ok" || s.Details[0].Status != "passed" || s.Details[0].ImpairedSince != nil {
		t.Errorf("system status %+v", s)
	}
	if s := a.AttachedEbsStatus; s.Status != "insufficient-data" || s.Details[0].Status != "insufficient-data" {
		t.Errorf("status of attached EBS %+v", s)
	}
	must(t, put(hostA, StatusChange{Instance: CheckImpaired, AttachedEBS: CheckImpaired}))
	a = b.statuses(&ec2.DescribeInstanceStatusInput{InstanceIds: []string{hostA}})[hostA]
	if !a.InstanceStatus.Details[0].ImpairedSince.Equal(since) || time.Since(*a.AttachedEbsStatus.Details[0].ImpairedSince) > time.Minute {
		t.Errorf("since %v and %v", a.InstanceStatus.Details[0].ImpairedSince, a.AttachedEbsStatus.Details[0].ImpairedSince)
	}
	for name, value := range map[string]string{"instance-status.status": "impaired", "attached-ebs-status.reachability": "failed", "system-status.status": "ok"} {
		found := b.statuses(&ec2.DescribeInstanceStatusInput{Filters: []types.Filter{{Name: aws.String(name), Values: []string{value}}}})
		if _, ok := found[hostA]; !ok || (len(found) != 1) == (name != "system-status.status") {
			t.Errorf("%s=%s finds %v", name, value, found)
		}
	}
	for _, change := range []any{StatusChange{System: "broken"}, map[string]string{"sytem": "ok"}, StatusChange{System: CheckOK, Instance: "x"}} {
		if put(hostA, change) == nil {
			t.Errorf("%+v was taken", change)
		}
	}
	must(t, b.SetInstanceState(hostA, StateStopped))
	if put(hostA, StatusChange{System: CheckOK}) == nil {
		t.Error("a stopped host has status checks")
	}
	if _, shown := b.statuses(&ec2.DescribeInstanceStatusInput{InstanceIds: []string{hostA}})[hostA]; shown {
		t.Error("a stopped host is shown unasked")
	}
	a = b.statuses(&ec2.DescribeInstanceStatusInput{IncludeAllInstances: aws.Bool(true)})[hostA]
	if a.InstanceState.Name != "stopped" || a.InstanceStatus.Status != "not-applicable" || len(a.SystemStatus.Details) != 0 {
		t.Errorf("stopped: %+v", a)
	}
	d2 := quick
	d2.Checks = 200 * time.Millisecond
	b.SetDelays(d2)
	must(t, b.start(hostA))
	b.reaches(hostA, "running")
	seen := map[string]bool{}
	eventually(t, "ok after it was started", func() bool {
		s := b.statuses(&ec2.DescribeInstanceStatusInput{InstanceIds: []string{hostA}})[hostA].SystemStatus
		seen[string(s.Status)+" "+string(s.Details[0].Status)] = true
		return s.Status == "ok"
	})
	if !seen["initializing initializing"] || !seen["ok passed"] || len(seen) != 2 {
		t.Errorf("seen: %v", seen)
	}
}

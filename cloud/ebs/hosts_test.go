package ebs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestOnlyAHostThatCanWriteNoMoreIsDead(t *testing.T) {
	for _, c := range []struct {
		state        types.InstanceStateName
		reason       string
		hibernatable bool
		dead         bool
	}{
		{types.InstanceStateNameRunning, "", false, false},
		{types.InstanceStateNamePending, "", false, false},
		{types.InstanceStateNameStopping, "Client.UserInitiatedShutdown", false, false},
		{types.InstanceStateNameShuttingDown, "Client.UserInitiatedShutdown", false, false},
		{types.InstanceStateNameTerminated, "", false, true},
		{types.InstanceStateNameTerminated, "Client.UserInitiatedHibernate", true, true},
		{types.InstanceStateNameStopped, "", false, true},
		{types.InstanceStateNameStopped, "Client.UserInitiatedShutdown", false, true},
		{types.InstanceStateNameStopped, "Client.UserInitiatedShutdown", true, true},
		{types.InstanceStateNameStopped, "Client.InstanceInitiatedShutdown", true, true},
		{types.InstanceStateNameStopped, "Client.UserInitiatedHibernate", true, false},
		{types.InstanceStateNameStopped, "Server.SpotInstanceHibernation", false, false},
		{types.InstanceStateNameStopped, "", true, false},
		{types.InstanceStateNameStopped, "Server.ScheduledStop", true, false},
	} {
		i := types.Instance{State: &types.InstanceState{Name: c.state}, HibernationOptions: &types.HibernationOptions{Configured: aws.Bool(c.hibernatable)}}
		if c.reason != "" {
			i.StateReason = &types.StateReason{Code: aws.String(c.reason), Message: aws.String(c.reason + ": text")}
		}
		if got := toHostState("i-1", i).Dead(); got != c.dead {
			t.Errorf("%+v: dead is %v", c, got)
		}
	}
}

func TestAHostThatEC2DoesNotKnowProvesNothing(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	if _, err := c.HostState(t.Context(), "i-0123456789abcdef9"); err == nil {
		t.Error("an unknown instance has a state")
	}
	if _, err := c.HostState(t.Context(), "not-an-instance"); err == nil {
		t.Error("a malformed ID has a state")
	}
}

func TestTheHealthOfAHostIsToldWithItsTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	other := w.host(ec2sim.Instance{})
	h, err := c.HostHealth(t.Context(), other.ID)
	if err != nil || h.Power != cloud.Running || h.System.Status != cloud.CheckOK || h.Instance.Status != cloud.CheckOK || h.ImpairedFor() != 0 || h.NoStop != "" {
		t.Errorf("a healthy host: %+v, %v", h, err)
	}
	hour := time.Now().Add(-time.Hour)
	for _, c2 := range []struct {
		change ec2sim.StatusChange
		ill    bool
	}{
		{ec2sim.StatusChange{System: "impaired", Since: hour}, true},
		{ec2sim.StatusChange{System: "impaired", Instance: "initializing", Since: hour}, false},
		{ec2sim.StatusChange{System: "ok", Instance: "impaired", Since: hour}, true},
		{ec2sim.StatusChange{System: "insufficient-data", Instance: "impaired", Since: hour}, true},
		{ec2sim.StatusChange{System: "insufficient-data", Instance: "insufficient-data"}, false},
		{ec2sim.StatusChange{System: "ok", Instance: "ok", AttachedEBS: "impaired", Since: hour}, false},
	} {
		if err := w.SetInstanceStatus(other.ID, c2.change); err != nil {
			t.Fatal(err)
		}
		h, err := c.HostHealth(t.Context(), other.ID)
		if got := h.ImpairedFor(); err != nil || (got >= time.Hour-2*time.Second) != c2.ill || (got > 0) != c2.ill || got > 2*time.Hour {
			t.Errorf("%+v: impaired for %s, %v: %+v", c2.change, got, err, h)
		}
	}
	if err := w.SetInstanceState(other.ID, ec2sim.StateStopped); err != nil {
		t.Fatal(err)
	}
	if h, err := c.HostHealth(t.Context(), other.ID); err != nil || !h.Dead() || h.ImpairedFor() != 0 {
		t.Errorf("a stopped host: %+v, %v", h, err)
	}
	if _, err := c.HostHealth(t.Context(), "i-0123456789abcdef9"); err == nil {
		t.Error("an unknown instance has a health")
	}
}

// The host's own clock plays no part while EC2 tells the time.
func TestAWrongClockMakesNobodyIll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Now = func() time.Time { return time.Now().Add(48 * time.Hour) } })
	other := w.host(ec2sim.Instance{})
	if err := w.SetInstanceStatus(other.ID, ec2sim.StatusChange{System: "impaired"}); err != nil {
		t.Fatal(err)
	}
	if h, err := c.HostHealth(t.Context(), other.ID); err != nil || h.System.Status != cloud.CheckImpaired || h.ImpairedFor() > time.Hour {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWhatMustNotBeStoppedIsToldWithTheReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	for reason, i := range map[string]ec2sim.Instance{
		"Spot":                      {Spot: ec2sim.SpotPersistent},
		"instance store":            {Root: ec2sim.RootInstanceStore},
		"protected":                 {DisableAPIStop: true},
		"--no-disable-api-stop":     {DisableAPIStop: true},
		"aws ec2 modify-instance-a": {DisableAPIStop: true},
	} {
		if h, err := c.HostHealth(t.Context(), w.host(i).ID); err != nil || !strings.Contains(h.NoStop, reason) {
			t.Errorf("%+v: NoStop is %q, %v; want %q", i, h.NoStop, err, reason)
		}
	}
	// Who may not look learns it from EC2's refusal.
	w.inject(ec2sim.Fault{Kind: "error", Action: "DescribeInstanceAttribute", Code: "UnauthorizedOperation"})
	protected := w.host(ec2sim.Instance{DisableAPIStop: true})
	if h, err := c.HostHealth(t.Context(), protected.ID); err != nil || h.NoStop != "" {
		t.Errorf("%+v, %v", h, err)
	}
	err := c.StopHost(t.Context(), protected.ID)
	if !errors.Is(err, cloud.ErrDenied) {
		t.Errorf("stopping it: %v", err)
	}
	contains(t, err, protected.ID, "protected")
}

func TestAStopIsAPlainOneAndNeverOfThisHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	self := w.host(ec2sim.Instance{})
	c := w.on(self)
	if err := c.StopHost(t.Context(), self.ID); err == nil {
		t.Error("it stopped itself")
	}
	if err := c.StopHost(t.Context(), "all"); err == nil {
		t.Error("a malformed ID was sent")
	}
	other := w.host(ec2sim.Instance{Hibernation: true})
	w.inject(ec2sim.Fault{Kind: "error", Action: "StopInstances", Code: "UnauthorizedOperation"})
	contains(t, c.StopHost(t.Context(), other.ID), "ec2:StopInstances", "docs/iam-fencing.json", other.ID)
	w.ResetCalls()
	for range 2 { // a second one is success, too
		if err := c.StopHost(t.Context(), other.ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, call := range w.Calls() {
		if call.Action != "StopInstances" || call.Params["Hibernate"] != "" || call.Params["Force"] != "" || call.Params["InstanceId.1"] != other.ID {
			t.Errorf("sent %s %v", call.Action, call.Params)
		}
	}
}

func TestOnlyAForcedDetachIsForced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	holder := w.host(ec2sim.Instance{})
	there, c := w.on(holder), w.client()
	for _, forced := range []bool{false, true} {
		v := w.create(there, "v")
		w.attach(there, v)
		w.ResetCalls()
		detach := c.DetachFrom
		if forced {
			detach = c.ForceDetach
		}
		if err := detach(t.Context(), v.ID, holder.ID); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, call := range w.Calls() {
			if call.Action == "DetachVolume" {
				n++
				if call.Params["InstanceId"] != holder.ID || (call.Params["Force"] == "true") != forced {
					t.Errorf("forced %v: sent %v", forced, call.Params)
				}
			}
		}
		if n != 1 {
			t.Errorf("forced %v: %d calls", forced, n)
		}
		eventually(t, "it is free", func() bool { state, _ := w.rawState(v.ID); return state == "available" })
		if err := there.Delete(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
	foreign := w.foreign(map[string]string{tagCluster: "another", tagName: "v", tagSchema: "1"})
	if err := c.ForceDetach(t.Context(), foreign, holder.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("a volume of another cluster: %v", err)
	}
}

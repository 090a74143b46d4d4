package ebs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// HostState tells what became of another instance. One that EC2 does not know is an error: InvalidInstanceID.NotFound may be a stale or
// mistaken answer, and proves nothing.
func (c *Client) HostState(ctx context.Context, host string) (cloud.HostState, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	state, err := c.hostState(ctx, host)
	if err != nil {
		return cloud.HostState{}, c.explain("look up instance "+host, ref{}, err)
	}
	return state, nil
}

func (c *Client) hostState(ctx context.Context, host string) (cloud.HostState, error) {
	i, err := c.describeHost(ctx, host)
	if err != nil {
		return cloud.HostState{}, err
	}
	return toHostState(host, i), nil
}

func (c *Client) describeHost(ctx context.Context, host string) (types.Instance, error) {
	if !instanceID.MatchString(host) {
		return types.Instance{}, cloud.Errorf(cloud.ErrInvalid, "%q is no instance ID", host)
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return types.Instance{}, err
	}
	out, err := invoke(ctx, c, "DescribeInstances", ec2api.DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{host}})
	if err != nil {
		return types.Instance{}, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if aws.ToString(i.InstanceId) == host && i.State != nil {
				return i, nil
			}
		}
	}
	return types.Instance{}, cloud.Errorf(cloud.ErrUnavailable, "EC2 did not show the instance %s", host)
}

// plainStops are the reasons of a stop that keeps no memory [EC2 names them in StateReason; a hibernation says Client.UserInitiatedHibernate].
var plainStops = map[string]bool{"Client.UserInitiatedShutdown": true, "Client.InstanceInitiatedShutdown": true}

func toHostState(host string, i types.Instance) cloud.HostState {
	h := cloud.HostState{ID: host, Power: cloud.Power(i.State.Name)}
	code := ""
	if i.StateReason != nil {
		code = aws.ToString(i.StateReason.Code)
		h.Reason = aws.ToString(i.StateReason.Message)
	}
	if h.Reason == "" {
		h.Reason = aws.ToString(i.StateTransitionReason)
	}
	configured := i.HibernationOptions != nil && aws.ToBool(i.HibernationOptions.Configured)
	// Where hibernation is possible, only a reason that rules it out is believed.
	h.Hibernated = h.Power == cloud.Stopped && (strings.Contains(strings.ToLower(code), "hibernat") || configured && !plainStops[code])
	return h
}

// HostHealth tells what became of another instance, what EC2's status checks say of it, and what is known against stopping it.
func (c *Client) HostHealth(ctx context.Context, host string) (cloud.HostHealth, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	health, err := c.hostHealth(ctx, host)
	if err != nil {
		return cloud.HostHealth{}, c.explain("look up the status checks of instance "+host, ref{}, err)
	}
	return health, nil
}

func (c *Client) hostHealth(ctx context.Context, host string) (cloud.HostHealth, error) {
	i, err := c.describeHost(ctx, host)
	if err != nil {
		return cloud.HostHealth{}, err
	}
	h := cloud.HostHealth{HostState: toHostState(host, i)}
	if h.Power != cloud.Running {
		return h, nil
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.HostHealth{}, err
	}
	out, err := invoke(ctx, c, "DescribeInstanceStatus", ec2api.DescribeInstanceStatus, &ec2.DescribeInstanceStatusInput{InstanceIds: []string{host}})
	if err != nil {
		return cloud.HostHealth{}, err
	}
	now, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	if !ok { // the clock of a host that is about to have another one stopped may be wrong; EC2's is asked first
		now = c.now()
	}
	for _, s := range out.InstanceStatuses {
		if aws.ToString(s.InstanceId) == host {
			h.System, h.Instance = toCheck(s.SystemStatus, now), toCheck(s.InstanceStatus, now)
		}
	}
	h.NoStop, err = c.noStop(ctx, host, i)
	return h, err
}

// toCheck translates a status check: the time since when it fails is that of its first failing detail.
func toCheck(s *types.InstanceStatusSummary, now time.Time) cloud.Check {
	if s == nil {
		return cloud.Check{}
	}
	c := cloud.Check{Status: string(s.Status)}
	for _, d := range s.Details {
		if since := aws.ToTime(d.ImpairedSince); !since.IsZero() && (c.Since.IsZero() || since.Before(c.Since)) {
			c.Since = since
		}
	}
	if c.Status != cloud.CheckImpaired {
		c.Since = time.Time{}
	}
	if !c.Since.IsZero() {
		c.For = max(now.Sub(c.Since), 0)
	}
	return c
}

// noStop tells why an instance must not be stopped. Whether it is protected may be hidden from our role; StopInstances refuses then.
func (c *Client) noStop(ctx context.Context, host string, i types.Instance) (string, error) {
	switch {
	case i.InstanceLifecycle == types.InstanceLifecycleTypeSpot:
		return "it is a Spot instance: blockvol stops none, because EC2 can stop only some of them; terminate it", nil
	case i.RootDeviceType != types.DeviceTypeEbs:
		return "its root device is an instance store: it cannot be stopped, only terminated, which loses that disk", nil
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return "", err
	}
	out, err := invoke(ctx, c, "DescribeInstanceAttribute", ec2api.DescribeInstanceAttribute,
		&ec2.DescribeInstanceAttributeInput{InstanceId: aws.String(host), Attribute: types.InstanceAttributeNameDisableApiStop})
	switch {
	case hasCode(err, "UnauthorizedOperation", "AccessDenied"):
		return "", nil
	case err != nil:
		return "", err
	case out.DisableApiStop != nil && aws.ToBool(out.DisableApiStop.Value):
		return stopProtected(host), nil
	}
	return "", nil
}

func stopProtected(host string) string {
	return "it is protected from being stopped: aws ec2 modify-instance-attribute --instance-id " + host + " --no-disable-api-stop takes the protection away"
}

// StopHost asks EC2 to stop another instance: an ordinary stop, which lets its system shut down and, if it does not, cuts its power after
// some minutes. Never a hibernation, which would keep its mounts alive.
func (c *Client) StopHost(ctx context.Context, host string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("stop instance "+host, ref{}, c.stopHost(ctx, host))
}

func (c *Client) stopHost(ctx context.Context, host string) error {
	if !instanceID.MatchString(host) {
		return cloud.Errorf(cloud.ErrInvalid, "%q is no instance ID", host)
	}
	self, err := c.Host(ctx)
	if err != nil {
		return err
	}
	if self.ID == host {
		return cloud.Errorf(cloud.ErrInvalid, "%s is this host: it does not stop itself", host)
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	_, err = invoke(ctx, c, "StopInstances", ec2api.StopInstances, &ec2.StopInstancesInput{InstanceIds: []string{host}})
	switch {
	case hasCode(err, "OperationNotPermitted"):
		return &cloud.Error{Kind: cloud.ErrDenied, Text: fmt.Sprintf("EC2 does not stop %s: %s", host, stopProtected(host)), Cause: err}
	case hasCode(err, "UnauthorizedOperation", "AccessDenied"):
		return &cloud.Error{Kind: cloud.ErrDenied, Cause: err, Text: fmt.Sprintf("AWS does not let blockvol stop %s: its role needs ec2:StopInstances, and the instance the tag that the role's "+
			"policy asks for (docs/iam-fencing.json; docs/iam.md)", host)}
	}
	return err
}

// ForceDetach asks EC2 to detach the volume from an instance by force.
func (c *Client) ForceDetach(ctx context.Context, id, host string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain(fmt.Sprintf("detach by force (from %s)", host), c.refer(id), c.detachFrom(ctx, id, host, true))
}

// DetachFrom asks EC2 to detach the volume from another instance, without force.
func (c *Client) DetachFrom(ctx context.Context, id, host string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain(fmt.Sprintf("detach (from %s)", host), c.refer(id), c.detachFrom(ctx, id, host, false))
}

func (c *Client) detachFrom(ctx context.Context, id, host string, force bool) error {
	// What another host holds is taken only if it was seen with our tags just now.
	if err := c.prove(ctx, id, c.known.proven(id, c.timing.Proof)); err != nil {
		return err
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	in := &ec2.DetachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(host)}
	if force {
		in.Force = aws.Bool(true)
	}
	_, err = invoke(ctx, c, "DetachVolume", ec2api.DetachVolume, in)
	if hasCode(err, "InvalidAttachment.NotFound", "IncorrectState") {
		// It is leaving or has left; the caller looks until it has.
		return nil
	}
	return err
}

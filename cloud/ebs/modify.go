package ebs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// Modify asks EC2 to change a volume's form in one ModifyVolume. EC2 counts modifications that change nothing, so what the volume has already is
// not sent.
func (c *Client) Modify(ctx context.Context, id string, change cloud.Form) (cloud.Modification, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	m, err := c.modify(ctx, id, change)
	if err != nil {
		return cloud.Modification{}, c.explain("modify", c.refer(id), err)
	}
	return m, nil
}

func (c *Client) modify(ctx context.Context, id string, change cloud.Form) (cloud.Modification, error) {
	v, err := c.lookByID(ctx, id)
	if err != nil {
		return cloud.Modification{}, err
	}
	if v.Newer != nil {
		return cloud.Modification{}, v.Newer
	}
	in, err := modifyInput(v, change)
	if err != nil {
		return cloud.Modification{}, err
	}
	if in == nil {
		return c.lastModification(ctx, id)
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Modification{}, err
	}
	var out *ec2.ModifyVolumeOutput
	err = c.throughWindow(ctx, id, func() (err error) {
		out, err = invoke(ctx, c, "ModifyVolume", ec2api.ModifyVolume, in)
		return err
	}, "InvalidVolume.NotFound")
	switch {
	case err == nil && out.VolumeModification != nil:
		return toModification(*out.VolumeModification), nil
	case err == nil:
		return c.lastModification(ctx, id)
	case !hasCode(err, "IncorrectModificationState", "VolumeModificationRateExceeded"):
		return cloud.Modification{}, err
	}
	last, lookErr := c.lastModification(ctx, id)
	if lookErr != nil {
		return cloud.Modification{}, err
	}
	unfinished := last.State == cloud.ModifyModifying || last.State == cloud.ModifyOptimizing
	if unfinished && reaches(last.To, change) {
		return last, nil // an earlier call asked for the same; perhaps this one, and its answer was lost
	}
	tooSoon := &cloud.TooSoonError{Volume: v.Name, ID: id, Last: last, Cause: err}
	if hasCode(err, "VolumeModificationRateExceeded") || !unfinished {
		_, message := apiCode(err)
		tooSoon.Next = nextModification(message, last.Started)
	}
	return cloud.Modification{}, tooSoon
}

// modifyInput is the request for what the volume does not have yet, or nil.
func modifyInput(v cloud.Volume, change cloud.Form) (*ec2.ModifyVolumeInput, error) {
	bad := func(format string, args ...any) error {
		return cloud.Errorf(cloud.ErrInvalid, "cannot modify volume %q (%s): %s", v.Name, v.ID, fmt.Sprintf(format, args...))
	}
	for _, n := range []int64{change.SizeGiB, change.IOPS, change.Throughput} {
		if n < 0 || n > math.MaxInt32 {
			return nil, bad("%d is impossible", n)
		}
	}
	if change.SizeGiB != 0 && change.SizeGiB < v.SizeGiB {
		return nil, bad("it has %d GiB, and an EBS volume can only grow; to get one of %d GiB, create a new volume and copy the files", v.SizeGiB, change.SizeGiB)
	}
	in := &ec2.ModifyVolumeInput{VolumeId: aws.String(v.ID)}
	other := change.Type != "" && change.Type != v.Type
	nothing := true
	if change.SizeGiB > v.SizeGiB {
		in.Size, nothing = aws.Int32(int32(change.SizeGiB)), false
	}
	if other {
		in.VolumeType, nothing = types.VolumeType(change.Type), false
	}
	if change.IOPS != 0 && (other || change.IOPS != v.IOPS) {
		in.Iops, nothing = aws.Int32(int32(change.IOPS)), false
	}
	if change.Throughput != 0 && (other || change.Throughput != v.Throughput) {
		in.Throughput, nothing = aws.Int32(int32(change.Throughput)), false
	}
	if nothing {
		return nil, nil
	}
	return in, nil
}

// reaches reports whether a form has all that a change asks for.
func reaches(f, change cloud.Form) bool {
	same := func(has, wanted int64) bool { return wanted == 0 || has == wanted }
	return same(f.SizeGiB, change.SizeGiB) && same(f.IOPS, change.IOPS) && same(f.Throughput, change.Throughput) && (change.Type == "" || f.Type == change.Type)
}

var timeInMessage = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)

const (
	// modificationWindow is the time in which EC2 allows four modifications of one volume [facts of the ModifyVolume documentation of 2026].
	modificationWindow = 24 * time.Hour
	// formerPause is what EC2 asked for between two modifications before that; its old message is still met.
	formerPause = 6 * time.Hour
)

var formerMessage = regexp.MustCompile(`(?i)at least 6 hours`)

// nextModification is the time from which EC2 takes the next modification: as its message tells it, or at the latest.
func nextModification(message string, last time.Time) time.Time {
	if text := timeInMessage.FindString(message); text != "" {
		if told, err := time.Parse(time.RFC3339, text); err == nil {
			return told
		}
	}
	if last.IsZero() {
		return time.Time{}
	}
	if formerMessage.MatchString(message) {
		return last.Add(formerPause)
	}
	return last.Add(modificationWindow)
}

// LastModification returns the volume's latest modification.
func (c *Client) LastModification(ctx context.Context, id string) (cloud.Modification, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	m, err := c.ourModification(ctx, id)
	if err != nil {
		return cloud.Modification{}, c.explain("look up the modification of", c.refer(id), err)
	}
	return m, nil
}

func (c *Client) ourModification(ctx context.Context, id string) (cloud.Modification, error) {
	if !c.known.proven(id, 0) {
		if _, err := c.lookByID(ctx, id); err != nil {
			return cloud.Modification{}, err
		}
	}
	return c.lastModification(ctx, id)
}

// lastModification asks by filter: by ID a volume that was never modified is an error.
func (c *Client) lastModification(ctx context.Context, id string) (cloud.Modification, error) {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Modification{}, err
	}
	out, err := invoke(ctx, c, "DescribeVolumesModifications", ec2api.DescribeVolumesModifications,
		&ec2.DescribeVolumesModificationsInput{Filters: []types.Filter{filter("volume-id", id)}})
	if hasCode(err, "InvalidVolumeModification.NotFound") {
		return cloud.Modification{}, nil
	}
	if err != nil {
		return cloud.Modification{}, err
	}
	for _, m := range out.VolumesModifications {
		if aws.ToString(m.VolumeId) == id {
			return toModification(m), nil
		}
	}
	return cloud.Modification{}, nil
}

func toModification(m types.VolumeModification) cloud.Modification {
	return cloud.Modification{
		State:    cloud.ModifyState(m.ModificationState),
		Progress: int(aws.ToInt64(m.Progress)),
		From: cloud.Form{SizeGiB: int64(aws.ToInt32(m.OriginalSize)), Type: string(m.OriginalVolumeType), IOPS: int64(aws.ToInt32(m.OriginalIops)),
			Throughput: int64(aws.ToInt32(m.OriginalThroughput))},
		To: cloud.Form{SizeGiB: int64(aws.ToInt32(m.TargetSize)), Type: string(m.TargetVolumeType), IOPS: int64(aws.ToInt32(m.TargetIops)),
			Throughput: int64(aws.ToInt32(m.TargetThroughput))},
		Message: aws.ToString(m.StatusMessage),
		Started: aws.ToTime(m.StartTime),
		Ended:   aws.ToTime(m.EndTime),
	}
}

// WaitModified waits until the latest modification has taken effect.
func (c *Client) WaitModified(ctx context.Context, id string) (cloud.Modification, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	m, err := c.waitModified(ctx, id)
	if err != nil {
		return m, c.explain("wait for the modification of", c.refer(id), err)
	}
	return m, nil
}

func (c *Client) waitModified(ctx context.Context, id string) (cloud.Modification, error) {
	var none since
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		m, err := c.ourModification(ctx, id)
		switch {
		case err != nil && (ctx.Err() != nil || temporary(err)):
		case err != nil:
			return m, err
		case m.InEffect():
			return m, nil
		case m.State == cloud.ModifyFailed:
			reason := ""
			if m.Message != "" {
				reason = " (EC2: " + m.Message + ")"
			}
			return m, cloud.Errorf(cloud.ErrState, "%s was not modified: EC2 could not do it%s; it is as it was, and can be modified again", c.refer(id), reason)
		case none.held(m.State == cloud.ModifyNone, c.now(), c.timing.Vanish):
			return m, cloud.Errorf(cloud.ErrState, "%s has no modification to wait for", c.refer(id))
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			if m.State == cloud.ModifyNone {
				return m, errors.Join(err, sleepErr)
			}
			return m, &cloud.Error{Kind: cloud.ErrState, Cause: sleepErr, Text: fmt.Sprintf(
				"%s is still %s: EC2 goes on with it, and the volume has its new form when that is over", c.refer(id), m.State)}
		}
	}
}

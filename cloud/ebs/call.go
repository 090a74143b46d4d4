package ebs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/blockvol/blockvol/cloud"
)

// api is every EC2 action blockvol uses. The IAM policies in docs allow exactly these.
type api interface {
	CreateVolume(context.Context, *ec2.CreateVolumeInput, ...func(*ec2.Options)) (*ec2.CreateVolumeOutput, error)
	DeleteVolume(context.Context, *ec2.DeleteVolumeInput, ...func(*ec2.Options)) (*ec2.DeleteVolumeOutput, error)
	AttachVolume(context.Context, *ec2.AttachVolumeInput, ...func(*ec2.Options)) (*ec2.AttachVolumeOutput, error)
	DetachVolume(context.Context, *ec2.DetachVolumeInput, ...func(*ec2.Options)) (*ec2.DetachVolumeOutput, error)
	CreateTags(context.Context, *ec2.CreateTagsInput, ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error)
	DeleteTags(context.Context, *ec2.DeleteTagsInput, ...func(*ec2.Options)) (*ec2.DeleteTagsOutput, error)
	DescribeVolumes(context.Context, *ec2.DescribeVolumesInput, ...func(*ec2.Options)) (*ec2.DescribeVolumesOutput, error)
	DescribeInstances(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	DescribeInstanceStatus(context.Context, *ec2.DescribeInstanceStatusInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceStatusOutput, error)
	DescribeInstanceAttribute(context.Context, *ec2.DescribeInstanceAttributeInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceAttributeOutput, error)
	StopInstances(context.Context, *ec2.StopInstancesInput, ...func(*ec2.Options)) (*ec2.StopInstancesOutput, error)
	CopyVolumes(context.Context, *ec2.CopyVolumesInput, ...func(*ec2.Options)) (*ec2.CopyVolumesOutput, error)
	ModifyVolume(context.Context, *ec2.ModifyVolumeInput, ...func(*ec2.Options)) (*ec2.ModifyVolumeOutput, error)
	DescribeVolumesModifications(context.Context, *ec2.DescribeVolumesModificationsInput, ...func(*ec2.Options)) (*ec2.DescribeVolumesModificationsOutput, error)
	CreateSnapshot(context.Context, *ec2.CreateSnapshotInput, ...func(*ec2.Options)) (*ec2.CreateSnapshotOutput, error)
	DeleteSnapshot(context.Context, *ec2.DeleteSnapshotInput, ...func(*ec2.Options)) (*ec2.DeleteSnapshotOutput, error)
	DescribeSnapshots(context.Context, *ec2.DescribeSnapshotsInput, ...func(*ec2.Options)) (*ec2.DescribeSnapshotsOutput, error)
	ListVolumesInRecycleBin(context.Context, *ec2.ListVolumesInRecycleBinInput, ...func(*ec2.Options)) (*ec2.ListVolumesInRecycleBinOutput, error)
	RestoreVolumeFromRecycleBin(context.Context, *ec2.RestoreVolumeFromRecycleBinInput, ...func(*ec2.Options)) (*ec2.RestoreVolumeFromRecycleBinOutput, error)
	ListSnapshotsInRecycleBin(context.Context, *ec2.ListSnapshotsInRecycleBinInput, ...func(*ec2.Options)) (*ec2.ListSnapshotsInRecycleBinOutput, error)
	RestoreSnapshotFromRecycleBin(context.Context, *ec2.RestoreSnapshotFromRecycleBinInput, ...func(*ec2.Options)) (*ec2.RestoreSnapshotFromRecycleBinOutput, error)
	DescribeInstanceTypes(context.Context, *ec2.DescribeInstanceTypesInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error)
}

// The actions that change something have a token bucket each [EC2 throttles per action]. Repeating them is harmless: CreateVolume and
// CopyVolumes carry a client token, the others name what they want to be true. CreateSnapshot does not: see once.
var mutating = []string{"CreateVolume", "DeleteVolume", "AttachVolume", "DetachVolume", "CreateTags", "DeleteTags", "StopInstances", "CopyVolumes", "ModifyVolume", "CreateSnapshot",
	"DeleteSnapshot", "RestoreVolumeFromRecycleBin", "RestoreSnapshotFromRecycleBin"}

// separately are the actions that only docs/iam-snapshots.json allows.
var separately = map[string]bool{
	"CopyVolumes": true, "ModifyVolume": true, "DescribeVolumesModifications": true, "CreateSnapshot": true, "DeleteSnapshot": true, "DescribeSnapshots": true,
	"ListVolumesInRecycleBin": true, "RestoreVolumeFromRecycleBin": true, "ListSnapshotsInRecycleBin": true, "RestoreSnapshotFromRecycleBin": true,
}

// once are the actions that are repeated only if EC2 has said that it did nothing; their callers find out about the rest.
var once = map[string]bool{"CreateSnapshot": true}

// reading is the key of the retryer that all other actions share.
const reading = "read"

// manyAttempts leaves the end of a call to its context.
const manyAttempts = 1000

func makeRetryers(maxBackoff time.Duration) map[string]aws.RetryerV2 {
	standard := func(o *retry.StandardOptions) {
		o.MaxAttempts = manyAttempts
		o.MaxBackoff = maxBackoff
		// The SDK's retry quota makes calls fail that only had to wait; the context and the adaptive bucket limit the rate.
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(notFinal)}, o.Retryables...)
	}
	made := map[string]aws.RetryerV2{reading: recorder{retry.NewStandard(standard)}}
	for _, action := range mutating {
		made[action] = recorder{retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
			o.StandardOptions = append(o.StandardOptions, standard)
			if once[action] {
				o.StandardOptions = append(o.StandardOptions, func(o *retry.StandardOptions) {
					o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(throttled)}
				})
			}
		})}
	}
	return made
}

// throttled is true for answers that say that nothing was done because of too many calls.
func throttled(err error) aws.Ternary {
	code, _ := apiCode(err)
	m, known := codes[code]
	return aws.BoolTernary(known && m.kind == cloud.ErrThrottled && !m.final)
}

// notFinal keeps the SDK from repeating answers that come with status 5xx and will not change within the life of a request.
func notFinal(err error) aws.Ternary {
	var known smithy.APIError
	if errors.As(err, &known) && codes[known.ErrorCode()].final {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// recorder remembers in the call's context why it is being repeated: when the context ends during the pause, the SDK tells only that.
type recorder struct{ aws.RetryerV2 }

type attempts struct {
	again func(err error)
	mu    sync.Mutex
	count int
	last  error
}

type attemptsKey struct{}

func (r recorder) GetRetryToken(ctx context.Context, err error) (func(error) error, error) {
	if a, ok := ctx.Value(attemptsKey{}).(*attempts); ok {
		a.mu.Lock()
		a.count++
		a.last = err
		a.mu.Unlock()
		a.again(err)
	}
	return r.RetryerV2.GetRetryToken(ctx, err)
}

// failure is a call that did not succeed, with the reason for which it was repeated last.
type failure struct {
	action  string
	err     error
	last    error
	repeats int
}

func (f *failure) Error() string {
	if f.last != nil && !errors.Is(f.err, f.last) {
		return fmt.Sprintf("%v, after %d repeats because of: %v", f.err, f.repeats, f.last)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() []error {
	if f.last == nil {
		return []error{f.err}
	}
	return []error{f.err, f.last}
}

// invoke makes one call of EC2 with the retryer of its action.
func invoke[In, Out any](ctx context.Context, c *Client, action string, do func(context.Context, *In, ...func(*ec2.Options)) (*Out, error), in *In) (*Out, error) {
	retryer, ok := c.retryers[action]
	if !ok {
		retryer = c.retryers[reading]
	}
	seen := &attempts{again: func(err error) { c.cfg.Meter.Repeated(action, reason(ctx, err)) }}
	start := c.now()
	out, err := do(context.WithValue(ctx, attemptsKey{}, seen), in, func(o *ec2.Options) {
		o.Retryer = retryer
		o.APIOptions = append(o.APIOptions, c.agent(ctx)...)
	})
	c.cfg.Meter.Called(action, reason(ctx, err), c.now().Sub(start))
	seen.mu.Lock()
	defer seen.mu.Unlock()
	log := c.log.WithField("action", action).WithField("took", c.now().Sub(start).Round(time.Millisecond).String())
	if seen.count > 0 {
		log = log.WithField("repeats", seen.count)
	}
	if err != nil {
		code, _ := apiCode(err)
		log.WithField("code", code).Debug("EC2 refused or did not answer")
		return nil, &failure{action: action, err: err, last: seen.last, repeats: seen.count}
	}
	log.Debug("EC2 answered")
	return out, nil
}

// reason names why a call failed, for a Meter.
func reason(ctx context.Context, err error) string {
	code, _ := apiCode(err)
	switch {
	case err == nil || code != "":
		return code
	case errors.Is(context.Cause(ctx), context.Canceled):
		return "given-up"
	}
	return "no-answer"
}

// apiCode returns EC2's error code and message, or empty strings.
func apiCode(err error) (code, message string) {
	var known smithy.APIError
	if errors.As(err, &known) {
		return known.ErrorCode(), known.ErrorMessage()
	}
	return "", ""
}

// hasCode reports whether EC2 answered with one of the codes.
func hasCode(err error, codes ...string) bool {
	got, _ := apiCode(err)
	for _, code := range codes {
		if got == code {
			return true
		}
	}
	return false
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// grow returns the next interval of a poll.
func (t Timing) grow(d time.Duration) time.Duration {
	if d == 0 {
		return t.PollMin
	}
	return min(d*3/2, t.PollMax)
}

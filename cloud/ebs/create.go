package ebs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// Create makes the volume, or finds the one that an earlier or concurrent Create of the name made. It does not look first: the client token
// makes EC2 answer with the volume that exists. Names are used again after a Delete, and EC2 remembers a token longer than its
// volume, so the token carries a generation (see tokens) that moves on when EC2 says that its volume is gone.
func (c *Client) Create(ctx context.Context, spec cloud.Spec) (cloud.Volume, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	v, err := c.create(ctx, spec)
	if err != nil {
		return cloud.Volume{}, c.explain("create", ref{name: spec.Name, zone: spec.Zone, key: spec.KMSKeyID}, err)
	}
	return v, nil
}

func (c *Client) create(ctx context.Context, spec cloud.Spec) (cloud.Volume, error) {
	if err := checkSpec(spec); err != nil {
		return cloud.Volume{}, err
	}
	if spec.SourceID != "" {
		return c.clone(ctx, spec)
	}
	return c.makeVolume(ctx, spec)
}

// makeVolume asks EC2 for the volume until it is there, with one token after the other.
func (c *Client) makeVolume(ctx context.Context, spec cloud.Spec) (cloud.Volume, error) {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Volume{}, err
	}
	n, absent := c.tokens.current(spec.Name)
	for {
		id, state, encrypted, err := c.ask(ctx, ec2api, spec, n)
		switch {
		case err == nil && ending(state):
			// The token's volume still exists, but not for long.
			c.tokens.burn(spec.Name, n)
		case err == nil:
			made := creation{spec: spec, id: id, n: n, encrypted: encrypted, state: state}
			made.first = c.timing.FirstPoll
			if made.state != cloud.Creating {
				made.first = 0
				// The token leads to its volume also when that was given up since.
				if gone, err := c.wasReleased(ctx, spec.Name, made.id); err != nil {
					return cloud.Volume{}, err
				} else if gone {
					c.tokens.burn(spec.Name, n)
					break
				}
			}
			return c.awaitCreated(ctx, made)
		case hasCode(err, "VolumeLimitExceeded"):
			// EC2 answers this for a known token too.
			if v, lookErr := c.lookByName(ctx, spec.Name); lookErr == nil && !ending(v.State) {
				return c.adopt(ctx, spec, v)
			} else if lookErr != nil && !errors.Is(lookErr, cloud.ErrNotFound) {
				return cloud.Volume{}, lookErr
			}
			return cloud.Volume{}, err
		case hasCode(err, "IdempotentParameterMismatch"):
			_, message := apiCode(err)
			deleted := deletedMessage(message)
			if !absent || !deleted {
				v, lookErr := c.lookThroughWindow(ctx, spec.Name)
				if lookErr == nil {
					return c.adopt(ctx, spec, v)
				}
				if !errors.Is(lookErr, cloud.ErrNotFound) {
					return cloud.Volume{}, lookErr
				}
			}
			if !deleted {
				// A volume that was given up is no volume of the name, and yet the reason.
				if gone, lookErr := c.wasReleased(ctx, spec.Name, ""); lookErr != nil || !gone {
					return cloud.Volume{}, err
				}
			}
			absent = true // one look through the window holds for the whole walk
			c.tokens.burn(spec.Name, n)
		default:
			return cloud.Volume{}, err
		}
		next, _ := c.tokens.current(spec.Name)
		n = max(n+1, next)
	}
}

// checkSpec refuses what EC2 could not even be asked.
func checkSpec(spec cloud.Spec) error {
	bad := func(format string, args ...any) error {
		return cloud.Errorf(cloud.ErrInvalid, "cannot create volume %q: %s", spec.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case spec.Name == "" || len(spec.Name) > maxTagValue:
		return bad("the name must have 1 to %d characters", maxTagValue)
	case spec.Zone == "":
		return bad("no availability zone was given")
	case spec.SnapshotID != "" && spec.SourceID != "":
		return bad("it cannot be made of a snapshot (%s) and of a volume (%s)", spec.SnapshotID, spec.SourceID)
	case spec.SnapshotID != "" && !snapshotID.MatchString(spec.SnapshotID):
		return bad("%q is no snapshot ID; they look like snap-0123456789abcdef0", spec.SnapshotID)
	case spec.SizeGiB == 0 && (spec.SnapshotID != "" || spec.SourceID != ""):
	case spec.SizeGiB < 1 || spec.SizeGiB > math.MaxInt32:
		return bad("a size of %d GiB is impossible", spec.SizeGiB)
	case spec.IOPS < 0 || spec.IOPS > math.MaxInt32 || spec.Throughput < 0 || spec.Throughput > math.MaxInt32:
		return bad("%d IOPS and %d MiB/s are impossible", spec.IOPS, spec.Throughput)
	case len(spec.Tags)+len(spec.Attrs)+4 > maxTags:
		return bad("it would have %d tags; EC2 allows %d, of which blockvol needs %d", len(spec.Tags)+len(spec.Attrs)+4, maxTags, len(spec.Attrs)+4)
	}
	for attr, value := range spec.Attrs {
		if err := checkAttr(attr, value); err != nil {
			return bad("%v", err)
		}
	}
	for key, value := range spec.Tags {
		if err := checkTag(key, value); err != nil {
			return bad("%v", err)
		}
	}
	return nil
}

// adopt returns a volume that was there already, when it can be attached.
func (c *Client) adopt(ctx context.Context, spec cloud.Spec, v cloud.Volume) (cloud.Volume, error) {
	if v.State == cloud.Available || v.State == cloud.InUse {
		return v, nil
	}
	return c.awaitCreated(ctx, creation{spec: spec, id: v.ID, n: -1, encrypted: v.Encrypted, state: v.State, first: c.timing.PollMin})
}

// lookThroughWindow returns the volume of a name, or ErrNotFound when it stayed absent for as long as EC2's answers may be old.
func (c *Client) lookThroughWindow(ctx context.Context, name string) (cloud.Volume, error) {
	end := c.now().Add(c.timing.Consistency)
	var every time.Duration
	for {
		v, err := c.lookByName(ctx, name)
		if err == nil && ending(v.State) {
			err = notFound(ref{name: name})
		}
		if !errors.Is(err, cloud.ErrNotFound) || !c.now().Before(end) {
			return v, err
		}
		every = c.timing.grow(every)
		if err := sleep(ctx, min(every, max(end.Sub(c.now()), time.Millisecond))); err != nil {
			return cloud.Volume{}, err
		}
	}
}

// creation is a volume EC2 has accepted.
type creation struct {
	spec      cloud.Spec
	id        string
	n         int           // the token's generation; -1 if another call made the volume
	first     time.Duration // until the first look
	encrypted bool
	state     cloud.State
}

// awaitCreated waits until the volume can be attached. It looks by name, so that a second volume of the name is seen.
func (c *Client) awaitCreated(ctx context.Context, made creation) (cloud.Volume, error) {
	var (
		name    = made.spec.Name
		start   = c.now()
		missing time.Time // since when it has not been seen
		every   time.Duration
	)
	unfinished := func() error {
		return &cloud.Error{Kind: cloud.ErrState, Cause: ctx.Err(), Text: fmt.Sprintf(
			"volume %q (%s) is still %s %s after EC2 accepted it: nothing is lost, the next create of this name waits for the same volume",
			name, made.id, made.state, ago(c.now(), start))}
	}
	for pause := made.first; ; pause, every = c.timing.grow(every), c.timing.grow(every) {
		if sleep(ctx, pause) != nil {
			return cloud.Volume{}, unfinished()
		}
		found, err := c.byName.get(ctx, name)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return cloud.Volume{}, unfinished()
		case temporary(err):
			continue
		default:
			return cloud.Volume{}, err
		}
		mine, ok := find(found, made.id)
		if !ok {
			if missing.IsZero() {
				missing = c.now()
			}
			if c.now().Sub(missing) < c.timing.Vanish {
				continue
			}
			// The look by ID does not go through the index of tags.
			byID, err := c.describeIDs(ctx, []string{made.id})
			if err != nil {
				if temporary(err) {
					continue // the end of ctx is seen above
				}
				return cloud.Volume{}, err
			}
			if mine, ok = byID[made.id]; !ok {
				return cloud.Volume{}, c.vanished(made)
			}
		}
		missing, made.state = time.Time{}, mine.State
		switch {
		case mine.State == cloud.Available || mine.State == cloud.InUse:
			if live(found) > 1 {
				return c.lookByName(ctx, name)
			}
			return mine, nil
		case mine.State == cloud.Failed:
			return cloud.Volume{}, cloud.Errorf(cloud.ErrState, "volume %q (%s) is in state error: EC2 could not make it; remove it (docker volume rm %s) and create it again",
				name, made.id, name)
		case ending(mine.State):
			return cloud.Volume{}, c.vanished(made)
		}
	}
}

func find(found []cloud.Volume, id string) (cloud.Volume, bool) {
	for _, s := range found {
		if s.ID == id {
			return s, true
		}
	}
	return cloud.Volume{}, false
}

// vanished tells why a volume that EC2 accepted is gone, and gives up its token. EC2 checks the key after it has accepted the volume and
// then removes it without a word.
func (c *Client) vanished(made creation) error {
	if made.n >= 0 {
		c.tokens.burn(made.spec.Name, made.n)
	}
	if made.encrypted || made.spec.Encrypted || made.spec.KMSKeyID != "" {
		key := made.spec.KMSKeyID
		if key == "" {
			key = "the account's default key for EBS"
		}
		return cloud.Errorf(cloud.ErrKMS, "volume %q (%s) vanished while it was being created: EC2 removes a new volume without a message when it cannot use the KMS key (%s); "+
			"check that the key exists in this region, is enabled, and that its policy lets blockvol's role use kms:CreateGrant, kms:Decrypt, kms:DescribeKey and "+
			"kms:GenerateDataKeyWithoutPlaintext; then create it again", made.spec.Name, made.id, key)
	}
	return cloud.Errorf(cloud.ErrVanished, "volume %q (%s) vanished while it was being created: EC2 accepted it and then removed it, or somebody deleted it; "+
		"look for DeleteVolume of %s in CloudTrail, then create it again", made.spec.Name, made.id, made.id)
}

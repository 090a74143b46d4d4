package ebs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/blockvol/blockvol/cloud"
)

// ec2Clock is EC2's time, by the answer that was heard last. Times that one host writes and another reads are EC2's: a host's own clock may
// be wrong by any amount.
type ec2Clock struct {
	mu           sync.Mutex
	told, passed time.Time // what EC2 said, and when that was by the host's clock
}

func (k *ec2Clock) heard(answer middleware.Metadata, now time.Time) {
	if told, ok := awsmiddleware.GetServerTime(answer); ok {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.told, k.passed = told, now
	}
}

// ec2Now is the time by EC2's clock; by the host's own while EC2 has not told any.
func (c *Client) ec2Now() time.Time {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	now := c.now()
	if c.clock.told.IsZero() {
		return now
	}
	return c.clock.told.Add(now.Sub(c.clock.passed))
}

// Retire gives a volume up that is to be deleted for good after a delay.
func (c *Client) Retire(ctx context.Context, id string, delay time.Duration) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("delete", c.refer(id), c.release(ctx, id, delay.String()))
}

// RetireToSnapshot gives a volume up that is to be deleted for good once there is a snapshot of it.
func (c *Client) RetireToSnapshot(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("delete", c.refer(id), c.release(ctx, id, retiredToSnapshot))
}

// Preserve makes the snapshot of a volume that was retired to one. Its slot is that of this one removal: a volume that came back, was written to
// and is removed again gets another snapshot. Hosts that do it at the same moment may make two.
func (c *Client) Preserve(ctx context.Context, id string, spec cloud.SnapshotSpec) (cloud.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.preserve(ctx, id, spec)
	if err != nil {
		return cloud.Snapshot{}, c.explain("make a snapshot of", ref{id: id}, err)
	}
	return s, nil
}

func (c *Client) preserve(ctx context.Context, id string, spec cloud.SnapshotSpec) (cloud.Snapshot, error) {
	host, err := c.Host(ctx)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	v, err := c.rawLive(ctx, id, host)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	g, ok := c.toGivenUp(v)
	switch {
	case !ok || !g.Snapshot:
		return cloud.Snapshot{}, cloud.Errorf(cloud.ErrState, "volume %s was not removed to become a snapshot (its tags: %s=%q, %s=%q)", id, tagName, tagOf(v, tagName), tagReleasedAt, tagOf(v, tagReleasedAt))
	case g.Newer != nil:
		return cloud.Snapshot{}, g.Newer
	case len(g.Attachments) > 0: // somebody may write to it
		return cloud.Snapshot{}, &cloud.HolderError{Volume: g.Name, ID: id, Host: g.Attachments[0].Host, State: g.Attachments[0].State}
	}
	spec.VolumeID, spec.Slot = id, removalSlot(v)
	return c.makeSnapshot(ctx, g.Volume, spec)
}

// removalSlot is the slot of the snapshot that a volume is retired to.
func removalSlot(v types.Volume) string {
	at, _, _ := strings.Cut(tagOf(v, tagReleasedAt), " ")
	return cloud.RemovalSlot + at
}

// preserved makes sure that the snapshot that a volume is retired to is completed.
func (c *Client) preserved(ctx context.Context, v types.Volume) error {
	if g, ok := c.toGivenUp(v); !ok || !g.Snapshot {
		return nil
	}
	id := aws.ToString(v.VolumeId)
	s, err := c.inSlot(ctx, id, removalSlot(v))
	switch {
	case err != nil:
		return err
	case s.ID == "":
		return cloud.Errorf(cloud.ErrState, "volume %s is not deleted for good: there is no snapshot of it yet", id)
	case s.State != cloud.SnapshotCompleted || s.VolumeID != id:
		return cloud.Errorf(cloud.ErrState, "volume %s is not deleted for good: its snapshot %s is %s (%d %%)", id, s.ID, s.State, s.Progress)
	}
	return nil
}

// GivenUp lists the volumes that the cluster has given up, kept ones and retired ones.
func (c *Client) GivenUp(ctx context.Context) ([]cloud.GivenUp, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	filters := []types.Filter{filter("tag:"+tagCluster, c.cfg.Cluster), {Name: aws.String("tag:" + tagName), Values: []string{releasedPrefix + "*"}}}
	byID := map[string]cloud.GivenUp{} // a volume may be on two pages if the list changes between them
	err := c.pages(ctx, filters, func(v types.Volume) {
		if g, ok := c.toGivenUp(v); ok && !ending(g.State) {
			byID[g.ID] = g
		}
	})
	if err != nil {
		return nil, c.explain("list the volumes that were given up", ref{}, err)
	}
	found := make([]cloud.GivenUp, 0, len(byID))
	for _, g := range byID {
		found = append(found, g)
	}
	return found, nil
}

// toGivenUp translates a volume, if it is one that the cluster has given up. An end that cannot be read is none: such a volume is kept.
func (c *Client) toGivenUp(v types.Volume) (g cloud.GivenUp, ok bool) {
	g.Volume, _ = toVolume(c.cfg.Cluster, v)
	was, gone := former(g.Name)
	if !gone || was == "" || tagOf(v, tagCluster) != c.cfg.Cluster {
		return cloud.GivenUp{}, false
	}
	g.Name = was
	at, end, _ := strings.Cut(tagOf(v, tagReleasedAt), " ")
	g.Since, _ = time.Parse(time.RFC3339, at)
	if after, marked := strings.CutPrefix(end, retiredMark+" "); marked && !g.Since.IsZero() {
		if after == retiredToSnapshot {
			g.Retired, g.Snapshot = true, true
		} else if until, err := time.Parse(time.RFC3339, after); err == nil && !until.Before(g.Since) {
			g.Retired, g.Until, g.Left = true, until, until.Sub(c.ec2Now())
		}
	}
	return g, true
}

// purgePurpose is what a claim says that is made to delete a volume for good.
const purgePurpose = "its deletion"

// Purge deletes a retired volume whose time is over. It claims the volume first, as those do who bring one back; either steps back for the other.
func (c *Client) Purge(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("delete", ref{id: id}, c.purge(ctx, id, false))
}

// Discard deletes any volume that the cluster has given up, with the same claim.
func (c *Client) Discard(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("delete", ref{id: id}, c.purge(ctx, id, true))
}

// purge deletes a volume that was given up: whatever was meant for it, or only what is to be deleted now.
func (c *Client) purge(ctx context.Context, id string, whatever bool) error {
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	look := func() (types.Volume, error) {
		v, err := c.rawLive(ctx, id, host)
		if err != nil {
			return types.Volume{}, err
		}
		return v, c.purgeable(v, whatever)
	}
	check := func(v types.Volume) error {
		if whatever {
			return nil
		}
		return c.preserved(ctx, v)
	}
	err = c.withClaim(ctx, id, purgePurpose, look, check, func(v types.Volume, claim claim) (bool, error) {
		for other, said := range claim.others {
			return false, claimed(id, other, said)
		}
		if err := check(v); err != nil {
			return false, err
		}
		if err := claim.late(); err != nil {
			return false, err
		}
		// While it is not known whether it is deleted, the claim keeps others from it.
		once, cancel := context.WithTimeout(ctx, c.timing.Attempt)
		defer cancel()
		if _, err := invoke(once, c, "DeleteVolume", ec2api.DeleteVolume, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)}); err != nil {
			return unknownEnd(err), err
		}
		c.known.change(id, func(r *record, now time.Time) { r.deleted = now })
		return true, nil
	})
	if errors.Is(err, errLate) {
		return cloud.Errorf(cloud.ErrClaimed, "volume %s is not deleted now: EC2 or this host is so slow that another host could have taken it at the same moment", id)
	}
	return err
}

// purgeable tells why a volume must not be deleted for good; nil if it may.
func (c *Client) purgeable(v types.Volume, whatever bool) error {
	id := aws.ToString(v.VolumeId)
	no := func(kind error, format string, args ...any) error {
		return cloud.Errorf(kind, "volume %s is not deleted for good: %s", id, fmt.Sprintf(format, args...))
	}
	g, ok := c.toGivenUp(v)
	switch {
	case !ok:
		return no(cloud.ErrNotFound, "it is none that this cluster has given up (its tag %s is %q)", tagName, tagOf(v, tagName))
	case g.Newer != nil:
		return g.Newer
	case !g.Retired && !whatever:
		return no(cloud.ErrState, "it was given up to be kept (its tag %s is %q)", tagReleasedAt, tagOf(v, tagReleasedAt))
	case g.Left > 0 && !whatever:
		return no(cloud.ErrState, "it can be brought back until %s", g.Until.UTC().Format(time.RFC3339))
	case len(g.Attachments) > 0:
		a := g.Attachments[0]
		return &cloud.HolderError{Volume: g.Name, ID: id, Host: a.Host, State: a.State}
	case g.State != cloud.Available && g.State != cloud.Failed:
		return no(cloud.ErrState, "it is in state %s", g.State)
	}
	return nil
}

package ebs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// A volume that was given up keeps its tags, but for its name: "released:NAME" is the name of no volume, so one change of tags takes it out of
// the cluster's volumes and frees its name, for every host at once and for older versions too.
const (
	releasedPrefix = "released:"
	tagReleasedAt  = prefix + "released-at"
	tagMadeAs      = prefix + "made-as" // the name that the volume was created under, from its first release on: a client token leads to it
	tagBound       = prefix + "bound"   // the act by which a volume that blockvol did not create came to its name; each has another value
)

// former tells whether a name is that of a volume that was given up, and which name it had.
func former(name string) (was string, ok bool) { return strings.CutPrefix(name, releasedPrefix) }

// retiredMark follows the time in the tag released-at of a volume that is to be deleted, and stands before the time from which on that may be
// done, or retiredToSnapshot. It is in that tag, and not in one of its own, because every version sets it each time that it gives a volume up: a volume that came back
// and is given up again to be kept never has the end that was meant for it before.
const (
	retiredMark       = "delete-after"
	retiredToSnapshot = "snapshot"
)

// origin is how a volume came to its name, and when it was given up the last time.
func origin(v cloud.Volume) [2]string {
	return [2]string{v.Attrs[strings.TrimPrefix(tagBound, prefix)], v.Attrs[strings.TrimPrefix(tagReleasedAt, prefix)]}
}

// Release gives a volume up and keeps it.
func (c *Client) Release(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("release", c.refer(id), c.release(ctx, id, ""))
}

// release gives a volume up: to be kept, or with an end, which is a duration or retiredToSnapshot.
func (c *Client) release(ctx context.Context, id, end string) error {
	v, err := c.lookTwice(ctx, id)
	if err != nil {
		return err
	}
	if v.Newer != nil {
		return v.Newer
	}
	if len(v.Attachments) > 0 {
		return &cloud.HolderError{Volume: v.Name, ID: id, Host: v.Attachments[0].Host, State: v.Attachments[0].State}
	}
	now := c.ec2Now() // of the look above
	tags := map[string]string{tagName: releasedPrefix + v.Name, tagSchema: schemaLatest, tagReleasedAt: now.UTC().Format(time.RFC3339Nano)}
	if end != "" {
		if delay, err := time.ParseDuration(end); err == nil {
			end = now.Add(delay).UTC().Format(time.RFC3339Nano)
		}
		tags[tagReleasedAt] += " " + retiredMark + " " + end
	}
	made := origin(v)[0] == "" // by the client token of its name
	if made {
		tags[tagMadeAs] = v.Name
	}
	if err := c.tag(ctx, id, tags); err != nil {
		return err
	}
	c.known.change(id, func(r *record, now time.Time) { r.released, r.before = now, origin(v) })
	if made { // else the token of the name stands for another volume, or for none
		n, _ := c.tokens.current(v.Name)
		c.tokens.burn(v.Name, n)
	}
	return c.confirmReleased(ctx, v)
}

// confirmReleased waits until EC2 shows what was done, and looks once more who has the volume: a host that looked it up before may have
// attached it since. Then it is the cluster's again.
func (c *Client) confirmReleased(ctx context.Context, v cloud.Volume) error {
	var every time.Duration
	for {
		raw, err := c.raw(ctx, v.ID)
		switch {
		case err != nil && !temporary(err):
			return err
		case err != nil || raw == nil || tagOf(*raw, tagName) == v.Name: // an answer older than the change
		default:
			for _, a := range raw.Attachments {
				if a.State == types.VolumeAttachmentStateDetached {
					continue
				}
				if err := c.tag(ctx, v.ID, map[string]string{tagName: v.Name}); err != nil {
					return fmt.Errorf("%s has taken it meanwhile, and giving it its name back failed: %w", aws.ToString(a.InstanceId), err)
				}
				return &cloud.HolderError{Volume: v.Name, ID: v.ID, Host: aws.ToString(a.InstanceId), State: cloud.AttachState(a.State)}
			}
			return nil
		}
		every = c.timing.grow(every)
		if err := sleep(ctx, every); err != nil {
			return fmt.Errorf("EC2 has accepted the new tags of %s and does not show them yet: %w", v.ID, err)
		}
	}
}

// tag sets tags of a volume.
func (c *Client) tag(ctx context.Context, id string, tags map[string]string) error {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	return c.throughWindow(ctx, id, func() error {
		_, err := invoke(ctx, c, "CreateTags", ec2api.CreateTags, &ec2.CreateTagsInput{Resources: []string{id}, Tags: toTags(tags)})
		return err
	}, "InvalidVolume.NotFound", "InvalidID")
}

// raw returns a volume as EC2 has it, whosever it is; nil if there is none.
func (c *Client) raw(ctx context.Context, id string) (found *types.Volume, err error) {
	err = c.pages(ctx, []types.Filter{filter("volume-id", id)}, func(v types.Volume) { found = &v })
	return found, err
}

// wasReleased reports whether a volume that exists was made under a name and given up since: then the client token that leads to it can make
// no volume of that name any more. id may be empty when it is not known which volume the token made.
func (c *Client) wasReleased(ctx context.Context, name, id string) (yes bool, err error) {
	filters := []types.Filter{filter("tag:"+tagCluster, c.cfg.Cluster), filter("tag:"+tagMadeAs, name)}
	if id != "" {
		filters = []types.Filter{filter("volume-id", id)}
	}
	err = c.pages(ctx, filters, func(v types.Volume) {
		yes = yes || tagOf(v, tagCluster) == c.cfg.Cluster && tagOf(v, tagMadeAs) == name && tagOf(v, tagName) != name
	})
	return yes, err
}

// heldFormer reports whether a volume is one of the cluster's that was given up: an attachment to this host may still have to end.
func (c *Client) heldFormer(ctx context.Context, id string) bool {
	v, err := c.raw(ctx, id)
	if err != nil || v == nil {
		return false
	}
	_, gone := former(tagOf(*v, tagName))
	return gone && tagOf(*v, tagCluster) == c.cfg.Cluster
}

func tagOf(v types.Volume, key string) string {
	for _, tag := range v.Tags {
		if aws.ToString(tag.Key) == key {
			return aws.ToString(tag.Value)
		}
	}
	return ""
}

package ebs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// ask makes the one call that makes a volume: CreateVolume, or CopyVolumes for a copy. Each has client tokens of its own [it is not known whether EC2
// takes one token for two actions]; a slash is in no name.
func (c *Client) ask(ctx context.Context, ec2api api, spec cloud.Spec, n int) (id string, state cloud.State, encrypted bool, err error) {
	if spec.SourceID == "" {
		out, err := invoke(ctx, c, "CreateVolume", ec2api.CreateVolume, createInput(c.cfg.Cluster, spec, c.tokens.token(spec.Name, n)))
		if err != nil {
			return "", "", false, err
		}
		return aws.ToString(out.VolumeId), cloud.State(out.State), aws.ToBool(out.Encrypted), nil
	}
	out, err := invoke(ctx, c, "CopyVolumes", ec2api.CopyVolumes, copyInput(c.cfg.Cluster, spec, c.tokens.token("copy/"+spec.Name, n)))
	if err != nil {
		return "", "", false, err
	}
	var made types.Volume
	for _, made = range out.Volumes {
	}
	if spec.Taken != nil {
		spec.Taken()
	}
	if aws.ToString(made.VolumeId) == "" {
		return "", "", false, cloud.Errorf(cloud.ErrUnavailable, "EC2 copied volume %s and did not tell the ID of the copy; try again, it finds the same copy", spec.SourceID)
	}
	return aws.ToString(made.VolumeId), cloud.State(made.State), aws.ToBool(made.Encrypted), nil
}

// cannotCopy reports whether CopyVolumes is refused where CreateSnapshot may work: not every region, volume and EC2 has it.
func cannotCopy(err error) bool { return hasCode(err, "InvalidAction", "UnsupportedOperation") }

const (
	// cloneSlot begins the slot of the snapshot by way of which a volume is copied; the new volume's name follows.
	cloneSlot = "clone:"
	// cloneLife is how long such a snapshot is used again by a repeated Create. An older one is a leftover, with old data.
	cloneLife = time.Hour
)

// clone makes a copy of a volume: by CopyVolumes, or, where that cannot be, by way of a snapshot that is deleted afterwards.
func (c *Client) clone(ctx context.Context, spec cloud.Spec) (cloud.Volume, error) {
	source, err := c.lookByID(ctx, spec.SourceID)
	if err != nil {
		return cloud.Volume{}, err
	}
	if source.Newer != nil {
		return cloud.Volume{}, source.Newer
	}
	if spec.SizeGiB != 0 && spec.SizeGiB < source.SizeGiB {
		return cloud.Volume{}, cloud.Errorf(cloud.ErrInvalid, "cannot create volume %q: its source %q (%s) has %d GiB, so a copy needs at least that, not %d GiB",
			spec.Name, source.Name, source.ID, source.SizeGiB, spec.SizeGiB)
	}
	if source.Zone == spec.Zone {
		v, err := c.makeVolume(ctx, spec)
		if !cannotCopy(err) {
			return v, err
		}
		c.log.WithField("volume", spec.Name).WithError(err).Info("EC2 does not copy the volume: it is copied by way of a snapshot")
	}
	// A snapshot takes long, so what is there already is looked for first.
	if v, err := c.lookByName(ctx, spec.Name); err == nil && !ending(v.State) {
		return c.adopt(ctx, spec, v)
	} else if err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return cloud.Volume{}, err
	}
	v, err := c.cloneBySnapshot(ctx, spec, source)
	if errors.Is(err, cloud.ErrNotFound) || hasCode(err, "InvalidSnapshot.NotFound") {
		// Another host, which makes the same copy by the same snapshot, was done first.
		if made, lookErr := c.lookByName(ctx, spec.Name); lookErr == nil && !ending(made.State) {
			return c.adopt(ctx, spec, made)
		}
	}
	return v, err
}

// cloneBySnapshot makes a volume of a snapshot of the source. The snapshot is deleted when it is of no use any more.
func (c *Client) cloneBySnapshot(ctx context.Context, spec cloud.Spec, source cloud.Volume) (cloud.Volume, error) {
	way, err := c.wayOver(ctx, spec, source)
	if err != nil {
		return cloud.Volume{}, err
	}
	if spec.Taken != nil {
		spec.Taken()
	}
	var v cloud.Volume
	if err = c.waitSnapshot(ctx, way.ID); err == nil {
		spec.SourceID, spec.SnapshotID = "", way.ID
		v, err = c.makeVolume(ctx, spec)
	}
	if err != nil && (ctx.Err() != nil || temporary(err)) {
		return cloud.Volume{}, err // the next attempt goes on with the same snapshot
	}
	if deleteErr := c.deleteSnapshot(ctx, way.ID); deleteErr != nil && !errors.Is(deleteErr, cloud.ErrNotFound) {
		c.log.WithField("snapshot", way.ID).WithError(deleteErr).Warn("a snapshot that was only the way to a copy is left over")
	}
	return v, err
}

// wayOver makes the snapshot by way of which a volume is copied, or finds that of an earlier attempt.
func (c *Client) wayOver(ctx context.Context, spec cloud.Spec, source cloud.Volume) (cloud.Snapshot, error) {
	asked := cloud.SnapshotSpec{
		VolumeID: source.ID, Slot: cloneSlot + spec.Name, Description: fmt.Sprintf("Made to copy volume %s to %s; deleted when that is done", source.Name, spec.Name),
	}
	found, err := c.inSlot(ctx, source.ID, asked.Slot)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	if found.ID != "" && c.now().Sub(found.Started) > cloneLife {
		if err := c.deleteSnapshot(ctx, found.ID); err != nil && !errors.Is(err, cloud.ErrNotFound) {
			return cloud.Snapshot{}, err
		}
	}
	if r := []rune(asked.Description); len(r) > maxDescription {
		asked.Description = string(r[:maxDescription])
	}
	return c.createSnapshot(ctx, asked)
}

package ebs

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/blockvol/blockvol/cloud"
)

// RecycledVolumes lists the volumes in the Recycle Bin. EC2 shows their tags only after they are restored.
func (c *Client) RecycledVolumes(ctx context.Context) ([]cloud.Recycled, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	found, err := c.recycledVolumes(ctx)
	if err != nil {
		return nil, c.explain("list the volumes in the Recycle Bin", ref{}, err)
	}
	return found, nil
}

func (c *Client) recycledVolumes(ctx context.Context) (found []cloud.Recycled, err error) {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return nil, err
	}
	in := &ec2.ListVolumesInRecycleBinInput{MaxResults: aws.Int32(pageSize)}
	for {
		out, err := invoke(ctx, c, "ListVolumesInRecycleBin", ec2api.ListVolumesInRecycleBin, in)
		if err != nil {
			return nil, err
		}
		for _, v := range out.Volumes {
			found = append(found, cloud.Recycled{
				ID: aws.ToString(v.VolumeId), Zone: aws.ToString(v.AvailabilityZone), Entered: aws.ToTime(v.RecycleBinEnterTime), Exit: aws.ToTime(v.RecycleBinExitTime),
				Form: cloud.Form{SizeGiB: int64(aws.ToInt32(v.Size)), Type: string(v.VolumeType), IOPS: int64(aws.ToInt32(v.Iops)), Throughput: int64(aws.ToInt32(v.Throughput))},
			})
		}
		if aws.ToString(out.NextToken) == "" {
			return found, nil
		}
		in.NextToken = out.NextToken
	}
}

// RestoreVolume brings a volume back from the Recycle Bin.
func (c *Client) RestoreVolume(ctx context.Context, id string) (cloud.Volume, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	v, err := c.restoreVolume(ctx, id)
	if err != nil {
		return cloud.Volume{}, c.explain("restore", c.refer(id), err)
	}
	return v, nil
}

func (c *Client) restoreVolume(ctx context.Context, id string) (cloud.Volume, error) {
	if !volumeID.MatchString(id) {
		return cloud.Volume{}, notInBin("volume", id)
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Volume{}, err
	}
	_, err = invoke(ctx, c, "RestoreVolumeFromRecycleBin", ec2api.RestoreVolumeFromRecycleBin, &ec2.RestoreVolumeFromRecycleBinInput{VolumeId: aws.String(id)})
	if hasCode(err, "InvalidVolume.NotFound") {
		if !repeated(err) {
			return cloud.Volume{}, notInBin("volume", id)
		}
		err = nil // perhaps the first attempt did it and its answer was lost; the look below tells
	}
	if err != nil {
		return cloud.Volume{}, err
	}
	var name string
	c.known.change(id, func(r *record, _ time.Time) { name = r.name; *r = record{name: name} })
	if name != "" {
		c.tokens.restart(name)
	}
	end := c.now().Add(c.timing.Consistency)
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		v, err := c.lookByID(ctx, id)
		switch {
		case err == nil && (v.State == cloud.Available || v.State == cloud.InUse):
			c.tokens.restart(v.Name)
			return v, nil
		case err == nil && v.State == cloud.Failed:
			return cloud.Volume{}, cloud.Errorf(cloud.ErrState, "volume %q (%s) was restored from the Recycle Bin and is in state error", v.Name, id)
		case err != nil && !errors.Is(err, cloud.ErrNotFound):
			return cloud.Volume{}, err
		case err != nil && c.keepGivenUp(ctx, id):
			return cloud.Volume{}, cloud.Errorf(cloud.ErrState, "volume %s is out of the Recycle Bin, given up as it was before: give it a name (blockvol undelete %s)", id, id)
		case err != nil && !c.now().Before(end):
			return cloud.Volume{}, cloud.Errorf(cloud.ErrNotFound, "volume %s is out of the Recycle Bin, but it does not belong to this cluster (%s): it lacks the tags %s and %s",
				id, c.cfg.Cluster, tagCluster, tagName)
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return cloud.Volume{}, sleepErr
		}
	}
}

// keepGivenUp tells whether a volume that is out of the bin is one that had been given up, and has it kept: its time was over when it was
// deleted, and is so again. A host that begins to delete it now sees that it is kept when it looks the second time.
func (c *Client) keepGivenUp(ctx context.Context, id string) bool {
	v, err := c.raw(ctx, id)
	if err != nil || v == nil {
		return false
	}
	g, ok := c.toGivenUp(*v)
	if ok && g.Retired {
		at, _, _ := strings.Cut(tagOf(*v, tagReleasedAt), " ")
		ok = c.tag(ctx, id, map[string]string{tagReleasedAt: at}) == nil
	}
	for key, said := range c.claims(*v, "") {
		if ok && strings.HasSuffix(said, " "+purgePurpose) { // the one by which it was deleted would keep it from being brought back for a minute
			_ = c.untag(ctx, id, key, said)
		}
	}
	return ok
}

func notInBin(what, id string) error {
	return cloud.Errorf(cloud.ErrNotFound, "%s %s is not in the Recycle Bin: it was never there, or its time there is over, or it is restored already", what, id)
}

// RecycledSnapshots lists the snapshots in the Recycle Bin.
func (c *Client) RecycledSnapshots(ctx context.Context) ([]cloud.Recycled, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	found, err := c.recycledSnapshots(ctx)
	if err != nil {
		return nil, c.explain("list the snapshots in the Recycle Bin", ref{}, err)
	}
	return found, nil
}

func (c *Client) recycledSnapshots(ctx context.Context) (found []cloud.Recycled, err error) {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return nil, err
	}
	in := &ec2.ListSnapshotsInRecycleBinInput{MaxResults: aws.Int32(pageSize)}
	for {
		out, err := invoke(ctx, c, "ListSnapshotsInRecycleBin", ec2api.ListSnapshotsInRecycleBin, in)
		if err != nil {
			return nil, err
		}
		for _, s := range out.Snapshots {
			found = append(found, cloud.Recycled{ID: aws.ToString(s.SnapshotId), VolumeID: aws.ToString(s.VolumeId), Text: aws.ToString(s.Description),
				Entered: aws.ToTime(s.RecycleBinEnterTime), Exit: aws.ToTime(s.RecycleBinExitTime)})
		}
		if aws.ToString(out.NextToken) == "" {
			return found, nil
		}
		in.NextToken = out.NextToken
	}
}

// RestoreSnapshot brings a snapshot back from the Recycle Bin.
func (c *Client) RestoreSnapshot(ctx context.Context, id string) (cloud.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.restoreSnapshot(ctx, id)
	if err != nil {
		return cloud.Snapshot{}, c.explain("restore snapshot "+id, ref{}, err)
	}
	return s, nil
}

func (c *Client) restoreSnapshot(ctx context.Context, id string) (cloud.Snapshot, error) {
	if !snapshotID.MatchString(id) {
		return cloud.Snapshot{}, notInBin("snapshot", id)
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	_, err = invoke(ctx, c, "RestoreSnapshotFromRecycleBin", ec2api.RestoreSnapshotFromRecycleBin, &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: aws.String(id)})
	if hasCode(err, "InvalidSnapshot.NotFound") {
		if !repeated(err) {
			return cloud.Snapshot{}, notInBin("snapshot", id)
		}
		err = nil
	}
	if err != nil {
		return cloud.Snapshot{}, err
	}
	end := c.now().Add(c.timing.Consistency)
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		s, err := c.lookSnapshot(ctx, id)
		if !errors.Is(err, cloud.ErrNotFound) {
			return s, err
		}
		if !c.now().Before(end) {
			return cloud.Snapshot{}, cloud.Errorf(cloud.ErrNotFound, "snapshot %s is out of the Recycle Bin, but it does not belong to this cluster (%s)", id, c.cfg.Cluster)
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return cloud.Snapshot{}, sleepErr
		}
	}
}

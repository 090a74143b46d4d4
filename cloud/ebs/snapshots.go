package ebs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// maxDescription is EC2's limit of the description of a snapshot, in characters.
const maxDescription = 255

// CreateSnapshot makes a snapshot, or finds the one of the same volume and slot. EC2 has no client token here: the slot is a tag that the call
// itself sets, and that is looked up before the call and after one whose end is not known.
func (c *Client) CreateSnapshot(ctx context.Context, spec cloud.SnapshotSpec) (cloud.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.createSnapshot(ctx, spec)
	if err != nil {
		return cloud.Snapshot{}, c.explain("make a snapshot of", c.refer(spec.VolumeID), err)
	}
	return s, nil
}

func (c *Client) createSnapshot(ctx context.Context, spec cloud.SnapshotSpec) (cloud.Snapshot, error) {
	v, err := c.lookByID(ctx, spec.VolumeID)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	if v.Newer != nil {
		return cloud.Snapshot{}, v.Newer
	}
	return c.makeSnapshot(ctx, v, spec)
}

// makeSnapshot makes a snapshot of a volume that the caller has looked at.
func (c *Client) makeSnapshot(ctx context.Context, v cloud.Volume, spec cloud.SnapshotSpec) (cloud.Snapshot, error) {
	if err := checkSnapshot(v, spec); err != nil {
		return cloud.Snapshot{}, err
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	if spec.Slot == "" {
		spec.Slot = "once:" + rand.Text()
	} else if found, err := c.inSlot(ctx, v.ID, spec.Slot); err != nil || found.ID != "" {
		return found, err
	}
	tags := map[string]string{tagConsole: v.Name}
	for key, value := range spec.Tags {
		tags[key] = value
	}
	for attr, value := range spec.Attrs {
		tags[prefix+attr] = value
	}
	tags[tagCluster], tags[tagName], tags[tagSchema], tags[tagSlot] = c.cfg.Cluster, v.Name, schemaFirst, spec.Slot
	in := &ec2.CreateSnapshotInput{VolumeId: aws.String(v.ID), TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot, Tags: toTags(tags)}}}
	if spec.Description != "" {
		in.Description = aws.String(spec.Description)
	}
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		out, err := invoke(ctx, c, "CreateSnapshot", ec2api.CreateSnapshot, in)
		if err == nil {
			s, _ := toSnapshot(c.cfg.Cluster, types.Snapshot{
				SnapshotId: out.SnapshotId, VolumeId: out.VolumeId, VolumeSize: out.VolumeSize, State: out.State, Progress: out.Progress, StartTime: out.StartTime,
				Description: out.Description, Encrypted: out.Encrypted, KmsKeyId: out.KmsKeyId, Tags: toTags(tags),
			})
			return s, nil
		}
		late := hasCode(err, "SnapshotCreationPerVolumeRateExceeded", "ConcurrentSnapshotLimitExceeded") // perhaps after another host that fills the same slot
		if !late && !unknownEnd(err) {
			return cloud.Snapshot{}, err
		}
		// Whether the snapshot is there, the tags tell, though not at once.
		for end := c.now().Add(c.timing.Consistency); ; pause = c.timing.grow(pause) {
			if sleepErr := sleep(ctx, pause); sleepErr != nil {
				return cloud.Snapshot{}, err
			}
			if found, lookErr := c.inSlot(ctx, v.ID, spec.Slot); lookErr == nil && found.ID != "" {
				return found, nil
			} else if lookErr != nil || !c.now().Before(end) {
				break
			}
		}
		if late {
			return cloud.Snapshot{}, err
		}
	}
}

// unknownEnd reports whether a call that was made once may have been carried out although it failed.
func unknownEnd(err error) bool {
	code, _ := apiCode(err)
	if code == "" {
		var told *cloud.Error
		var noCredentials *credentialsError
		return !errors.As(err, &told) && !errors.As(err, &noCredentials)
	}
	return codes[code].kind == cloud.ErrUnavailable
}

// checkSnapshot refuses what EC2 could not even be asked.
func checkSnapshot(v cloud.Volume, spec cloud.SnapshotSpec) error {
	bad := func(format string, args ...any) error {
		return cloud.Errorf(cloud.ErrInvalid, "cannot make a snapshot of volume %q (%s): %s", v.Name, v.ID, fmt.Sprintf(format, args...))
	}
	own := len(spec.Attrs) + 5
	switch {
	case utf8.RuneCountInString(spec.Description) > maxDescription:
		return bad("the description has %d characters; EC2 allows %d", utf8.RuneCountInString(spec.Description), maxDescription)
	case len(spec.Tags)+own > maxTags:
		return bad("it would have %d tags; EC2 allows %d, of which blockvol needs %d", len(spec.Tags)+own, maxTags, own)
	}
	if err := checkTag(tagSlot, spec.Slot); err != nil {
		return bad("%v", err)
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

// inSlot returns the first snapshot of a volume and slot that has not failed, or one without an ID.
func (c *Client) inSlot(ctx context.Context, volume, slot string) (first cloud.Snapshot, err error) {
	found, err := c.describeSnapshots(ctx, filter("volume-id", volume), filter("tag:"+tagSlot, slot))
	for _, s := range found {
		if s.State == cloud.SnapshotFailed {
			continue
		}
		if first.ID == "" || s.Started.Before(first.Started) || s.Started.Equal(first.Started) && s.ID < first.ID {
			first = s
		}
	}
	return first, err
}

// SnapshotByID returns the cluster's snapshot with that ID.
func (c *Client) SnapshotByID(ctx context.Context, id string) (cloud.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.lookSnapshot(ctx, id)
	if err != nil {
		return cloud.Snapshot{}, c.explain("look up snapshot "+id, ref{}, err)
	}
	return s, nil
}

func (c *Client) lookSnapshot(ctx context.Context, id string) (cloud.Snapshot, error) {
	if !snapshotID.MatchString(id) {
		return cloud.Snapshot{}, noSnapshot(id)
	}
	found, err := c.describeSnapshots(ctx, filter("snapshot-id", id))
	if err != nil {
		return cloud.Snapshot{}, err
	}
	if len(found) == 0 {
		return cloud.Snapshot{}, noSnapshot(id)
	}
	return found[0], nil
}

func noSnapshot(id string) error {
	return cloud.Errorf(cloud.ErrNotFound, "snapshot %s does not exist in this cluster", id)
}

// AnySnapshot returns a snapshot that the account may use.
func (c *Client) AnySnapshot(ctx context.Context, id string) (cloud.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	s, err := c.lookAnySnapshot(ctx, id)
	if err != nil {
		return cloud.Snapshot{}, c.explain("look up snapshot "+id, ref{}, err)
	}
	return s, nil
}

func (c *Client) lookAnySnapshot(ctx context.Context, id string) (cloud.Snapshot, error) {
	if !snapshotID.MatchString(id) {
		return cloud.Snapshot{}, cloud.Errorf(cloud.ErrInvalid, "%q is no snapshot ID; they look like snap-0123456789abcdef0", id)
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return cloud.Snapshot{}, err
	}
	missing := cloud.Errorf(cloud.ErrNotFound, "there is no snapshot %s in this region that this account may use", id)
	// By its ID, because a filter would be held against all public snapshots.
	out, err := invoke(ctx, c, "DescribeSnapshots", ec2api.DescribeSnapshots, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
	if hasCode(err, "InvalidSnapshot.NotFound") {
		return cloud.Snapshot{}, missing
	}
	if err != nil {
		return cloud.Snapshot{}, err
	}
	for _, raw := range out.Snapshots {
		if aws.ToString(raw.SnapshotId) == id {
			s, _ := toSnapshot(c.cfg.Cluster, raw)
			return s, nil
		}
	}
	return cloud.Snapshot{}, missing
}

// Snapshots returns the cluster's snapshots, of one volume or all.
func (c *Client) Snapshots(ctx context.Context, volumeID string) ([]cloud.Snapshot, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	var filters []types.Filter
	if volumeID != "" {
		filters = append(filters, filter("volume-id", volumeID))
	}
	found, err := c.describeSnapshots(ctx, filters...)
	if err != nil {
		return nil, c.explain("list the snapshots of the cluster", ref{}, err)
	}
	return found, nil
}

// describeSnapshots asks for snapshots by filters, never by SnapshotIds [one missing ID fails the whole call], and returns those of the cluster.
func (c *Client) describeSnapshots(ctx context.Context, filters ...types.Filter) ([]cloud.Snapshot, error) {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return nil, err
	}
	in := &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: append(filters, filter("tag:"+tagCluster, c.cfg.Cluster)), MaxResults: aws.Int32(pageSize)}
	var found []cloud.Snapshot
	at := map[string]int{} // a snapshot may be on two pages if the list changes between them
	for {
		out, err := invoke(ctx, c, "DescribeSnapshots", ec2api.DescribeSnapshots, in)
		if err != nil {
			return nil, err
		}
		for _, raw := range out.Snapshots {
			s, ours := toSnapshot(c.cfg.Cluster, raw)
			if !ours {
				continue
			}
			if i, twice := at[s.ID]; twice {
				found[i] = s
				continue
			}
			at[s.ID] = len(found)
			found = append(found, s)
		}
		if aws.ToString(out.NextToken) == "" {
			return found, nil
		}
		in.NextToken = out.NextToken
	}
}

// toSnapshot translates a snapshot and reports whether it is of the cluster.
func toSnapshot(cluster string, raw types.Snapshot) (s cloud.Snapshot, ours bool) {
	s = cloud.Snapshot{
		ID:          aws.ToString(raw.SnapshotId),
		VolumeID:    aws.ToString(raw.VolumeId),
		Description: aws.ToString(raw.Description),
		SizeGiB:     int64(aws.ToInt32(raw.VolumeSize)),
		Bytes:       aws.ToInt64(raw.FullSnapshotSizeInBytes),
		State:       cloud.SnapshotState(raw.State),
		Started:     aws.ToTime(raw.StartTime),
		Encrypted:   aws.ToBool(raw.Encrypted),
		KMSKeyID:    aws.ToString(raw.KmsKeyId),
	}
	s.Progress, _ = strconv.Atoi(strings.TrimSuffix(aws.ToString(raw.Progress), "%")) // EC2 leaves it out at times
	t := readTags(cluster, raw.Tags)
	s.Cluster, s.Volume, s.Slot, s.Attrs, s.Tags = t.cluster, t.name, t.slot, t.attrs, t.others
	if t.newer != "" {
		s.Newer = cloud.Errorf(cloud.ErrState, "snapshot %s of volume %q was made by a newer blockvol: its tag %s is %s, and this version knows %s; "+
			"it is not changed here until you upgrade the plugin on this host", s.ID, s.Volume, tagSchema, t.newer, schemaLatest)
	}
	return s, t.ours && s.Volume != ""
}

// WaitSnapshot waits until the snapshot is completed.
func (c *Client) WaitSnapshot(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("wait for snapshot "+id, ref{}, c.waitSnapshot(ctx, id))
}

func (c *Client) waitSnapshot(ctx context.Context, id string) error {
	var absent since
	var last cloud.Snapshot
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		s, err := c.lookSnapshot(ctx, id)
		switch {
		case errors.Is(err, cloud.ErrNotFound):
			if absent.held(true, c.now(), c.timing.Vanish) {
				return err
			}
		case err != nil && ctx.Err() == nil && !temporary(err):
			return err
		case err != nil:
		case s.State == cloud.SnapshotCompleted:
			return nil
		case s.State != cloud.SnapshotPending:
			return cloud.Errorf(cloud.ErrState, "snapshot %s of volume %q is in state %s: EC2 could not make it; delete it and make another one", id, s.Volume, s.State)
		default:
			absent.held(false, c.now(), 0)
			last = s
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			if last.ID == "" {
				return errors.Join(err, sleepErr)
			}
			return &cloud.Error{Kind: cloud.ErrState, Cause: sleepErr, Text: fmt.Sprintf(
				"snapshot %s of volume %q is still pending (%d %%): it goes on by itself, and can be used when it is completed", id, last.Volume, last.Progress)}
		}
	}
}

// DeleteSnapshot deletes a snapshot that carries our tags at this moment.
func (c *Client) DeleteSnapshot(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("delete snapshot "+id, ref{}, c.deleteSnapshot(ctx, id))
}

func (c *Client) deleteSnapshot(ctx context.Context, id string) error {
	s, err := c.lookSnapshot(ctx, id)
	if err != nil {
		return err
	}
	if s.Newer != nil {
		return s.Newer
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	_, err = invoke(ctx, c, "DeleteSnapshot", ec2api.DeleteSnapshot, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
	if hasCode(err, "InvalidSnapshot.NotFound") {
		if repeated(err) {
			return nil // the first attempt did it and its answer was lost
		}
		return noSnapshot(id)
	}
	return err
}

package ebs

import (
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// The tags that make a volume ours. All tags of blockvol start with the prefix; what follows it is the key in Volume.Attrs, except for
// those below, which belong to this package.
const (
	prefix     = "blockvol:"
	tagCluster = prefix + "cluster"
	tagName    = prefix + "name"
	tagSchema  = prefix + "schema"
	tagSlot    = prefix + "slot" // of a snapshot: see cloud.SnapshotSpec
	tagConsole = "Name"          // what the EC2 console shows

	// The schemas of the tags. A volume without one has the first; one that is not here was made by a newer blockvol. Each volume has the
	// oldest with which nobody does harm, so that older versions can use those that they understand.
	schemaFirst  = "1"
	schemaLatest = "2" // the volume is kept when it is removed, or blockvol did not make it: version 1 would delete it

	maxTagKey   = 128 // characters, EC2's limit
	maxTagValue = 256
	maxTags     = 50
)

// reserved reports whether an attribute belongs to this package.
func reserved(attr string) bool {
	switch prefix + attr {
	case tagCluster, tagName, tagSchema, tagSlot, tagReleasedAt, tagMadeAs:
		return true
	}
	return false
}

// toVolume translates a volume and reports whether it is of the cluster.
func toVolume(cluster string, v types.Volume) (volume cloud.Volume, ours bool) {
	id := aws.ToString(v.VolumeId)
	volume = cloud.Volume{
		ID:          id,
		Serial:      strings.ReplaceAll(id, "-", ""),
		SizeGiB:     int64(aws.ToInt32(v.Size)),
		Type:        string(v.VolumeType),
		IOPS:        int64(aws.ToInt32(v.Iops)),
		Throughput:  int64(aws.ToInt32(v.Throughput)),
		Encrypted:   aws.ToBool(v.Encrypted),
		KMSKeyID:    aws.ToString(v.KmsKeyId),
		Zone:        aws.ToString(v.AvailabilityZone),
		State:       cloud.State(v.State),
		SnapshotID:  aws.ToString(v.SnapshotId),
		MultiAttach: aws.ToBool(v.MultiAttachEnabled),
		Created:     aws.ToTime(v.CreateTime),
	}
	if volume.SnapshotID == "" {
		volume.SnapshotID = aws.ToString(v.SourceVolumeId)
	}
	t := readTags(cluster, v.Tags)
	volume.Name, volume.Attrs, volume.Tags = t.name, t.attrs, t.others
	if t.newer != "" {
		volume.Newer = cloud.Errorf(cloud.ErrState, "volume %q (%s) was made by a newer blockvol: its tag %s is %s, and this version knows %s; "+
			"it is neither used nor changed here until you upgrade the plugin on this host", volume.Name, id, tagSchema, t.newer, schemaLatest)
	}
	for _, a := range v.Attachments {
		if a.State == types.VolumeAttachmentStateDetached {
			continue
		}
		volume.Attachments = append(volume.Attachments, cloud.Attachment{
			Host:   aws.ToString(a.InstanceId),
			Device: aws.ToString(a.Device),
			State:  cloud.AttachState(a.State),
			Since:  aws.ToTime(a.AttachTime),
		})
	}
	_, gone := former(volume.Name)
	return volume, t.ours && volume.Name != "" && !gone
}

// readTags sorts the tags of a volume or a snapshot.
func readTags(cluster string, tags []types.Tag) (t sortedTags) {
	t.attrs, t.others = map[string]string{}, map[string]string{}
	for _, tag := range tags {
		key, value := aws.ToString(tag.Key), aws.ToString(tag.Value)
		switch attr, blockvol := strings.CutPrefix(key, prefix); {
		case key == tagCluster:
			t.cluster, t.ours = value, value == cluster
		case key == tagName:
			t.name = value
		case key == tagSlot:
			t.slot = value
		case key == tagSchema:
			if value != schemaFirst && value != schemaLatest {
				t.newer = value
			}
		case blockvol:
			t.attrs[attr] = value
		default:
			t.others[key] = value
		}
	}
	if t.others[tagConsole] == t.name {
		delete(t.others, tagConsole)
	}
	return t
}

// sortedTags is what the tags of a volume or a snapshot say.
type sortedTags struct {
	ours          bool // of the cluster
	cluster       string
	name, slot    string
	newer         string // the schema, if this version does not know it
	attrs, others map[string]string
}

// schemaFor is the schema that a volume with these attributes needs.
func schemaFor(attrs map[string]string) string {
	if _, ok := attrs["reclaim"]; ok {
		return schemaLatest
	}
	return schemaFirst
}

// createInput is the request for a volume. It depends on the cluster, the spec and the token alone, and is the same on every host:
// EC2 compares it with what the token was used for before.
func createInput(cluster string, spec cloud.Spec, token string) *ec2.CreateVolumeInput {
	tags := map[string]string{tagConsole: spec.Name}
	for key, value := range spec.Tags {
		tags[key] = value
	}
	for attr, value := range spec.Attrs {
		tags[prefix+attr] = value
	}
	tags[tagCluster], tags[tagName], tags[tagSchema] = cluster, spec.Name, schemaFor(spec.Attrs)
	in := &ec2.CreateVolumeInput{
		ClientToken:       aws.String(token),
		AvailabilityZone:  aws.String(spec.Zone),
		VolumeType:        types.VolumeType(spec.Type),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: toTags(tags)}},
	}
	if spec.SizeGiB != 0 {
		in.Size = aws.Int32(int32(spec.SizeGiB))
	}
	if spec.SnapshotID != "" {
		in.SnapshotId = aws.String(spec.SnapshotID)
	}
	if spec.IOPS != 0 {
		in.Iops = aws.Int32(int32(spec.IOPS))
	}
	if spec.Throughput != 0 {
		in.Throughput = aws.Int32(int32(spec.Throughput))
	}
	if spec.Encrypted || spec.KMSKeyID != "" {
		in.Encrypted = aws.Bool(true)
	}
	if spec.KMSKeyID != "" {
		in.KmsKeyId = aws.String(spec.KMSKeyID)
	}
	return in
}

// copyInput is the request for a copy of a volume, with the same properties as createInput.
func copyInput(cluster string, spec cloud.Spec, token string) *ec2.CopyVolumesInput {
	in := createInput(cluster, spec, token)
	return &ec2.CopyVolumesInput{
		SourceVolumeId: aws.String(spec.SourceID), ClientToken: in.ClientToken, Size: in.Size, VolumeType: in.VolumeType, Iops: in.Iops, Throughput: in.Throughput,
		Encrypted: in.Encrypted, KmsKeyId: in.KmsKeyId, TagSpecifications: in.TagSpecifications,
	}
}

// toTags returns the tags in the order of their keys.
func toTags(tags map[string]string) []types.Tag {
	out := make([]types.Tag, 0, len(tags))
	for key, value := range tags {
		out = append(out, types.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	sort.Slice(out, func(i, j int) bool { return *out[i].Key < *out[j].Key })
	return out
}

// escape makes a filter value match itself alone [EC2's filters know the wildcards * and ?].
func escape(value string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(value)
}

func ago(now, then time.Time) time.Duration { return now.Sub(then).Round(time.Second) }

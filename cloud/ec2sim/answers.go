package ec2sim

import (
	"sort"
	"time"
)

// The answers of the actions, as EC2 writes them in XML.

// set is a list; an empty one is written as an empty element.
type set[T any] struct {
	Items []T `xml:"item"`
}

// returned is the answer of actions that have nothing to tell.
type returned struct {
	Return bool `xml:"return"`
}

type tagItem struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

type attachmentItem struct {
	VolumeID            string `xml:"volumeId"`
	InstanceID          string `xml:"instanceId"`
	Device              string `xml:"device"`
	Status              string `xml:"status"`
	AttachTime          string `xml:"attachTime"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
}

type volumeItem struct {
	VolumeID    string               `xml:"volumeId"`
	Size        int64                `xml:"size"`
	SnapshotID  string               `xml:"snapshotId"`
	SourceID    string               `xml:"sourceVolumeId,omitempty"`
	Zone        string               `xml:"availabilityZone"`
	ZoneID      string               `xml:"availabilityZoneId"`
	Status      string               `xml:"status"`
	CreateTime  string               `xml:"createTime"`
	Attachments *set[attachmentItem] `xml:"attachmentSet"`
	Tags        *set[tagItem]        `xml:"tagSet"`
	VolumeType  string               `xml:"volumeType"`
	IOPS        *int64               `xml:"iops"`
	Throughput  *int64               `xml:"throughput"`
	Encrypted   bool                 `xml:"encrypted"`
	KMSKeyID    string               `xml:"kmsKeyId,omitempty"`
	MultiAttach bool                 `xml:"multiAttachEnabled"`
}

// volumeCreated is a volume without a list around it.
type volumeCreated struct{ volumeItem }

type volumesDescribed struct {
	Volumes   set[volumeItem] `xml:"volumeSet"`
	NextToken string          `xml:"nextToken,omitempty"`
}

// createdXML shows a volume as CreateVolume does: without attachments.
func createdXML(v *volume) volumeCreated {
	item := volumeXML(v)
	item.Attachments = nil
	return volumeCreated{item}
}

// volumeXML shows a volume as DescribeVolumes does.
func volumeXML(v *volume) volumeItem {
	item := volumeItem{
		VolumeID: v.ID, Size: v.SizeGiB, SnapshotID: v.SnapshotID, SourceID: v.SourceID, Zone: v.Zone, ZoneID: zoneID(v.Zone), Status: v.State, CreateTime: stamp(v.Created),
		VolumeType: v.Type, Encrypted: v.Encrypted, KMSKeyID: v.KMSKeyID, MultiAttach: v.MultiAttach, Attachments: &set[attachmentItem]{},
	}
	if v.IOPS > 0 {
		item.IOPS = &v.IOPS
	}
	if v.Throughput > 0 {
		item.Throughput = &v.Throughput
	}
	if len(v.Tags) > 0 {
		item.Tags = &set[tagItem]{Items: tagItems(v.Tags)}
	}
	for _, a := range v.Attachments {
		item.Attachments.Items = append(item.Attachments.Items, attachmentXML(v, a))
	}
	return item
}

func attachmentXML(v *volume, a *attachment) attachmentItem {
	return attachmentItem{VolumeID: v.ID, InstanceID: a.Instance, Device: a.Device, Status: a.State, AttachTime: stamp(a.Since), DeleteOnTermination: a.DeleteOnTermination}
}

func tagItems(tags map[string]string) []tagItem {
	items := make([]tagItem, 0, len(tags))
	for k, v := range tags {
		items = append(items, tagItem{k, v})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Key < items[j].Key })
	return items
}

// stamp writes a time as EC2 does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

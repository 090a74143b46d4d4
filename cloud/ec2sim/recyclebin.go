package ec2sim

import (
	"maps"
	"time"
)

// recycleBin holds what was deleted while a rule of Limits.Retention said to keep it. Its files stay where they were.
type recycleBin struct {
	Volumes   map[string]*volume   `json:"volumes,omitempty"`
	Snapshots map[string]*snapshot `json:"snapshots,omitempty"`
}

// stay is how long something is in the Recycle Bin.
type stay struct {
	Entered time.Time `json:"entered"`
	Exit    time.Time `json:"exit"`
}

// Retention is a rule of the Recycle Bin: what is deleted is kept for a while. In AWS such rules belong to another service (rbin).
type Retention struct {
	Resource string            `json:"resource"`       // volume or snapshot
	Tags     map[string]string `json:"tags,omitempty"` // only what has one of these; empty: everything
	For      time.Duration     `json:"-"`              // in JSON a text such as "24h"
}

// retain returns for how long something that is being deleted is kept; 0 is not at all.
func (l Limits) retain(resource string, tags map[string]string) time.Duration {
	var longest time.Duration
	for _, r := range l.Retention {
		if r.Resource != resource {
			continue
		}
		hit := len(r.Tags) == 0
		for key, value := range r.Tags {
			has, ok := tags[key]
			hit = hit || (ok && has == value)
		}
		if hit {
			longest = max(longest, r.For)
		}
	}
	return longest
}

// stayFrom is a stay that begins now. Callers hold s.mu.
func (s *Sim) stayFrom(kept time.Duration) *stay {
	now := s.now().UTC().Truncate(time.Millisecond)
	return &stay{Entered: now, Exit: now.Add(kept)}
}

// recycleVolume puts a volume that EC2 does not show any more into the bin. Callers hold s.mu.
func (s *Sim) recycleVolume(v *volume, kept time.Duration) {
	v.State, v.Recycled = "available", s.stayFrom(kept)
	if m := v.Modification; m != nil && m.Ended.IsZero() {
		m.State, m.Ended = "completed", s.now().UTC()
	}
	if s.state.Bin.Volumes == nil {
		s.state.Bin.Volumes = map[string]*volume{}
	}
	s.state.Bin.Volumes[v.ID] = v
	s.schedule(kept, event{Kind: evPurged, Volume: v.ID})
}

// recycleSnapshot is recycleVolume for snapshots. Callers hold s.mu.
func (s *Sim) recycleSnapshot(n *snapshot, kept time.Duration) {
	n.Recycled = s.stayFrom(kept)
	if s.state.Bin.Snapshots == nil {
		s.state.Bin.Snapshots = map[string]*snapshot{}
	}
	s.state.Bin.Snapshots[n.ID] = n
	s.schedule(kept, event{Kind: evPurged, Snapshot: n.ID})
}

// finishPurge takes something out of the bin for good.
func (s *Sim) finishPurge(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.state.Bin.Volumes[e.Volume]; v != nil {
		delete(s.state.Bin.Volumes, v.ID)
		s.removeFile(s.BackingFile(v.ID))
	}
	if n := s.state.Bin.Snapshots[e.Snapshot]; n != nil {
		delete(s.state.Bin.Snapshots, n.ID)
		s.removeFile(s.SnapshotFile(n.ID))
	}
	s.dirty = true
	return 0
}

// restoreVolume brings a volume back as it was, with its ID and its tags.
func (s *Sim) restoreVolume(c *call) (any, error) {
	if err := c.params.need("VolumeId"); err != nil {
		return nil, err
	}
	id := c.params["VolumeId"]
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	v := s.state.Bin.Volumes[id]
	if v == nil {
		return nil, errNoVolume(id)
	}
	if c.dryRun {
		return nil, nil
	}
	s.cancel(evPurged, id, "")
	delete(s.state.Bin.Volumes, id)
	delete(s.gone, id)
	v.Recycled = nil
	s.state.Volumes[id] = v
	s.touch(v)
	v.past.freeze(c, s.now())
	return returned{true}, nil
}

// restoreSnapshot brings a snapshot back.
func (s *Sim) restoreSnapshot(c *call) (any, error) {
	if err := c.params.need("SnapshotId"); err != nil {
		return nil, err
	}
	id := c.params["SnapshotId"]
	if err := checkSnapshotID(id); err != nil {
		return nil, err
	}
	n := s.state.Bin.Snapshots[id]
	if n == nil {
		return nil, errNoSnapshot(id)
	}
	if c.dryRun {
		return nil, nil
	}
	s.cancelSnapshot(evPurged, id)
	delete(s.state.Bin.Snapshots, id)
	delete(s.goneSnapshots, id)
	n.Recycled = nil
	s.state.Snapshots[id] = n
	s.touchSnapshot(n)
	n.past.freeze(c, s.now())
	return snapshotAnswer{snapshotXML(s, n)}, nil
}

type recycledVolumeItem struct {
	VolumeID   string `xml:"volumeId"`
	VolumeType string `xml:"volumeType"`
	State      string `xml:"state"`
	Size       int64  `xml:"size"`
	IOPS       *int64 `xml:"iops"`
	Throughput *int64 `xml:"throughput"`
	Zone       string `xml:"availabilityZone"`
	ZoneID     string `xml:"availabilityZoneId"`
	SourceID   string `xml:"sourceVolumeId,omitempty"`
	SnapshotID string `xml:"snapshotId,omitempty"`
	CreateTime string `xml:"createTime"`
	Enter      string `xml:"recycleBinEnterTime"`
	Exit       string `xml:"recycleBinExitTime"`
}

type recycledVolumes struct {
	Volumes   set[recycledVolumeItem] `xml:"volumeSet"`
	NextToken string                  `xml:"nextToken,omitempty"`
}

// listRecycledVolumes shows no tags: neither does EC2.
func (s *Sim) listRecycledVolumes(c *call) (any, error) {
	ids := c.params.list("VolumeId")
	for _, id := range ids {
		if err := checkVolumeID(id); err != nil {
			return nil, err
		}
	}
	found, err := choose(maps.Clone(s.state.Bin.Volumes), ids, func(*volume) bool { return true }, "InvalidVolume.NotFound", "volume")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(v *volume) string { return v.ID }, ids)
	if err != nil {
		return nil, err
	}
	out := recycledVolumes{NextToken: next}
	for _, v := range found {
		shown := volumeXML(v)
		out.Volumes.Items = append(out.Volumes.Items, recycledVolumeItem{
			VolumeID: v.ID, VolumeType: v.Type, State: v.State, Size: v.SizeGiB, IOPS: shown.IOPS, Throughput: shown.Throughput, Zone: v.Zone, ZoneID: zoneID(v.Zone),
			SourceID: v.SourceID, SnapshotID: v.SnapshotID, CreateTime: stamp(v.Created), Enter: stamp(v.Recycled.Entered), Exit: stamp(v.Recycled.Exit),
		})
	}
	return out, nil
}

type recycledSnapshotItem struct {
	SnapshotID  string `xml:"snapshotId"`
	VolumeID    string `xml:"volumeId"`
	Description string `xml:"description,omitempty"`
	Enter       string `xml:"recycleBinEnterTime"`
	Exit        string `xml:"recycleBinExitTime"`
}

type recycledSnapshots struct {
	Snapshots set[recycledSnapshotItem] `xml:"snapshotSet"`
	NextToken string                    `xml:"nextToken,omitempty"`
}

func (s *Sim) listRecycledSnapshots(c *call) (any, error) {
	ids := c.params.list("SnapshotId")
	for _, id := range ids {
		if err := checkSnapshotID(id); err != nil {
			return nil, err
		}
	}
	found, err := choose(maps.Clone(s.state.Bin.Snapshots), ids, func(*snapshot) bool { return true }, "InvalidSnapshot.NotFound", "snapshot")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(n *snapshot) string { return n.ID }, ids)
	if err != nil {
		return nil, err
	}
	out := recycledSnapshots{NextToken: next}
	for _, n := range found {
		out.Snapshots.Items = append(out.Snapshots.Items, recycledSnapshotItem{n.ID, n.Volume, n.Description, stamp(n.Recycled.Entered), stamp(n.Recycled.Exit)})
	}
	return out, nil
}

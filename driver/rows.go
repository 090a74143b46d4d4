package driver

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// VolumeRow is what `blockvol ls` and `blockvol inspect` tell of a volume.
type VolumeRow struct {
	Name       string            `json:"name"`
	ID         string            `json:"id,omitempty"` // empty if several volumes have the name
	Status     string            `json:"status"`       // in one word: where it stands on this host; if it is not here, its attachment; if it has none, its state
	SizeGiB    int64             `json:"sizeGiB,omitempty"`
	Type       string            `json:"type,omitempty"`
	IOPS       int64             `json:"iops,omitempty"`       // provisioned or baseline
	Throughput int64             `json:"throughput,omitempty"` // MiB/s
	Encrypted  bool              `json:"encrypted"`
	KMSKeyID   string            `json:"kmsKeyID,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	State      string            `json:"state,omitempty"` // in the provider's words: creating, available, in-use, error
	Created    time.Time         `json:"created,omitzero"`
	SnapshotID string            `json:"snapshotID,omitempty"` // that it was made from
	Filesystem string            `json:"filesystem,omitempty"`
	Profile    string            `json:"profile,omitempty"`    // what its options came from
	Reclaim    string            `json:"reclaim,omitempty"`    // what becomes of it when it is removed
	AccessMode string            `json:"accessMode,omitempty"` // who may use it at a time
	Host       string            `json:"host,omitempty"`       // the instance that it is attached to
	Attachment string            `json:"attachment,omitempty"` // attaching, attached, detaching or busy
	Since      *time.Time        `json:"since,omitempty"`      // of the attachment
	Here       *VolumeHere       `json:"here,omitempty"`       // what this host knows of it, if it is here
	Attrs      map[string]string `json:"attrs,omitempty"`      // what blockvol keeps with the volume, as tags with the prefix blockvol:
	Tags       map[string]string `json:"tags,omitempty"`       // all other tags
	Problem    string            `json:"problem,omitempty"`
}

// VolumeHere is where a volume stands on this host.
type VolumeHere struct {
	State      string     `json:"state"`
	Doing      string     `json:"doing,omitempty"`
	DoingSince *time.Time `json:"doingSince,omitempty"`
	Device     string     `json:"device,omitempty"`
	Mountpoint string     `json:"mountpoint,omitempty"` // in the plugin's own view
	Uses       int        `json:"uses"`                 // as Docker has said
	UsedBytes  *int64     `json:"usedBytes,omitempty"`  // of the filesystem, while it is mounted
	FreeBytes  *int64     `json:"freeBytes,omitempty"`

	Snapshots *ScheduleRow `json:"snapshots,omitempty"` // by schedule
}

// VolumeRows is the answer to `blockvol ls`.
type VolumeRows struct {
	Cluster   string      `json:"cluster"`
	Instance  string      `json:"instance"` // this host
	Simulated bool        `json:"simulated,omitempty"`
	Volumes   []VolumeRow `json:"volumes"`
}

// listVolumes asks the cloud for all volumes of the cluster. Unlike Docker's List it tells when that fails, and who has each volume.
func (m *Manager) listVolumes(ctx context.Context, _ NoRequest, _ Say) (VolumeRows, error) {
	if err := m.ready(ctx); err != nil {
		return VolumeRows{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.Request)
	defer cancel()
	if err := m.takeStock(ctx); err != nil {
		return VolumeRows{}, err
	}
	out := VolumeRows{Cluster: m.cfg.Settings.Cluster, Instance: m.self().ID, Simulated: m.cfg.Simulated, Volumes: []VolumeRow{}}
	for _, v := range m.all() {
		if row, ok := m.rowOf(v); ok {
			out.Volumes = append(out.Volumes, row)
		}
	}
	sortRows(out.Volumes)
	return out, nil
}

// CloudRows is what the cloud alone tells of the volumes of a cluster, without any host.
func CloudRows(vols []cloud.Volume) []VolumeRow {
	byName := map[string][]cloud.Volume{}
	for _, vol := range vols {
		if checkName(vol.Name) == nil && vol.State != cloud.Deleting && vol.State != cloud.Deleted {
			byName[vol.Name] = append(byName[vol.Name], vol)
		}
	}
	rows := []VolumeRow{}
	for name, twins := range byName {
		if len(twins) == 1 {
			rows = append(rows, cloudRow(name, twins[0], ""))
			continue
		}
		err := &cloud.AmbiguousError{Name: name}
		for _, t := range twins {
			err.IDs = append(err.IDs, t.ID)
		}
		slices.Sort(err.IDs)
		rows = append(rows, ambiguousRow(name, err))
	}
	sortRows(rows)
	return rows
}

func sortRows(rows []VolumeRow) {
	slices.SortFunc(rows, func(a, b VolumeRow) int { return cmp.Compare(a.Name, b.Name) })
}

func ambiguousRow(name string, err *cloud.AmbiguousError) VolumeRow {
	return VolumeRow{Name: name, Status: ProblemAmbiguous, Problem: err.Error()}
}

// cloudRow is what the cloud tells of a volume. An attachment to another host than this one goes first: it is what keeps a volume away.
func cloudRow(name string, vol cloud.Volume, host string) VolumeRow {
	row := VolumeRow{
		Name: name, ID: vol.ID, Status: string(vol.State), SizeGiB: vol.SizeGiB, Type: vol.Type, IOPS: vol.IOPS, Throughput: vol.Throughput,
		Encrypted: vol.Encrypted, KMSKeyID: vol.KMSKeyID, Zone: vol.Zone, State: string(vol.State), Created: vol.Created, SnapshotID: vol.SnapshotID,
		Filesystem: vol.Attrs[attrFS], Profile: vol.Attrs[attrProfile], Reclaim: reclaimRule(vol), AccessMode: accessMode,
		Attrs: vol.Attrs, Tags: vol.Tags,
	}
	a, held := vol.Elsewhere(host)
	if !held {
		a, held = vol.On(host)
	}
	if held {
		row.Host, row.Attachment, row.Since, row.Status = a.Host, string(a.State), &a.Since, string(a.State)
	}
	if vol.Newer != nil {
		row.Problem = vol.Newer.Error()
	}
	return row
}

// rowOf is what is known here of a volume, from memory and the kernel.
func (m *Manager) rowOf(v *record) (VolumeRow, bool) {
	i := m.info(v)
	_, attached := i.Status["device"]
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.ambiguous != nil:
		return ambiguousRow(v.name, v.ambiguous), true
	case v.seen == nil:
		return VolumeRow{}, false
	}
	row := cloudRow(v.name, *v.seen, m.self().ID)
	if v.lastErr != nil && row.Problem == "" {
		row.Problem = v.lastErr.Error()
	}
	if !attached && !v.attached && v.phase == phaseFree {
		return row, true
	}
	row.Here = &VolumeHere{State: i.Status["state"].(string), Mountpoint: i.Mountpoint, Uses: len(v.users), Snapshots: m.slots.row(v.id)}
	row.Here.Device, _ = i.Status["device"].(string)
	if v.doing != "" {
		since := v.doingSince
		row.Here.Doing, row.Here.DoingSince = v.doing, &since
	}
	if used, ok := i.Status["usedBytes"].(int64); ok {
		free := i.Status["freeBytes"].(int64)
		row.Here.UsedBytes, row.Here.FreeBytes = &used, &free
	}
	if row.Here.State != string(phaseFree) {
		row.Status = row.Here.State
	}
	return row, true
}

// accessMode is who may use a volume at a time: one host. Others are refused when a volume is made.
const accessMode = "rwo"

// reclaimRule is what becomes of a volume when it is removed, in the words of its tag if this version does not know them.
func reclaimRule(vol cloud.Volume) string {
	rule, err := options.ReclaimOf(vol.Attrs)
	if err != nil {
		return vol.Attrs["reclaim"]
	}
	return rule
}

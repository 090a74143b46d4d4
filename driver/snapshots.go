package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// maxDescription is EC2's limit of the description of a snapshot, in characters.
const maxDescription = 255

// SnapshotRow is what the verbs tell of a snapshot.
type SnapshotRow struct {
	ID          string            `json:"id"`
	Volume      string            `json:"volume"`   // its name at that time
	VolumeID    string            `json:"volumeID"` // may be gone
	SizeGiB     int64             `json:"sizeGiB"`  // of the volume
	Bytes       int64             `json:"bytes,omitempty"`
	State       string            `json:"state"` // pending, completed or error
	Progress    int               `json:"progress"`
	Started     time.Time         `json:"started"`
	Consistency string            `json:"consistency,omitempty"` // frozen, unmounted or crash
	Slot        string            `json:"slot,omitempty"`        // what it was made for; of one that a person has made it means nothing
	Scheduled   string            `json:"scheduled,omitempty"`   // the schedule that has made it; empty: none
	Filesystem  string            `json:"filesystem,omitempty"`
	Description string            `json:"description,omitempty"`
	Encrypted   bool              `json:"encrypted"`
	KMSKeyID    string            `json:"kmsKeyID,omitempty"`
	Attrs       map[string]string `json:"attrs,omitempty"` // what a volume that is made of it inherits, as tags with the prefix blockvol:
	Tags        map[string]string `json:"tags,omitempty"`
	Problem     string            `json:"problem,omitempty"`
}

func snapshotRow(s cloud.Snapshot) SnapshotRow {
	row := SnapshotRow{
		ID: s.ID, Volume: s.Volume, VolumeID: s.VolumeID, SizeGiB: s.SizeGiB, Bytes: s.Bytes, State: string(s.State), Progress: s.Progress, Started: s.Started,
		Consistency: s.Attrs[attrConsistency], Slot: s.Slot, Scheduled: s.Attrs[attrScheduled], Filesystem: s.Attrs[attrFS], Description: s.Description,
		Encrypted: s.Encrypted, KMSKeyID: s.KMSKeyID, Attrs: s.Attrs, Tags: s.Tags,
	}
	if s.State == cloud.SnapshotCompleted {
		row.Progress = 100
	}
	if s.Newer != nil {
		row.Problem = s.Newer.Error()
	}
	return row
}

// SnapshotsRequest asks for the snapshots of the cluster.
type SnapshotsRequest struct {
	Volume string `json:"volume,omitempty"` // only those of this one, by the name that it had or by its ID; it may be gone
}

// SnapshotRows is the answer to SnapshotsRequest, the newest first.
type SnapshotRows struct {
	Cluster   string        `json:"cluster"`
	Instance  string        `json:"instance"` // this host
	Simulated bool          `json:"simulated,omitempty"`
	Snapshots []SnapshotRow `json:"snapshots"`
}

func (m *Manager) listSnapshots(ctx context.Context, req SnapshotsRequest, _ Say) (SnapshotRows, error) {
	if err := m.ready(ctx); err != nil {
		return SnapshotRows{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.Request)
	defer cancel()
	all, err := m.cloud.Snapshots(ctx, "")
	if err != nil {
		return SnapshotRows{}, err
	}
	return SnapshotRows{Cluster: m.cfg.Settings.Cluster, Instance: m.self().ID, Simulated: m.cfg.Simulated, Snapshots: CloudSnapshots(all, req.Volume)}, nil
}

// CloudSnapshots is what the verbs tell of the snapshots of a volume, by the name that it had or by its ID, or of all, the newest first.
func CloudSnapshots(all []cloud.Snapshot, volume string) []SnapshotRow {
	rows := []SnapshotRow{}
	for _, s := range all {
		if volume == "" || s.Volume == volume || s.VolumeID == volume {
			rows = append(rows, snapshotRow(s))
		}
	}
	slices.SortFunc(rows, func(a, b SnapshotRow) int { return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(a.ID, b.ID)) })
	return rows
}

// CreateSnapshotRequest asks for a snapshot of a volume.
type CreateSnapshotRequest struct {
	Volume      string            `json:"volume"` // its name, or its ID
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Wait        bool              `json:"wait,omitempty"` // until it is completed
}

// check refuses what EC2 would refuse, before anything stands still for it.
func (r CreateSnapshotRequest) check() error {
	if n := utf8.RuneCountInString(r.Description); n > maxDescription {
		return fmt.Errorf("the description has %d characters; EC2 allows %d", n, maxDescription)
	}
	return options.CheckTags(r.Tags)
}

// createSnapshot makes a snapshot for a person.
func (m *Manager) createSnapshot(ctx context.Context, req CreateSnapshotRequest, say Say) (SnapshotRow, error) {
	if err := checkName(req.Volume); err != nil {
		return SnapshotRow{}, err
	}
	if err := req.check(); err != nil {
		return SnapshotRow{}, fmt.Errorf("no snapshot of volume %q is made: %w", req.Volume, err)
	}
	if err := m.ready(ctx); err != nil {
		return SnapshotRow{}, err
	}
	v, _, err := m.byNameOrID(ctx, req.Volume)
	if err != nil {
		return SnapshotRow{}, err
	}
	made := make(chan cloud.Snapshot, 1)
	err = m.work(ctx, v, func(base context.Context) error {
		vol, err := m.exists(base, v, 0)
		if err != nil {
			return err
		}
		s, err := m.snapshotVolume(base, v, vol, cloud.SnapshotSpec{Description: req.Description, Tags: req.Tags}, say)
		if err == nil {
			made <- s
		}
		return err
	})
	if err != nil {
		return SnapshotRow{}, err
	}
	s := <-made
	if req.Wait {
		if s, err = m.awaitSnapshot(ctx, s, say); err != nil {
			return SnapshotRow{}, err
		}
	}
	return snapshotRow(s), nil
}

// awaitSnapshot waits until a snapshot is completed, and tells how far it is.
func (m *Manager) awaitSnapshot(ctx context.Context, s cloud.Snapshot, say Say) (cloud.Snapshot, error) {
	const slowest = 5 * time.Second
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, slowest) {
		switch s.State {
		case cloud.SnapshotCompleted:
			return s, nil
		case cloud.SnapshotFailed:
			return s, cloud.Errorf(cloud.ErrState, "snapshot %s of volume %q is in state error: EC2 could not make it; delete it and make another one", s.ID, s.Volume)
		}
		say("copying the data of snapshot %s: %d %%", s.ID, s.Progress)
		if err := m.pause(ctx, pause); err != nil {
			return s, fmt.Errorf("snapshot %s of volume %q is still pending (%d %%), goes on by itself, and can be used when it is completed: %w", s.ID, s.Volume, s.Progress, err)
		}
		now, err := m.cloud.AnySnapshot(ctx, s.ID)
		switch {
		case err == nil:
			s = now
		case errors.Is(err, cloud.ErrNotFound) && time.Since(s.Started) < time.Minute: // EC2 may not show it at once
		case ctx.Err() == nil && !errors.Is(err, cloud.ErrUnavailable) && !errors.Is(err, cloud.ErrThrottled):
			return s, err
		}
	}
}

// RemoveSnapshotRequest asks for the end of a snapshot.
type RemoveSnapshotRequest struct {
	ID string `json:"id"`
}

// removeSnapshot deletes a snapshot of the cluster. Volumes that were made of it, and other snapshots, keep their data.
func (m *Manager) removeSnapshot(ctx context.Context, req RemoveSnapshotRequest, _ Say) (RemoveSnapshotRequest, error) {
	if err := m.ready(ctx); err != nil {
		return req, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.timing.Request)
	defer cancel()
	if err := m.cloud.DeleteSnapshot(ctx, req.ID); err != nil {
		return req, err
	}
	m.log.Infof("deleted snapshot %s, because a person says so", req.ID)
	return req, nil
}

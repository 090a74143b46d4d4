package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// The kinds of what `blockvol prune` looks at.
const (
	PruneVolume   = "volume"
	PruneSnapshot = "snapshot"
)

// PruneRequest says what is to be deleted, beside what nobody can miss.
type PruneRequest struct {
	Kept         bool          `json:"kept,omitempty"`         // volumes that were removed and kept, by reclaim=retain
	Removed      bool          `json:"removed,omitempty"`      // volumes that were removed and can still be brought back
	AllSnapshots bool          `json:"allSnapshots,omitempty"` // of volumes that are gone also those that people made, the last one, and those that a removal left
	OlderThan    time.Duration `json:"olderThan,omitempty"`    // only what is at least that old
	IDs          []string      `json:"ids,omitempty"`          // of Prune: what a person has agreed to
}

// PruneRow is something that prune looks at.
type PruneRow struct {
	Kind    string    `json:"kind"` // volume or snapshot
	ID      string    `json:"id"`
	Name    string    `json:"name"` // of the volume
	SizeGiB int64     `json:"sizeGiB"`
	Since   time.Time `json:"since,omitzero"` // given up, or made
	Delete  bool      `json:"delete"`         // else it stays
	Why     string    `json:"why"`
}

// PruneRows is the answer to PruneRequest.
type PruneRows struct {
	Cluster string     `json:"cluster"`
	Rows    []PruneRow `json:"rows"`
	Notes   []string   `json:"notes,omitempty"` // what could not be looked at
}

// prunable lists what the cluster has left behind, and what prune would do with each.
func (m *Manager) prunable(ctx context.Context, req PruneRequest, _ Say) (PruneRows, error) {
	if err := m.ready(ctx); err != nil {
		return PruneRows{}, err
	}
	if req.OlderThan < 0 {
		return PruneRows{}, errors.New("an age is not less than nothing")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.timing.Request)
	defer cancel()
	out := PruneRows{Cluster: m.cfg.Settings.Cluster, Rows: []PruneRow{}}
	given, err := m.cloud.GivenUp(ctx)
	if err != nil {
		return PruneRows{}, err
	}
	living, err := m.cloud.List(ctx)
	if err != nil {
		return PruneRows{}, err
	}
	there := map[string]bool{}
	for _, v := range living {
		there[v.ID] = true
		if v.State == cloud.Failed && len(v.Attachments) == 0 {
			out.Rows = append(out.Rows, PruneRow{Kind: PruneVolume, ID: v.ID, Name: v.Name, SizeGiB: v.SizeGiB, Since: v.Created, Why: "EC2 could not make it, and its name is taken: docker volume rm " + v.Name})
		}
	}
	for _, g := range given {
		there[g.ID] = true
		out.Rows = append(out.Rows, req.judgeVolume(g))
	}
	snapshots, err := m.cloud.Snapshots(ctx, "")
	if err != nil {
		out.Notes = append(out.Notes, fmt.Sprintf("snapshots were not looked at: %v", err))
	}
	rows, err := m.judgeSnapshots(ctx, req, snapshots, there)
	if err != nil {
		return PruneRows{}, err
	}
	out.Rows = append(out.Rows, rows...)
	if req.OlderThan > 0 {
		for i := range out.Rows {
			if r := &out.Rows[i]; r.Delete && (r.Since.IsZero() || time.Since(r.Since) < req.OlderThan) {
				r.Delete, r.Why = false, "younger than asked for; "+r.Why
			}
		}
	}
	slices.SortStableFunc(out.Rows, func(a, b PruneRow) int {
		return cmp.Or(cmp.Compare(word(b.Delete), word(a.Delete)), -cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func word(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// judgeVolume tells what is to become of a volume that was given up.
func (req PruneRequest) judgeVolume(g cloud.GivenUp) PruneRow {
	row := PruneRow{Kind: PruneVolume, ID: g.ID, Name: g.Name, SizeGiB: g.SizeGiB, Since: g.Since}
	switch {
	case g.Newer != nil:
		row.Why = g.Newer.Error()
	case len(g.Attachments) > 0:
		row.Why = fmt.Sprintf("it was given up, but is %s to %s", g.Attachments[0].State, g.Attachments[0].Host)
	case !g.Retired:
		row.Delete, row.Why = req.Kept, "it was removed, and is kept for ever (reclaim=retain)"
	case g.Snapshot:
		row.Why = "it was removed, and is deleted when its snapshot is completed (reclaim=snapshot)"
	case g.Left <= 0:
		row.Delete, row.Why = true, "it was removed, and its time is over"
	default:
		row.Delete, row.Why = req.Removed, "it was removed, and can be brought back until "+g.Until.UTC().Format(time.RFC3339)
	}
	return row
}

// judgeSnapshots tells what is to become of snapshots that nobody needs for a volume that is there.
func (m *Manager) judgeSnapshots(ctx context.Context, req PruneRequest, all []cloud.Snapshot, there map[string]bool) (rows []PruneRow, err error) {
	first := map[string]cloud.Snapshot{} // the completed one of each removal
	last := map[string]cloud.Snapshot{}  // the completed one of each volume that holds what came last
	for _, s := range all {
		if l := last[s.VolumeID]; s.State == cloud.SnapshotCompleted && (l.ID == "" || s.Started.After(l.Started) || s.Started.Equal(l.Started) && s.ID < l.ID) {
			last[s.VolumeID] = s
		}
		if key := s.VolumeID + " " + s.Slot; s.State == cloud.SnapshotCompleted && madeByRemoval(s) {
			if f, ok := first[key]; !ok || s.Started.Before(f.Started) || s.Started.Equal(f.Started) && s.ID < f.ID {
				first[key] = s
			}
		}
	}
	for _, s := range all {
		row := PruneRow{Kind: PruneSnapshot, ID: s.ID, Name: s.Volume, SizeGiB: s.SizeGiB, Since: s.Started}
		twin, double := first[s.VolumeID+" "+s.Slot]
		if _, known := there[s.VolumeID]; !known {
			// What one listing does not show is no proof.
			_, err := m.cloud.ByID(ctx, s.VolumeID)
			if err != nil && !errors.Is(err, cloud.ErrNotFound) {
				return nil, err
			}
			there[s.VolumeID] = err == nil
		}
		gone := "its volume " + s.VolumeID + " is gone"
		switch {
		case s.Newer != nil:
			continue
		case s.State == cloud.SnapshotFailed:
			row.Delete, row.Why = true, "EC2 could not make it: it holds nothing"
		case s.State == cloud.SnapshotPending:
			continue
		case double && twin.ID != s.ID:
			row.Delete, row.Why = true, "it was made twice for one removal, and "+twin.ID+" is the other"
		case there[s.VolumeID]:
			continue
		case !slotOf(s).IsZero() && last[s.VolumeID].ID == s.ID: // perhaps all that is left of the data
			row.Delete, row.Why = req.AllSnapshots, gone+", and this is the last that a schedule made of it"
		case !slotOf(s).IsZero():
			row.Delete, row.Why = true, gone+", and a schedule made it"
		case madeByRemoval(s):
			row.Delete, row.Why = req.AllSnapshots, gone+", and this was made when it was removed (reclaim=snapshot)"
		default:
			row.Delete, row.Why = req.AllSnapshots, gone+", and a person made it"
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// madeByRemoval tells whether a snapshot is what was made of a volume that was removed with reclaim=snapshot.
func madeByRemoval(s cloud.Snapshot) bool { return strings.HasPrefix(s.Slot, cloud.RemovalSlot) }

// Pruned is what prune has done.
type Pruned struct {
	Deleted []PruneRow `json:"deleted"`
	Left    []PruneRow `json:"left"` // what was to be deleted and was not, with the reason in Why
}

// prune deletes what a person has agreed to, if it is still to be deleted by the same rules.
func (m *Manager) prune(ctx context.Context, req PruneRequest, say Say) (Pruned, error) {
	now, err := m.prunable(ctx, req, say)
	if err != nil {
		return Pruned{}, err
	}
	done := Pruned{Deleted: []PruneRow{}, Left: []PruneRow{}}
	for _, id := range req.IDs {
		i := slices.IndexFunc(now.Rows, func(r PruneRow) bool { return r.ID == id })
		switch {
		case i < 0:
			continue // it is gone, or the cluster's again
		case !now.Rows[i].Delete:
			done.Left = append(done.Left, now.Rows[i])
			continue
		}
		row := now.Rows[i]
		say("deleting %s %s", row.Kind, row.ID)
		err := m.pruneOne(ctx, row)
		if err != nil && !errors.Is(err, cloud.ErrNotFound) {
			row.Why = err.Error()
			done.Left = append(done.Left, row)
			if ctx.Err() != nil {
				return done, ctx.Err()
			}
			continue
		}
		m.log.WithField("volume", row.Name).Infof("pruned %s %s: %s", row.Kind, row.ID, row.Why)
		done.Deleted = append(done.Deleted, row)
	}
	return done, nil
}

func (m *Manager) pruneOne(ctx context.Context, row PruneRow) error {
	ctx, cancel := context.WithTimeout(ctx, 2*m.timing.Request)
	defer cancel()
	if row.Kind == PruneSnapshot {
		return m.cloud.DeleteSnapshot(ctx, row.ID)
	}
	return m.cloud.Discard(ctx, row.ID)
}

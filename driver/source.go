package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// quiet is a Say to whom nobody listens.
func quiet(string, ...any) {}

// copySpec finds what a new volume is to be made of, waits until it can be, and returns what to ask the cloud for, and the size that it will have.
func (m *Manager) copySpec(ctx context.Context, v *record, o options.Options, zone string, say Say) (cloud.Spec, int64, error) {
	src, err := m.source(ctx, v, o, say)
	if err != nil {
		return cloud.Spec{}, 0, fmt.Errorf("volume %q is not created: %w", v.name, err)
	}
	spec, err := o.CopySpec(v.name, zone, src)
	if err != nil {
		return cloud.Spec{}, 0, fmt.Errorf("volume %q is not created: %w", v.name, err)
	}
	return spec, max(spec.SizeGiB, src.SizeGiB), nil
}

// source looks up what a request names.
func (m *Manager) source(ctx context.Context, v *record, o options.Options, say Say) (options.Source, error) {
	if o.From != "" {
		if o.From == v.name {
			return options.Source{}, fmt.Errorf("from=%s: it cannot be a copy of itself", o.From)
		}
		_, vol, err := m.byNameOrID(ctx, o.From)
		switch {
		case err != nil:
			return options.Source{}, fmt.Errorf("from=%s: %w", o.From, err)
		case vol.Newer != nil:
			return options.Source{}, fmt.Errorf("from=%s: %w", o.From, vol.Newer)
		}
		return options.Source{What: fmt.Sprintf("volume %q (%s)", vol.Name, vol.ID), VolumeID: vol.ID, SizeGiB: vol.SizeGiB, Attrs: vol.Attrs}, nil
	}
	s, err := m.wantedSnapshot(ctx, o)
	if err != nil {
		return options.Source{}, err
	}
	src := options.Source{What: "snapshot " + s.ID, SnapshotID: s.ID, SizeGiB: s.SizeGiB}
	switch own := m.cfg.Settings.Cluster; {
	case s.Newer != nil:
		return options.Source{}, s.Newer
	case s.Cluster != "" && s.Cluster != own:
		return options.Source{}, fmt.Errorf("snapshot %s of volume %q belongs to the cluster %q, not to %q: create the volume on a host of that cluster; "+
			"if its data are really wanted here, take a copy of the snapshot without blockvol's tags (aws ec2 copy-snapshot)", s.ID, s.Volume, s.Cluster, own)
	case s.Cluster == own && s.Attrs[attrFS] != "": // else its tags are not those of a volume's data
		src.What, src.Attrs = fmt.Sprintf("snapshot %s of volume %q", s.ID, s.Volume), s.Attrs
	}
	if s.State != cloud.SnapshotCompleted {
		defer v.rest(phaseFree)
		_, err = m.awaitSnapshot(ctx, s, func(format string, args ...any) {
			v.begin(phaseFree, "waiting for the snapshot, "+fmt.Sprintf(format, args...))
			say(format, args...)
		})
	}
	return src, err
}

// wantedSnapshot looks up the snapshot that a request names.
func (m *Manager) wantedSnapshot(ctx context.Context, o options.Options) (cloud.Snapshot, error) {
	if o.SnapshotID != "" {
		return m.cloud.AnySnapshot(ctx, o.SnapshotID)
	}
	all, err := m.cloud.Snapshots(ctx, "")
	if err != nil {
		return cloud.Snapshot{}, err
	}
	var latest cloud.Snapshot
	for _, s := range all {
		// Those without a filesystem are on the way to a copy, and soon gone.
		if s.Volume == o.LatestOf && s.State != cloud.SnapshotFailed && s.Attrs[attrFS] != "" && s.Started.After(latest.Started) {
			latest = s
		}
	}
	if latest.ID == "" {
		return latest, cloud.Errorf(cloud.ErrNotFound, "there is no snapshot of a volume %q in this cluster (blockvol snapshot ls shows those that there are)", o.LatestOf)
	}
	return latest, nil
}

// copyVolume makes a volume that is a copy of another one, which stands still for that moment if it is mounted here.
func (m *Manager) copyVolume(ctx context.Context, spec cloud.Spec, say Say) (cloud.Volume, error) {
	from, vol, err := m.byID(ctx, spec.SourceID)
	if err != nil {
		return cloud.Volume{}, err
	}
	if err := from.turn.take(ctx); err != nil {
		return cloud.Volume{}, err
	}
	give := sync.OnceFunc(from.turn.give)
	defer give()
	state, err := m.holdStill(ctx, from, vol, say)
	if err != nil {
		return cloud.Volume{}, fmt.Errorf("volume %q is not created: its source %q (%s) cannot be brought to stand still: %w", spec.Name, from.name, vol.ID, err)
	}
	end := sync.OnceFunc(func() {
		held, err := state.end()
		if err != nil {
			m.log.WithField("volume", from.name).Error(err)
		} else if !held {
			m.log.WithField("volume", from.name).Warnf("the filesystem did not stay frozen until EC2 had copied the volume: the copy %q is what a power failure would leave", spec.Name)
		}
	})
	defer end()
	spec.Taken = func() { end(); give() }
	return m.cloud.Create(ctx, spec)
}

// CopyRequest asks for a new volume with the data of a snapshot or of another volume.
type CopyRequest struct {
	Name     string            `json:"name"`
	Snapshot string            `json:"snapshot,omitempty"` // its ID, or latest:NAME
	Volume   string            `json:"volume,omitempty"`   // a name or an ID
	Options  map[string]string `json:"options,omitempty"`  // as docker volume create has them
}

// copyFor makes a volume for a person, in the way that docker volume create does it, and says meanwhile how far that is.
func (m *Manager) copyFor(ctx context.Context, req CopyRequest, say Say) (VolumeRow, error) {
	opts := maps.Clone(req.Options)
	if opts == nil {
		opts = map[string]string{}
	}
	for name, value := range map[string]string{"snapshot-id": req.Snapshot, "from": req.Volume} {
		if value == "" {
			continue
		}
		if options.Names(opts, name) {
			return VolumeRow{}, fmt.Errorf("volume %q: the option %s is given although the command says already what the volume is made of", req.Name, name)
		}
		opts[name] = value
	}
	if req.Snapshot == "" && req.Volume == "" {
		return VolumeRow{}, errors.New("it is not said what the volume is to be made of")
	}
	if err := m.create(ctx, req.Name, opts, say); err != nil {
		return VolumeRow{}, err
	}
	row, ok := m.rowOf(m.record(req.Name))
	if !ok {
		return VolumeRow{}, notFound(req.Name) // removed at the same moment
	}
	return row, nil
}

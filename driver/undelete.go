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

// What has become of a volume that the cluster has given up.
const (
	EndRemoved  = "removed"     // it is deleted for good at its time
	EndSnapshot = "snapshot"    // it is deleted for good when a snapshot of it is completed, by reclaim=snapshot
	EndKept     = "kept"        // by reclaim=retain
	EndRecycled = "recycle-bin" // it is deleted, and in the Recycle Bin of EBS
)

// GivenUpRow is what `blockvol undelete --ls` tells of a volume.
type GivenUpRow struct {
	Name    string            `json:"name,omitempty"` // that it had; EC2 does not tell that of the Recycle Bin
	ID      string            `json:"id"`
	End     string            `json:"end"` // removed, snapshot, kept or recycle-bin
	Since   *time.Time        `json:"since,omitempty"`
	Until   *time.Time        `json:"until,omitempty"` // it can be brought back
	Left    int64             `json:"left,omitempty"`  // seconds until then, by EC2's clock
	SizeGiB int64             `json:"sizeGiB"`
	Type    string            `json:"type"`
	Zone    string            `json:"zone"`
	Problem string            `json:"problem,omitempty"`
	Attrs   map[string]string `json:"attrs,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// GivenUpRequest asks for the volumes that can be brought back.
type GivenUpRequest struct {
	RecycleBin bool `json:"recycleBin,omitempty"` // also for those in the Recycle Bin, which may be anybody's in the account
}

// GivenUpRows is the answer to GivenUpRequest.
type GivenUpRows struct {
	Cluster string       `json:"cluster"`
	Volumes []GivenUpRow `json:"volumes"`
}

// listGivenUp lists what undelete can bring back, the latest first.
func (m *Manager) listGivenUp(ctx context.Context, req GivenUpRequest, _ Say) (GivenUpRows, error) {
	if err := m.ready(ctx); err != nil {
		return GivenUpRows{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.Request)
	defer cancel()
	all, err := m.cloud.GivenUp(ctx)
	if err != nil {
		return GivenUpRows{}, err
	}
	out := GivenUpRows{Cluster: m.cfg.Settings.Cluster, Volumes: []GivenUpRow{}}
	for _, g := range all {
		row := GivenUpRow{Name: g.Name, ID: g.ID, End: EndKept, SizeGiB: g.SizeGiB, Type: g.Type, Zone: g.Zone, Attrs: g.Attrs, Tags: g.Tags}
		if !g.Since.IsZero() {
			row.Since = &g.Since
		}
		switch {
		case g.Snapshot:
			row.End = EndSnapshot
		case g.Retired:
			row.End, row.Until, row.Left = EndRemoved, &g.Until, int64(g.Left.Seconds())
		}
		if g.Newer != nil {
			row.Problem = g.Newer.Error()
		}
		out.Volumes = append(out.Volumes, row)
	}
	if req.RecycleBin {
		bin, err := m.cloud.RecycledVolumes(ctx)
		if err != nil {
			return GivenUpRows{}, err
		}
		for _, v := range bin {
			out.Volumes = append(out.Volumes, GivenUpRow{ID: v.ID, End: EndRecycled, Since: &v.Entered, Until: &v.Exit, SizeGiB: v.Form.SizeGiB, Type: v.Form.Type, Zone: v.Zone})
		}
	}
	slices.SortFunc(out.Volumes, func(a, b GivenUpRow) int {
		return cmp.Or(-timeOf(a.Since).Compare(timeOf(b.Since)), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// UndeleteRequest asks for a volume to be brought back that the cluster has given up, or that is in the Recycle Bin.
type UndeleteRequest struct {
	Volume string `json:"volume"`         // the name that it had, or its ID
	Name   string `json:"name,omitempty"` // the name that it gets; empty: that which it had
}

// undelete brings a volume back, with its data and options.
func (m *Manager) undelete(ctx context.Context, req UndeleteRequest, say Say) (AdoptedVolume, error) {
	if req.Name != "" {
		if err := checkName(req.Name); err != nil {
			return AdoptedVolume{}, err
		}
	}
	if err := m.ready(ctx); err != nil {
		return AdoptedVolume{}, err
	}
	all, err := m.cloud.GivenUp(ctx)
	if err != nil {
		return AdoptedVolume{}, err
	}
	byID := volumeID.MatchString(req.Volume)
	var found []cloud.GivenUp
	for _, g := range all {
		if byID && g.ID == req.Volume || !byID && g.Name == req.Volume {
			found = append(found, g)
		}
	}
	switch {
	case len(found) == 1:
		return m.bringBack(ctx, found[0], req.Name, say)
	case len(found) > 1:
		return AdoptedVolume{}, refuse("%d volumes of the name %q can be brought back, and which one is meant is not known: %s; name it by its ID: blockvol undelete VOLUME-ID",
			len(found), req.Volume, strings.Join(describeEach(found), "; "))
	case byID:
		return m.outOfTheBin(ctx, req, say)
	}
	if checkName(req.Volume) == nil {
		if vol, err := m.exists(ctx, m.record(req.Volume), 0); err == nil {
			return AdoptedVolume{}, fmt.Errorf("volume %q exists (%s), and none of that name was removed: there is nothing to bring back", req.Volume, vol.ID)
		}
	}
	return AdoptedVolume{}, cloud.Errorf(cloud.ErrNotFound, "no volume of the name %q can be brought back: none was removed from this cluster, or its time is over; "+
		"blockvol undelete --ls shows those that can; one in the Recycle Bin of EBS is named by its ID (blockvol undelete --ls --recycle-bin), "+
		"and a snapshot, if there is one (blockvol snapshot ls), is made a volume by blockvol snapshot restore", req.Volume)
}

// describeEach tells volumes of one name apart, the latest first.
func describeEach(all []cloud.GivenUp) (texts []string) {
	slices.SortFunc(all, func(a, b cloud.GivenUp) int { return -a.Since.Compare(b.Since) })
	for _, g := range all {
		texts = append(texts, fmt.Sprintf("%s (%d GiB, removed at %s)", g.ID, g.SizeGiB, g.Since.UTC().Format(time.RFC3339)))
	}
	return texts
}

// bringBack makes a volume that was given up the one of a name.
func (m *Manager) bringBack(ctx context.Context, g cloud.GivenUp, name string, say Say) (AdoptedVolume, error) {
	if g.Newer != nil {
		return AdoptedVolume{}, g.Newer
	}
	if name == "" {
		name = g.Name
	}
	if err := checkName(name); err != nil {
		return AdoptedVolume{}, fmt.Errorf("%s is not brought back: %w; give it another name: blockvol undelete %s NEWNAME", g.ID, err, g.ID)
	}
	taken := func(by string) error {
		return refuse("volume %s is not brought back: the name %q is that of %s by now; give it another one: blockvol undelete %s NEWNAME", g.ID, name, by, g.ID)
	}
	v := m.record(name)
	v.set(func() { v.changing++ })
	defer v.set(func() { v.changing-- })
	err := m.work(ctx, v, func(base context.Context) error {
		ctx := either(base, ctx)
		switch vol, err := m.exists(ctx, v, 0); {
		case err == nil && vol.ID == g.ID:
			return nil // by a request before
		case err == nil:
			return taken(vol.ID)
		case !errors.Is(err, cloud.ErrNotFound):
			return fmt.Errorf("whether the name %q is free cannot be told: %w", name, err)
		}
		v.begin(phaseFree, "bringing the volume back")
		defer v.rest(phaseFree)
		m.mu.Lock()
		delete(m.deleted, g.ID)
		m.mu.Unlock()
		say("bringing %s back as %q", g.ID, name)
		v.set(func() { v.absentAt = time.Time{} })
		vol, err := m.adoptPatiently(ctx, cloud.Adoption{ID: g.ID, Name: name, Back: true}, say)
		if err != nil {
			return err
		}
		if vol.ID != g.ID {
			return taken(vol.ID)
		}
		v.saw(vol, m.self().ID)
		m.save(v)
		m.log.WithField("volume", name).Infof("brought back %s, which was given up at %s", g.ID, g.Since.UTC().Format(time.RFC3339))
		return nil
	})
	if err != nil {
		return AdoptedVolume{}, err
	}
	return AdoptedVolume{Name: name, ID: g.ID, Instance: m.self().ID}, nil
}

// adoptPatiently is Adopt for a person, who waits until nobody else tries to have the volume: the claim of a host that died counts for a minute.
func (m *Manager) adoptPatiently(ctx context.Context, a cloud.Adoption, say Say) (cloud.Volume, error) {
	for end := time.Now().Add(90 * time.Second); ; {
		vol, err := m.cloud.Adopt(ctx, a)
		if !errors.Is(err, cloud.ErrClaimed) || time.Now().After(end) {
			return vol, err
		}
		say("%v", err)
		if err := m.pause(ctx, m.timing.Absent); err != nil {
			return cloud.Volume{}, err
		}
	}
}

// outOfTheBin restores a volume from the Recycle Bin, and brings it back from there.
func (m *Manager) outOfTheBin(ctx context.Context, req UndeleteRequest, say Say) (AdoptedVolume, error) {
	id := req.Volume
	if vol, err := m.cloud.ByID(ctx, id); err == nil && !m.gone(vol) {
		return AdoptedVolume{}, fmt.Errorf("volume %s exists, as %q: there is nothing to bring back", id, vol.Name)
	}
	say("looking for %s in the Recycle Bin", id)
	vol, err := m.cloud.RestoreVolume(ctx, id)
	if err == nil {
		m.mu.Lock()
		delete(m.deleted, id)
		m.mu.Unlock()
		say("%s is out of the Recycle Bin", id)
		name := cmp.Or(req.Name, vol.Name)
		now, twin := m.cloud.ByName(ctx, vol.Name)
		if name == vol.Name && twin == nil && now.ID == id {
			v := m.record(name)
			v.saw(vol, m.self().ID)
			m.save(v)
			return AdoptedVolume{Name: name, ID: id, Instance: m.self().ID}, nil
		}
		// It comes to another name by being given up first; and while another volume has its own one, neither could be used.
		if err := m.cloud.Release(ctx, id); err != nil {
			return AdoptedVolume{}, fmt.Errorf("volume %s is out of the Recycle Bin as %q, and giving it another name failed: %w", id, vol.Name, err)
		}
	}
	// One that was purged comes back as it was then: given up.
	all, listErr := m.cloud.GivenUp(ctx)
	for _, g := range all {
		if g.ID == id {
			return m.bringBack(ctx, g, req.Name, say)
		}
	}
	return AdoptedVolume{}, cmp.Or(err, listErr, error(cloud.Errorf(cloud.ErrNotFound, "volume %s is out of the Recycle Bin, and EC2 does not show it yet: try again", id)))
}

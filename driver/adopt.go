package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/options"
)

// errNoneMatches says that there is no volume that a selector could claim.
var errNoneMatches = errors.New("no volume matches")

// adopt brings a volume that exists to the name: the one that is named, or the smallest that a selector finds and that no other host takes at
// the same moment.
func (m *Manager) adopt(ctx context.Context, v *record, o options.Options) (cloud.Volume, error) {
	ids := []string{o.VolumeID}
	if o.VolumeID == "" {
		var err error
		if ids, err = m.cloud.Adoptable(ctx, o.Selector, o.AtLeast()); err != nil {
			return cloud.Volume{}, fmt.Errorf("volume %q: %w", v.name, err)
		}
	}
	var last error
	for _, id := range ids {
		m.step(StepAdopt)
		vol, err := m.cloud.Adopt(ctx, o.Adoption(id, v.name))
		if err == nil {
			m.step(StepAdopted)
			m.log.WithField("volume", v.name).Infof("adopted %s, %d GiB %s in %s", vol.ID, vol.SizeGiB, vol.Type, vol.Zone)
			return vol, nil
		}
		last = err
		if o.VolumeID != "" || !passedBy(err) {
			return cloud.Volume{}, fmt.Errorf("volume %q: %w", v.name, err)
		}
	}
	if last != nil { // all of them went to somebody else, or do not fit
		return cloud.Volume{}, fmt.Errorf("volume %q: none of the %d volumes that selector finds can be claimed; the last one: %w", v.name, len(ids), last)
	}
	return cloud.Volume{}, fmt.Errorf("volume %q: %w the selector: in %s none with all these tags, at least %d GiB and of no cluster is available; "+
		"make one, change the selector, or add selector-fallback=create", v.name, errNoneMatches, m.self().Zone, o.AtLeast())
}

// passedBy tells whether a candidate that cannot be had leaves the others to be tried.
func passedBy(err error) bool {
	for _, lost := range []error{cloud.ErrClaimed, cloud.ErrNotFound, cloud.ErrInUse, cloud.ErrState} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// recognise finds the filesystem of a volume that was adopted, at its first mount, and writes it down. Such a volume is never formatted.
func (m *Manager) recognise(ctx context.Context, v *record, vol cloud.Volume, dev disk.Device, wanted string) (fstype string, err error) {
	content, err := m.disk.Inspect(ctx, dev)
	if err != nil {
		return "", fmt.Errorf("the device cannot be read, so nothing is done with it: %w", err)
	}
	known := false
	for _, name := range disk.Filesystems() {
		known = known || content.Kind == name && !content.Blank
	}
	const kept = "it is left as it is, because blockvol formats no volume that it did not make"
	switch {
	case content.Blank:
		return "", fmt.Errorf("the adopted volume is blank, it has no filesystem: %s; make one on it (mkfs.ext4 on the whole device), or create a new volume instead", kept)
	case !known:
		return "", fmt.Errorf("the adopted volume cannot be mounted: it has no filesystem of ext4 or xfs that begins with the device; found: %s; %s", content.Detail, kept)
	case wanted != "" && wanted != content.Kind:
		return "", fmt.Errorf("the adopted volume was said to have %s, but it has %s (%s): %s; correct its tag blockvol:fstype", wanted, content.Kind, content.Detail, kept)
	}
	if err := m.setAttrs(ctx, v, vol.ID, map[string]string{attrFS: content.Kind, attrFSType: content.Kind}); err != nil {
		return "", fmt.Errorf("noting the filesystem that was found: %w", err)
	}
	m.step(StepRecognised)
	m.log.WithField("volume", v.name).Infof("the adopted volume has %s", content.Kind)
	return content.Kind, nil
}

// AdoptRequest asks for a volume that exists to be brought to a name.
type AdoptRequest struct {
	Name       string            `json:"name"`
	VolumeID   string            `json:"volumeID,omitempty"`   // empty: the one volume whose tag Name is the name
	FromREXRay bool              `json:"fromREXRay,omitempty"` // its containers got the folder data
	Options    map[string]string `json:"options,omitempty"`    // as docker volume create has them
}

// AdoptedVolume is the answer to AdoptRequest.
type AdoptedVolume struct {
	Name     string `json:"name"`
	ID       string `json:"id"`
	Instance string `json:"instance"` // this host
}

// adoptFor adopts for a person, in the way that docker volume create does it.
func (m *Manager) adoptFor(ctx context.Context, req AdoptRequest, say Say) (AdoptedVolume, error) {
	if err := checkName(req.Name); err != nil {
		return AdoptedVolume{}, err
	}
	if err := m.ready(ctx); err != nil {
		return AdoptedVolume{}, err
	}
	opts := maps.Clone(req.Options)
	if opts == nil {
		opts = map[string]string{}
	}
	id := req.VolumeID
	if id == "" {
		var err error
		if id, err = m.named(ctx, req.Name); err != nil {
			return AdoptedVolume{}, err
		}
	}
	opts["volume-id"] = id
	if req.FromREXRay && !options.Names(req.Options, attrSubdir) {
		opts[attrSubdir] = "data"
	}
	say("adopting %s as %q", id, req.Name)
	if err := m.Create(ctx, req.Name, opts); err != nil {
		return AdoptedVolume{}, err
	}
	return AdoptedVolume{Name: req.Name, ID: id, Instance: m.self().ID}, nil
}

// named returns the one volume whose tag Name is name and that can be adopted, or that was adopted under it already.
func (m *Manager) named(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timing.Request)
	defer cancel()
	ids, err := m.cloud.Adoptable(ctx, map[string]string{"Name": name}, 1)
	if err != nil {
		return "", err
	}
	switch len(ids) {
	case 1:
		return ids[0], nil
	case 0:
		if vol, err := m.exists(ctx, m.record(name), 0); err == nil {
			return vol.ID, nil // a repeated request; Create compares
		}
		return "", fmt.Errorf("no volume with the tag Name=%s can be adopted: in %s none is available that is no cluster's; one that is still attached must be detached first "+
			"(stop its containers and REX-Ray), one in another zone is adopted on a host there", name, m.self().Zone)
	}
	return "", refuse("the tag Name=%s is on %d volumes (%s), and which one is meant is not known: name it, blockvol adopt VOLUME-ID %s", name, len(ids), strings.Join(ids, ", "), name)
}

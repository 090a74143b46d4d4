package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// Create makes the volume, or finds the one that has the name already. It is never rolled back: once the cloud has accepted it, another
// host may have found and written to it.
func (m *Manager) Create(ctx context.Context, name string, opts map[string]string) error {
	return m.create(ctx, name, opts, quiet)
}

// create is Create, and tells what it waits for.
func (m *Manager) create(ctx context.Context, name string, opts map[string]string, say Say) error {
	if err := checkName(name); err != nil {
		return err
	}
	o, err := m.resolve(opts)
	if err != nil {
		return err
	}
	if err := m.ready(ctx); err != nil {
		return err
	}
	zone := m.self().Zone
	if o.Zone != "" && o.Zone != zone {
		return fmt.Errorf("volume %q: availability-zone=%s, but this host (%s) is in %s: a volume can only be used in its own zone; "+
			"create it on a host there, or leave the option out", name, o.Zone, m.self().ID, zone)
	}
	v := m.record(name)
	v.set(func() { v.changing++ })
	defer v.set(func() { v.changing-- })
	return m.work(ctx, v, func(ctx context.Context) error {
		o := o
		vol, err := m.exists(ctx, v, m.timing.Fresh)
		switch {
		case err == nil && vol.State == cloud.Creating: // by another host at this moment, and it may still fail
			defer v.rest(phaseFree)
			if vol, err = m.current(ctx, v); err != nil {
				return fmt.Errorf("volume %q: another host began to create it: %w", name, err)
			}
			return m.found(v, o, vol)
		case err == nil:
			return m.found(v, o, vol)
		case !errors.Is(err, cloud.ErrNotFound):
			return fmt.Errorf("volume %q: it cannot be told whether it exists already, so it is not created: %w", name, err)
		}
		if o.Adopts() {
			v.begin(phaseFree, "adopting the volume")
			vol, err := m.adopt(ctx, v, o)
			if err == nil {
				v.saw(vol, m.self().ID)
				v.rest(phaseFree)
				v.set(func() { v.tell(phaseNone, phaseFree) })
				return m.found(v, o, vol)
			}
			v.rest(phaseFree)
			if !errors.Is(err, errNoneMatches) || !o.OrCreate {
				return err
			}
			if o, err = m.resolve(options.WithoutSelector(opts)); err != nil {
				return err
			}
		}
		spec, size := o.Spec(name, zone), o.SizeGiB
		if o.Copies() {
			if spec, size, err = m.copySpec(ctx, v, o, zone, say); err != nil {
				return err
			}
		}
		if most := m.cfg.Settings.MaxSizeGiB; most > 0 && size > most {
			return fmt.Errorf("volume %q is not created: its size is %d GiB, and the setting MAX_SIZE of this host allows %d GiB at most; "+
				"ask for less with size=%dGiB, or change the setting", name, size, most, most)
		}
		v.begin(phaseFree, "creating the volume")
		defer v.rest(phaseFree)
		// Whatever becomes of it, from here on the volume may exist.
		v.set(func() { v.absentAt = time.Time{} })
		m.step(StepCreate)
		if spec.SourceID != "" {
			vol, err = m.copyVolume(ctx, spec, say)
		} else {
			vol, err = m.cloud.Create(ctx, spec)
		}
		if err != nil {
			return err
		}
		m.step(StepCreateSent)
		v.saw(vol, m.self().ID)
		v.set(func() { v.tell(phaseNone, phaseFree) })
		m.save(v)
		m.step(StepCreateNoted)
		m.log.WithField("volume", name).Infof("created %s, %d GiB %s in %s", vol.ID, vol.SizeGiB, vol.Type, vol.Zone)
		return m.found(v, o, vol)
	})
}

// found answers a Create whose volume exists: success if it is what was asked for.
func (m *Manager) found(v *record, o options.Options, vol cloud.Volume) error {
	m.save(v)
	if vol.Newer != nil {
		return vol.Newer // whether it is what was asked for cannot be told
	}
	if vol.State == cloud.Failed {
		return cloud.Errorf(cloud.ErrState, "volume %q (%s) is in state error, EC2 could not make it: remove it (docker volume rm %s) and create it again", v.name, vol.ID, v.name)
	}
	if vol.Zone != m.self().Zone {
		return fmt.Errorf("volume %q exists in %s (%s), but this host is in %s: a volume can only be used in its own zone; "+
			"run the container there, or choose another name", v.name, vol.Zone, vol.ID, m.self().Zone)
	}
	if diff := o.Differences(vol); len(diff) > 0 {
		change := ""
		if options.SomeChangeable(diff) {
			change = fmt.Sprintf(", change it with `blockvol update %s KEY=VALUE`", v.name)
		}
		return fmt.Errorf("volume %q exists already (%s) and differs: %s; leave the options out to use it as it is%s, or choose another name",
			v.name, vol.ID, strings.Join(diff, "; "), change)
	}
	return nil
}

package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
)

// growHere waits until this host's kernel shows the new size of a volume, and grows its filesystem, if it is mounted here.
func (m *Manager) growHere(ctx context.Context, v *record, id string, gib int64, say Say) (grown bool, err error) {
	if _, ok := m.mountedAt(v); !ok {
		return false, nil
	}
	late := time.Now().Add(m.timing.Attach)
	for pause := m.timing.Absent / 20; ; pause = min(2*pause, m.timing.Absent) {
		dev, err := m.deviceOf(v, id)
		if err != nil {
			return false, fmt.Errorf("volume %q (%s) has %d GiB now; its filesystem grows at its next mount: %w", v.name, id, gib, err)
		}
		if dev.Size >= gib<<30 {
			break
		}
		if time.Now().After(late) {
			return false, fmt.Errorf("volume %q (%s) has %d GiB now, but the kernel of %s still shows %d GiB on %s: the filesystem grows as soon as it shows more; "+
				"if it never does, stop the containers that use the volume and start them again", v.name, id, gib, m.self().ID, dev.Size>>30, dev.Path)
		}
		say("waiting for %s to show %d GiB", dev.Path, gib)
		m.rescan(v, dev)
		if err := m.pause(ctx, pause); err != nil {
			return false, err
		}
	}
	m.step(StepEnlarged)
	say("growing the filesystem")
	err = m.work(ctx, v, func(base context.Context) error {
		return m.growMounted(base, v)
	})
	if err != nil {
		return false, fmt.Errorf("volume %q (%s) has %d GiB now, but its filesystem could not be grown, which is tried again once a minute: %w", v.name, id, gib, err)
	}
	m.step(StepEnlargeNoted)
	return true, nil
}

// deviceOf is the volume's device on this host.
func (m *Manager) deviceOf(v *record, id string) (disk.Device, error) {
	now, seen := v.known()
	if seen == nil || now != id {
		return disk.Device{}, fmt.Errorf("volume %q is not %s any more", v.name, id)
	}
	return m.disk.Find(seen.Serial)
}

// rescan makes the kernel look how large a device is, where it has not been told.
func (m *Manager) rescan(v *record, dev disk.Device) {
	if err := m.disk.AskController(dev); err != nil {
		m.log.WithField("volume", v.name).Debugf("asking the kernel for the size of %s: %v", dev.Path, err)
	}
}

// growMounted makes the filesystem of a volume that is mounted here as large as its device, with v's turn taken.
func (m *Manager) growMounted(ctx context.Context, v *record) error {
	if _, ok := m.mountedAt(v); !ok {
		return nil // its next mount does it
	}
	id, seen := v.known()
	dev, err := m.disk.Find(seen.Serial)
	if err != nil {
		return err
	}
	return m.grow(ctx, v, dev, m.target(id), seen.Attrs[attrFSType])
}

// grow makes a mounted filesystem as large as its device. What it fails with is said once.
func (m *Manager) grow(ctx context.Context, v *record, dev disk.Device, target, fstype string) error {
	ctx, cancel := context.WithTimeout(ctx, m.timing.Attach)
	defer cancel()
	grown, err := m.disk.Grow(ctx, dev, target, fstype)
	log := m.log.WithField("volume", v.name)
	said := false
	v.set(func() {
		if err == nil {
			v.spans, v.notGrown = dev.Size, failing{}
			if v.seen != nil && v.seen.Serial == dev.Serial && v.seen.SizeGiB<<30 < dev.Size { // another host has had it modified
				now := *v.seen
				now.SizeGiB = dev.Size >> 30
				v.seen = &now
			}
			return
		}
		said = v.notGrown.err != nil && v.notGrown.err.Error() == err.Error()
		v.spans = 0
		v.notGrown.again(err)
	})
	switch {
	case err != nil && !said:
		// The data is there and usable; the missing room is said, not enforced.
		log.WithError(err).Warn("the filesystem could not be grown to the size of the volume")
	case grown:
		log.Infof("the filesystem was grown to the size of the volume, %d GiB", dev.Size>>30)
	}
	return err
}

// growLater grows, apart from the sweep, the filesystem of a volume whose device has another size than when that was done the last time: another
// host has had it modified, or the process that had died before it grew it. It costs no call of the cloud.
func (m *Manager) growLater(v *record, dev disk.Device) {
	if _, ok := m.mountedAt(v); !ok {
		return
	}
	due, missed := false, false
	v.set(func() {
		missed = v.seen != nil && v.seen.SizeGiB<<30 > dev.Size // the cloud has said so: the kernel was not told
		due = !v.growing && (v.spans != dev.Size || missed)
		v.growing = v.growing || due
	})
	if !due {
		return
	}
	began := m.goOn(v.name, func(base context.Context) {
		defer v.set(func() { v.growing = false })
		if missed {
			m.rescan(v, dev)
		}
		if v.turn.take(base) != nil {
			return
		}
		defer v.turn.give()
		_ = m.growMounted(base, v) // it is logged, and tried again at the next sweep
	})
	if !began {
		v.set(func() { v.growing = false })
	}
}

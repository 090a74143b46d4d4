package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
)

// modelMount is a mount of this host: ours at a target, or a container's own, which has none.
type modelMount struct {
	target string
	dev    uint32
	id     string // the volume
}

// modelKernel is this host's kernel as one process sees it.
type modelKernel struct {
	w *model
	p *life
}

// plug makes a device of a volume appear. Every attachment is a new device.
func (w *model) plug(id string) {
	w.lastDev++
	w.devices[id] = w.lastDev
}

// alive tells whether a mount's device is still there: if not, the mount answers I/O errors and writes nothing.
func (w *model) alive(m modelMount) bool { return w.devices[m.id] == m.dev }

// busy tells who has a device.
func (w *model) busy(dev uint32) string {
	for _, m := range w.mounts {
		if m.dev == dev {
			return "our mount"
		}
	}
	for id, u := range w.uses {
		if u.own != nil && u.own.dev == dev {
			return "the container " + id
		}
	}
	return ""
}

// usedHere tells who on this host uses a volume whose device is there.
func (w *model) usedHere(id string) string {
	dev := w.devices[id]
	if dev == 0 {
		return ""
	}
	if w.formatting == dev {
		return "mkfs"
	}
	return w.busy(dev)
}

// enter is the beginning of every system call; the caller ends it by unlocking mu.
func (k modelKernel) enter() error {
	k.w.mu.Lock()
	if k.p.dead {
		k.w.mu.Unlock()
		return errKilled
	}
	return nil
}

func (k modelKernel) device(id string, dev uint32) disk.Device {
	return disk.Device{Name: fmt.Sprintf("nvme%dn1", dev), Path: fmt.Sprintf("/dev/nvme%dn1", dev), Major: 259, Minor: dev, Serial: serialOf(id), Size: 1 << 30}
}

// of is the volume whose device d is, while d is still there.
func (k modelKernel) of(d disk.Device) (*modelVolume, error) {
	for id, dev := range k.w.devices {
		if dev == d.Minor {
			if v := k.w.volume(id); v != nil {
				return v, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", disk.ErrNoDevice, d)
}

func (k modelKernel) List() (list []disk.Device, err error) {
	if err := k.enter(); err != nil {
		return nil, err
	}
	defer k.w.mu.Unlock()
	for id, dev := range k.w.devices {
		list = append(list, k.device(id, dev))
	}
	return list, nil
}

func (k modelKernel) Find(serial string) (disk.Device, error) {
	if err := k.enter(); err != nil {
		return disk.Device{}, err
	}
	defer k.w.mu.Unlock()
	for id, dev := range k.w.devices {
		if serialOf(id) == serial {
			return k.device(id, dev), nil
		}
	}
	return disk.Device{}, fmt.Errorf("%w: %s", disk.ErrNoDevice, serial)
}

func (k modelKernel) Wait(ctx context.Context, serial string) (disk.Device, error) {
	for {
		d, err := k.Find(serial)
		if !errors.Is(err, disk.ErrNoDevice) {
			return d, err
		}
		if serr := k.p.sleep(ctx, time.Second/2); serr != nil {
			return d, fmt.Errorf("%w: %w", serr, err)
		}
	}
}

func (k modelKernel) WaitGone(ctx context.Context, serial string) error {
	for {
		_, err := k.Find(serial)
		if errors.Is(err, disk.ErrNoDevice) {
			return nil
		}
		if serr := k.p.sleep(ctx, time.Second/2); serr != nil {
			return serr
		}
	}
}

// modelClaim is held like an exclusive open.
type modelClaim struct {
	k    modelKernel
	dev  uint32
	done bool
}

func (c *modelClaim) Release() error {
	c.k.w.mu.Lock()
	defer c.k.w.mu.Unlock()
	if !c.done && !c.k.p.dead { // the kernel has ended those of a dead process
		c.done = true
		c.k.w.claims[c.dev]--
	}
	return nil
}

func (k modelKernel) Claim(d disk.Device) (claimed, error) {
	if err := k.enter(); err != nil {
		return nil, err
	}
	defer k.w.mu.Unlock()
	v, err := k.of(d)
	if err != nil {
		return nil, err
	}
	if who := k.w.usedHere(v.id); who != "" || k.w.claims[d.Minor] > 0 {
		return nil, fmt.Errorf("%w: %s", disk.ErrInUse, who)
	}
	k.w.claims[d.Minor]++
	return &modelClaim{k: k, dev: d.Minor}, nil
}

func (k modelKernel) Lock(context.Context, disk.Device) (func(), error) { return func() {}, nil }

func (k modelKernel) Inspect(_ context.Context, d disk.Device) (disk.Content, error) {
	if err := k.enter(); err != nil {
		return disk.Content{}, err
	}
	defer k.w.mu.Unlock()
	v, err := k.of(d)
	if err != nil {
		return disk.Content{}, err
	}
	return v.content.inspect(), nil
}

// Format takes two seconds, in which the device holds parts of a filesystem.
func (k modelKernel) Format(ctx context.Context, d disk.Device, fstype string, o disk.FormatOptions) error {
	if err := k.enter(); err != nil {
		return err
	}
	v, err := k.of(d)
	if err == nil {
		if who := k.w.usedHere(v.id); who != "" {
			k.w.violate("mkfs on a device that %s uses", who)
		}
		if k.w.there.mounted && v.holder == modelThere {
			k.w.violate("mkfs on a volume that the other host has mounted")
		}
		if v.content == contentUsed {
			k.w.violate("mkfs on a volume with data")
		}
		if v.content != contentBlank && !o.Overwrite {
			k.w.violate("mkfs on a volume that is %s, as if it were blank", v.content)
		}
		if v.tag() != disk.TagFormatting+modelHere {
			k.w.violate("mkfs on a volume with the tag %s", v.tag())
		}
		v.content = contentPartial
		k.w.formats++
		k.w.formatting = d.Minor
	}
	k.w.mu.Unlock()
	if err != nil {
		return err
	}
	serr := k.p.sleep(ctx, 2*time.Second)
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if k.w.formatting == d.Minor {
		k.w.formatting = 0
	}
	if serr != nil {
		return serr // mkfs was killed
	}
	if v, err = k.of(d); err == nil {
		v.content = contentMade
	}
	return err
}

func (k modelKernel) Check(_ context.Context, d disk.Device, _ string) error {
	if err := k.enter(); err != nil {
		return err
	}
	defer k.w.mu.Unlock()
	v, err := k.of(d)
	if err != nil {
		return err
	}
	if who := k.w.usedHere(v.id); who != "" {
		k.w.violate("e2fsck on a device that %s uses", who)
	}
	return nil
}

func (k modelKernel) Mount(_ context.Context, d disk.Device, target, _ string, _ []string) error {
	if err := k.enter(); err != nil {
		return err
	}
	defer k.w.mu.Unlock()
	v, err := k.of(d)
	if err != nil {
		return err
	}
	if k.w.claims[d.Minor] > 0 {
		return fmt.Errorf("%w: claimed", disk.ErrInUse)
	}
	if v.content != contentMade && v.content != contentUsed {
		k.w.violate("mount of a volume that is %s", v.content)
	}
	if v.state == modelRemoved {
		k.w.violate("mount of a volume that was removed")
	}
	if v.tag() != "ext4" {
		k.w.violate("mount of a volume with the tag %s", v.tag())
	}
	for _, m := range k.w.mounts {
		if m.target == target {
			k.w.violate("a mount is covered by another one")
		}
	}
	v.content = contentUsed
	k.w.mounts = append(k.w.mounts, modelMount{target: target, dev: d.Minor, id: v.id})
	return nil
}

func (k modelKernel) Root(target string, _ bool, _ disk.RootOptions) (string, error) {
	return filepath.Join(target, "data"), nil
}

func (k modelKernel) Grow(context.Context, disk.Device, string, string) (bool, error) {
	return false, nil
}

func (k modelKernel) AskController(disk.Device) error { return nil }

func (k modelKernel) Usage(string) (disk.Usage, error) { return disk.Usage{}, nil }

func (k modelKernel) Freeze(context.Context, disk.Device, string, time.Duration) (frozen, error) {
	return nil, errors.New("nobody makes snapshots here")
}

func (k modelKernel) Thaw(disk.MountPoint) (bool, error) { return false, nil }

func (k modelKernel) Performance(disk.Device) (disk.Performance, error) {
	return disk.Performance{}, errors.New("a model has none")
}

func (k modelKernel) Unmount(target string) error {
	if err := k.enter(); err != nil {
		return err
	}
	defer k.w.mu.Unlock()
	for i := len(k.w.mounts) - 1; i >= 0; i-- {
		m := k.w.mounts[i]
		if m.target != target {
			continue
		}
		for id, u := range k.w.uses {
			if u.state == guestAnswered && u.own == nil && time.Since(u.at) < k.p.m.timing.HandOver && k.w.alive(m) {
				k.w.violate("unmounted %s after its Mount was answered, before the container %s had it", time.Since(u.at), id)
			}
		}
		k.w.mounts = append(k.w.mounts[:i:i], k.w.mounts[i+1:]...)
		return nil
	}
	return fmt.Errorf("%w: %s", disk.ErrNotMounted, target)
}

func (k modelKernel) Mounts(d disk.Device) (targets []string, err error) {
	if err := k.enter(); err != nil {
		return nil, err
	}
	defer k.w.mu.Unlock()
	for _, m := range k.w.mounts {
		if m.dev == d.Minor {
			targets = append(targets, m.target)
		}
	}
	return targets, nil
}

func (k modelKernel) MountsUnder(dir string) (points []disk.MountPoint, err error) {
	if err := k.enter(); err != nil {
		return nil, err
	}
	defer k.w.mu.Unlock()
	for _, m := range k.w.mounts {
		if strings.HasPrefix(m.target, dir) {
			points = append(points, disk.MountPoint{Target: m.target, Major: 259, Minor: m.dev, FSType: "ext4", Root: "/"})
		}
	}
	return points, nil
}

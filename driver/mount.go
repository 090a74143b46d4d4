package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/options"
)

// attrFS is the attribute that says how far the making of the filesystem has come: none, formatting:<instance>, or the filesystem.
const attrFS = "fs"

// attrFSType is the attribute with the filesystem that the volume shall have, and attrFS says what it has.
const attrFSType = "fstype"

// attrSubdir is the attribute with the folder of the filesystem that containers see.
const attrSubdir = "subdir"

// attrFencing is the attribute with the volume's own rule for being taken from another host.
const attrFencing = "fencing"

// attrProfile is the attribute with the name of the profile that the volume's options came from.
const attrProfile = "profile"

// claim is one Mount request's hold on a volume. It counts only if the request was answered.
type claim struct {
	id        string
	made      bool
	abandoned bool
}

// Mount makes the volume usable on this host and returns the folder for containers. undo is to be called when the answer could not be
// delivered: nobody will ever unmount it.
func (m *Manager) Mount(ctx context.Context, name, id string) (path string, undo func(), err error) {
	if err := checkName(name); err != nil {
		return "", nil, err
	}
	if id == "" {
		return "", nil, fmt.Errorf("volume %q: the mount request has no ID", name)
	}
	if err := m.ready(ctx); err != nil {
		return "", nil, err
	}
	v := m.record(name)
	c := &claim{id: id}
	var mounted string // told only if the work ended in time: if not, it goes on and may still write this
	err = m.work(ctx, v, func(base context.Context) error {
		began := time.Now()
		p, err := m.makeUsable(base, v)
		if err != nil {
			// What this attempt left behind is unmounted and detached, but not while this error is on its way.
			m.wake(v, 0)
			return err
		}
		m.log.WithField("volume", name).WithField("use", short(id)).Infof("mounted in %s", time.Since(began).Round(time.Millisecond))
		v.set(func() {
			if c.abandoned {
				v.holdUntil = time.Now().Add(m.timing.HandOver)
				return
			}
			c.made = true
			v.users[id] = use{since: time.Now()}
		})
		m.save(v)
		m.step(StepMountNoted)
		m.wake(v, m.timing.HandOver)
		mounted = p
		return nil
	})
	undo = func() { m.abandon(v, c) }
	if err != nil {
		undo()
		return "", nil, err
	}
	return mounted, undo, nil
}

// abandon takes back a claim whose answer nobody got. The volume stays mounted for a while: the retry may come, and what looks lost may
// still be on its way.
func (m *Manager) abandon(v *record, c *claim) {
	v.set(func() {
		c.abandoned = true
		if c.made {
			c.made = false
			delete(v.users, c.id)
			v.holdUntil = time.Now().Add(m.timing.HandOver)
		}
	})
	m.save(v)
	m.wake(v, m.timing.HandOver)
}

// makeUsable brings the volume from wherever it stands to a mounted folder. Each step first asks the kernel what is there.
func (m *Manager) makeUsable(ctx context.Context, v *record) (string, error) {
	v.set(func() { v.freeSince = time.Time{} }) // the grace begins anew after this use
	_, seen := v.known()
	tooNew := seen != nil && seen.Newer != nil
	if tooNew {
		v.set(func() { v.seenAt = time.Time{} }) // ask whether it still is
	}
	if err := m.notLetGoOf(ctx, v); err != nil {
		return "", err
	}
	if _, ok := m.mountedAt(v); ok && !tooNew {
		return m.rootOf(v)
	}
	if err := m.refuseWhileDraining(v); err != nil {
		return "", err
	}
	vol, err := m.current(ctx, v)
	if err != nil {
		v.set(func() { v.doing = "" })
		return "", err
	}
	if vol.Newer != nil {
		return "", vol.Newer
	}
	layout, err := options.FromAttrs(vol.Attrs)
	if err != nil {
		return "", fmt.Errorf("volume %q (%s): its tags cannot be used: %w", v.name, vol.ID, err)
	}
	if err := m.notLetGoOf(ctx, v); err != nil { // only now is its ID certain
		return "", err
	}
	// Where nothing can be mounted, nothing is attached and formatted.
	if err := m.mountpoint(m.target(vol.ID)); err != nil {
		v.set(func() { v.doing = "" })
		return "", fmt.Errorf("volume %q (%s): %w", v.name, vol.ID, err)
	}
	_ = os.Remove(m.target(vol.ID)) // busy if a device that has gone is mounted there
	dev, err := m.attach(ctx, v, vol)
	if err != nil {
		return "", err
	}
	if _, ok := m.mountedAt(v); ok {
		return m.rootOf(v) // by an earlier process: only now is the volume known well enough to see it
	}
	path, err := m.mountDevice(ctx, v, vol, dev, layout)
	if err != nil {
		v.rest(phaseAttached)
		// The tags that led to this may be older than the attachment, or be set right now: ask again next time.
		v.set(func() { v.seenAt = time.Time{} })
		return "", fmt.Errorf("volume %q (%s): %w", v.name, vol.ID, err)
	}
	v.set(func() {
		v.enter(phaseMounted)
		v.doing, v.path, v.mountedNow, v.lastErr, v.failing = "", path, true, nil, failing{}
	})
	return path, nil
}

// mountedAt tells whether the kernel has the volume mounted for us, with its device still there, and where its root folder is. It only looks,
// and may be called at any time.
func (m *Manager) mountedAt(v *record) (string, bool) {
	v.mu.Lock()
	seen, path, attached := v.seen, v.path, v.attached
	v.mu.Unlock()
	if seen == nil || !attached {
		return "", false
	}
	dev, err := m.disk.Find(seen.Serial)
	if err != nil {
		return "", false
	}
	target := m.target(seen.ID)
	targets, err := m.disk.Mounts(dev)
	if err != nil || !contains(targets, target) {
		return "", false
	}
	if path == "" { // mounted by an earlier process
		path = filepath.Join(target, seen.Attrs[attrSubdir])
	}
	return path, true
}

// rootOf returns the root folder of a volume that is mounted. A process that was killed between the mount and the making of the folder
// has left that to the next one.
func (m *Manager) rootOf(v *record) (string, error) {
	v.mu.Lock()
	seen, path := v.seen, v.path
	v.mu.Unlock()
	if path == "" {
		layout, err := options.FromAttrs(seen.Attrs)
		if err != nil {
			return "", fmt.Errorf("volume %q (%s): its tags cannot be used: %w", v.name, seen.ID, err)
		}
		if path, err = m.disk.Root(m.target(seen.ID), false, rootOptions(layout)); err != nil {
			return "", fmt.Errorf("volume %q (%s): %w", v.name, seen.ID, err)
		}
	}
	v.set(func() {
		v.enter(phaseMounted)
		v.doing, v.path = "", path
	})
	return path, nil
}

// current returns what the cloud says of the volume: without asking when its device is here, for then nobody else changes it.
func (m *Manager) current(ctx context.Context, v *record) (cloud.Volume, error) {
	v.mu.Lock()
	seen, doubted := v.seen, v.seenAt.IsZero()
	v.mu.Unlock()
	if seen != nil && !doubted && m.present(v) {
		return *seen, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.Attach)
	defer cancel()
	for {
		vol, err := m.exists(ctx, v, m.timing.Fresh)
		if err != nil {
			return cloud.Volume{}, err
		}
		if vol.State != cloud.Creating {
			m.save(v)
			return vol, nil
		}
		// Another host is creating it at this moment.
		v.begin(phaseFree, "waiting for the volume to be created")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return cloud.Volume{}, fmt.Errorf("volume %q (%s) is still being created: %w", v.name, vol.ID, ctx.Err())
		}
	}
}

// attach makes the volume's device appear in this host's kernel.
func (m *Manager) attach(ctx context.Context, v *record, vol cloud.Volume) (disk.Device, error) {
	dev, err := m.disk.Find(vol.Serial)
	if err == nil || errors.Is(err, disk.ErrNotReady) {
		leaving := false
		v.set(func() { v.attached, leaving = true, v.leaving })
		if leaving {
			return disk.Device{}, cloud.Errorf(cloud.ErrState, "volume %q (%s) is being detached from this host: try again when that has ended", v.name, vol.ID)
		}
		// It is here, or on its way: the kernel shows a device a moment before it can be opened.
		ready, cancel := context.WithTimeout(ctx, m.timing.AskCloud)
		defer cancel()
		return m.disk.Wait(ready, vol.Serial)
	}
	if !errors.Is(err, disk.ErrNoDevice) {
		return disk.Device{}, err
	}
	// A mount whose device has gone must not be covered by the next one.
	if err := m.unmountTarget(m.target(vol.ID)); err != nil {
		return disk.Device{}, fmt.Errorf("volume %q (%s): its last device is gone, and what is mounted of it cannot be unmounted: %w", v.name, vol.ID, err)
	}
	v.set(func() { v.leaving = false })
	host := m.self()
	if vol.MultiAttach {
		return disk.Device{}, cloud.Errorf(cloud.ErrState, "volume %q (%s) has multi-attach enabled: two hosts could mount it at once, which destroys a filesystem; "+
			"disable multi-attach to use it", v.name, vol.ID)
	}
	limited, cancel := context.WithTimeout(ctx, m.timing.Attach)
	defer cancel()
	v.begin(phaseAttaching, "attaching the volume to "+host.ID)
	v.set(func() { v.attached = true })
	m.step(StepAttach)
	err = m.cloud.Attach(limited, vol)
	var held *cloud.HolderError
	if errors.As(err, &held) && held.Host != "" && held.Host != host.ID {
		v.set(func() { v.attached = false })
		// This has limits of its own: an instance may take minutes to stop.
		if vol, err = m.takeOver(ctx, v, vol, held); err == nil {
			again, cancel := context.WithTimeout(ctx, m.timing.Attach)
			defer cancel()
			limited = again
			v.set(func() { v.attached = true })
			v.begin(phaseAttaching, "attaching the volume to "+host.ID)
			err = m.cloud.Attach(limited, vol)
		}
	}
	if err != nil {
		if refusedForGood(err) {
			v.set(func() { v.attached = false })
		}
		v.rest(phaseFree)
		// What was seen led to a refusal: look again next time.
		v.set(func() { v.seenAt = time.Time{} })
		return disk.Device{}, err
	}
	m.step(StepAttachSent)
	if err := m.stillOurs(limited, v, vol); err != nil { // meanwhile the device is on its way
		v.rest(phaseAttached)
		return disk.Device{}, err
	}
	dev, err = m.awaitDevice(limited, v, vol)
	if err != nil {
		v.rest(phaseAttached)
		return disk.Device{}, fmt.Errorf("volume %q (%s): waiting for its device on %s: %w", v.name, vol.ID, host.ID, err)
	}
	v.rest(phaseAttached)
	m.step(StepDevice)
	return dev, nil
}

// stillOurs makes sure that no other host has given the volume up since it was looked up here, to be kept or to be deleted after a while: an
// attachment keeps a volume from being deleted, but not from that. Whoever gives one up looks afterwards whether somebody has it, and here it is
// looked up after EC2 has accepted the attachment, so one of the two sees the other. Anonymous volumes are deleted at once.
func (m *Manager) stillOurs(ctx context.Context, v *record, vol cloud.Volume) error {
	if rule, err := options.ReclaimOf(vol.Attrs); err == nil && rule == options.ReclaimDelete && anonymous.MatchString(v.name) {
		return nil
	}
	now, err := m.cloud.ByID(ctx, vol.ID)
	if errors.Is(err, cloud.ErrNotFound) { // or EC2 does not know yet what it has just made
		if err := m.pause(ctx, m.timing.Absent); err != nil {
			return fmt.Errorf("volume %q (%s) was not found once, which is not enough to call it gone: %w", v.name, vol.ID, err)
		}
		now, err = m.cloud.ByID(ctx, vol.ID)
	}
	switch {
	case errors.Is(err, cloud.ErrNotFound), err == nil && (m.gone(now) || now.Name != v.name):
		err = cloud.Errorf(cloud.ErrNotFound, "volume %q (%s) was removed on another host while it was being attached to %s; it is detached again", v.name, vol.ID, m.self().ID)
	case err == nil:
		return nil
	default:
		err = fmt.Errorf("volume %q (%s): whether it was removed on another host meanwhile cannot be told: %w", v.name, vol.ID, err)
	}
	v.set(func() { v.seenAt = time.Time{} })
	return err
}

// refusedForGood tells whether an AttachVolume that failed has certainly not been carried out.
func refusedForGood(err error) bool {
	for _, sure := range []error{cloud.ErrInUse, cloud.ErrZone, cloud.ErrLimit, cloud.ErrHost, cloud.ErrDenied, cloud.ErrNotFound, cloud.ErrInvalid, cloud.ErrCredentials, cloud.ErrState} {
		if errors.Is(err, sure) {
			return true
		}
	}
	return false
}

// awaitDevice waits for the kernel to show the device; the serial there is the confirmation. Only when it takes unusually long is the cloud
// asked what became of the attachment.
func (m *Manager) awaitDevice(ctx context.Context, v *record, vol cloud.Volume) (disk.Device, error) {
	first, cancel := context.WithTimeout(ctx, m.timing.AskCloud)
	defer cancel()
	dev, err := m.disk.Wait(first, vol.Serial)
	if err == nil || ctx.Err() != nil || first.Err() == nil {
		return dev, err
	}
	m.log.WithField("volume", v.name).Warnf("no device with serial %s after %s, asking EC2", vol.Serial, m.timing.AskCloud)
	if err := m.cloud.WaitAttached(ctx, vol.ID); err != nil {
		return disk.Device{}, err
	}
	last, cancel := context.WithTimeout(ctx, m.timing.AskCloud)
	defer cancel()
	dev, err = m.disk.Wait(last, vol.Serial)
	if err != nil && last.Err() != nil {
		return dev, fmt.Errorf("EC2 says that it is attached, but no device with serial %s appears; "+
			"look at `cat /sys/block/*/device/serial` on the host: %w", vol.Serial, err)
	}
	return dev, err
}

// mountDevice makes the filesystem if it must and may, checks it, mounts it and returns the folder for containers.
func (m *Manager) mountDevice(ctx context.Context, v *record, vol cloud.Volume, dev disk.Device, layout options.Layout) (string, error) {
	target := m.target(vol.ID)
	hold, err := m.disk.Claim(dev)
	switch {
	case errors.Is(err, disk.ErrInUse):
		// A container still has it: the same superblock is mounted once more, without probe or repair. What else could hold it (mkfs of a
		// killed process) has not reached the last tag.
		if vol.Attrs[attrFS] != layout.FSType {
			return "", fmt.Errorf("%s is in use by another process, and the volume is not formatted yet (tag blockvol:fs=%s): wait for it to end", dev.Path, vol.Attrs[attrFS])
		}
		return m.mountAt(ctx, dev, target, layout, false)
	case err != nil:
		return "", fmt.Errorf("whether %s is in use cannot be told: %w", dev.Path, err)
	}
	if err := hold.Release(); err != nil {
		return "", err
	}
	v.begin(phaseAttached, "reading the device")
	unlock, err := m.disk.Lock(ctx, dev)
	if err != nil {
		return "", err
	}
	defer unlock()
	m.step(StepProbe)
	fresh := false
	if vol.Attrs[attrFS] == options.FSAdopted {
		if layout.FSType, err = m.recognise(ctx, v, vol, dev, layout.FSType); err != nil {
			return "", err
		}
	} else if fresh, err = m.prepare(ctx, v, vol, dev, layout); err != nil {
		return "", err
	}
	v.begin(phaseAttached, "checking the filesystem")
	if err := m.disk.Check(ctx, dev, layout.FSType); err != nil {
		return "", err
	}
	m.step(StepChecked)
	path, err := m.mountAt(ctx, dev, target, layout, fresh)
	if err != nil {
		return "", err
	}
	m.step(StepRoot)
	v.begin(phaseMounted, "growing the filesystem")
	_ = m.grow(ctx, v, dev, target, layout.FSType) // the volume can be used without it, and the sweep tries again
	m.step(StepGrown)
	return path, nil
}

// prepare applies the format rule: the volume's tag and what is on the device decide together. Each tag is confirmed before the next step.
func (m *Manager) prepare(ctx context.Context, v *record, vol cloud.Volume, dev disk.Device, layout options.Layout) (fresh bool, err error) {
	content, readErr := m.disk.Inspect(ctx, dev)
	d := disk.Decide(vol.Attrs[attrFS], m.self().ID, vol.SnapshotID != "", layout.FSType, content, readErr)
	log := m.log.WithField("volume", v.name)
	switch d.Action {
	case disk.Mount:
		return false, nil
	case disk.Format:
	case disk.FormatAgain:
		if err := m.confirmTag(ctx, v, vol); err != nil {
			return false, err
		}
	default:
		return false, fmt.Errorf("%s: %s", dev.Path, d.Reason)
	}
	m.step(StepProbed)
	log.Infof("formatting %s with %s: %s", dev.Path, layout.FSType, d.Reason)
	if err := m.tagFS(ctx, v, vol.ID, "formatting:"+m.self().ID); err != nil {
		return false, fmt.Errorf("marking the volume before formatting: %w", err)
	}
	m.step(StepMarked)
	v.begin(phaseAttached, "making the filesystem")
	err = m.disk.Format(ctx, dev, layout.FSType, disk.FormatOptions{Args: layout.MkfsOptions, Overwrite: d.Action == disk.FormatAgain})
	if err != nil {
		return false, err
	}
	m.step(StepMade)
	if err := m.tagFS(ctx, v, vol.ID, layout.FSType); err != nil {
		return false, fmt.Errorf("marking the volume after formatting: %w", err)
	}
	m.step(StepTagged)
	return true, nil
}

// confirmTag looks a second time, and later, at a tag that allows formatting over what is on the device: an answer of EC2 may be older than
// the data.
func (m *Manager) confirmTag(ctx context.Context, v *record, vol cloud.Volume) error {
	v.begin(phaseAttached, "making sure that the volume was never formatted to the end")
	select {
	case <-time.After(m.timing.Absent):
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := m.cloud.ByID(ctx, vol.ID)
	if err != nil {
		return fmt.Errorf("looking at the tag blockvol:fs again before formatting: %w", err)
	}
	if now.Attrs[attrFS] != vol.Attrs[attrFS] {
		v.saw(now, m.self().ID)
		return fmt.Errorf("its tag blockvol:fs was %q and is %q now: it is not formatted; try again", vol.Attrs[attrFS], now.Attrs[attrFS])
	}
	return nil
}

// tagFS sets the format tag, and in what is remembered only once the cloud has confirmed it.
func (m *Manager) tagFS(ctx context.Context, v *record, id, value string) error {
	return m.setAttrs(ctx, v, id, map[string]string{attrFS: value})
}

// setAttrs sets attributes, and in what is remembered only once the cloud has confirmed them.
func (m *Manager) setAttrs(ctx context.Context, v *record, id string, attrs map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := m.cloud.SetAttrs(ctx, id, attrs); err != nil {
		return err
	}
	v.set(func() {
		if v.seen == nil || v.seen.ID != id {
			return
		}
		changed := *v.seen
		changed.Attrs = maps.Clone(v.seen.Attrs)
		maps.Copy(changed.Attrs, attrs)
		v.seen = &changed
	})
	return nil
}

// mountAt mounts the device and returns the volume's root folder. The mountpoint exists only while something is mounted on it, so that a
// lost mount can never be written to as if it were the volume.
func (m *Manager) mountAt(ctx context.Context, dev disk.Device, target string, layout options.Layout, fresh bool) (string, error) {
	if err := m.mountpoint(target); err != nil {
		return "", err
	}
	m.step(StepMountpoint)
	if err := m.disk.Mount(ctx, dev, target, layout.FSType, layout.MountOptions); err != nil {
		return "", errors.Join(err, os.Remove(target))
	}
	m.step(StepMounted)
	path, err := m.disk.Root(target, fresh, rootOptions(layout))
	if err != nil {
		if uerr := m.disk.Unmount(target); uerr != nil {
			return "", errors.Join(err, uerr)
		}
		return "", errors.Join(err, os.Remove(target))
	}
	return path, nil
}

// mountpoint makes the folder to mount on.
func (m *Manager) mountpoint(target string) error {
	err := os.MkdirAll(m.mounts, 0o711)
	if err == nil {
		err = os.Mkdir(target, 0o711)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the mountpoint in %s, where there must be room and the right to write: %w", hostPath(m.mounts), err)
	}
	return nil
}

// target is where a volume is mounted: under its ID, which is made of safe characters, never under its name.
func (m *Manager) target(id string) string { return filepath.Join(m.mounts, id) }

func rootOptions(l options.Layout) disk.RootOptions {
	return disk.RootOptions{Subdir: l.Subdir, UID: l.UID, GID: l.GID, Mode: l.Mode}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// short cuts a mount ID to what docker ps shows.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

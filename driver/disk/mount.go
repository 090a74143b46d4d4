package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount mounts the filesystem on a device at target, an existing directory. ext4 always gets errors=remount-ro and xfs nouuid, unless
// options has the same key. The error carries what the kernel said. When ctx ends first the error is ErrStuck: nothing will appear at
// target later, but the kernel may hold the device until it has answered.
func (h *Host) Mount(ctx context.Context, d Device, target, fstype string, options []string) error {
	fs, err := lookup(fstype)
	if err != nil {
		return err
	}
	plan, err := planMount(options, fs.mountAlways)
	if err != nil {
		return fmt.Errorf("mount %s: %w", d, err)
	}
	if !filepath.IsAbs(target) {
		return fmt.Errorf("mount %s: the target %q must be an absolute path", d, target)
	}
	// The kernel's EINVAL for a target that is no directory reads as if the filesystem were at fault.
	var st unix.Stat_t
	if err := unix.Lstat(target, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("mount %s: %s is in the way, %w: remove it", d, target, unix.ENOTDIR)
	}
	pin, err := h.open(d, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	doing := fmt.Sprintf("mount %s (%s) at %s", d, fstype, target)
	_, err = bounded(ctx, doing, func(commit func() bool) (struct{}, error) {
		defer pin.Close()
		log := h.listenKernel(d)
		defer log.close()
		err := mountNew(d, target, fstype, plan, commit)
		if errors.Is(err, errNoMountAPI) {
			err = mountOld(d, target, fstype, plan, commit)
		}
		if err != nil {
			return struct{}{}, fmt.Errorf("%s: %w", doing, log.explain(err))
		}
		return struct{}{}, nil
	})
	return err
}

// errAbandoned says that the mount came after its context had ended.
var errAbandoned = errors.New("too late")

// errNoMountAPI says that the kernel (before 5.2) or a sandbox has no fsopen(2).
var errNoMountAPI = errors.New("no fsopen")

// mountNew mounts by fsopen(2) and its kin: errors come with the kernel's text, options are not parsed from one string, and the
// mount is proven to be of the right device before anybody can see it.
func mountNew(d Device, target, fstype string, p mountPlan, commit func() bool) error {
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return errNoMountAPI
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: this kernel has no %s", ErrUnsupported, fstype)
	}
	if err != nil {
		return fmt.Errorf("open a %s context: %w", fstype, err)
	}
	defer unix.Close(fsfd)
	if err := configure(fsfd, d, p); err != nil {
		return withMessages(fsfd, err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, p.attr)
	if err != nil {
		return withMessages(fsfd, fmt.Errorf("make the mount: %w", err))
	}
	defer unix.Close(mfd)
	if err := isOf(mfd, d); err != nil {
		return err
	}
	if !commit() {
		return errAbandoned
	}
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("put the mount there: %w", err)
	}
	return nil
}

func configure(fsfd int, d Device, p mountPlan) error {
	if err := unix.FsconfigSetString(fsfd, "source", d.Path); err != nil {
		return fmt.Errorf("set the device: %w", err)
	}
	for _, o := range append(append([]string(nil), p.super...), p.params...) {
		key, value, hasValue := strings.Cut(o, "=")
		var err error
		if hasValue {
			err = unix.FsconfigSetString(fsfd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fsfd, key)
		}
		if err != nil {
			return fmt.Errorf("%w %q: %w", ErrOption, o, err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return mountError(err)
	}
	return nil
}

// isOf proves that a mount is of the device.
func isOf(fd int, d Device) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at the mount: %w", err)
	}
	if unix.Major(st.Dev) != d.Major || unix.Minor(st.Dev) != d.Minor {
		return fmt.Errorf("%w: %s now means device %d:%d", errChanged, d.Path, unix.Major(st.Dev), unix.Minor(st.Dev))
	}
	return nil
}

// mountOld mounts by mount(2). It cannot look before the mount is there; what is wrong is unmounted again.
func mountOld(d Device, target, fstype string, p mountPlan, commit func() bool) error {
	if err := unix.Mount(d.Path, target, fstype, p.flags, p.data()); err != nil {
		return mountError(err)
	}
	fd, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = isOf(fd, d)
		unix.Close(fd)
	}
	if err == nil && !commit() {
		err = errAbandoned
	}
	if err == nil {
		return nil
	}
	if e := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); e != nil {
		return fmt.Errorf("%w; and it cannot be unmounted: %w", err, e)
	}
	return err
}

// mountError adds to an error number what it means here.
func mountError(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w (%w): it is claimed by another process, or mounted with other options (ro or rw)", ErrInUse, err)
	case errors.Is(err, unix.EUCLEAN):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w by this kernel: %w", ErrUnsupported, err)
	}
	return err
}

// withMessages adds what the kernel has put into the context's log.
func withMessages(fsfd int, err error) error {
	var said []string
	buf := make([]byte, 4096)
	for len(said) < 16 {
		n, e := unix.Read(fsfd, buf)
		if errors.Is(e, unix.EINTR) {
			continue
		}
		if e != nil || n == 0 {
			break
		}
		// "e text", "w text" or "i text"
		if text := strings.TrimSpace(string(buf[:n])); len(text) > 2 {
			said = append(said, text[2:])
		}
	}
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(said, "; "))
}

// Unmount unmounts what is at target, and nothing else: not lazily, not by force, not through a symbolic link. ErrInUse means that a
// process in this mount namespace uses it; ErrNotMounted that nothing is mounted there. It returns when the filesystem has written
// everything, if this was its last mount: that takes as long as the device does.
func (h *Host) Unmount(target string) error {
	for {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("unmount %s: %w: a process works in it or has a file open there, or another mount lies below it", target, ErrInUse)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return fmt.Errorf("unmount %s: %w (%w)", target, ErrNotMounted, err)
		}
		return fmt.Errorf("unmount %s: %w", target, err)
	}
}

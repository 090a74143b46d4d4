package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// extDirty tells whether an ext4's journal holds what its blocks do not yet, as after a crash (INCOMPAT_RECOVER in its superblock).
func extDirty(dev *os.File) (bool, error) {
	sb := make([]byte, 1024)
	if at, err := readFull(dev, sb, 1024); err != nil {
		return false, &ReadError{dev.Name(), at, err}
	}
	return binary.LittleEndian.Uint16(sb[0x38:]) == 0xEF53 && binary.LittleEndian.Uint32(sb[0x60:])&4 != 0, nil
}

// replay makes the kernel write a dirty journal to its places, before the check tool sees it: where the journal cannot be used, e2fsck -p throws
// it away with everything that was synced last, and calls that a repair. The kernel refuses and changes nothing.
func (h *Host) replay(ctx context.Context, dev *os.File, d Device, fs *filesystem) error {
	dirty, err := fs.dirty(dev)
	if err != nil || !dirty {
		return err
	}
	plan, err := planMount(nil, fs.mountAlways)
	if err != nil {
		return err
	}
	_, err = bounded(ctx, fmt.Sprintf("replay the journal on %s", d), func(func() bool) (struct{}, error) {
		log := h.listenKernel(d)
		defer log.close()
		err := replayNew(d, fs.name, plan)
		if errors.Is(err, errNoMountAPI) {
			err = replayOld(d, fs.name, plan)
		}
		if err != nil {
			err = log.explain(err)
		}
		return struct{}{}, err
	})
	if err == nil {
		err = h.untilFree(ctx, d)
	}
	if err == nil {
		if dirty, err = fs.dirty(dev); err == nil && dirty {
			err = errors.New("the journal is as it was")
		}
	}
	if err == nil {
		h.log().WithField("device", d.Path).Info("the journal was replayed")
		return nil
	}
	kind := errNotChecked
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG) {
		kind = ErrDamaged
	}
	return fmt.Errorf("%w: its journal holds what was written last, and cannot be replayed: %w; nothing was changed, and %s was not run, because it may discard the journal: "+
		"make a snapshot of the volume before you repair it by hand", kind, err, fs.check)
}

// untilFree waits until a filesystem that was closed is unmounted: a process that this one starts at the same moment has a copy of every
// open file until it becomes its program.
func (h *Host) untilFree(ctx context.Context, d Device) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		claim, err := h.Claim(d)
		if err == nil {
			return claim.Release()
		}
		if !errors.Is(err, ErrInUse) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// replayNew mounts and unmounts a filesystem where nobody can see it: at no place at all.
func replayNew(d Device, fstype string, p mountPlan) error {
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return errNoMountAPI
	}
	if err != nil {
		return fmt.Errorf("open a %s context: %w", fstype, err)
	}
	defer unix.Close(fsfd) // and with it the filesystem
	if err := configure(fsfd, d, p); err != nil {
		return withMessages(fsfd, err)
	}
	return nil
}

// replayOld does the same on kernels without fsopen(2): in a mount namespace of its own, over the folder of the devices.
func replayOld(d Device, fstype string, p mountPlan) error {
	return inOwnMounts(func() error {
		dir := filepath.Dir(d.Path)
		if err := mountOld(d, dir, fstype, p, func() bool { return true }); err != nil {
			return err
		}
		return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	})
}

// inOwnMounts runs f on a thread with a mount namespace of its own, which ends with it. Never on the process's first thread: that one does
// not end, and /proc/self shows its namespace, so that the process would not see its own mounts any more.
func inOwnMounts(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- inOwnMounts(f) // this thread waits, so it is another one there
			runtime.UnlockOSThread()
			return
		}
		// Locked for good: the thread ends with this function.
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("make a mount namespace: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- fmt.Errorf("make the mount namespace private: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

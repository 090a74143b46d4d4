package disk

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Reaches tells whether what is mounted in dir appears anywhere else too: in a managed plugin, on the host, from where containers get it. It
// mounts something empty for a moment and asks the kernel whether the mount has a twin: without one it cannot be made a slave of anything.
func Reaches(dir string) (reaches bool, err error) {
	probe, err := os.MkdirTemp(dir, "reach-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.Remove(probe)) }()
	if err := unix.Mount("reach", probe, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "size=4k"); err != nil {
		return false, fmt.Errorf("mounting a probe on %s: %w", probe, err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(probe, unix.MNT_DETACH)) }()
	if err := unix.Mount("", probe, "", unix.MS_SLAVE, ""); err != nil {
		return false, fmt.Errorf("detaching the probe on %s from its twins: %w", probe, err)
	}
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(probe))
	if err != nil {
		return false, err
	}
	if len(infos) != 1 {
		return false, fmt.Errorf("the probe on %s is not among the mounts", probe)
	}
	return len(infos[0].Optional) > 0, nil // "master:N"
}

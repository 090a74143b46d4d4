package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// nvmeRescan is NVME_IOCTL_RESCAN of include/uapi/linux/nvme_ioctl.h: _IO('N', 0x46).
const nvmeRescan = 0x4e46

var nvmeController = regexp.MustCompile(`^nvme\d+$`)

// AskController makes the kernel ask an NVMe controller for the size of its namespaces, as it does by itself when the controller tells of a change. A
// device that has no controller of its own in sysfs needs none.
func (h *Host) AskController(d Device) error {
	link, err := os.Readlink(filepath.Join(h.Sys, "block", d.Name, "device"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) { // no link: not a kernel's own view
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the controller of %s: %w", d, err)
	}
	name := filepath.Base(link)
	if !nvmeController.MatchString(name) {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(h.Dev, name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("rescan %s: %w", d, err)
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeRescan, 0); errno != 0 {
		return fmt.Errorf("rescan %s by %s: %w", d, f.Name(), errno)
	}
	return nil
}

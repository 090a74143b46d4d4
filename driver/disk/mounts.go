package disk

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// MountPoint is one mount in the mount namespace of this process.
type MountPoint struct {
	Target       string
	Major, Minor uint32 // of the filesystem's device; for ext4 and xfs that of the block device
	FSType       string
	Root         string // the part of the filesystem that is mounted; "/" unless it is a bind mount of less
}

// Mounts returns where the device's filesystem is mounted in the mount namespace of this process, in the order it was mounted. Others
// are only told by Claim. A filesystem with numbers of its own (btrfs) is not seen.
func (h *Host) Mounts(d Device) ([]string, error) {
	list, err := mounts(func(m *mountinfo.Info) bool { return m.Major == int(d.Major) && m.Minor == int(d.Minor) })
	if err != nil {
		return nil, fmt.Errorf("look for mounts of %s: %w", d, err)
	}
	var targets []string
	for _, m := range list {
		targets = append(targets, m.Target)
	}
	return targets, nil
}

// MountsUnder returns all mounts of this process's mount namespace at or below dir, in the order they were mounted.
func (h *Host) MountsUnder(dir string) ([]MountPoint, error) {
	dir = filepath.Clean(dir)
	below := strings.TrimSuffix(dir, "/") + "/"
	list, err := mounts(func(m *mountinfo.Info) bool {
		return m.Mountpoint == dir || strings.HasPrefix(m.Mountpoint, below)
	})
	if err != nil {
		return nil, fmt.Errorf("look for mounts under %s: %w", dir, err)
	}
	return list, nil
}

func mounts(want func(*mountinfo.Info) bool) ([]MountPoint, error) {
	infos, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !want(m), false })
	if err != nil {
		return nil, err
	}
	var list []MountPoint
	for _, m := range infos {
		list = append(list, MountPoint{m.Mountpoint, uint32(m.Major), uint32(m.Minor), m.FSType, m.Root})
	}
	return list, nil
}

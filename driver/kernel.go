package driver

import (
	"context"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
)

// kernel is what the Manager needs of this host's block devices, filesystems and mounts. *disk.Host is what stands behind it.
type kernel interface {
	List() ([]disk.Device, error)
	Find(serial string) (disk.Device, error)
	Wait(ctx context.Context, serial string) (disk.Device, error)
	WaitGone(ctx context.Context, serial string) error

	Claim(d disk.Device) (claimed, error)
	Lock(ctx context.Context, d disk.Device) (unlock func(), err error)

	Inspect(ctx context.Context, d disk.Device) (disk.Content, error)
	Format(ctx context.Context, d disk.Device, fstype string, o disk.FormatOptions) error
	Check(ctx context.Context, d disk.Device, fstype string) error
	Mount(ctx context.Context, d disk.Device, target, fstype string, options []string) error
	Root(target string, fresh bool, o disk.RootOptions) (string, error)
	Grow(ctx context.Context, d disk.Device, target, fstype string) (grown bool, err error)
	AskController(d disk.Device) error
	Usage(target string) (disk.Usage, error)
	Freeze(ctx context.Context, d disk.Device, target string, most time.Duration) (frozen, error)
	Thaw(p disk.MountPoint) (was bool, err error)
	Performance(d disk.Device) (disk.Performance, error)
	Unmount(target string) error

	Mounts(d disk.Device) ([]string, error)
	MountsUnder(dir string) ([]disk.MountPoint, error)
}

// claimed is the proof that nobody uses a device, for as long as it is held.
type claimed interface{ Release() error }

// frozen is a filesystem that stands still.
type frozen interface {
	Ends() time.Time // when it thaws by itself
	Thaw() (held bool, err error)
}

// hostKernel is the kernel that this process runs on.
type hostKernel struct{ *disk.Host }

// Claim hides the type of the proof.
func (h hostKernel) Claim(d disk.Device) (claimed, error) {
	c, err := h.Host.Claim(d)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Freeze hides the type of what is frozen.
func (h hostKernel) Freeze(ctx context.Context, d disk.Device, target string, most time.Duration) (frozen, error) {
	f, err := h.Host.Freeze(ctx, d, target, most)
	if err != nil {
		return nil, err
	}
	return f, nil
}

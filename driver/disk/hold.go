package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Claim is the proof that nobody uses a device: as long as it is held nobody can mount it or make a filesystem on it. Somebody
// who opened the device without O_EXCL is not seen.
type Claim struct{ f *os.File }

// Claim opens the device exclusively. ErrInUse means that it is mounted, in whatever mount namespace, or claimed by another. Any
// other error means that nothing is known. Claiming can make a mount fail that happens at the same moment.
func (h *Host) Claim(d Device) (*Claim, error) {
	f, err := h.open(d, unix.O_RDONLY|unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("claim %s: %w (%w): it is mounted, or held by another process", d, ErrInUse, unix.EBUSY)
	}
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return &Claim{f}, nil
}

// Release gives the device free. Releasing twice is harmless.
func (c *Claim) Release() error {
	if c == nil || c.f == nil {
		return nil
	}
	f := c.f
	c.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("release %s: %w", f.Name(), err)
	}
	return nil
}

// Lock takes the advisory lock by which udev and others agree to leave a device alone (https://systemd.io/BLOCK_DEVICE_LOCKING),
// waiting for whoever holds it. It is to be held from probing to mounting. It also pins the device: its number is not given away. A
// device that cannot be written to is refused (ErrReadOnly): a tool or a mount would fail there half-way, and say something else.
func (h *Host) Lock(ctx context.Context, d Device) (unlock func(), err error) {
	f, err := h.open(d, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	readOnly, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err == nil && readOnly != 0 {
		err = fmt.Errorf("%w: the kernel lets nobody write to it; `blockdev --setrw %s` on the host undoes a `--setro`, a faulty device says why in the kernel's log", ErrReadOnly, d.Path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	taken := make(chan error, 1)
	go func() { taken <- flock(f, unix.LOCK_EX) }()
	select {
	case err := <-taken:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", d, err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		// flock cannot be called off: when it comes after all, it is given back.
		go func() {
			<-taken
			f.Close()
		}()
		return nil, fmt.Errorf("lock %s: another process (udev, a partitioning tool) holds its lock: %w", d, context.Cause(ctx))
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// settle is when to look again after an event: what it announced may become visible a moment later (another view of sysfs, a node
// made by somebody else).
var settle = [...]time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond, 250 * time.Millisecond}

// Wait returns the device with that serial as soon as Find does and it can be opened, woken by the kernel's events and by a look each
// Rescan. It ends with ctx, and at once on what waiting cannot cure (ErrDuplicate, ErrSerial).
func (h *Host) Wait(ctx context.Context, serial string) (Device, error) {
	var d Device
	err := h.until(ctx, fmt.Sprintf("wait for the device with serial %s", serial), func() (bool, error) {
		var err error
		d, err = h.Find(serial)
		if err == nil {
			// The kernel shows a new disk in sysfs and makes its node a moment before an open finds it (ENXIO): device_add_disk.
			var f *os.File
			if f, err = h.open(d, unix.O_RDONLY); err == nil {
				err = f.Close()
			}
		}
		if errors.Is(err, ErrNoDevice) || errors.Is(err, ErrNotReady) {
			return false, err
		}
		return true, err
	})
	if err != nil {
		return Device{}, err
	}
	return d, nil
}

// WaitGone returns as soon as no device in sysfs has that serial, ready or not.
func (h *Host) WaitGone(ctx context.Context, serial string) error {
	return h.until(ctx, fmt.Sprintf("wait for the device with serial %s to go", serial), func() (bool, error) {
		s, err := h.bySerial(serial)
		switch {
		case errors.Is(err, ErrNoDevice):
			return true, nil
		case err == nil:
			return false, fmt.Errorf("%s still has it", s.name)
		case errors.Is(err, ErrDuplicate):
			return false, err
		}
		return true, err
	})
}

// until calls look, first at once, then after each event and each Rescan, until it says that it is done. The error of a look that is not
// done is only told when ctx ends first.
func (h *Host) until(ctx context.Context, doing string, look func() (done bool, err error)) error {
	// Listening begins before the first look: what happens in between is an event in the socket.
	events, stop := h.uevents()
	defer stop()
	every := h.Rescan
	if every <= 0 {
		every = time.Second
	}
	rescan := time.NewTicker(every)
	defer rescan.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	step := len(settle)
	for {
		done, err := look()
		if done {
			return err
		}
		if step < len(settle) {
			again.Reset(settle[step])
			step++
		}
		select {
		case <-events:
			step = 0
		case <-again.C:
		case <-rescan.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", doing, context.Cause(ctx), err)
		}
	}
}

// uevents listens to the kernel's events about block devices. A value means: look again. Several events may be one value. Without a
// socket, or when it breaks, no value comes and the regular look remains.
func (h *Host) uevents() (<-chan struct{}, func()) {
	events := make(chan struct{}, 1)
	f, err := openUevents()
	if err != nil {
		h.log().WithError(err).Warn("The kernel's device events cannot be heard; devices are looked for once a second")
		return events, func() {}
	}
	go h.hear(f.Read, events)
	return events, func() { f.Close() }
}

// hear turns what a socket of events says into values, until it is closed.
func (h *Host) hear(read func([]byte) (int, error), events chan<- struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS): // events were lost, so there was at least one
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			h.log().WithError(err).Warn("The kernel's device events cannot be heard any more; devices are looked for once a second")
			return
		case !aboutBlock(buf[:n]):
			continue
		}
		select {
		case events <- struct{}{}:
		default:
		}
	}
}

// openUevents opens a socket that gets the kernel's own events (group 1 of NETLINK_KOBJECT_UEVENT), not those of udev. Anybody who
// could forge one would only make us look.
func openUevents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open a socket for device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to device events: %w", err)
	}
	// Non-blocking, so the runtime waits for it and Close ends a Read.
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// aboutBlock tells whether an event ("add@/devices/...\0KEY=value\0...") is about a block device or an NVMe controller.
func aboutBlock(event []byte) bool {
	for _, field := range bytes.Split(event, []byte{0}) {
		if bytes.Equal(field, []byte("SUBSYSTEM=block")) || bytes.Equal(field, []byte("SUBSYSTEM=nvme")) {
			return true
		}
	}
	return false
}

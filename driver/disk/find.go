package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysDevice is what sysfs says of one block device.
type sysDevice struct {
	name         string
	serial       string
	major, minor uint32
	size         int64
}

// List returns all devices of this host that have a serial, a size and a node of the right number, ordered by name.
func (h *Host) List() ([]Device, error) {
	found, err := h.scan()
	if err != nil {
		return nil, err
	}
	var list []Device
	for _, s := range found {
		d, err := h.ready(s)
		if errors.Is(err, ErrNotReady) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// Find returns the device whose serial is exactly that, once padding is removed. The name, the links of udev and the model are no
// evidence. Errors: ErrNoDevice when no device has the serial; ErrNotReady when one has it but shows no size yet, or its node is
// missing or has another number; ErrDuplicate when several have it; ErrSerial when the serial asked for is empty.
func (h *Host) Find(serial string) (Device, error) {
	s, err := h.bySerial(serial)
	if err != nil {
		return Device{}, err
	}
	return h.ready(s)
}

// bySerial finds a device in sysfs, ready or not.
func (h *Host) bySerial(serial string) (sysDevice, error) {
	if trimPadding(serial) == "" {
		return sysDevice{}, fmt.Errorf("%w: the serial asked for is empty, and any device could be meant", ErrSerial)
	}
	all, err := h.scan()
	if err != nil {
		return sysDevice{}, err
	}
	return choose(all, serial)
}

// choose takes the one device that has the serial.
func choose(all []sysDevice, serial string) (sysDevice, error) {
	want := trimPadding(serial)
	var found []sysDevice
	for _, s := range all {
		if want != "" && s.serial == want {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return sysDevice{}, fmt.Errorf("%w: no block device of this host has the serial %q (%s)", ErrNoDevice, want, seen(all))
	case 1:
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, s := range found {
		names[i] = s.name
	}
	return sysDevice{}, fmt.Errorf("%w: %s all say %q; none of them is used", ErrDuplicate, strings.Join(names, " and "), want)
}

// seen lists the serials that are there, for messages.
func seen(all []sysDevice) string {
	if len(all) == 0 {
		return "no device has a serial"
	}
	var b strings.Builder
	b.WriteString("seen:")
	for i, s := range all {
		if i == 8 {
			fmt.Fprintf(&b, " and %d more", len(all)-i)
			break
		}
		fmt.Fprintf(&b, " %s=%s", s.name, s.serial)
	}
	return b.String()
}

// scan reads all devices with a serial from sysfs. What vanishes meanwhile is left out, as are devices without a number: those are
// hidden paths of a multipath device.
func (h *Host) scan() ([]sysDevice, error) {
	dir := filepath.Join(h.Sys, "block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the block devices of this host: %w", err)
	}
	var all []sysDevice
	for _, e := range entries {
		s, ok, err := readSys(filepath.Join(dir, e.Name()), e.Name())
		if err != nil {
			h.log().WithError(err).WithField("device", e.Name()).Warn("A block device cannot be read in sysfs and is left out")
			continue
		}
		if ok {
			all = append(all, s)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all, nil
}

// readSys reads one device's folder; ok is false when it has no serial, no number, or is gone.
func readSys(dir, name string) (s sysDevice, ok bool, err error) {
	s.name = name
	text := func(file string) string {
		if err != nil {
			return ""
		}
		b, e := os.ReadFile(filepath.Join(dir, file))
		if e != nil && !vanished(e) {
			err = e
		}
		return trimPadding(string(b))
	}
	s.serial = text("device/serial")
	if s.serial == "" || err != nil {
		return s, false, err
	}
	dev, size := text("dev"), text("size")
	if err != nil || dev == "" {
		return s, false, err
	}
	if s.major, s.minor, err = parseDev(dev); err != nil {
		return s, false, err
	}
	if size != "" {
		sectors, err := strconv.ParseInt(size, 10, 64)
		if err != nil || sectors < 0 || sectors > (1<<63-1)/512 {
			return s, false, fmt.Errorf("size %q of %s makes no sense", size, name)
		}
		s.size = sectors * 512 // the unit is 512 bytes whatever the block size: Documentation/ABI/stable/sysfs-block
	}
	return s, true, nil
}

// ready turns what sysfs says into a Device once its size and node are there.
func (h *Host) ready(s sysDevice) (Device, error) {
	d := Device{Name: s.name, Path: filepath.Join(h.Dev, s.name), Major: s.major, Minor: s.minor, Serial: s.serial, Size: s.size}
	if s.size == 0 {
		return Device{}, fmt.Errorf("%w: %s shows no size yet", ErrNotReady, d)
	}
	var st unix.Stat_t
	err := unix.Lstat(d.Path, &st)
	if errors.Is(err, unix.ENOENT) {
		return Device{}, fmt.Errorf("%w: the node of %s is not there yet", ErrNotReady, d)
	}
	if err != nil {
		return Device{}, fmt.Errorf("look at the node of %s: %w", d, err)
	}
	if !sameNumber(&st, d) {
		return Device{}, fmt.Errorf("%w: %s is not the block device %d:%d that sysfs names", ErrNotReady, d, d.Major, d.Minor)
	}
	return d, nil
}

func sameNumber(st *unix.Stat_t, d Device) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Major(st.Rdev) == d.Major && unix.Minor(st.Rdev) == d.Minor
}

// open opens a device's node and proves that it still is the device. While the file is open the kernel does not give its number to
// another device, so whoever works through the file (or /proc/self/fd/N of it) cannot reach a wrong one.
func (h *Host) open(d Device, flags int) (*os.File, error) {
	if d.Serial == "" {
		return nil, fmt.Errorf("%w: %s has no serial", ErrSerial, d.Path)
	}
	fd, err := unix.Open(d.Path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(d.Path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		if vanished(err) {
			return nil, fmt.Errorf("open %s: %w (%v)", d, errGone, err)
		}
		return nil, fmt.Errorf("open %s: %w", d, err)
	}
	f := os.NewFile(uintptr(fd), d.Path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("look at %s: %w", d, err)
	}
	s, ok, err := readSys(filepath.Join(h.Sys, "block", d.Name), d.Name)
	switch {
	case err != nil:
		err = fmt.Errorf("look at %s in sysfs: %w", d, err)
	case !ok:
		err = fmt.Errorf("open %s: %w", d, errGone)
	case !sameNumber(&st, d) || s.serial != d.Serial || s.major != d.Major || s.minor != d.Minor:
		err = fmt.Errorf("open %s: %w (%d:%d, serial %q)", d, errChanged, unix.Major(st.Rdev), unix.Minor(st.Rdev), s.serial)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

// trimPadding removes what NVMe and SCSI pad a serial with.
func trimPadding(s string) string { return strings.Trim(s, " \t\r\n\x00") }

func parseDev(s string) (major, minor uint32, err error) {
	a, b, ok := strings.Cut(s, ":")
	x, errX := strconv.ParseUint(a, 10, 32)
	y, errY := strconv.ParseUint(b, 10, 32)
	if !ok || errX != nil || errY != nil {
		return 0, 0, fmt.Errorf("device number %q makes no sense", s)
	}
	return uint32(x), uint32(y), nil
}

package ec2sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Numbers from the kernel's Documentation/admin-guide/devices.txt.
const (
	miscMajor        = 10
	loopControlMinor = 237
	loopMajor        = 7
)

// maxLoopTries bounds the races for a loop device with other programs.
const maxLoopTries = 16

// loops makes and removes loop devices. Nodes that are missing in /dev (a container may have its own) are made in folder nodes.
type loops struct {
	dev, sys string // /dev and /sys
	nodes    string
}

// control runs an ioctl of /dev/loop-control and returns its answer.
func (l *loops) control(request uint, arg int) (int, error) {
	f, err := os.OpenFile(filepath.Join(l.dev, "loop-control"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = l.private("loop-control", unix.S_IFCHR, unix.Mkdev(miscMajor, loopControlMinor))
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg))
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl loop-control", errno)
	}
	return int(n), nil
}

// private opens a node of our own.
func (l *loops) private(name string, kind uint32, dev uint64) (*os.File, error) {
	if err := os.MkdirAll(l.nodes, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(l.nodes, name)
	if err := makeNode(path, kind, dev); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// makeNode makes a device node, replacing what is there.
func makeNode(path string, kind uint32, dev uint64) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := unix.Mknod(path, kind|0o600, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

// open opens loop device n.
func (l *loops) open(n int, flags int) (*os.File, error) {
	name := "loop" + strconv.Itoa(n)
	f, err := os.OpenFile(filepath.Join(l.dev, name), flags, 0)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	minor := n // True unless the loop module has partitions (max_part).
	if raw, err := os.ReadFile(filepath.Join(l.sys, "block", name, "dev")); err == nil {
		if _, m, ok := strings.Cut(strings.TrimSpace(string(raw)), ":"); ok {
			if parsed, err := strconv.Atoi(m); err == nil {
				minor = parsed
			}
		}
	}
	f, err = l.private(name, unix.S_IFBLK, unix.Mkdev(loopMajor, uint32(minor)))
	if err != nil {
		return nil, err
	}
	f.Close()
	return os.OpenFile(filepath.Join(l.nodes, name), flags, 0)
}

// create binds a new loop device to a file. The device goes away with its last user (autoclear); the open file that is returned is one.
// added tells whether the number is new in this kernel and ours to remove.
func (l *loops) create(file string) (cable *os.File, n int, added bool, err error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, false, err
	}
	defer backing.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
	for range maxLoopTries {
		// A number that nobody has used yet collides with nobody who asks for a free one.
		n, err = l.control(unix.LOOP_CTL_ADD, -1)
		if added = err == nil; !added {
			if n, err = l.control(unix.LOOP_CTL_GET_FREE, 0); err != nil {
				return nil, 0, false, err
			}
		}
		cable, err = l.open(n, os.O_RDWR)
		if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
			continue // Somebody removed it.
		}
		if err != nil {
			break
		}
		if err = unix.IoctlLoopConfigure(int(cable.Fd()), &config); err == nil {
			return cable, n, added, nil
		}
		cable.Close()
		if !errors.Is(err, unix.EBUSY) { // Busy: somebody else was faster, it is theirs now.
			if added {
				l.remove(n)
			}
			break
		}
	}
	return nil, 0, false, fmt.Errorf("bind a loop device to %s: %w", file, err)
}

// announce makes the kernel look how long the file is, and tell its listeners (uevent "change") of the device.
func (l *loops) announce(cable *os.File) error {
	return unix.IoctlSetInt(int(cable.Fd()), unix.LOOP_SET_CAPACITY, 0)
}

// find opens loop device n if it is bound to the file, whole.
func (l *loops) find(n int, file string) (*os.File, bool) {
	cable, err := l.open(n, os.O_RDWR)
	if err != nil {
		return nil, false
	}
	var st unix.Stat_t
	info, err := unix.IoctlLoopGetStatus64(int(cable.Fd()))
	if err == nil {
		err = unix.Stat(file, &st)
	}
	if err != nil || info.Device != uint64(st.Dev) || info.Inode != st.Ino || info.Sizelimit != 0 {
		cable.Close()
		return nil, false
	}
	return cable, true
}

// cut makes the device one sector long: whoever still holds it gets I/O errors, and the file is out of reach.
func (l *loops) cut(cable *os.File) error {
	info, err := unix.IoctlLoopGetStatus64(int(cable.Fd()))
	if err != nil {
		return os.NewSyscallError("LOOP_GET_STATUS64", err)
	}
	info.Sizelimit = 512
	return os.NewSyscallError("LOOP_SET_STATUS64", unix.IoctlLoopSetStatus64(int(cable.Fd()), info))
}

// held tells whether somebody uses the device: has mounted it, or has opened it exclusively. If not, the caller has it exclusively
// until it closes probe.
func (l *loops) held(n int) (probe *os.File, held bool, err error) {
	probe, err = l.open(n, os.O_RDONLY|unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		return nil, true, nil
	}
	return probe, false, err
}

// remove removes the number of an unused device from the kernel; false when somebody still has it open.
func (l *loops) remove(n int) bool {
	_, err := l.control(unix.LOOP_CTL_REMOVE, n)
	if errors.Is(err, unix.EBUSY) {
		return false
	}
	os.Remove(filepath.Join(l.nodes, "loop"+strconv.Itoa(n)))
	return true
}

package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// machine is a host whose devices are loop devices over sparse files, shown with serials in a sysfs of its own.
type machine struct {
	*Host
	t   *testing.T
	dir string
	n   int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, Host: &Host{Dev: filepath.Join(dir, "dev"), Sys: filepath.Join(dir, "sys")}}
	must(t, os.MkdirAll(m.Dev, 0o755))
	must(t, os.MkdirAll(filepath.Join(m.Sys, "block"), 0o755))
	return m
}

// loop is a loop device over an image.
type loop struct {
	image string
	file  *os.File
	num   int
}

// attach makes a loop device over an image.
func (m *machine) attach(image string) *loop {
	m.t.Helper()
	l := &loop{image: image}
	back, err := os.OpenFile(image, os.O_RDWR, 0)
	must(m.t, err)
	defer back.Close()
	for try := 0; ; try++ {
		l.num = freeLoop(m.t)
		path := fmt.Sprintf("/dev/loop%d", l.num)
		if _, err := os.Stat(path); err != nil {
			must(m.t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(l.num)))))
		}
		l.file, err = os.OpenFile(path, os.O_RDWR, 0)
		must(m.t, err)
		config := unix.LoopConfig{Fd: uint32(back.Fd())}
		if err = ioctl(l.file, unix.LOOP_CONFIGURE, unsafe.Pointer(&config)); err == nil {
			break
		}
		l.file.Close()
		if err != unix.EBUSY || try > 500 { // another process took it
			m.t.Fatal("configure a loop device:", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	m.t.Cleanup(func() { l.detach() })
	return l
}

func freeLoop(t *testing.T) int {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	must(t, err)
	return n
}

// detach gives the loop device back; it is gone when its last user is.
func (l *loop) detach() {
	if l.file != nil {
		unix.IoctlRetInt(int(l.file.Fd()), unix.LOOP_CLR_FD)
		l.file.Close()
		l.file = nil
	}
}

// limit makes the device end after that many bytes, for everybody who has it open: what a detached network disk looks like.
func (l *loop) limit(t *testing.T, size int64) {
	t.Helper()
	var info unix.LoopInfo64
	must(t, ioctl(l.file, unix.LOOP_GET_STATUS64, unsafe.Pointer(&info)))
	info.Sizelimit = uint64(size)
	must(t, ioctl(l.file, unix.LOOP_SET_STATUS64, unsafe.Pointer(&info)))
}

// resized makes the kernel take the image's new size.
func (l *loop) resized(t *testing.T) {
	t.Helper()
	_, err := unix.IoctlRetInt(int(l.file.Fd()), unix.LOOP_SET_CAPACITY)
	must(t, err)
}

// show puts a device into the machine's sysfs and its node into dev.
func (m *machine) show(l *loop, serial string) Device {
	m.t.Helper()
	name := fmt.Sprintf("nvme%dn1", m.n+1)
	m.n++
	size, err := deviceSize(l.file)
	must(m.t, err)
	m.sysfs(name, serial, uint32(l.num), size)
	m.node(name, uint32(l.num))
	return Device{Name: name, Path: filepath.Join(m.Dev, name), Major: 7, Minor: uint32(l.num), Serial: trimPadding(serial), Size: size}
}

func (m *machine) sysfs(name, serial string, minor uint32, size int64) {
	m.t.Helper()
	dir := filepath.Join(m.Sys, "block", name)
	must(m.t, os.MkdirAll(filepath.Join(dir, "device"), 0o755))
	write := func(file, text string) { must(m.t, os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o644)) }
	write("dev", fmt.Sprintf("7:%d", minor))
	write("size", fmt.Sprint(size/512))
	write("device/model", "Amazon Elastic Block Store              ")
	write("device/serial", serial)
}

func (m *machine) node(name string, minor uint32) {
	m.t.Helper()
	must(m.t, unix.Mknod(filepath.Join(m.Dev, name), unix.S_IFBLK|0o600, int(unix.Mkdev(7, minor))))
}

// image makes a sparse file of zeroes.
func (m *machine) image(size int64) string {
	m.t.Helper()
	f, err := os.CreateTemp(m.dir, "image")
	must(m.t, err)
	defer f.Close()
	must(m.t, f.Truncate(size))
	return f.Name()
}

// disk is a new, blank device.
func (m *machine) disk(size int64) (Device, *loop) {
	m.t.Helper()
	return m.over(m.image(size))
}

// over is a new device over an image.
func (m *machine) over(image string) (Device, *loop) {
	m.t.Helper()
	l := m.attach(image)
	return m.show(l, fmt.Sprintf("vol%017x", m.n+1)), l
}

// target is a new, empty directory that is unmounted at the end.
func (m *machine) target() string {
	m.t.Helper()
	dir, err := os.MkdirTemp(m.dir, "mnt")
	must(m.t, err)
	m.t.Cleanup(func() {
		for unix.Unmount(dir, unix.UMOUNT_NOFOLLOW) == nil {
		}
	})
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a command that must succeed and returns what it said.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// sum is a checksum over a sparse file's bytes and their places; blocks of zeroes, written or not, leave no mark.
func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 64*kib)
	for at := int64(0); ; {
		if at, err = f.Seek(at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			break
		}
		must(t, err)
		at = at / int64(len(buf)) * int64(len(buf))
		n, err := f.ReadAt(buf, at)
		if n == 0 || err != nil && err != io.EOF {
			must(t, err)
		}
		if firstNonZero(buf[:n]) >= 0 {
			binary.Write(h, binary.LittleEndian, at)
			h.Write(buf[:n])
		}
		at += int64(n)
	}
	info, err := f.Stat()
	must(t, err)
	return fmt.Sprintf("%d bytes, %x", info.Size(), h.Sum(nil))
}

// soon is a context that ends long before the test run does.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

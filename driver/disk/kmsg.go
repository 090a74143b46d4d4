package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog listens to the kernel's log while a mount is tried: ext4 and xfs say there, and nowhere else, why they refuse. A nil
// one hears nothing: reading the log may need CAP_SYSLOG.
type kernelLog struct {
	fd   int
	name string // as the kernel names the device
}

// listenKernel begins at the end of the log.
func (h *Host) listenKernel(d Device) *kernelLog {
	path := h.Kmsg
	if path == "" {
		path = "/dev/kmsg"
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil
	}
	// A simulator's name for a device is not the kernel's, its number is.
	name := d.Name
	if link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", d.Major, d.Minor)); err == nil {
		name = filepath.Base(link)
	}
	return &kernelLog{fd, name}
}

func (l *kernelLog) close() {
	if l != nil {
		unix.Close(l.fd)
	}
}

// explain adds what the kernel has said of the device since, or what the error number stands for.
func (l *kernelLog) explain(err error) error {
	var said []string
	if l != nil {
		said = l.read()
	}
	switch {
	case len(said) > 0:
		return fmt.Errorf("%w (the kernel says: %s)", err, strings.Join(said, "; "))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: it holds no filesystem of this type, or one that this kernel or these options cannot mount", err)
	}
	return err
}

func (l *kernelLog) read() []string {
	var said []string
	buf := make([]byte, 8<<10)
	for len(said) < 16 {
		n, err := unix.Read(l.fd, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EPIPE) { // EPIPE: records were overwritten meanwhile
			continue
		}
		if err != nil || n == 0 {
			break
		}
		if text, ok := kernelText(string(buf[:n]), l.name); ok {
			said = append(said, text)
		}
	}
	return said
}

// kernelText takes the text of a record ("6,1234,5678,-;EXT4-fs (nvme1n1): text\n KEY=value\n", Documentation/ABI/testing/dev-kmsg)
// if it is about the device.
func kernelText(record, device string) (string, bool) {
	_, text, ok := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	if !ok || !strings.Contains(text, "("+device+")") && !strings.Contains(text, "device "+device) && !strings.Contains(text, "dev "+device+",") {
		return "", false
	}
	return strings.TrimSpace(text), true
}

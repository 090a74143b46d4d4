package ec2sim

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// everyHost are the devices that every Linux has and that programs rely on: a container runtime does not start a program in a /dev without
// null. Source: Documentation/admin-guide/devices.txt of the kernel.
var everyHost = map[string]uint64{
	"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7), "random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9), "tty": unix.Mkdev(5, 0),
}

// makeDevDir makes what is missing of a host's /dev as it is without volumes.
func makeDevDir(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, ".sysfs", "block"), 0o755); err != nil {
		return err
	}
	for name, dev := range everyHost {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			continue // who has the folder as its /dev may be using it
		}
		if err := errors.Join(makeNode(path, unix.S_IFCHR, dev), os.Chmod(path, 0o666)); err != nil {
			return err
		}
	}
	return nil
}

package disk

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// RootOptions is the folder of a volume that containers get.
type RootOptions struct {
	// Subdir is its path inside the volume; "/" is the volume's own root, which has lost+found on ext4.
	Subdir string
	// UID and GID own it; nil leaves root.
	UID, GID *int
	// Mode is its permissions with setgid and sticky; 0 means 0755.
	Mode os.FileMode
}

// ValidateSubdir tells whether a path can be a volume's folder. An error is an ErrOption.
func ValidateSubdir(subdir string) error {
	_, err := subdirParts(subdir)
	return err
}

func subdirParts(subdir string) ([]string, error) {
	if subdir == "" || len(subdir) > 1024 || strings.ContainsFunc(subdir, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }) {
		return nil, fmt.Errorf("%w: subdir %q: a path of up to 1024 bytes without control characters is needed; \"/\" is the volume's root", ErrOption, subdir)
	}
	var parts []string
	for _, part := range strings.Split(subdir, "/") {
		switch {
		case part == "":
			continue
		case part == "." || part == ".." || len(part) > 200:
			return nil, fmt.Errorf("%w: subdir %q: %q cannot be a part of it", ErrOption, subdir, part)
		case len(parts) == 0 && part == "lost+found":
			return nil, fmt.Errorf("%w: subdir %q belongs to the filesystem check", ErrOption, subdir)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// Root returns the path of the folder that containers get, in the filesystem mounted at target. A missing folder is made, with
// owner and mode, and appears complete or not at all; one that exists is left as it is. The volume's own root gets owner and
// mode only when fresh says that the filesystem was just made. What a volume holds is not trusted: no symbolic link in it is followed, and
// anything but a directory in the way is ErrRefused.
func (h *Host) Root(target string, fresh bool, o RootOptions) (string, error) {
	parts, err := subdirParts(o.Subdir)
	if err != nil {
		return "", err
	}
	dir, err := openDir(unix.AT_FDCWD, target)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", target, err)
	}
	defer func() { dir.Close() }()
	at := target
	for i, part := range parts {
		at = path.Join(at, part)
		next, err := openDir(int(dir.Fd()), part)
		if errors.Is(err, unix.ENOENT) {
			how := RootOptions{} // folders on the way belong to root
			if i == len(parts)-1 {
				how = o
			}
			next, err = makeDir(dir, part, how)
		}
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return "", fmt.Errorf("%w: %s is not a directory, or is a symbolic link, which is not followed: remove it, or choose another subdir", ErrRefused, at)
		}
		if err != nil {
			return "", fmt.Errorf("open or make the volume's folder %s: %w", at, err)
		}
		dir.Close()
		dir = next
	}
	if len(parts) == 0 && fresh {
		if err := own(dir, o); err != nil {
			return "", fmt.Errorf("set owner and mode of %s: %w", at, err)
		}
	}
	return at, nil
}

func openDir(parent int, name string) (*os.File, error) {
	for {
		fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

// makeDir makes a directory under a temporary name, completes it, and renames it into place without replacing anything.
func makeDir(parent *os.File, name string, o RootOptions) (*os.File, error) {
	pfd := int(parent.Fd())
	temp := ".blockvol-new-" + name
	// What an earlier, cut try has left is empty. Anything else stays, and is told.
	if err := unix.Unlinkat(pfd, temp, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove what is left of an earlier try (%s): %w", temp, err)
	}
	if err := unix.Mkdirat(pfd, temp, 0o700); err != nil {
		return nil, err
	}
	dir, err := openDir(pfd, temp)
	if err != nil {
		return nil, err
	}
	if err = own(dir, o); err == nil {
		err = unix.Renameat2(pfd, temp, pfd, name, unix.RENAME_NOREPLACE)
	}
	if err == nil {
		err = parent.Sync()
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// own sets owner and mode of an open directory, and writes them to the device.
func own(dir *os.File, o RootOptions) error {
	uid, gid := -1, -1
	if o.UID != nil {
		uid = *o.UID
	}
	if o.GID != nil {
		gid = *o.GID
	}
	if uid >= 0 || gid >= 0 {
		if err := dir.Chown(uid, gid); err != nil {
			return err
		}
	}
	mode := o.Mode
	if mode == 0 {
		mode = 0o755
	}
	if err := dir.Chmod(mode); err != nil {
		return err
	}
	return dir.Sync()
}

package ec2sim

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tick is longer than the step in which any kernel counts the time of a file's last change: what is older than that at the start of a copy
	// changes when somebody writes.
	tick = 20 * time.Millisecond
	// writersPatience is how long a copy waits for a pause in the writes.
	writersPatience = 5 * time.Second
)

// errNoPause says that a file was written to all the time.
var errNoPause = errors.New("it is written to without a pause, so a copy would mix several moments; put the simulator's folder on a filesystem with reflinks (xfs, btrfs), " +
	"or freeze the filesystem on the volume")

// copyMoment gives file to the content that file from has at one moment, while others may write to it. Filesystems with reflinks do that by
// themselves. Elsewhere it copies until nobody has written during the copy: a host with a frozen filesystem does not write, and others pause.
// Only the first size bytes are copied.
func copyMoment(ctx context.Context, to, from string, size int64, patience time.Duration) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer target.Close()
	if unix.IoctlFileCloneRange(int(target.Fd()), &unix.FileCloneRange{Src_fd: int64(source.Fd()), Src_length: uint64(size)}) == nil {
		return nil
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		before, err := changedAt(source)
		if err != nil {
			return err
		}
		if age := time.Since(before); age >= 0 && age <= tick { // Below 0 the clock was put back: then a write does not leave the time as it is either.
			if !wait(ctx, tick/2) {
				return ctx.Err()
			}
			continue
		}
		if err := copySparse(target, source, size); err != nil {
			return err
		}
		after, err := changedAt(source)
		if err != nil {
			return err
		}
		if after.Equal(before) {
			return nil
		}
		if err := punch(target, size); err != nil {
			return err
		}
	}
	return errNoPause
}

// changedAt is the time of the last change of a file's content.
func changedAt(f *os.File) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// punch makes the first bytes of a file a hole.
func punch(f *os.File, size int64) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size))
}

// copySparse copies the parts of the first end bytes of an image that are not holes.
func copySparse(out, image *os.File, end int64) error {
	for at := int64(0); at < end; {
		from, err := image.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // A hole up to the end.
		}
		if err != nil {
			from = at // This kind of file does not tell its holes.
		}
		until, err := image.Seek(from, unix.SEEK_HOLE)
		if err != nil || until > end {
			until = end
		}
		if from >= until {
			break
		}
		if _, err := out.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := image.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, image, until-from); err != nil {
			return err
		}
		at = until
	}
	return nil
}

// usedBytes is how much room the data of a file take.
func usedBytes(path string) int64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Content is what is on a device.
type Content struct {
	// Blank says that it is proven: every probe could be read and was zero, and blkid knows nothing on it.
	Blank bool
	// Kind is blkid's name of what was found: ext4, xfs, btrfs, vfat, swap, gpt, dos, LVM2_member, crypto_LUKS, linux_raid_member,
	// zfs_member, ...; KindData when there are bytes that it does not know; KindSeveral when it knows more than one; empty when blank.
	Kind string
	// Detail is for the user: what was found where.
	Detail string
	UUID   string
	Label  string
	// Used says that a filesystem of ours (ext4, xfs) has been mounted since it was made, or has files: what an interrupted mkfs leaves never is.
	Used bool
}

// Kinds that are no signature.
const (
	KindData    = "data"
	KindSeveral = "several"
)

// ReadError says where a device could not be read. Such a device is never blank. It is an ErrUnreadable.
type ReadError struct {
	Device string
	Offset int64 // bytes
	Err    error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("%s cannot be read at byte %d: %v", e.Device, e.Offset, e.Err)
}

// Unwrap makes errors.Is see ErrUnreadable and the cause.
func (e *ReadError) Unwrap() []error { return []error{ErrUnreadable, e.Err} }

// readers is how many probes are read at once: one at a time a device of EC2 would take half a second.
const readers = 16

// Inspect tells what is on a device. If blkid recognises something, the first and the last MiB are read as well; if not, it reads the places where anything known keeps its marks, and 256 blocks spread evenly over
// the device (see spans), past all caches. Data that lies only between them is not seen: Blank is a proof only for a
// volume that nobody could have written to. What cannot be read is an error that is ErrUnreadable.
func (h *Host) Inspect(ctx context.Context, d Device) (Content, error) {
	known, blkidErr := h.blkid(ctx, d)
	if blkidErr != nil && !errors.Is(blkidErr, ErrUnreadable) {
		return Content{}, fmt.Errorf("inspect %s: %w", d, blkidErr)
	}
	f, err := h.open(d, unix.O_RDONLY|unix.O_DIRECT)
	if err != nil {
		return Content{}, fmt.Errorf("inspect: %w", err)
	}
	// What is recognised is not blank, whatever else there is: the ends must be readable, and that is enough.
	where := spans
	if known.kind != "" {
		where = ends
	}
	seen, err := bounded(ctx, fmt.Sprintf("inspect %s", d), func(func() bool) (marks, error) {
		defer f.Close()
		return readMarks(ctx, f, d.Size, where)
	})
	if err == nil {
		err = blkidErr // told second: the probes tell where
	}
	if err != nil {
		return Content{}, fmt.Errorf("inspect %s: %w", d, err)
	}
	return judge(seen, known), nil
}

// marks is what the probes saw.
type marks struct {
	first  int64  // the lowest non-zero byte that was seen, -1 if none
	backup string // a backup superblock of ext2, 3 or 4, in words
	used   bool   // the filesystem that begins the device has been used
	gpt    bool   // a partition table's second copy; blkid wants the first, or a protective MBR
}

// judge joins what the probes saw with what blkid knows.
func judge(m marks, known signature) Content {
	c := Content{Kind: known.kind, UUID: known.uuid, Label: known.label, Detail: known.detail}
	switch {
	case known.kind != "":
		c.Used = m.used && supported(known.kind)
	case m.gpt:
		c.Kind, c.Detail = "gpt", "has the second copy of a partition table (gpt) in its last sector"
	case m.first < 0:
		c.Blank, c.Detail = true, "all probes are zero"
	default:
		c.Kind = KindData
		c.Detail = fmt.Sprintf("bytes that no known format explains, the first seen at byte %d", m.first)
		if m.backup != "" {
			c.Detail += "; " + m.backup
		}
	}
	return c
}

// smallest is the size below which nothing is judged: no volume is so small, and a device whose storage was taken away may show a
// sector or two.
const smallest = 2 * mib

// readMarks reads all probes of an open device that was found with a certain size. It reads them all whatever it finds, so that a device which cannot be read is
// always told.
func readMarks(ctx context.Context, f *os.File, was int64, where func(size int64) []span) (marks, error) {
	size, err := deviceSize(f)
	if err != nil {
		return marks{}, err
	}
	if size < was || size < smallest {
		return marks{}, &ReadError{f.Name(), size, fmt.Errorf("it ends there, but had %d bytes when it was found, and a volume has at least %d", was, smallest)}
	}
	pieces := cut(where(size))
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		next   int
		result = marks{first: -1}
		failed *ReadError
		xfs    []byte // the superblock of an xfs
	)
	worker := func() {
		defer wg.Done()
		buf := aligned(int(mib))
		for {
			mu.Lock()
			i := next
			next++
			mu.Unlock()
			if i >= len(pieces) || ctx.Err() != nil {
				return
			}
			p := pieces[i]
			at, err := readFull(f, buf[:p.len], p.off)
			mu.Lock()
			if err != nil {
				if failed == nil || at < failed.Offset {
					failed = &ReadError{f.Name(), at, err}
				}
			} else if k := firstNonZero(buf[:p.len]); k >= 0 {
				if off := p.off + int64(k); result.first < 0 || off < result.first {
					result.first = off
				}
				if p.off == 0 {
					result.used, xfs = used(buf[:p.len]), xfsSuperblock(buf[:p.len])
				}
				if p.off+p.len == size && gptAtEnd(buf[:p.len]) {
					result.gpt = true
				}
				if b := backupSuperblock(buf[:p.len], p.off); b != "" && result.backup == "" {
					result.backup = b
				}
			}
			mu.Unlock()
		}
	}
	for range readers {
		wg.Add(1)
		go worker()
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return marks{}, context.Cause(ctx)
	}
	if failed == nil && xfs != nil && !result.used {
		result.used, failed = xfsLogUsed(f, xfs, size)
	}
	if failed != nil {
		return marks{}, failed
	}
	return result, nil
}

// cut divides spans into pieces that fit a buffer.
func cut(list []span) []span {
	var out []span
	for _, s := range list {
		for ; s.len > mib; s.off, s.len = s.off+mib, s.len-mib {
			out = append(out, span{s.off, mib})
		}
		out = append(out, s)
	}
	return out
}

// readFull fills buf from an offset, or tells where it could not.
func readFull(f *os.File, buf []byte, off int64) (int64, error) {
	for len(buf) > 0 {
		n, err := unix.Pread(int(f.Fd()), buf, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return off, err
		case n == 0:
			return off, errors.New("the device ends here, before its size")
		}
		buf, off = buf[n:], off+int64(n)
	}
	return off, nil
}

// backupSuperblock looks for a backup superblock of ext2, 3 or 4 at the places that extBackups names: it is what repairs a
// filesystem whose first one is gone.
func backupSuperblock(b []byte, at int64) string {
	for off := 0; off+1024 <= len(b); off += 1024 {
		sb := b[off : off+1024]
		if binary.LittleEndian.Uint16(sb[0x38:]) != 0xEF53 {
			continue
		}
		logBS, group := binary.LittleEndian.Uint32(sb[0x18:]), int64(binary.LittleEndian.Uint16(sb[0x5A:]))
		if logBS > 6 || group == 0 {
			continue
		}
		bs := kib << logBS
		if pos := at + int64(off); pos%bs == 0 && pos/bs == group*8*bs+int64(binary.LittleEndian.Uint32(sb[0x14:])) {
			return fmt.Sprintf("a backup superblock of ext2/3/4 is at byte %d (e2fsck -b %d -B %d)", pos, pos/bs, bs)
		}
	}
	return ""
}

// used tells whether the filesystem at the beginning of a device has been mounted or has files. ext4 (Documentation/filesystems/ext4/super.rst)
// keeps the time of the last mount, the number of mounts, and a mark while it is mounted. xfs (fs/xfs/libxfs/xfs_format.h) keeps the numbers
// of inodes and of free ones; a new one uses three. It writes them late: its log tells the rest (xfsLogUsed).
func used(b []byte) bool {
	if len(b) >= 2048 && binary.LittleEndian.Uint16(b[1024+0x38:]) == 0xEF53 {
		sb := b[1024:]
		mounted, mounts := binary.LittleEndian.Uint32(sb[0x2C:]), binary.LittleEndian.Uint16(sb[0x34:])
		return mounted != 0 || mounts != 0 || binary.LittleEndian.Uint32(sb[0x60:])&4 != 0 // INCOMPAT_RECOVER
	}
	if b := xfsSuperblock(b); b != nil {
		inodes, free := binary.BigEndian.Uint64(b[128:]), binary.BigEndian.Uint64(b[136:])
		return inodes-min(free, inodes) > 3
	}
	return false
}

// gptAtEnd looks for a partition table's second header, in the last sector of 512 or 4096 bytes (UEFI specification, 5.3.2).
func gptAtEnd(b []byte) bool {
	for _, sector := range []int{512, 4096} {
		if len(b) >= sector && string(b[len(b)-sector:][:8]) == "EFI PART" {
			return true
		}
	}
	return false
}

func firstNonZero(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		if b[i] != 0 {
			return i
		}
	}
	return -1
}

// aligned returns a buffer for direct reads. It is the runtime's memory, which stays where it is and is freed only when no read
// is under way in it any more.
func aligned(n int) []byte {
	b := make([]byte, n+int(align))
	skip := 0
	if r := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uintptr(align)); r != 0 {
		skip = int(align) - r
	}
	return b[skip : skip+n : skip+n]
}

// deviceSize asks the kernel for a device's size in bytes.
func deviceSize(f *os.File) (int64, error) {
	var size uint64
	if err := ioctl(f, unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return 0, fmt.Errorf("ask for the size of %s: %w", f.Name(), err)
	}
	if size > 1<<62 {
		return 0, fmt.Errorf("%s says that it has %d bytes, which makes no sense", f.Name(), size)
	}
	return int64(size), nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

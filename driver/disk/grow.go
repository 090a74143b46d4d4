package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Grow makes a mounted filesystem as large as its device, if the device is larger, and tells whether it grew. It asks the kernel
// itself, as resize2fs and xfs_growfs do for a mounted filesystem; ext4 needs CAP_SYS_RESOURCE.
func (h *Host) Grow(ctx context.Context, d Device, target, fstype string) (grown bool, err error) {
	fs, err := lookup(fstype)
	if err != nil {
		return false, err
	}
	dev, err := h.open(d, unix.O_RDONLY)
	if err != nil {
		return false, fmt.Errorf("grow: %w", err)
	}
	return bounded(ctx, fmt.Sprintf("grow the filesystem on %s", d), func(func() bool) (bool, error) {
		defer dev.Close()
		grown, err := fs.growTo(dev, d, target)
		if err != nil {
			return false, fmt.Errorf("grow the %s filesystem on %s at %s: %w", fstype, d, target, err)
		}
		return grown, nil
	})
}

func (fs *filesystem) growTo(dev *os.File, d Device, target string) (bool, error) {
	dir, err := os.OpenFile(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return false, err
	}
	if unix.Major(st.Dev) != d.Major || unix.Minor(st.Dev) != d.Minor {
		return false, fmt.Errorf("%w: the filesystem there is on device %d:%d", ErrNotMounted, unix.Major(st.Dev), unix.Minor(st.Dev))
	}
	size, err := deviceSize(dev)
	if err != nil {
		return false, err
	}
	before, block, err := fs.sizes(dev, dir)
	if err != nil {
		return false, err
	}
	if !larger(size, before, block) {
		return false, nil
	}
	if err := fs.grow(dir, size/block); err != nil {
		return false, err
	}
	after, _, err := fs.sizes(dev, dir)
	return after > before, err
}

// larger tells whether a device has room for at least one more block than its filesystem spans.
func larger(device, spans, block int64) bool { return block > 0 && device-spans >= block }

// extSizes reads the superblock through the device's cache, where the mounted filesystem keeps it up to date
// (Documentation/filesystems/ext4/super.rst).
func extSizes(dev, _ *os.File) (total, block int64, err error) {
	sb := make([]byte, 1024)
	if at, err := readFull(dev, sb, 1024); err != nil {
		return 0, 0, &ReadError{dev.Name(), at, err}
	}
	return parseExt(sb)
}

func parseExt(sb []byte) (total, block int64, err error) {
	if binary.LittleEndian.Uint16(sb[0x38:]) != 0xEF53 {
		return 0, 0, errors.New("its superblock cannot be recognised")
	}
	logBS := binary.LittleEndian.Uint32(sb[0x18:])
	if logBS > 6 {
		return 0, 0, fmt.Errorf("its superblock tells a block size of 2^%d KiB, which makes no sense", logBS)
	}
	blocks := uint64(binary.LittleEndian.Uint32(sb[0x04:]))
	if binary.LittleEndian.Uint32(sb[0x60:])&0x80 != 0 { // INCOMPAT_64BIT
		blocks |= uint64(binary.LittleEndian.Uint32(sb[0x150:])) << 32
	}
	block = kib << logBS
	if blocks == 0 || blocks > uint64(1<<62)/uint64(block) {
		return 0, 0, fmt.Errorf("its superblock tells %d blocks, which makes no sense", blocks)
	}
	return int64(blocks) * block, block, nil
}

// EXT4_IOC_RESIZE_FS of fs/ext4/ext4.h: _IOW('f', 16, __u64), the new number of blocks.
const extIocResize = 0x40086610

func extGrow(target *os.File, blocks int64) error {
	n := uint64(blocks)
	err := ioctl(target, extIocResize, unsafe.Pointer(&n))
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("the kernel refuses (%w): the process lacks CAP_SYS_RESOURCE, or the filesystem has recorded errors and must be checked first", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: mount it writable to grow it", err)
	}
	return err
}

// The parts of struct xfs_fsop_geom_v1 that are needed, and XFS_IOC_FSGEOMETRY_V1 and XFS_IOC_FSGROWFSDATA, of fs/xfs/libxfs/xfs_fs.h.
type xfsGeometry struct {
	blocksize  uint32
	_          [4]uint32 // rtextsize, agblocks, agcount, logblocks
	_          [2]uint32 // sectsize, inodesize
	imaxpct    uint32
	datablocks uint64
	_          [3]uint64 // rtblocks, rtextents, logstart
	_          [16]byte  // uuid
	_          [6]uint32 // sunit, swidth, version, flags, logsectsize, rtsectsize
	_          uint32    // dirblocksize
	_          uint32
}

type xfsGrowData struct {
	newblocks uint64
	imaxpct   uint32
	_         uint32
}

const (
	xfsIocGeometry = 0x80705864 // _IOR('X', 100, struct xfs_fsop_geom_v1), 112 bytes
	xfsIocGrowData = 0x4010586e // _IOW('X', 110, struct xfs_growfs_data), 16 bytes
)

func xfsGeometryOf(target *os.File) (xfsGeometry, error) {
	var g xfsGeometry
	if err := ioctl(target, xfsIocGeometry, unsafe.Pointer(&g)); err != nil {
		return g, fmt.Errorf("ask for the geometry: %w", err)
	}
	return g, nil
}

func xfsSizes(_, target *os.File) (total, block int64, err error) {
	g, err := xfsGeometryOf(target)
	return int64(g.datablocks) * int64(g.blocksize), int64(g.blocksize), err
}

func xfsGrow(target *os.File, blocks int64) error {
	g, err := xfsGeometryOf(target)
	if err != nil {
		return err
	}
	data := xfsGrowData{newblocks: uint64(blocks), imaxpct: g.imaxpct}
	err = ioctl(target, xfsIocGrowData, unsafe.Pointer(&data))
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%w: mount it writable to grow it", err)
	}
	return err
}

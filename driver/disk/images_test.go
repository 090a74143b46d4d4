package disk

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand"
	"os"
	"testing"
)

// patch writes bytes into an image.
func patch(t *testing.T, image string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(b, off)
	must(t, err)
}

// at is what stands where in a block.
type at map[int]any

// block makes a block: numbers are little-endian, strings and bytes stand as they are.
func block(size int, fields at) []byte {
	b := make([]byte, size)
	for off, v := range fields {
		switch v := v.(type) {
		case uint16:
			binary.LittleEndian.PutUint16(b[off:], v)
		case uint32:
			binary.LittleEndian.PutUint32(b[off:], v)
		case uint64:
			binary.LittleEndian.PutUint64(b[off:], v)
		case string:
			copy(b[off:], v)
		case []byte:
			copy(b[off:], v)
		}
	}
	return b
}

// mkfs makes an image by a tool.
func mkfs(name string, args ...string) func(*testing.T, string) {
	return func(t *testing.T, image string) {
		command(t, name, append(args, image)...)
	}
}

const imageSize = 160 * mib

var uuid = []byte("0123456789abcdef")

func lvm(t *testing.T, image string) {
	label := block(512, at{0: "LABELONE", 8: uint64(1), 20: uint32(32), 24: "LVM2 001", 32: "abcdefghijklmnopqrstuvwxyz012345"})
	// LVM's checksum is CRC-32 from a start of its own and without the last inversion.
	const start = 0xf597a6cf
	binary.LittleEndian.PutUint32(label[16:], ^crc32.Update(^uint32(start), crc32.IEEETable, label[20:]))
	patch(t, image, 512, label)
}

func luks(t *testing.T, image string) {
	patch(t, image, 0, block(592, at{0: "LUKS\xba\xbe", 6: "\x00\x01", 8: "aes", 40: "xts-plain64", 168: "01234567-89ab-cdef-0123-456789abcdef"}))
}

func md(t *testing.T, image string) {
	patch(t, image, 4096, block(256, at{0: uint32(0xa92b4efc), 4: uint32(1), 16: uuid, 32: "host:0", 144: uint64(8)}))
}

func mdOld(t *testing.T, image string) {
	patch(t, image, imageSize-64*kib, block(4096, at{0: uint32(0xa92b4efc), 4: uint32(0), 8: uint32(90), 20: uint32(1)}))
}

func zfs(t *testing.T, image string) {
	for _, label := range []int64{0, 256 * kib, imageSize - 512*kib, imageSize - 256*kib} {
		for i := int64(0); i < 16; i++ {
			patch(t, image, label+128*kib+i*kib, block(1024, at{0: uint64(0x00bab10c), 8: uint64(28)}))
		}
	}
}

func ntfs(t *testing.T, image string) {
	patch(t, image, 0, block(512, at{
		0: "\xeb\x52\x90NTFS    ", 11: uint16(512), 13: "\x08", 21: "\xf8", 40: uint64(imageSize/512 - 1), 48: uint64(4), 56: uint64(8),
		64: "\xf6", 68: "\x01", 72: uint64(0x1122334455667788), 510: "\x55\xaa",
	}))
	record := block(1024, at{0: "FILE", 20: uint16(56), 56: uint32(0xffffffff)})
	for i := int64(0); i < 4; i++ {
		patch(t, image, 4*4096+i*1024, record)
	}
}

func mbr(t *testing.T, image string) {
	patch(t, image, 0, block(512, at{440: uint32(0x1234abcd), 446: "\x00\x00\x00\x00\x83", 454: uint32(2048), 458: uint32(4096), 510: "\x55\xaa"}))
}

func gpt(t *testing.T, image string) {
	sectors := uint64(imageSize / 512)
	patch(t, image, 0, block(512, at{446: "\x00\x00\x00\x00\xee", 454: uint32(1), 458: uint32(sectors - 1), 510: "\x55\xaa"}))
	entries := block(128*128, at{0: []byte("\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4"), 16: uuid, 32: uint64(2048), 40: uint64(4095)})
	header := func(my, other, table uint64) []byte {
		h := block(512, at{0: "EFI PART", 8: uint32(0x00010000), 12: uint32(92), 24: my, 32: other, 40: uint64(34), 48: uint64(sectors - 34),
			56: uuid, 72: table, 80: uint32(128), 84: uint32(128), 88: crc32.ChecksumIEEE(entries)})
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	patch(t, image, 512, header(1, sectors-1, 2))
	patch(t, image, 1024, entries)
	patch(t, image, int64(sectors-33)*512, entries)
	patch(t, image, int64(sectors-1)*512, header(sectors-1, 1, sectors-33))
}

// gptTail leaves of a partition table only the copy at the end, as after a dd of zeroes over the beginning.
func gptTail(t *testing.T, image string) {
	gpt(t, image)
	patch(t, image, 0, make([]byte, mib))
}

func random(t *testing.T, image string) {
	b := make([]byte, 8*mib)
	rand.New(rand.NewSource(1)).Read(b)
	for off := int64(0); off < imageSize; off += int64(len(b)) {
		patch(t, image, off, b)
	}
}

// damaged is an ext4 whose first bytes were overwritten with zeroes.
func damaged(n int64) func(*testing.T, string) {
	return func(t *testing.T, image string) {
		command(t, "mkfs.ext4", "-q", "-F", "-b", "4096", image)
		patch(t, image, 0, make([]byte, n))
	}
}

// two is an ext4 with the superblock of a btrfs beside its own.
func two(t *testing.T, image string) {
	command(t, "mkfs.btrfs", "-q", image)
	b, err := os.ReadFile(image)
	must(t, err)
	command(t, "mkfs.ext4", "-q", "-F", image)
	patch(t, image, 64*kib, b[64*kib:68*kib])
}

// one writes a single byte.
func one(off int64) func(*testing.T, string) {
	return func(t *testing.T, image string) { patch(t, image, off, []byte{1}) }
}

// images is what a device may hold, and what must be seen there.
var images = []struct {
	name string
	make func(t *testing.T, image string)
	kind string // of Content; "blank", or "unreadable"
	says string // part of the detail, or of the error
	cut  int64  // the storage ends so many bytes before the device does
}{
	{name: "nothing", make: func(*testing.T, string) {}, kind: "blank", says: "zero"},
	{name: "ext2", make: mkfs("mkfs.ext2", "-q", "-F"), kind: "ext2", says: "UUID"},
	{name: "ext3", make: mkfs("mkfs.ext3", "-q", "-F"), kind: "ext3"},
	{name: "ext4", make: mkfs("mkfs.ext4", "-q", "-F", "-L", `a b"c\d`), kind: "ext4", says: `label "a b\"c\\d"`},
	{name: "xfs", make: func(t *testing.T, image string) {
		must(t, os.Truncate(image, 320*mib))
		command(t, "mkfs.xfs", "-q", image)
	}, kind: "xfs"},
	{name: "btrfs", make: mkfs("mkfs.btrfs", "-q"), kind: "btrfs"},
	{name: "vfat", make: mkfs("mkfs.vfat", "-F", "32"), kind: "vfat"},
	{name: "NTFS", make: ntfs, kind: "ntfs"},
	{name: "GPT", make: gpt, kind: "gpt", says: "partition table"},
	{name: "GPT at the end only", make: gptTail, kind: "gpt"},
	{name: "MBR", make: mbr, kind: "dos", says: "partition table"},
	{name: "LVM PV", make: lvm, kind: "LVM2_member"},
	{name: "LUKS", make: luks, kind: "crypto_LUKS"},
	{name: "swap", make: mkfs("mkswap", "-q"), kind: "swap"},
	{name: "md member", make: md, kind: "linux_raid_member"},
	{name: "md member, superblock at the end", make: mdOld, kind: "linux_raid_member"},
	{name: "ZFS label", make: zfs, kind: "zfs_member"},
	{name: "ext4 and btrfs", make: two, kind: KindSeveral, says: "wipefs"},
	{name: "random data", make: random, kind: KindData, says: "at byte 0"},
	{name: "ext4 without its superblock", make: damaged(4096), kind: KindData, says: "e2fsck -b 32768 -B 4096"},
	{name: "ext4 without its beginning", make: damaged(120 * mib), kind: KindData, says: "e2fsck -b 32768 -B 4096"},
	{name: "a byte in the first MiB", make: one(mib - 1), kind: KindData, says: "at byte 1048575"},
	{name: "a byte in the middle", make: one(imageSize / 2), kind: KindData, says: "at byte 83886080"},
	{name: "a byte in an evenly spread block", make: one(imageSize/256*77 + 5), kind: KindData, says: "at byte 50462725"},
	{name: "a byte at the end", make: one(imageSize - 1), kind: KindData, says: "at byte 167772159"},
	{name: "unreadable", make: func(*testing.T, string) {}, kind: "unreadable", says: "cannot be read at byte 0", cut: imageSize},
	{name: "unreadable at its end", make: func(*testing.T, string) {}, kind: "unreadable", says: "cannot be read at byte", cut: 64 * kib},
	{name: "unreadable in its last sector", make: func(*testing.T, string) {}, kind: "unreadable", says: "cannot be read at byte", cut: 512},
	{name: "ext4, unreadable at its end", make: mkfs("mkfs.ext4", "-q", "-F"), kind: "unreadable", says: "cannot be read at byte", cut: 64 * kib},
	{name: "ext4, unreadable", make: mkfs("mkfs.ext4", "-q", "-F"), kind: "unreadable", says: "cannot be read at byte 0", cut: imageSize},
}

// present makes an image into a device.
func (m *machine) present(i int) (Device, *loop, string) {
	m.t.Helper()
	image := m.image(imageSize)
	images[i].make(m.t, image)
	d, l := m.over(image)
	if images[i].cut > 0 {
		info, err := os.Stat(image)
		must(m.t, err)
		must(m.t, os.Truncate(image, info.Size()-images[i].cut))
	}
	return d, l, image
}

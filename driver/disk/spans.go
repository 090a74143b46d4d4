package disk

import "sort"

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

// align is what every probe's offset and length is a multiple of, but for the device's end: direct reads ask for the block size, and
// no device has more than this.
const align = 4 * kib

// probeLen is how much is read at a place where something may lie. EBS counts anything up to 256 KiB as one operation.
const probeLen = 16 * kib

// span is a part of a device.
type span struct{ off, len int64 }

// spans returns the parts of a device of that size that must be read and be zero before it counts as blank, in order and without
// overlap. It is all of a device of up to 16 MiB. What lies between them is not looked at.
func spans(size int64) []span {
	if size <= 16*mib {
		return []span{{0, size}}
	}
	s := &spanSet{size: size}
	// Partition tables (MBR, GPT), LVM, LUKS, md 1.1 and 1.2, ZFS labels 0 and 1, bcache, swap and nearly all filesystems begin in the
	// first MiB; the first partition begins at its end. GPT's second copy, md 0.90 and 1.0, ZFS labels 2 and 3, NTFS's last
	// sector and the metadata of RAID controllers lie in the last MiB.
	s.add(0, 2*mib)
	s.add(size-mib, mib)
	// LUKS2 keeps its second header at one of these (LUKS2 on-disk format, 2.1), after those in the first 2 MiB.
	s.add(2*mib, probeLen)
	s.add(4*mib, probeLen)
	for _, off := range extBackups(size) {
		s.add(off, probeLen)
	}
	for _, off := range xfsGroups(size) {
		s.add(off, probeLen)
	}
	for _, off := range btrfsCopies {
		s.add(off, probeLen)
	}
	for i := int64(0); i < 256; i++ {
		s.add(size/256*i, probeLen)
	}
	return s.merged()
}

// ends returns the first and the last MiB.
func ends(size int64) []span {
	if size <= 2*mib {
		return []span{{0, size}}
	}
	s := &spanSet{size: size}
	s.add(0, mib)
	s.add(size-mib, mib)
	return s.merged()
}

// btrfsCopies are the offsets of btrfs superblocks (btrfs(5), "on-disk format").
var btrfsCopies = []int64{64 * kib, 64 * mib, 256 * gib}

// extBackups returns the byte offsets of the 4 KiB that hold backup superblocks of ext2, 3 and 4, for all block sizes: with
// sparse_super in group 1 and the powers of 3, 5 and 7 (Documentation/filesystems/ext4/blockgroup.rst).
func extBackups(size int64) []int64 {
	var offs []int64
	for _, bs := range []int64{1 * kib, 2 * kib, 4 * kib, 64 * kib} {
		group := 8 * bs * bs // a group is as many blocks as one block has bits
		for _, base := range []int64{3, 5, 7} {
			for n := int64(1); n*group < size; n *= base {
				off := n * group
				if bs == kib {
					off += kib // block 0 is the boot block
				}
				offs = append(offs, off)
			}
		}
	}
	return offs
}

// xfsGroups returns the offsets at which mkfs.xfs begins allocation groups (each begins with a superblock) on a device of that size:
// the device in 2, 4, 8, 16 or 32 parts, or 1 TiB each.
func xfsGroups(size int64) []int64 {
	var offs []int64
	blocks := size / (4 * kib)
	for _, parts := range []int64{2, 4, 8, 16, 32} {
		group := (blocks + parts - 1) / parts
		for i := int64(1); i < parts; i++ {
			offs = append(offs, i*group*4*kib)
		}
	}
	for off := tib; off < size; off += tib {
		offs = append(offs, off)
	}
	return offs
}

type spanSet struct {
	size int64
	list []span
}

// add adds the aligned part of the device that covers off to off+n.
func (s *spanSet) add(off, n int64) {
	if off < 0 || off >= s.size {
		return
	}
	end := min((off+n+align-1)/align*align, s.size)
	off = off / align * align
	s.list = append(s.list, span{off, end - off})
}

func (s *spanSet) merged() []span {
	sort.Slice(s.list, func(i, j int) bool { return s.list[i].off < s.list[j].off })
	out := s.list[:1]
	for _, x := range s.list[1:] {
		last := &out[len(out)-1]
		if end := last.off + last.len; x.off <= end {
			last.len = max(end, x.off+x.len) - last.off
			continue
		}
		out = append(out, x)
	}
	return out
}

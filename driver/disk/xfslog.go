package disk

import (
	"bytes"
	"encoding/binary"
	"os"
)

// The log of an xfs (fs/xfs/libxfs/xfs_log_format.h). Its numbers are big-endian.
const (
	xfsSector     = 512        // the log is counted in these, whatever the device's sector is
	xfsLogMagic   = 0xFEEDBABE // begins every record
	xfsLogPerHead = 32 * kib   // so much of a record's size needs one sector of header
	// xfsLogProbe is how much of the log is read. mkfs writes one record of up to 256 KiB; the first mount clears 2 MiB behind it, and every
	// later record follows without a gap.
	xfsLogProbe = mib
)

// xfsSuperblock returns the first superblock of an xfs, from the first bytes of its device; nil if none is there.
func xfsSuperblock(b []byte) []byte {
	if len(b) < xfsSector || string(b[:4]) != "XFSB" {
		return nil
	}
	return bytes.Clone(b[:xfsSector])
}

// xfsLog tells where the log of the xfs lies whose superblock this is; ok is false when that makes no sense, or the log is on another device.
func xfsLog(sb []byte, size int64) (log span, ok bool) {
	block, start := int64(binary.BigEndian.Uint32(sb[4:])), binary.BigEndian.Uint64(sb[48:])
	groupBlocks, blocks, groupBits := int64(binary.BigEndian.Uint32(sb[84:])), int64(binary.BigEndian.Uint32(sb[96:])), sb[124]
	if block < 512 || block > 64*kib || start == 0 || groupBits > 31 || start>>groupBits > 1<<31 {
		return span{}, false
	}
	group, in := int64(start>>groupBits), int64(start&(1<<groupBits-1))
	if in >= groupBlocks || group > size/block/groupBlocks {
		return span{}, false
	}
	log = span{(group*groupBlocks + in) * block, blocks * block}
	return log, log.len >= 2*xfsSector && log.off%align == 0 && log.off+log.len <= size
}

// xfsLogUsed tells whether an xfs was ever mounted writable, by its log; whatever is not understood counts as that. A new log holds at
// most the one record that mkfs writes, and zeroes. The counters in the superblock do not tell after a crash: the kernel writes them late.
func xfsLogUsed(f *os.File, sb []byte, size int64) (bool, *ReadError) {
	log, ok := xfsLog(sb, size)
	if !ok {
		return true, nil
	}
	buf := aligned(int(min(log.len, xfsLogProbe)) / int(align) * int(align))
	if at, err := readFull(f, buf, log.off); err != nil {
		return true, &ReadError{f.Name(), at, err}
	}
	rest := buf[xfsFirstRecord(buf):]
	return len(rest) < int(align) || firstNonZero(rest) >= 0, nil
}

// xfsUnmountOp is the one operation of the record that mkfs.xfs writes, behind the four bytes of its transaction: its length of 8, the log itself
// as its client, no flags, and the mark of an unmount ("Un", as a little-endian number).
var xfsUnmountOp = []byte{0, 0, 0, 8, 0xaa, 0x20, 0, 0, 'n', 'U'}

// xfsFirstRecord is the length of the record that mkfs.xfs writes at the beginning of a log: in the first cycle, one operation, nothing else.
// 0 if something else is there.
func xfsFirstRecord(log []byte) int {
	if len(log) < 2*xfsSector {
		return 0
	}
	u32 := func(off int) uint32 { return binary.BigEndian.Uint32(log[off:]) }
	const firstLSN = 1 << 32                                   // cycle 1, sector 0
	if u32(0) != xfsLogMagic || u32(4) != 1 || u32(40) != 1 || // the cycle, the number of operations
		binary.BigEndian.Uint64(log[16:]) != firstLSN || binary.BigEndian.Uint64(log[24:]) != firstLSN {
		return 0
	}
	length, size, heads := int64(u32(12)), int64(u32(320)), int64(1)
	if u32(8)&2 != 0 && size > xfsLogPerHead { // version 2
		heads = (size + xfsLogPerHead - 1) / xfsLogPerHead
	}
	begin := heads * xfsSector
	end := begin + length
	if length < xfsSector || length%xfsSector != 0 || end > int64(len(log)) || !bytes.HasPrefix(log[begin+4:end], xfsUnmountOp) {
		return 0
	}
	skip := 4 + len(xfsUnmountOp)
	for at := begin; at < end; at += xfsSector {
		if firstNonZero(log[at+int64(skip):at+xfsSector]) >= 0 {
			return 0
		}
		skip = 4 // every sector begins with the cycle
	}
	return int(end)
}

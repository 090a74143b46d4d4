package disk

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// filesystem is what this package knows of one type; everything that differs between types is a row here.
type filesystem struct {
	name string
	// mkfs, with the arguments that are always given; overwrite is given in addition to make one over what is there.
	mkfs      string
	mkfsArgs  []string
	overwrite []string
	labelFlag string
	labelMax  int // bytes
	// mkfsFlags are the options of mkfs that may be added; each takes a value.
	mkfsFlags string
	// extended is the option whose value is a list and of which mkfs takes only the last: the user's is added to ours.
	extended string
	// forbidden are the names that may not stand in any value: they make mkfs read or write elsewhere.
	forbidden []string
	// check is the tool that checks before a mount, the highest exit code that is good, and the bits that tell of damage that is left.
	// Empty: the type recovers by mounting.
	check       string
	checkArgs   []string
	checkGood   int
	checkDamage int
	// dirty, of a type with a check, tells whether the journal must be replayed before the check.
	dirty func(dev *os.File) (bool, error)
	// mountAlways are set unless the user set the same key.
	mountAlways []string
	// sizes tells, of a mounted filesystem, how many bytes it spans and the size of its blocks.
	sizes func(dev, target *os.File) (total, block int64, err error)
	// grow makes a mounted filesystem span that many of its blocks.
	grow func(target *os.File, blocks int64) error
}

var filesystems = []filesystem{
	{
		name: "ext4",
		mkfs: "mkfs.ext4",
		// nodiscard and the lazy inits: nothing is written that a new volume has as zeroes, or that the kernel can do later. No
		// reserve for root: a data volume needs none. On errors the default would be to go on.
		mkfsArgs:    []string{"-q", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-e", "remount-ro", "-m", "0"},
		overwrite:   []string{"-F"},
		labelFlag:   "-L",
		labelMax:    16,
		mkfsFlags:   "bCEgGiIJLmNOT",
		extended:    "-E",
		forbidden:   []string{"device", "offset", "journal_dev"},
		check:       "e2fsck",
		checkArgs:   []string{"-p"},
		checkGood:   1, // e2fsck(8): 0 no errors, 1 errors corrected, 2 corrected but reboot, 4 left uncorrected, 8 and more failed
		checkDamage: 2 | 4,
		dirty:       extDirty,
		mountAlways: []string{"errors=remount-ro"},
		sizes:       extSizes,
		grow:        extGrow,
	},
	{
		name:      "xfs",
		mkfs:      "mkfs.xfs",
		mkfsArgs:  []string{"-q", "-K"},
		overwrite: []string{"-f"},
		labelFlag: "-L",
		labelMax:  12,
		mkfsFlags: "bdilLmns",
		forbidden: []string{"file", "name", "logdev", "rtdev"},
		// Two copies of one volume on one host have one UUID, and both must mount.
		mountAlways: []string{"nouuid"},
		sizes:       xfsSizes,
		grow:        xfsGrow,
	},
}

// Filesystems names the types that can be made, in the order to show them.
func Filesystems() []string {
	var names []string
	for _, fs := range filesystems {
		names = append(names, fs.name)
	}
	return names
}

// lookup finds a type by its name, compared exactly.
func lookup(fstype string) (*filesystem, error) {
	for i := range filesystems {
		if filesystems[i].name == fstype {
			return &filesystems[i], nil
		}
	}
	return nil, fmt.Errorf("%w: %q; supported: %s", ErrUnsupported, fstype, strings.Join(Filesystems(), ", "))
}

// Usage is how full a filesystem is, in bytes and inodes. Free is what an unprivileged process may still use.
type Usage struct {
	Total, Used, Free              int64
	Inodes, InodesUsed, InodesFree int64 // 0 inodes: the type makes them as needed
}

// Usage asks the filesystem that is mounted at target. It may block while the device does not answer.
func (h *Host) Usage(target string) (Usage, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(target, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return Usage{}, fmt.Errorf("ask for the space on %s: %w", target, err)
		}
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	return Usage{
		Total:      int64(st.Blocks) * unit,
		Used:       int64(st.Blocks-st.Bfree) * unit,
		Free:       int64(st.Bavail) * unit,
		Inodes:     int64(st.Files),
		InodesUsed: int64(st.Files - st.Ffree),
		InodesFree: int64(st.Ffree),
	}, nil
}

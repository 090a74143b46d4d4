package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// journalAt is where the journal of an ext4 begins, in bytes.
func journalAt(t *testing.T, image string) int64 {
	t.Helper()
	out := strings.Fields(command(t, "debugfs", "-R", "bmap <8> 0", image))
	n, err := strconv.ParseInt(out[len(out)-1], 10, 64)
	must(t, err)
	return n * 4096
}

const syncedRows = 5

// dirtyExt4 is an ext4 as a host that died has left it: files that were synced are in its journal and nowhere else.
func (m *machine) dirtyExt4() (image string) {
	m.t.Helper()
	image = m.image(512 * mib)
	command(m.t, "mkfs.ext4", "-q", image)
	d, l := m.over(image)
	target := m.target()
	must(m.t, m.Mount(soon(m.t), d, target, "ext4", nil))
	for i := range syncedRows {
		f, err := os.Create(filepath.Join(target, fmt.Sprint("row", i)))
		must(m.t, err)
		must(m.t, f.Sync())
		must(m.t, f.Close())
	}
	dirty := crashed(m.t, image)
	must(m.t, m.Unmount(target))
	l.detach()
	return dirty
}

// rows counts the synced files that are there.
func (m *machine) rows(d Device) int {
	m.t.Helper()
	target := m.target()
	must(m.t, m.Mount(soon(m.t), d, target, "ext4", nil))
	defer func() { must(m.t, m.Unmount(target)) }()
	names, err := filepath.Glob(target + "/row*")
	must(m.t, err)
	return len(names)
}

// e2fsck -p alone discards a journal that it cannot use, calls that a repair, and what was synced last is gone.
func TestAJournalThatCannotBeReplayedIsNotThrownAway(t *testing.T) {
	m := newMachine(t)
	dirty := m.dirtyExt4()
	journal := journalAt(t, dirty)
	for name, c := range map[string]struct {
		off   int64
		bytes []byte
		says  string // what the kernel says
	}{
		"the journal's superblock is zero":     {journal, make([]byte, 1024), "journal"},
		"the journal's superblock is damaged":  {journal + 20, []byte("damaged"), "journal"},
		"the group descriptors are damaged":    {4096 + 4, []byte("damaged"), "group descriptors corrupted"},
		"the journal's inode is of another fs": {1024 + 0xE0, []byte{99}, "journal"}, // s_journal_inum
	} {
		t.Run(name, func(t *testing.T) {
			image := m.image(0)
			command(t, "cp", "--sparse=always", dirty, image)
			before := make([]byte, len(c.bytes))
			f, err := os.Open(image)
			must(t, err)
			defer f.Close()
			_, err = f.ReadAt(before, c.off)
			must(t, err)
			patch(t, image, c.off, c.bytes)
			damaged := sum(t, image)
			d, l := m.over(image)
			err = m.Check(soon(t), d, "ext4")
			for _, w := range []string{d.Path, "journal", "cannot be replayed", "snapshot", c.says} {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not say %q: %v", w, err)
				}
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("not called damaged: %v", err)
			}
			l.detach()
			if sum(t, image) != damaged {
				t.Error("the refused device was changed")
			}
			// Healed by hand, everything is there.
			patch(t, image, c.off, before)
			d, _ = m.over(image)
			must(t, m.Check(soon(t), d, "ext4"))
			if n := m.rows(d); n != syncedRows {
				t.Errorf("%d of %d synced files are there", n, syncedRows)
			}
		})
	}
}

func TestADirtyJournalIsReplayedByKernelsOldAndNew(t *testing.T) {
	m := newMachine(t)
	dirty := m.dirtyExt4()
	for name, replay := range map[string]func(Device, string, mountPlan) error{"new": replayNew, "old": replayOld} {
		t.Run(name, func(t *testing.T) {
			image := m.image(0)
			command(t, "cp", "--sparse=always", dirty, image)
			d, _ := m.over(image)
			f, err := os.Open(d.Path)
			must(t, err)
			defer f.Close()
			if is, err := extDirty(f); err != nil || !is {
				t.Fatalf("the image is not dirty: %v", err)
			}
			must(t, replay(d, "ext4", mountPlan{}))
			must(t, m.untilFree(soon(t), d))
			if is, err := extDirty(f); err != nil || is {
				t.Errorf("still dirty: %v", err)
			}
			if at, err := m.Mounts(d); err != nil || len(at) != 0 {
				t.Errorf("mounted at %v, %v", at, err)
			}
			claim, err := m.Claim(d)
			must(t, err)
			must(t, claim.Release())
			if n := m.rows(d); n != syncedRows {
				t.Errorf("%d of %d synced files are there", n, syncedRows)
			}
			blank, _ := m.disk(64 * mib)
			if err := replay(blank, "ext4", mountPlan{}); !errors.Is(err, unix.EINVAL) {
				t.Errorf("nothing was mounted: %v", err)
			}
		})
	}
}

// Tools of other volumes start at every moment.
func TestAReplayIsOverWhenTheCheckBegins(t *testing.T) {
	m := newMachine(t)
	dirty := m.dirtyExt4()
	done := make(chan struct{})
	var forks sync.WaitGroup
	for range 3 {
		forks.Add(1)
		go func() {
			defer forks.Done()
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.Command("true").Run()
				}
			}
		}()
	}
	defer forks.Wait()
	defer close(done)
	for range 10 {
		image := m.image(0)
		command(t, "cp", "--sparse=always", dirty, image)
		d, l := m.over(image)
		must(t, m.Check(soon(t), d, "ext4"))
		l.detach()
		must(t, os.Remove(image))
	}
}

func TestADeviceThatCannotBeWrittenToIsRefused(t *testing.T) {
	m := newMachine(t)
	d, l := m.formatted("ext4")
	set := func(readOnly int) { must(t, unix.IoctlSetPointerInt(int(l.file.Fd()), unix.BLKROSET, readOnly)) }
	set(1)
	if _, err := m.Lock(soon(t), d); !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "blockdev --setrw "+d.Path) {
		t.Errorf("lock: %v", err)
	}
	target := m.target()
	for _, fstype := range []string{"ext4", "xfs"} {
		if err := m.Mount(soon(t), d, target, fstype, nil); !errors.Is(err, ErrReadOnly) {
			t.Errorf("mount of %s: %v", fstype, err)
		}
	}
	set(0)
	unlock, err := m.Lock(soon(t), d)
	must(t, err)
	unlock()
	must(t, m.Mount(soon(t), d, target, "ext4", nil))
}

func TestAPanicInWorkOnADeviceIsAnError(t *testing.T) {
	if _, err := bounded(soon(t), "work", func(func() bool) (int, error) { panic("broken") }); err == nil || !strings.Contains(err.Error(), "work: panic: broken") {
		t.Error(err)
	}
}

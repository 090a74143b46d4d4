package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// smallState is a rig whose state folder is a filesystem of its own with little room. No plugin runs yet.
func smallState(t *testing.T) *rig {
	t.Helper()
	r := newMachine(t, func(t *Timing) { t.HandOver = 10 * time.Second })
	if err := os.Mkdir(r.state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("state", r.state, "tmpfs", 0, "size=256k,nr_inodes=64"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(r.state, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return r
}

// stateFault is one way in which nothing can be written to a folder.
type stateFault struct {
	says  string                                // the cause, in the errors
	begin func(t *testing.T, dir string) func() // and what ends it
}

// fill writes files of that size to dir until there is no room for one more.
func fill(t *testing.T, dir string, size int) (end func()) {
	t.Helper()
	var made []string
	for {
		p := filepath.Join(dir, fmt.Sprint("filling-", len(made)))
		err := os.WriteFile(p, make([]byte, size), 0o600)
		made = append(made, p)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil || len(made) > 1000 {
			t.Fatal(len(made), err)
		}
	}
	return func() {
		for _, p := range made {
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	}
}

func readOnly(t *testing.T, dir string) (end func()) {
	t.Helper()
	remount := func(flags uintptr) {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	return func() { remount(0) }
}

var stateFaults = map[string]stateFault{
	"no room for bytes": {"no space left", func(t *testing.T, dir string) func() { return fill(t, dir, 4096) }},
	"no room for files": {"no space left", func(t *testing.T, dir string) func() { return fill(t, dir, 0) }},
	"read-only":         {"read-only file system", readOnly},
}

// What is in use goes on, what is new is refused with the reason and costs nothing, what is given back is let go of, a restart changes
// nothing of that, and with room again all is as before.
func TestAStateFolderThatCannotBeWrittenStopsOnlyNewMounts(t *testing.T) {
	for kind, fault := range stateFaults {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := smallState(t)
			r.start()
			r.create("used")
			r.create("idle")
			row := filepath.Join(r.mount("used", "c1"), "row")
			write(t, row, "42")
			r.calls()

			heal := fault.begin(t, r.state)
			if got := filepath.Join(r.mount("used", "c2"), "row"); got != row {
				t.Fatalf("a second container gets %s", got)
			}
			r.unmount("used", "c1")
			write(t, row, "43")
			if err := syncFile(row); err != nil {
				t.Error(err)
			}
			r.create("born")
			r.must("Remove", m{"Name": "born"})
			r.refused("Mount", m{"Name": "idle", "ID": "c3"}, "idle", r.status("idle")["id"].(string), filepath.Join(r.state, "mounts"), fault.says)
			if n := r.calls(); n["AttachVolume"]+n["CreateTags"] != 0 {
				t.Errorf("a volume that cannot be mounted was attached: %v", n)
			}
			r.eventually("only what is used is attached", func() bool { return r.attached() == 1 })

			// The next process finds no ledger to trust: the answer to c2 may be on its way, and nothing is let go of at once.
			r.crash()
			r.start()
			r.eventually("ready", func() bool { return r.manager.ready(t.Context()) == nil })
			if r.manager.ledger.trusted || !r.manager.ledger.has("used") {
				t.Error("an old ledger is trusted, or lost")
			}
			time.Sleep(2 * r.timing.Sweep)
			write(t, row, "44")
			if n := len(r.must("List", m{})["Volumes"].([]any)); n != 2 {
				t.Errorf("%d volumes are listed", n)
			}
			r.unmount("used", "c2")
			r.eventually("detached, although the mountpoint may stay", func() bool { return r.attached() == 0 })

			heal()
			r.eventually("the ledger is written", func() bool { _, err := os.Stat(filepath.Join(r.state, "ledger.json")); return err == nil })
			for _, name := range []string{"used", "idle"} {
				write(t, filepath.Join(r.mount(name, "c4"), "new"), "x")
			}
			if got := read(t, row); got != "44" {
				t.Errorf("the data is %q", got)
			}
			for _, name := range []string{"used", "idle"} {
				r.unmount(name, "c4")
			}
			r.nothingUnused()
			if left, err := filepath.Glob(filepath.Join(r.state, "ledger.json?*")); err != nil || len(left) != 0 {
				t.Errorf("left beside the ledger: %v %v", left, err)
			}
		})
	}
}

func TestAPluginStartsWithoutAnyFolderAndMountsWhenItCan(t *testing.T) {
	t.Parallel()
	r := smallState(t)
	heal := readOnly(t, r.state)
	r.start()
	r.create("pgdata")
	r.refused("Mount", m{"Name": "pgdata", "ID": "c1"}, "pgdata", r.state, "read-only file system")
	if n := len(r.must("List", m{})["Volumes"].([]any)); n != 1 {
		t.Errorf("%d volumes are listed", n)
	}
	heal()
	write(t, filepath.Join(r.mount("pgdata", "c1"), "row"), "42")
	r.unmount("pgdata", "c1")
	r.nothingUnused()
}

// A mountpoint that could not be removed in its time is no garbage for ever.
func TestAMountpointThatWasLeftIsSweptAway(t *testing.T) {
	t.Parallel()
	r := smallState(t)
	r.start()
	r.create("pgdata")
	r.mount("pgdata", "c1")
	heal := readOnly(t, r.state)
	r.unmount("pgdata", "c1")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	heal()
	r.nothingUnused()
}

func TestALedgerThatCannotBeWrittenIsNotLostAndNotTrusted(t *testing.T) {
	dir := smallState(t).state
	log := logrus.New()
	log.SetOutput(testWriter{t})
	open := func(trusted bool, names ...string) *ledger {
		t.Helper()
		l := openLedger(dir, "boot", log)
		if l.trusted != trusted {
			t.Errorf("trusted is %v", l.trusted)
		}
		for _, n := range names {
			if !l.has(n) {
				t.Errorf("%s is forgotten", n)
			}
		}
		return l
	}
	l := open(false)
	l.put("a", entry{ID: "vol-1"})
	heal := fill(t, dir, 0)
	open(false, "a")
	l.put("b", entry{ID: "vol-2"})
	open(false, "a")
	heal()
	open(false, "a") // it still may not name what was handed out last
	l.retry()
	open(true, "a", "b")
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestWhatAWriterLeftWhenItDiedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	log := logrus.New()
	log.SetOutput(testWriter{t})
	l := openLedger(dir, "boot", log)
	l.put("a", entry{ID: "vol-1"})
	write(t, filepath.Join(dir, "ledger.json.new-123"), "half")
	l = openLedger(dir, "boot", log)
	if !l.trusted || !l.has("a") {
		t.Error("the ledger is not trusted, or lost")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "ledger.json") {
		t.Errorf("left: %v %v", entries, err)
	}
}

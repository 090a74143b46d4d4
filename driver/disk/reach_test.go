package disk

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A plugin's folder in each of the states in which dockerd may have made it.
func TestItIsKnownWhetherMountsReachTheHost(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		shared, copied, want bool
	}{
		"shared with the host":              {true, true, true},
		"shared with nobody":                {true, false, false},
		"private, and copied by the host":   {false, true, false},
		"private, and known to nobody else": {false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			at, host := filepath.Join(dir, t.Name(), "plugin"), filepath.Join(dir, t.Name(), "host")
			must(t, os.MkdirAll(at, 0o700))
			must(t, os.MkdirAll(host, 0o700))
			reaches := false
			err := inOwnMounts(func() (err error) {
				do := func(source, target string, flags uintptr) {
					if err == nil {
						err = unix.Mount(source, target, "", flags, "")
					}
				}
				do(at, at, unix.MS_BIND)
				if c.shared {
					do("", at, unix.MS_SHARED)
				}
				if c.copied {
					do(at, host, unix.MS_BIND)
				}
				if err == nil {
					reaches, err = Reaches(at)
				}
				return err
			})
			if err != nil || reaches != c.want {
				t.Errorf("%v, %v; want %v", reaches, err, c.want)
			}
			if left, err := os.ReadDir(at); err != nil || len(left) != 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// The process sees its own mounts afterwards, whichever thread it was that had a namespace of its own.
func TestTheProcessKeepsItsMountNamespace(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			inside := ""
			err := inOwnMounts(func() (err error) { inside, err = os.Readlink("/proc/thread-self/ns/mnt"); return err })
			if err != nil || inside == before {
				t.Errorf("in a namespace of its own: %q, %v", inside, err)
			}
		})
	}
	all.Wait()
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != before {
		t.Errorf("the process was in %s and is in %s (%v)", before, now, err)
	}
}

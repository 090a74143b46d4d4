package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The whole way of a new volume, and of its next use.
func TestABlankDeviceBecomesAFilesystemThatKeepsItsData(t *testing.T) {
	for _, fstype := range Filesystems() {
		t.Run(fstype, func(t *testing.T) {
			m := newMachine(t)
			d, _ := m.disk(512 * mib)
			ctx := soon(t)
			found, err := m.Wait(ctx, d.Serial)
			must(t, err)
			if found != d {
				t.Fatalf("found %+v, want %+v", found, d)
			}
			unlock, err := m.Lock(ctx, d)
			must(t, err)
			defer unlock()
			c, err := m.Inspect(ctx, d)
			must(t, err)
			if got := Decide(TagNone, "i-1", false, fstype, c, nil); got.Action != Format {
				t.Fatalf("a blank device: %v: %s", got.Action, got.Reason)
			}
			must(t, m.Format(ctx, d, fstype, FormatOptions{Label: "pgdata"}))
			c, err = m.Inspect(ctx, d)
			must(t, err)
			if c.Kind != fstype || c.Label != "pgdata" || c.UUID == "" {
				t.Fatalf("after formatting: %+v", c)
			}
			target := m.target()
			for _, fresh := range []bool{true, false} {
				must(t, m.Check(ctx, d, fstype))
				must(t, m.Mount(ctx, d, target, fstype, []string{"noatime"}))
				if _, err := m.Claim(d); !errors.Is(err, ErrInUse) {
					t.Fatalf("claim of a mounted device: %v", err)
				}
				root, err := m.Root(target, fresh, RootOptions{Subdir: "data"})
				must(t, err)
				file := filepath.Join(root, "row")
				if fresh {
					must(t, os.WriteFile(file, []byte("kept"), 0o644))
				} else if b, err := os.ReadFile(file); err != nil || string(b) != "kept" {
					t.Fatalf("read back %q, %v", b, err)
				}
				if at, err := m.Mounts(d); err != nil || len(at) != 1 || at[0] != target {
					t.Fatalf("mounts: %v, %v", at, err)
				}
				must(t, m.Unmount(target))
				claim, err := m.Claim(d)
				must(t, err)
				must(t, claim.Release())
			}
		})
	}
}

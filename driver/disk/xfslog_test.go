package disk

import (
	"os"
	"path/filepath"
	"testing"
)

// crashed is a copy of what a host that dies now leaves of an image that it has mounted.
func crashed(t *testing.T, image string) string {
	t.Helper()
	command(t, "cp", "--sparse=always", image, image+"-crashed")
	return image + "-crashed"
}

// usedNow is what Inspect says of an image.
func (m *machine) usedNow(image string) bool {
	m.t.Helper()
	d, l := m.over(image)
	defer l.detach()
	c, err := m.Inspect(soon(m.t), d)
	must(m.t, err)
	if c.Kind != "xfs" {
		m.t.Fatalf("found %+v", c)
	}
	return c.Used
}

// A host that dies leaves a superblock whose counters are those of a new filesystem: the kernel writes them late.
func TestAnXFSWhoseHostCrashedIsUsed(t *testing.T) {
	for name, args := range map[string][]string{"plain": nil, "stripes": {"-l", "su=256k"}, "sectors": {"-s", "size=4096"}} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			image := m.image(320 * mib)
			command(t, "mkfs.xfs", append([]string{"-q", "-K", image}, args...)...)
			if m.usedNow(image) {
				t.Fatal("a new filesystem counts as used")
			}
			target := m.target()
			d, l := m.over(image)
			must(t, m.Mount(soon(t), d, target, "xfs", nil))
			justMounted := crashed(t, image)
			if !m.usedNow(justMounted) {
				t.Error("mounted, and the host died: not used")
			}
			row := filepath.Join(target, "row")
			must(t, os.WriteFile(row, []byte("42"), 0o644))
			f, err := os.Open(row)
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
			written := crashed(t, image)
			sb := make([]byte, 512)
			g, err := os.Open(written)
			must(t, err)
			defer g.Close()
			if _, err := g.ReadAt(sb, 0); err != nil || used(sb) {
				t.Fatalf("the counters alone tell it: this test shows nothing (%v)", err)
			}
			if !m.usedNow(written) {
				t.Error("mounted, a file written and synced, and the host died: not used")
			}
			must(t, m.Unmount(target))
			l.detach()
			if !m.usedNow(image) {
				t.Error("mounted, written and unmounted: not used")
			}
			// The file is there after all.
			d, _ = m.over(written)
			must(t, m.Mount(soon(t), d, target, "xfs", nil))
			if b, err := os.ReadFile(row); err != nil || string(b) != "42" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// Nothing that is not understood counts as new.
func TestAnXFSLogThatIsNotUnderstoodIsUsed(t *testing.T) {
	m := newMachine(t)
	fresh := m.image(320 * mib)
	command(t, "mkfs.xfs", "-q", "-K", fresh)
	sb := make([]byte, 512)
	f, err := os.Open(fresh)
	must(t, err)
	defer f.Close()
	_, err = f.ReadAt(sb, 0)
	must(t, err)
	log, ok := xfsLog(sb, 320*mib)
	if !ok {
		t.Fatal("the log of a new filesystem is not found")
	}
	for name, c := range map[string]struct {
		off   int64
		bytes []byte
		used  bool
	}{
		"no record yet, as when mkfs was killed": {log.off, make([]byte, 1024), false},
		"another magic":                          {log.off, []byte{1}, true},
		"a later cycle":                          {log.off + 4, []byte{0, 0, 0, 2}, true},
		"a tail elsewhere":                       {log.off + 24, []byte{0, 0, 0, 2}, true},
		"two operations":                         {log.off + 43, []byte{2}, true},
		"a record of the whole log":              {log.off + 12, []byte{0x7f}, true},
		"a length of nothing":                    {log.off + 12, []byte{0, 0, 0, 0}, true},
		"another operation":                      {log.off + 512 + 12, []byte("XX"), true},
		"something beside the operation":         {log.off + 1023, []byte{1}, true},
		"something behind the record":            {log.off + 1024, []byte{1}, true},
		"something at the end of what is read":   {log.off + mib - 1, []byte{1}, true},
		"an external log":                        {48, make([]byte, 8), true},
		"a log in no group":                      {48, []byte{0x7f}, true},
		"a log beyond the device":                {96, []byte{0x7f}, true},
		"no blocks":                              {84, make([]byte, 4), true},
	} {
		image := m.image(0)
		command(t, "cp", "--sparse=always", fresh, image)
		patch(t, image, c.off, c.bytes)
		g, err := os.Open(image)
		must(t, err)
		own := make([]byte, 512)
		_, err = g.ReadAt(own, 0)
		must(t, err)
		if used, rerr := xfsLogUsed(g, own, 320*mib); rerr != nil || used != c.used {
			t.Errorf("%s: used is %v, %v", name, used, rerr)
		}
		g.Close()
	}
	must(t, os.Truncate(fresh, log.off+4096))
	if used, rerr := xfsLogUsed(f, sb, 320*mib); !used || rerr == nil {
		t.Errorf("a log that cannot be read: used is %v, %v", used, rerr)
	}
}

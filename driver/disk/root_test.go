package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func ownerAndMode(t *testing.T, path string) (uid, gid uint32, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid, info.Mode()
}

func TestTheRootFolderGetsOwnerAndModeOnceAndForAll(t *testing.T) {
	for _, fstype := range Filesystems() {
		m := newMachine(t)
		d, _ := m.formatted(fstype)
		target := m.target()
		must(t, m.Mount(soon(t), d, target, fstype, nil))
		uid, gid := 999, 998
		o := RootOptions{Subdir: "pg/data", UID: &uid, GID: &gid, Mode: os.ModeSetgid | 0o770}
		for range 2 {
			path, err := m.Root(target, true, o)
			if err != nil || path != target+"/pg/data" {
				t.Fatalf("%s, %v", path, err)
			}
			if u, g, mode := ownerAndMode(t, path); u != 999 || g != 998 || mode != fs.ModeDir|fs.ModeSetgid|0o770 {
				t.Errorf("%d:%d %v", u, g, mode)
			}
		}
		if u, g, mode := ownerAndMode(t, target+"/pg"); u != 0 || g != 0 || mode != fs.ModeDir|0o755 {
			t.Errorf("the folder on the way: %d:%d %v", u, g, mode)
		}
		// What is there already is the user's.
		must(t, os.Chmod(target+"/pg/data", 0o700))
		must(t, os.Chown(target+"/pg/data", 5, 6))
		_, err := m.Root(target, true, o)
		must(t, err)
		if u, g, mode := ownerAndMode(t, target+"/pg/data"); u != 5 || g != 6 || mode != fs.ModeDir|0o700 {
			t.Errorf("changed: %d:%d %v", u, g, mode)
		}
		left, err := filepath.Glob(target + "/.*")
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		must(t, m.Unmount(target))
		must(t, m.Check(soon(t), d, fstype))
	}
}

func TestTheVolumesOwnRootIsSetOnlyWhenFresh(t *testing.T) {
	m := newMachine(t)
	uid := 7
	target := m.target()
	for _, c := range []struct {
		fresh bool
		uid   uint32
		mode  fs.FileMode
	}{{false, 0, 0o700}, {true, 7, 0o750}} {
		path, err := m.Root(target, c.fresh, RootOptions{Subdir: "/", UID: &uid, Mode: 0o750})
		if err != nil || path != target {
			t.Fatalf("%s, %v", path, err)
		}
		if u, g, mode := ownerAndMode(t, path); u != c.uid || g != 0 || mode.Perm() != c.mode {
			t.Errorf("fresh %v: %d:%d %v", c.fresh, u, g, mode)
		}
	}
	path, err := m.Root(target, false, RootOptions{Subdir: "data"})
	must(t, err)
	if u, g, mode := ownerAndMode(t, path); u != 0 || g != 0 || mode.Perm() != 0o755 {
		t.Errorf("without options: %d:%d %v", u, g, mode)
	}
}

func TestAnInterruptedRootFolderIsMadeAnew(t *testing.T) {
	m := newMachine(t)
	target := m.target()
	must(t, os.Mkdir(target+"/.blockvol-new-data", 0o700)) // killed before the rename
	uid := 7
	path, err := m.Root(target, false, RootOptions{Subdir: "data", UID: &uid})
	must(t, err)
	if u, _, mode := ownerAndMode(t, path); u != 7 || mode.Perm() != 0o755 {
		t.Errorf("%d %v", u, mode)
	}
}

// A volume's content was written by anybody; nothing in it may lead out of it.
func TestNothingInAVolumeLeadsOutOfIt(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, target, outside string){
		"the folder is a link":          func(t *testing.T, target, outside string) { must(t, os.Symlink(outside, target+"/pg")) },
		"the folder is a dangling link": func(t *testing.T, target, outside string) { must(t, os.Symlink(outside+"/new", target+"/pg")) },
		"the folder is a link inside": func(t *testing.T, target, _ string) {
			must(t, os.Mkdir(target+"/x", 0o755))
			must(t, os.Symlink("x", target+"/pg"))
		},
		"the folder is a link to ..": func(t *testing.T, target, _ string) { must(t, os.Symlink("..", target+"/pg")) },
		"the last part is a link": func(t *testing.T, target, outside string) {
			must(t, os.Mkdir(target+"/pg", 0o755))
			must(t, os.Symlink(outside, target+"/pg/data"))
		},
		"the folder is a file":            func(t *testing.T, target, _ string) { must(t, os.WriteFile(target+"/pg", nil, 0o644)) },
		"the folder is a pipe":            func(t *testing.T, target, _ string) { must(t, syscall.Mkfifo(target+"/pg", 0o644)) },
		"the temporary folder is a link":  func(t *testing.T, target, outside string) { must(t, os.Symlink(outside, target+"/.blockvol-new-pg")) },
		"the temporary folder is a file":  func(t *testing.T, target, _ string) { must(t, os.WriteFile(target+"/.blockvol-new-pg", nil, 0o644)) },
		"the temporary folder has a file": func(t *testing.T, target, _ string) { must(t, os.MkdirAll(target+"/.blockvol-new-pg/x", 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			target, outside := m.target(), t.TempDir()
			plant(t, target, outside)
			uid := 7
			path, err := m.Root(target, true, RootOptions{Subdir: "pg/data", UID: &uid, Mode: 0o777})
			if err == nil {
				t.Errorf("handed out %s", path)
			} else if strings.HasPrefix(name, "the folder") && !errors.Is(err, ErrRefused) {
				t.Error(err)
			}
			list, err := os.ReadDir(outside)
			must(t, err)
			if u, _, mode := ownerAndMode(t, outside); len(list) > 0 || u != 0 || mode.Perm() == 0o777 {
				t.Errorf("outside was changed: %v, %d, %v", list, u, mode)
			}
		})
	}
}

func TestSubdirsAreCleanPaths(t *testing.T) {
	for _, good := range []string{"/", "data", "/data", "data/", "pg/data", "...", "-x", "a b", "pg/lost+found"} {
		if err := ValidateSubdir(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/../b", "a/./b", "a\x00b", "a\nb", "lost+found", "lost+found/x", strings.Repeat("a", 201), strings.Repeat("a/", 600)} {
		if err := ValidateSubdir(bad); !errors.Is(err, ErrOption) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	m := newMachine(t)
	if _, err := m.Root(m.target()+"/none", true, RootOptions{Subdir: "data"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

package e2e

import (
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On another architecture nothing of the plugin can be run here, so that it is read: every program is of one machine, and what the loader has to
// find for it is there. It looks at each plugin that was built: always the one of this machine, and what make rootfs ARCH=... has made.
func TestThePluginHasWhatItsProgramsNeedOnItsMachine(t *testing.T) {
	t.Parallel()
	built, err := filepath.Glob(filepath.Join(buildDir, "plugin*", "rootfs"))
	if err != nil || len(built) == 0 {
		t.Fatalf("no plugin was built: %v", err)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, root := range built {
		binary := readELF(t, filepath.Join(root, "blockvol"))
		if binary == nil || binary.needs != nil {
			t.Fatalf("%s: blockvol is %+v, no static program", root, binary)
		}
		if _, arch, ok := strings.Cut(filepath.Base(filepath.Dir(root)), "-"); ok && binary.machine != machines[arch] && machines[arch] != 0 {
			t.Errorf("%s: blockvol is for %v", root, binary.machine)
		}
		programs := map[string]bool{}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f := readELF(t, path)
			if f == nil {
				return nil
			}
			programs[d.Name()] = true
			if f.machine != binary.machine {
				t.Errorf("%s is for %v, blockvol for %v", path, f.machine, binary.machine)
			}
			for _, need := range f.needs {
				if !found(root, need) {
					t.Errorf("%s needs %s, which is not there", path, need)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, tool := range []string{"mkfs.ext4", "e2fsck", "resize2fs", "tune2fs", "dumpe2fs", "mkfs.xfs", "xfs_repair", "xfs_growfs", "blkid"} {
			if !programs[tool] {
				t.Errorf("%s has no %s", root, tool)
			}
		}
	}
}

type program struct {
	machine elf.Machine
	needs   []string // libraries by name, and the loader by path
}

// readELF is nil for a file of another kind.
func readELF(t *testing.T, path string) *program {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	p := &program{machine: f.Machine}
	libs, err := f.ImportedLibraries()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	p.needs = libs
	for _, s := range f.Progs {
		if s.Type == elf.PT_INTERP {
			b := make([]byte, s.Filesz)
			if _, err := s.ReadAt(b, 0); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			p.needs = append(p.needs, strings.TrimRight(string(b), "\x00"))
		}
	}
	return p
}

// found says whether the loader finds a library, or the kernel the loader, in a root filesystem as Debian has it.
func found(root, need string) bool {
	if filepath.IsAbs(need) {
		_, err := os.Stat(filepath.Join(root, need))
		return err == nil
	}
	for _, dir := range []string{"lib/*-linux-gnu", "usr/lib/*-linux-gnu", "lib", "usr/lib", "lib64"} {
		if m, _ := filepath.Glob(filepath.Join(root, dir, need)); len(m) > 0 {
			return true
		}
	}
	return false
}

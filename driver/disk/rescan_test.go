package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheControllerOfADeviceIsAskedForItsSize(t *testing.T) {
	t.Parallel()
	h := &Host{Dev: t.TempDir(), Sys: t.TempDir()}
	link := func(name, to string) {
		t.Helper()
		dir := filepath.Join(h.Sys, "block", name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(to, filepath.Join(dir, "device"))); err != nil {
			t.Fatal(err)
		}
	}
	link("nvme1n1", "../../nvme1")
	link("nvme2n1", "../../nvme2")
	link("sda", "../../0:0:0:0")
	if err := os.MkdirAll(filepath.Join(h.Sys, "block", "nvme3n1", "device"), 0o755); err != nil { // a simulator's view
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Dev, "nvme2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"nvme1n1": fs.ErrNotExist, "nvme2n1": unix.ENOTTY, "sda": nil, "nvme3n1": nil, "nvme4n1": nil} {
		if err := h.AskController(Device{Name: name}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

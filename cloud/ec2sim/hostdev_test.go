package ec2sim

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAHostsDevHasWhatEveryProgramReliesOn(t *testing.T) {
	b := newBench(t)
	null := filepath.Join(b.DevDir(hostA), "null")
	if err := os.WriteFile(null, []byte("away"), 0); err != nil {
		t.Error(err)
	}
	if got := mustRead(t, null); got != "" {
		t.Errorf("null gives %q", got)
	}
	if got := read(t, filepath.Join(b.DevDir(hostA), "zero"), 2, 0); got != "\x00\x00" {
		t.Errorf("zero gives %q", got)
	}
	for name := range everyHost {
		info, err := os.Stat(filepath.Join(b.DevDir(hostA), name))
		if err != nil || info.Mode() != os.ModeDevice|os.ModeCharDevice|0o666 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}

func TestAFolderOfAnOlderSimulatorGetsWhatItLacks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	if err := makeDevDir(dir); err != nil {
		t.Fatal(err)
	}
	null := filepath.Join(dir, "null")
	kept, err := os.Stat(filepath.Join(dir, "zero"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(null); err != nil {
		t.Fatal(err)
	}
	if err := makeDevDir(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(null); err != nil {
		t.Error(err)
	}
	if now, err := os.Stat(filepath.Join(dir, "zero")); err != nil || !os.SameFile(kept, now) {
		t.Errorf("a device that was there was made again: %v", err)
	}
}

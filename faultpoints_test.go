package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// marks are what a binary with fault points has in it and no other: the package, and the text with which it dies.
var marks = []string{"blockvol/driver/faultpoint", "faultpoint: dying at"}

// The binary that users get cannot be told to die; one that was built to can.
func TestTheReleaseBinaryHasNoFaultPoints(t *testing.T) {
	release := buildLine(t)
	tagged := strings.Replace(release, "go build ", "go build -tags faultpoints ", 1)
	for line, want := range map[string]bool{release: false, tagged: true} {
		out := filepath.Join(t.TempDir(), "blockvol")
		cmd := exec.Command("sh", "-c", strings.Replace(line, " -o build/blockvol ", " -o "+out+" ", 1))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, text)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, mark := range marks {
			if has := bytes.Contains(data, []byte(mark)); has != want {
				t.Errorf("%q is in what %q makes: %t, want %t", mark, line, has, want)
			}
		}
	}
}

// buildLine is the command by which the Makefile builds the binary.
func buildLine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("make", "-s", "-n", "build").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "go build ") && strings.Contains(line, " -o build/blockvol ") {
			return line
		}
	}
	t.Fatalf("make build does not build the binary: %s", out)
	return ""
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cli"
)

// dockerClient is Docker's own command with the plugin installed for it, by itself.
type dockerClient struct{ home, path string }

func newDockerClient(t *testing.T) dockerClient {
	t.Helper()
	c := dockerClient{home: t.TempDir()}
	c.path = filepath.Join(c.home, "cli-plugins", "docker-blockvol")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if code, out := c.run(t, self, "install-cli", "--dir", filepath.Dir(c.path)); code != 0 || !strings.Contains(out, c.path) {
		t.Fatalf("install-cli: exit status %d: %s", code, out)
	}
	return c
}

// run runs a command and returns its exit status and what it has said.
func (c dockerClient) run(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+c.home, asProgram+"=1")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestDockersClientRunsTheVerbsAsItsOwn(t *testing.T) {
	c := newDockerClient(t)
	var about struct{ SchemaVersion, Vendor, Version, ShortDescription, URL string }
	_, out := c.run(t, c.path, "docker-cli-plugin-metadata")
	if err := json.Unmarshal([]byte(out), &about); err != nil || about.SchemaVersion != "0.1.0" || about.Vendor == "" || about.Version != version || about.ShortDescription == "" || about.URL != cli.URL {
		t.Errorf("metadata: %v, %s", err, out)
	}
	none := filepath.Join(c.home, "none.sock")
	for _, call := range []struct {
		args  string
		code  int
		words []string
	}{
		{"--help", 0, []string{"blockvol*", about.ShortDescription}},
		{"blockvol", 0, []string{"docker blockvol", "ls", "detach"}},
		{"blockvol --help", 0, []string{"docker blockvol", "ls", "detach"}},
		{"help blockvol detach", 0, []string{"docker blockvol detach VOLUME", "--stop-instance"}},
		{"blockvol detach --help", 0, []string{"docker blockvol detach VOLUME", "--stop-instance"}},
		{"--debug --host unix:///none.sock blockvol ls --help", 0, []string{"docker blockvol ls"}},
		{"blockvol ls --socket " + none, 1, []string{none, "docker plugin ls"}},
		{"blockvol fly", 2, []string{"unknown command", "fly"}},
		{"blockvol ls --wings", 2, []string{"--wings"}},
		{"blockvol version --socket " + none, 0, []string{"command  " + version, "unknown"}},
		{"__complete blockvol de", 0, []string{"detach\t"}},
		{"__complete blockvol detach --st", 0, []string{"--stop-instance\t"}},
	} {
		code, out := c.run(t, append([]string{"docker"}, strings.Fields(call.args)...)...)
		if code != call.code {
			t.Errorf("docker %s: exit status %d, want %d: %s", call.args, code, call.code, out)
		}
		for _, w := range call.words {
			if !strings.Contains(out, w) {
				t.Errorf("docker %s: %q is missing in: %s", call.args, w, out)
			}
		}
	}
}

func TestTheCommandReplacesAnOlderOneAndLeavesNothingHalfWritten(t *testing.T) {
	c := newDockerClient(t)
	old, err := os.Stat(c.path)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := c.run(t, c.path, "blockvol", "install-cli", "--dir", filepath.Dir(c.path)); code != 0 {
		t.Fatalf("over itself: exit status %d: %s", code, out)
	}
	now, err := os.Stat(c.path)
	if err != nil || os.SameFile(old, now) || now.Mode().Perm() != 0o755 || now.Size() != old.Size() {
		t.Errorf("%v, %v", now, err)
	}
	blocked := filepath.Join(t.TempDir(), "docker-blockvol")
	if err := os.Mkdir(blocked, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(blocked), c.path} { // a folder is in the way; it is no folder
		if code, out := c.run(t, c.path, "blockvol", "install-cli", "--dir", dir); code != 1 || !strings.Contains(out, dir) {
			t.Errorf("--dir %s: exit status %d: %s", dir, code, out)
		}
	}
	for _, dir := range []string{filepath.Dir(blocked), filepath.Dir(c.path)} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// commandTime is how long one docker command may take. It is longer than dockerd's own longest wait for a plugin (2 minutes), so that a
// test sees what dockerd says.
const commandTime = 150 * time.Second

// Result is what a command gave.
type Result struct {
	Command        string
	Stdout, Stderr string
	Code           int // the exit status; -1 when it did not start or was killed at the end of its time
	Took           time.Duration
}

// Err is nil when the command succeeded, and otherwise tells everything about it.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	return fmt.Errorf("%s\n  exit status %d after %.1f s\n  stdout: %s\n  stderr: %s", r.Command, r.Code, r.Took.Seconds(), r.Stdout, r.Stderr)
}

// command runs a program with env added to the environment.
func command(limit time.Duration, env []string, stdin string, name string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	r := Result{Command: name + " " + strings.Join(args, " "), Took: time.Since(start)}
	r.Stdout, r.Stderr = strings.TrimSpace(out.String()), strings.TrimSpace(errs.String())
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code = -1
		r.Stderr += err.Error()
	}
	if ctx.Err() != nil {
		r.Stderr += fmt.Sprintf("\n(killed after %s)", limit)
	}
	return r
}

// Try runs a docker command against the engine.
func (e *Engine) Try(args ...string) Result { return e.TryInput("", args...) }

// TryInput is Try with something on the command's standard input.
func (e *Engine) TryInput(stdin string, args ...string) Result {
	return command(commandTime, e.env(), stdin, "docker", args...)
}

// Docker runs a docker command that must succeed, and returns what it printed.
func (e *Engine) Docker(t testing.TB, args ...string) string {
	t.Helper()
	r := e.Try(args...)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r.Stdout
}

// DockerFails runs a docker command that must fail, with all of the words in what it says; it returns what it said.
func (e *Engine) DockerFails(t testing.TB, words []string, args ...string) string {
	t.Helper()
	r := e.Try(args...)
	if r.Code == 0 {
		t.Fatalf("%s succeeded, but must fail\n  stdout: %s", r.Command, r.Stdout)
	}
	said := r.Stderr + r.Stdout
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("%s said, without %q:\n  %s", r.Command, w, said)
		}
	}
	return said
}

// Volume is what `docker volume inspect` tells.
type Volume struct {
	Name, Driver, Mountpoint, CreatedAt, Scope string
	Labels, Options                            map[string]string
	Status                                     map[string]any
}

// Inspect returns a volume that must exist.
func (e *Engine) Inspect(t testing.TB, name string) Volume {
	t.Helper()
	var vs []Volume
	if err := json.Unmarshal([]byte(e.Docker(t, "volume", "inspect", name)), &vs); err != nil || len(vs) != 1 {
		t.Fatalf("docker volume inspect %s: %v, %d volumes", name, err, len(vs))
	}
	return vs[0]
}

var serial atomic.Int64

// name makes a name that no other test of this run has, and that tells which test it belongs to.
func name(t testing.TB) string {
	base := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, t.Name())
	if len(base) > 40 {
		base = base[:40]
	}
	return fmt.Sprintf("%s-%d", strings.ToLower(base), serial.Add(1))
}

// NewVolume creates a volume with options ("size=1GiB") and has it removed at the end of the test, which fails if it cannot be.
func (e *Engine) NewVolume(t testing.TB, options ...string) string {
	t.Helper()
	v := e.VolumeName(t)
	args := []string{"volume", "create", "-d", e.driver()}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	if got := e.Docker(t, append(args, v)...); got != v {
		t.Fatalf("docker volume create printed %q, not %q", got, v)
	}
	return v
}

// VolumeName makes a name for a volume that the test will create, and has it removed at the end if it is there then.
func (e *Engine) VolumeName(t testing.TB) string {
	v := name(t)
	t.Cleanup(func() {
		if err := e.removeSoon(v); err != nil {
			t.Errorf("a volume is left: %v", err)
		}
	})
	return v
}

// removeSoon removes a volume, if it is there. For some time after its start, a plugin keeps what was handed to a container before it.
func (e *Engine) removeSoon(v string) error {
	var err error
	_ = poll(time.Minute, func() error {
		r := e.Try("volume", "rm", "-f", v)
		if err = r.Err(); err != nil && strings.Contains(r.Stderr, "which may still be starting") {
			return err
		}
		return nil
	})
	return err
}

// Container makes a name for a container that the test will run, and has it removed at the end, with its anonymous volumes.
func (e *Engine) Container(t testing.TB) string {
	c := name(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("docker logs %s: %s", c, e.Try("logs", "--tail", "20", c).Stdout)
		}
		r := e.Try("rm", "-f", "-v", c)
		if r.Code != 0 && !strings.Contains(r.Stderr, "No such container") {
			t.Errorf("a container is left: %v", r.Err())
		}
	})
	return c
}

// Busybox runs a shell command in a container that is removed at its end, with docker run's flags before it; it returns its output.
func (e *Engine) Busybox(t testing.TB, flags []string, script string) string {
	t.Helper()
	args := append([]string{"run", "--rm", "--name", e.Container(t)}, flags...)
	return e.Docker(t, append(args, busybox, "sh", "-c", script)...)
}

// RunDetached starts a busybox container that runs a shell command, and returns its name.
func (e *Engine) RunDetached(t testing.TB, flags []string, script string) string {
	t.Helper()
	c := e.Container(t)
	args := append([]string{"run", "-d", "--name", c, "--stop-timeout", "1"}, flags...)
	e.Docker(t, append(args, busybox, "sh", "-c", script)...)
	return c
}

// on is the flag that mounts a volume in a container as a user should write it.
func (e *Engine) on(volume, dst string, more ...string) string {
	return strings.Join(append([]string{"type=volume,src=" + volume, "dst=" + dst, "volume-driver=" + e.driver()}, more...), ",")
}

// Eventually asks again and again until there is no error; it fails the test with the last one at the end of the time.
func Eventually(t testing.TB, limit time.Duration, check func() error) {
	t.Helper()
	if err := poll(limit, check); err != nil {
		t.Fatalf("not within %s: %v", limit, err)
	}
}

func poll(limit time.Duration, check func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

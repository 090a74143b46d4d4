package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The images that scripts/image makes.
const (
	busybox  = "blockvol-test/busybox"
	postgres = "blockvol-test/postgres"
	mariadb  = "blockvol-test/mariadb"
)

// Engine is a Docker Engine of the tests, run by scripts/engine in namespaces of its own.
type Engine struct {
	Dir    string  // everything of it is here
	Plugin *Plugin // the plugin that tests of this engine use
	flags  []string
	where  []string // flags of scripts/engine: a network namespace and a host name, if it has its own
	dead   bool
}

// NewEngine names an engine; extra are flags for dockerd. It is started by start.
func NewEngine(name string, extra ...string) *Engine {
	return &Engine{Dir: filepath.Join(buildDir, "engines", name), flags: extra}
}

// PrivateEngine starts an engine for one test, with the busybox image and without a plugin. At the end of the test it must hold nothing of
// blockvol any more; then it is stopped.
func PrivateEngine(t testing.TB, extra ...string) *Engine {
	t.Helper()
	e := NewEngine(name(t), extra...)
	t.Cleanup(func() {
		if t.Failed() {
			e.printLog(os.Stderr)
		} else if err := e.leaks(); err != nil && !e.dead {
			t.Errorf("left in the engine:\n%v", err)
		}
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := e.fresh(); err != nil {
		t.Fatal(err)
	}
	if err := e.image("busybox"); err != nil {
		t.Fatal(err)
	}
	return e
}

// prepare makes an engine ready for most tests.
func (e *Engine) prepare(plugin string, settings ...string) error {
	if err := e.image("busybox"); err != nil {
		return err
	}
	p, err := e.install(plugin, settings...)
	e.Plugin = p
	return err
}

func (e *Engine) script(args ...string) Result {
	return command(2*time.Minute, nil, "", filepath.Join(repo, "scripts", "engine"), args...)
}

// fresh starts a new engine, after what an interrupted run may have left in its folder is gone.
func (e *Engine) fresh() error {
	if err := e.stop(); err != nil {
		return err
	}
	return e.start()
}

func (e *Engine) start() error {
	args := slices.Concat([]string{"start", e.Dir}, e.where, []string{"--"}, e.flags)
	err := e.script(args...).Err()
	e.dead = err != nil
	return err
}

func (e *Engine) stop() error {
	e.dead = true
	simulated := e.simulated()
	return errors.Join(e.script("stop", e.Dir).Err(), loopsOf(e, simulated))
}

// Start starts dockerd again after one of the methods that end it.
func (e *Engine) Start(t testing.TB) {
	t.Helper()
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
}

// PID is the process ID of dockerd.
func (e *Engine) PID(t testing.TB) int {
	t.Helper()
	r := e.script("pid", e.Dir)
	pid, err := strconv.Atoi(r.Stdout)
	if err != nil {
		t.Fatal(r.Command, r.Stderr, err)
	}
	return pid
}

// Signal sends a signal to dockerd and waits until dockerd has ended: SIGTERM is how a host restarts it, SIGKILL how it crashes.
func (e *Engine) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	pid := e.PID(t)
	e.dead = true
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 40*time.Second, func() error {
		if alive(pid) {
			return fmt.Errorf("dockerd (%d) still runs after %v", pid, sig)
		}
		return nil
	})
}

// PowerCut ends every process of the engine at once: dockerd, the plugin, the containers. Start is the boot.
func (e *Engine) PowerCut(t testing.TB) {
	t.Helper()
	e.dead = true
	if err := e.script("kill", e.Dir).Err(); err != nil {
		t.Fatal(err)
	}
}

func alive(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(status), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// env points the docker command at the engine. The user's own configuration (contexts, credentials) plays no part.
func (e *Engine) env() []string {
	return []string{"DOCKER_HOST=unix://" + filepath.Join(e.Dir, "docker.sock"), "DOCKER_CONFIG=" + filepath.Join(e.Dir, "cli"), "DOCKER_BUILDKIT=0"}
}

// image makes sure that the engine has one of the test images.
func (e *Engine) image(name string) error {
	return command(10*time.Minute, append(e.env(), "BUILD="+buildDir), "", filepath.Join(repo, "scripts", "image"), name).Err()
}

// Image is for tests that need more than busybox.
func (e *Engine) Image(t testing.TB, name string) {
	t.Helper()
	if err := e.image(strings.TrimPrefix(name, "blockvol-test/")); err != nil {
		t.Fatal(err)
	}
}

// Inside runs a command where the engine runs: with its mounts and its /run.
func (e *Engine) Inside(args ...string) Result {
	return e.script(append([]string{"enter", e.Dir}, args...)...)
}

func (e *Engine) driver() string {
	if e.Plugin == nil {
		return "blockvol"
	}
	return e.Plugin.Name
}

// Log returns what dockerd and its plugins have written.
func (e *Engine) Log() string {
	b, err := os.ReadFile(filepath.Join(e.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// printLog shows the end of what the plugin wrote and of dockerd's own errors, for a person who looks at a failure.
func (e *Engine) printLog(w io.Writer) {
	var lines []string
	for _, l := range strings.Split(e.Log(), "\n") {
		if strings.Contains(l, " plugin=") || strings.Contains(l, "level=error") || strings.Contains(l, "level=fatal") {
			lines = append(lines, l)
		}
	}
	if len(lines) > 60 {
		lines = lines[len(lines)-60:]
	}
	fmt.Fprintf(w, "the engine in %s wrote last:\n%s\n", e.Dir, strings.Join(lines, "\n"))
}

// leaks tells what is left in the engine: containers, volumes of the plugin, mounts, loop devices.
func (e *Engine) leaks() error {
	var left []error
	if r := e.Try("ps", "-a", "--format", "{{.Names}} {{.Status}}"); r.Code != 0 || r.Stdout != "" {
		left = append(left, fmt.Errorf("containers: %s%s", r.Stdout, r.Stderr))
	}
	if e.Plugin != nil {
		if r := e.Try("volume", "ls", "-q", "--filter", "driver="+e.Plugin.Name+":latest"); r.Code != 0 || r.Stdout != "" {
			left = append(left, fmt.Errorf("volumes: %s%s", strings.ReplaceAll(r.Stdout, "\n", " "), r.Stderr))
		}
		// A volume is detached some seconds after its last use.
		err := poll(15*time.Second, func() error { return errors.Join(e.volumeMounts(), loopsOf(e, e.simulated())) })
		left = append(left, err)
	}
	return errors.Join(left...)
}

// volumeMounts tells of volumes that are mounted in the folder of a plugin, as dockerd sees them.
func (e *Engine) volumeMounts() error {
	r := e.script("pid", e.Dir)
	if err := r.Err(); err != nil {
		return err
	}
	ms, err := mountsBelow("/proc/"+r.Stdout+"/mountinfo", filepath.Join(e.Dir, "data", "plugins"))
	if err != nil {
		return err
	}
	var left []string
	for _, m := range ms {
		if strings.Contains(m.at, "/propagated-mount/") {
			left = append(left, m.source+" on "+m.at)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("mounts: %s", strings.Join(left, "; "))
	}
	return nil
}

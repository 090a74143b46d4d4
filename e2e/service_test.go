package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// service runs the binary as packaging/blockvol.service does, where the engine runs: no plugin packaging, the socket in the folder that
// dockerd looks in. stopService ends it.
func service(t *testing.T, e *Engine, settings ...string) *exec.Cmd {
	t.Helper()
	state := filepath.Join(e.Dir, "service")
	cmd := exec.Command(filepath.Join(repo, "scripts", "engine"), "enter", e.Dir, filepath.Join(buildDir, "blockvol"), "serve",
		"--socket", "/run/docker/plugins/blockvol.sock", "--state", state)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, settings...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.OpenFile(filepath.Join(e.Dir, "service.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, func() error {
		return e.Inside("test", "-S", "/run/docker/plugins/blockvol.sock").Err()
	})
	return cmd
}

// stopService ends the service as systemd does, and fails the test if that takes longer than the unit allows.
func stopService(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	// The command enters the engine's namespaces and waits there for its one child, the service.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(children)))
	if err := errors.Join(err, perr); err != nil {
		t.Error("cannot find the service:", err)
	} else if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	start := time.Now()
	guard := time.AfterFunc(30*time.Second, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer guard.Stop()
	err = cmd.Wait()
	if took := time.Since(start); took > 10*time.Second || err != nil {
		t.Errorf("the service ended %.1f s after SIGTERM: %v", took.Seconds(), err)
	}
}

func TestTheSameBinaryServesAsAServiceWithoutPluginPackaging(t *testing.T) {
	e := PrivateEngine(t)
	settings := []string{"BACKEND=sim", "CLUSTER=service", "LOG_LEVEL=debug", "DELETE_DELAY=0"}
	// Without the service dockerd takes 15 s to say that a volume of it cannot be removed, so this happens after the volume's own cleanup.
	var running *exec.Cmd
	t.Cleanup(func() {
		stopService(t, running)
		if b, err := os.ReadFile(filepath.Join(e.Dir, "service.log")); err == nil && t.Failed() {
			t.Logf("the service wrote:\n%s", b)
		}
	})
	running = service(t, e, settings...)
	v := e.NewVolume(t, "size=1GiB")
	if got := e.Inspect(t, v); got.Driver != "blockvol" {
		t.Errorf("the driver is called %q", got.Driver)
	}
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "while :; do echo line >>/data/file || exit 9; sleep 0.1; done")
	source := e.Docker(t, "exec", c, "sh", "-c", "grep ' /data ' /proc/mounts")
	if !strings.Contains(source, " ext4 rw") || !strings.Contains(source, "/dev/nvme") {
		t.Errorf("the container's volume is %s", source)
	}

	stopService(t, running)
	running = service(t, e, settings...)
	if got := e.Docker(t, "inspect", "-f", "{{.State.Status}}", c); got != "running" {
		t.Errorf("after a restart of the service the container is %s", got)
	}
	lines := func() (n int) {
		fmt.Sscan(e.Docker(t, "exec", c, "wc", "-l", "/data/file"), &n)
		return n
	}
	before := lines()
	Eventually(t, 5*time.Second, func() error {
		if now := lines(); now <= before {
			return fmt.Errorf("the container wrote %d lines, and %d some time later", before, now)
		}
		return nil
	})
	e.Docker(t, "rm", "-f", c)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "head -n 1 /data/file"); got != "line" {
		t.Errorf("the next container reads %q", got)
	}
	e.Docker(t, "volume", "rm", v)
	Eventually(t, 15*time.Second, func() error { return loopsOf(e, e.simulated()) })
}

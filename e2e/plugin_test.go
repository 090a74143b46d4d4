package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Plugin is a managed plugin that an engine has.
type Plugin struct {
	Name string
	ID   string
	e    *Engine
	sim  *Sim // nil: the one inside the plugin
}

// Install makes the plugin from build/plugin with its settings, enables it, and makes it the one that the engine's tests use.
func (e *Engine) Install(t testing.TB, name string, settings ...string) *Plugin {
	t.Helper()
	p, err := e.install(name, settings...)
	if err != nil {
		t.Fatal(err)
	}
	e.Plugin = p
	return p
}

func (e *Engine) install(name string, settings ...string) (*Plugin, error) {
	return e.installFrom(filepath.Join(buildDir, "plugin"), name, settings...)
}

func (e *Engine) installFrom(dir, name string, settings ...string) (*Plugin, error) {
	env := append(e.env(), "BUILD="+buildDir, "PLUGIN_DIR="+dir)
	// Most tests look at what a removal leaves behind.
	args := append([]string{"create", name, "DELETE_DELAY=0"}, settings...)
	if err := command(2*time.Minute, env, "", filepath.Join(repo, "scripts", "plugin"), args...).Err(); err != nil {
		return nil, err
	}
	return e.adopt(name)
}

// adopt finds a plugin that the engine has.
func (e *Engine) adopt(name string) (*Plugin, error) {
	r := e.Try("plugin", "inspect", "-f", "{{.Id}}", name)
	return &Plugin{Name: name, ID: r.Stdout, e: e}, r.Err()
}

// StateDir is the plugin's /data, as the host sees it. What is mounted in it is seen by Inside only.
func (p *Plugin) StateDir() string {
	return filepath.Join(p.e.Dir, "data", "plugins", p.ID, "propagated-mount")
}

// pids are the plugin's processes: it and the tools that it runs.
func (p *Plugin) pids() (pids []int) {
	procs, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		panic(err)
	}
	for _, f := range procs {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), p.ID) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// PID is the process ID of `blockvol serve` in the plugin: the one process of its own cgroup whose program is /blockvol.
func (p *Plugin) PID() (int, error) {
	for _, pid := range p.pids() {
		if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.HasPrefix(string(cmd), "/blockvol\x00") {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("the plugin %s has no process", p.Name)
}

// Kill ends the plugin by SIGKILL and waits until dockerd has started it again.
func (p *Plugin) Kill(t testing.TB) {
	t.Helper()
	old, err := p.PID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, func() error {
		pid, err := p.PID()
		if err == nil && pid == old {
			err = fmt.Errorf("the killed process %d is still there", old)
		}
		return err
	})
}

// Restart disables the plugin by force, applies settings, and enables it again.
func (p *Plugin) Restart(t testing.TB, settings ...string) {
	t.Helper()
	p.e.Docker(t, "plugin", "disable", "-f", p.Name)
	if len(settings) > 0 {
		p.e.Docker(t, append([]string{"plugin", "set", p.Name}, settings...)...)
	}
	p.e.Docker(t, "plugin", "enable", p.Name)
}

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/faultpoint"
	"github.com/sirupsen/logrus"
)

// processEnv has the plan of a plugin that this binary shall be, instead of a test: only a process of its own can be killed as a
// real one is, with all that the kernel then closes.
const processEnv = "BLOCKVOL_TEST_PROCESS"

func TestMain(m *testing.M) {
	if disk.Guard(os.Args) {
		return
	}
	if text := os.Getenv(processEnv); text != "" {
		if err := bePlugin(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func bePlugin(text string) error {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	log := logrus.New() // to standard error
	log.SetLevel(logrus.DebugLevel)
	points := &faultpoint.Points{Dir: p.State}
	manager, err := p.manager(log, func(c *Config) { c.Step = func(s Step, tool int) { points.Reach(s.String(), tool) } })
	if err != nil {
		return err
	}
	l, err := Listen(p.Socket)
	if err != nil {
		return err
	}
	manager.Start(context.Background())
	return (&Server{Manager: manager, Log: log}).Serve(l)
}

// process is a plugin in a process of its own.
type process struct {
	r     *rig
	cmd   *exec.Cmd
	ended chan struct{}
}

// startProcess starts a plugin in a process of its own; requests go to it until the next start.
func (r *rig) startProcess() *process {
	r.t.Helper()
	if err := os.MkdirAll(r.state, 0o755); err != nil {
		r.t.Fatal(err)
	}
	p := r.plan()
	p.Socket = filepath.Join(r.t.TempDir(), "p.sock")
	text, err := json.Marshal(p)
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = testWriter{r.t}, testWriter{r.t}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	x := &process{r: r, cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(x.ended) }()
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); <-x.ended })
	r.socket = p.Socket
	r.eventually("the plugin's process serves", func() bool {
		c, err := net.Dial("unix", p.Socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return x
}

// dieAt makes the process die when it reaches the step.
func (x *process) dieAt(s Step) {
	x.r.t.Helper()
	if err := os.WriteFile(filepath.Join(x.r.state, faultpoint.File), []byte(s.String()), 0o644); err != nil {
		x.r.t.Fatal(err)
	}
}

// died waits until the process has died of the step.
func (x *process) died(s Step) {
	x.r.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(30 * time.Second):
		x.r.t.Fatalf("the step %s was never reached", s)
	}
	if ws, ok := x.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		x.r.t.Fatalf("the process ended with %s, not at %s", x.cmd.ProcessState, s)
	}
	if _, err := os.Stat(filepath.Join(x.r.state, faultpoint.File)); !errors.Is(err, os.ErrNotExist) {
		x.r.t.Fatalf("the next process would die again: %v", err)
	}
}

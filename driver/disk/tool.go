package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// toolFD is how a tool reaches the device: through the file that was proven to be the device, so that no name can lead it astray.
const toolFD = "/proc/self/fd/3"

// tool is one run of a filesystem tool on a device. The arguments that are toolFD mean the device.
type tool struct {
	name string
	args []string
}

// toolResult is how a tool ended: its exit code, -1 if a signal ended it, and what it said.
type toolResult struct {
	code   int
	stdout string
	stderr string
	state  string // in words, e.g. "exit status 1"
}

// said is the tool's own text, in one line.
func (r toolResult) said() string {
	text := strings.TrimSpace(strings.TrimSpace(r.stderr) + "\n" + strings.TrimSpace(r.stdout))
	if text == "" {
		return r.state + " without a word"
	}
	lines := strings.FieldsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' })
	return strings.Join(lines, "; ")
}

// killGrace is how long a killed tool is waited for. One that is in the kernel's hands (state D) dies only when the device answers.
const killGrace = 2 * time.Second

// run runs a tool on an open device. The error is about running it; how the tool judged is in the result. When ctx ends its whole
// process group is killed; a tool that cannot be killed is left to the kernel and told with ErrStuck.
func (h *Host) run(ctx context.Context, dev *os.File, t tool) (toolResult, error) {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return toolResult{}, fmt.Errorf("%w: %s is not on the PATH (%s): install e2fsprogs, xfsprogs and util-linux", ErrTool, t.name, os.Getenv("PATH"))
	}
	var out, errs bounds
	cmd := exec.Command(path, t.args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.ExtraFiles = []*os.File{dev}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = killGrace // for children of the tool that keep its output open
	if err := ctx.Err(); err != nil {
		return toolResult{}, fmt.Errorf("%s: %w", t.name, context.Cause(ctx))
	}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// The death signal is sent when the starting thread ends, so this thread must live as long as the tool.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		if h.Tool != nil {
			h.Tool(t.name, cmd.Process.Pid)
		}
		started <- nil
		ended <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		return toolResult{}, fmt.Errorf("start %s: %w", t.name, err)
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		// The group's number is the tool's and stays taken until Wait has returned, which it has not.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		grace := time.NewTimer(killGrace)
		defer grace.Stop()
		select {
		case <-ended:
			return toolResult{}, fmt.Errorf("%s was stopped: %w; it had said: %s", t.name, context.Cause(ctx), toolText(dev, &out, &errs))
		case <-grace.C:
			return toolResult{}, fmt.Errorf("%s (process %d): %w: it was killed but is held by the device, and ends when that answers: %w",
				t.name, cmd.Process.Pid, ErrStuck, context.Cause(ctx))
		}
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return toolResult{}, fmt.Errorf("run %s: %w", t.name, err)
	}
	return toolResult{
		code:   cmd.ProcessState.ExitCode(),
		stdout: naming(dev, out.String()),
		stderr: naming(dev, errs.String()),
		state:  cmd.ProcessState.String(),
	}, nil
}

func toolText(dev *os.File, out, errs *bounds) string {
	return toolResult{stdout: naming(dev, out.String()), stderr: naming(dev, errs.String()), state: "nothing, it ended"}.said()
}

// naming puts the device's path where a tool named the file that it was given.
func naming(dev *os.File, text string) string {
	return strings.ReplaceAll(text, toolFD, dev.Name())
}

// bounds keeps the beginning and the end of what is written to it.
type bounds struct {
	mu         sync.Mutex
	head, tail []byte
	cut        bool
}

const boundsHalf = 4 << 10

// Write never fails: a tool must not die of what it says.
func (b *bounds) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	if room := boundsHalf - len(b.head); room > 0 {
		k := min(room, len(p))
		b.head = append(b.head, p[:k]...)
		p = p[k:]
	}
	b.tail = append(b.tail, p...)
	if over := len(b.tail) - boundsHalf; over > 0 {
		b.tail = bytes.Clone(b.tail[over:])
		b.cut = true
	}
	return n, nil
}

func (b *bounds) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		return string(b.head) + "\n[...]\n" + string(b.tail)
	}
	return string(b.head) + string(b.tail)
}

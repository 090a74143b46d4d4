package disk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freezerEnv has what this binary shall freeze, instead of testing: a process of its own can be killed.
const freezerEnv = "BLOCKVOL_TEST_FREEZE"

type freezer struct {
	Dev, Sys string
	Device   Device
	Target   string
}

func TestMain(m *testing.M) {
	if Guard(os.Args) {
		return
	}
	if text := os.Getenv(freezerEnv); text != "" {
		var f freezer
		err := json.Unmarshal([]byte(text), &f)
		if err == nil {
			_, err = (&Host{Dev: f.Dev, Sys: f.Sys}).Freeze(context.Background(), f.Device, f.Target, time.Hour)
		}
		fmt.Println(err)
		select {}
	}
	os.Exit(m.Run())
}

// mountedOn is a mounted filesystem on a device. At the end it waits for guards, which have it open for a moment after they have thawed it.
func (m *machine) mountedOn(fstype string) (Device, string) {
	m.t.Helper()
	d, _ := m.formatted(fstype)
	target := m.target()
	must(m.t, m.Mount(soon(m.t), d, target, fstype, nil))
	m.t.Cleanup(func() {
		for end := time.Now().Add(2 * time.Minute); errors.Is(m.Unmount(target), ErrInUse) && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
	})
	return d, target
}

// isFrozen asks the kernel, which refuses to freeze what is frozen.
func isFrozen(t *testing.T, target string) bool {
	t.Helper()
	dir, err := os.Open(target)
	must(t, err)
	defer dir.Close()
	err = unix.IoctlSetInt(int(dir.Fd()), fifreeze, 0)
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	must(t, err)
	must(t, unix.IoctlSetInt(int(dir.Fd()), fithaw, 0))
	return false
}

// thawed waits until a filesystem is not frozen.
func thawed(t *testing.T, target string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); isFrozen(t, target); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still frozen")
		}
	}
}

func TestAFrozenFilesystemIsWrittenToWhenItThawsAndNotBefore(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			m := newMachine(t)
			d, target := m.mountedOn(fstype)
			must(t, os.WriteFile(filepath.Join(target, "before"), []byte("42"), 0o600))
			f, err := m.Freeze(soon(t), d, target, time.Hour)
			must(t, err)
			wrote := make(chan error, 1)
			go func() { wrote <- os.WriteFile(filepath.Join(target, "after"), []byte("too"), 0o600) }()
			if !isFrozen(t, target) {
				t.Error("it is not frozen")
			}
			select {
			case err := <-wrote:
				t.Errorf("somebody wrote to it: %v", err)
			case <-time.After(200 * time.Millisecond):
			}
			if held, err := f.Thaw(); !held || err != nil {
				t.Errorf("thawing: %t, %v", held, err)
			}
			must(t, <-wrote)
			if held, err := f.Thaw(); !held || err != nil {
				t.Errorf("once more: %t, %v", held, err)
			}
			if isFrozen(t, target) {
				t.Error("it is still frozen")
			}
			must(t, m.Unmount(target)) // the guard has ended, and nobody has it open any more
		})
	}
}

// What a frozen device holds is complete without its journal: the same bytes, looked at elsewhere, need no recovery.
func TestWhatIsOnAFrozenDeviceNeedsNoRecovery(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("ext4")
	must(t, os.WriteFile(filepath.Join(target, "row"), []byte("42"), 0o600))
	state := func() string { return command(t, "dumpe2fs", "-h", d.Path) }
	if !strings.Contains(state(), "needs_recovery") {
		t.Error("a mounted filesystem looks as if nobody had it mounted")
	}
	f, err := m.Freeze(soon(t), d, target, time.Hour)
	must(t, err)
	if strings.Contains(state(), "needs_recovery") {
		t.Error("a frozen filesystem needs recovery")
	}
	_, err = f.Thaw()
	must(t, err)
}

func TestAFilesystemThawsByItselfWhenTheTimeIsOver(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("ext4")
	f, err := m.Freeze(soon(t), d, target, 300*time.Millisecond)
	must(t, err)
	thawed(t, target)
	if held, err := f.Thaw(); held || err != nil {
		t.Errorf("it is said to have been frozen until now: %t, %v", held, err)
	}
}

func TestAFilesystemThatSomebodyElseThawedIsNotSaidToHaveBeenFrozen(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("xfs")
	f, err := m.Freeze(soon(t), d, target, time.Hour)
	must(t, err)
	command(t, "fsfreeze", "--unfreeze", target)
	if held, err := f.Thaw(); held || err != nil {
		t.Errorf("thawing: %t, %v", held, err)
	}
}

// freezeApart freezes in a process of its own and returns it.
func (m *machine) freezeApart(d Device, target string) *exec.Cmd {
	m.t.Helper()
	text, err := json.Marshal(freezer{m.Dev, m.Sys, d, target})
	must(m.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), freezerEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	must(m.t, err)
	must(m.t, cmd.Start())
	m.t.Cleanup(func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "<nil>" {
		m.t.Fatalf("freezing in another process: %q %v", line, err)
	}
	return cmd
}

func TestAFilesystemThawsWhenTheProcessThatFrozeItIsKilled(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		m := newMachine(t)
		d, target := m.mountedOn(fstype)
		cmd := m.freezeApart(d, target)
		if !isFrozen(t, target) {
			t.Error("it is not frozen")
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		thawed(t, target)
		must(t, os.WriteFile(filepath.Join(target, "row"), []byte("42"), 0o600))
	}
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) (pids []string) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	for _, list := range lists {
		text, err := os.ReadFile(list)
		must(t, err)
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

// In a managed plugin the kernel kills all processes at once.
func TestAFilesystemThatNobodyIsLeftToThawIsFoundAndThawed(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("ext4")
	cmd := m.freezeApart(d, target)
	guards := children(t, cmd.Process.Pid)
	if len(guards) != 1 {
		t.Fatalf("children: %v", guards)
	}
	// Stopped, it does not see the guard's death.
	must(t, cmd.Process.Signal(unix.SIGSTOP))
	command(t, "kill", "-KILL", guards[0])
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if !isFrozen(t, target) {
		t.Fatal("somebody has thawed it")
	}
	points, err := m.MountsUnder(target)
	must(t, err)
	for _, want := range []bool{true, false} {
		if was, err := m.Thaw(points[0]); was != want || err != nil {
			t.Errorf("thawing: %t, %v", was, err)
		}
	}
	if isFrozen(t, target) {
		t.Error("it is still frozen")
	}
}

func TestAFilesystemWhoseGuardWasKilledIsThawedWithoutIt(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("ext4")
	f, err := m.Freeze(soon(t), d, target, time.Hour)
	must(t, err)
	must(t, f.guard.Process.Kill())
	if held, err := f.Thaw(); !held || err != nil {
		t.Errorf("thawing: %t, %v", held, err)
	}
	if isFrozen(t, target) {
		t.Error("it is still frozen")
	}
}

func TestWhatCannotBeFrozenIsRefusedAndNothingElseIsFrozen(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("ext4")
	other, _ := m.mountedOn("ext4")
	command(t, "fsfreeze", "--freeze", target)
	_, err := m.Freeze(soon(t), d, target, time.Hour)
	if !errors.Is(err, ErrFrozen) || !strings.Contains(err.Error(), "fsfreeze --unfreeze "+target) {
		t.Errorf("frozen by another program: %v", err)
	}
	if !isFrozen(t, target) {
		t.Error("what another program froze was thawed")
	}
	command(t, "fsfreeze", "--unfreeze", target)
	if _, err := m.Freeze(soon(t), other, target, time.Hour); !errors.Is(err, ErrNoDevice) {
		t.Errorf("another device is mounted there: %v", err)
	}
	must(t, m.Unmount(target))
	// Without the mount it is a folder of the filesystem that the tests run on.
	if _, err := m.Freeze(soon(t), d, target, time.Hour); !errors.Is(err, ErrNoDevice) {
		t.Errorf("nothing is mounted there: %v", err)
	}
	if _, err := m.Freeze(soon(t), d, target+"/none", time.Hour); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such folder: %v", err)
	}
}

func TestAFreezeThatNobodyWaitsForIsUndone(t *testing.T) {
	m := newMachine(t)
	d, target := m.mountedOn("ext4")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if f, err := m.Freeze(ctx, d, target, time.Hour); err == nil { // it was frozen before anybody looked at the context
		_, err := f.Thaw()
		must(t, err)
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("freezing: %v", err)
	}
	thawed(t, target)
}

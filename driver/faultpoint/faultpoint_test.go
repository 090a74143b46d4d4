package faultpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dirEnv makes this binary a process that reaches points, instead of a test.
const dirEnv = "BLOCKVOL_TEST_FAULTPOINT"

func TestMain(m *testing.M) {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	p := &Points{Dir: dir}
	for i := range 3 {
		for _, point := range []string{"first", "second"} {
			p.Reach(point, 0)
			fmt.Printf("%s %d,", point, i+1)
		}
	}
}

// A process dies at the point that the file names, of SIGKILL, and the next one lives.
func TestAProcessDiesOnceAndWhereItIsTold(t *testing.T) {
	for content, want := range map[string]string{
		"first":      "",
		"second\n":   "first 1,",
		"second:1":   "first 1,",
		"second:3":   "first 1,second 1,first 2,second 2,first 3,",
		"second:4":   "alive",
		"third":      "alive",
		"":           "alive",
		"second:x":   "alive",
		"not a step": "alive",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, File)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		for life := 1; life <= 2; life++ {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), dirEnv+"="+dir)
			out, err := cmd.Output()
			if want == "alive" || life == 2 {
				if err != nil || strings.Count(string(out), ",") != 6 {
					t.Errorf("%q, life %d: %v after %q", content, life, err, out)
				}
				continue
			}
			ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || ws.Signal() != syscall.SIGKILL || string(out) != want {
				t.Errorf("%q: ended with %v after %q, want SIGKILL after %q", content, err, out, want)
			}
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%q: the file is still there: %v", content, err)
			}
		}
	}
}

// A tool is killed in the middle of its work, not before it has begun.
func TestTheEndComesWhenTheToolHasBegunToWrite(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 0.1; echo begun >&3; exec sleep 60")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	untilItWrites(cmd.Process.Pid)
	if err := syscall.SetNonblock(int(r.Fd()), true); err != nil {
		t.Fatal(err)
	}
	if n, err := syscall.Read(int(r.Fd()), make([]byte, 16)); n <= 0 {
		t.Errorf("the tool had written nothing: %v", err)
	}
}

package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// killed is what happens when the plugin dies in the middle of requests, and comes back. One death serves for all of it.
func (w *wire) killed(t *testing.T) {
	e := w.e
	volume := func() string { return e.NewVolume(t, "size=1GiB") }
	on := func(v string) []string { return []string{"--mount", e.on(v, "/data")} }

	// A container that is gone, and whose Unmount never came.
	gone := volume()
	c := e.RunDetached(t, on(gone), "echo kept >/data/file; sync; exec sleep 1000")
	w.tap.NextTimes(-1, "Unmount", gone, lost)
	e.Docker(t, "rm", "-f", c)
	w.told(t, gone, "Create, Mount 1, Unmount 1")
	w.tap.End(t)

	// One that writes on, one that is stopped while the plugin cannot hear it, and one that is asked for when the plugin dies.
	living, stopped, asked := volume(), volume(), volume()
	writer := e.RunDetached(t, on(living), startAndCount)
	starts(t, e, writer, 1)
	unheard := e.RunDetached(t, on(stopped), startAndCount)
	starts(t, e, unheard, 1)
	idle := volume()
	ended := e.RunDetached(t, on(idle), "echo kept >/data/file")
	e.Docker(t, "wait", ended)
	e.letGo(t, idle)

	// docker cp into a running container, and into one that is stopped: in the middle of the file.
	copies := []*copying{e.copyInto(t, writer), e.copyInto(t, ended)}
	Eventually(t, patience, func() error { return e.isAttached(t, idle) })
	answer := w.s.InjectFor(t, Fault{Kind: "hang", Action: "AttachVolume", Volume: e.cloudVolume(t, asked).ID, Times: -1})
	old, err := e.Plugin.PID()
	if err != nil {
		t.Fatal(err)
	}
	pid := e.Docker(t, "inspect", "-f", "{{.State.Pid}}", unheard)
	running := make(chan Result, 1)
	answered := make(chan Result, 1)
	late := e.Container(t)
	e.Docker(t, "create", "--name", late, "--stop-timeout", "1", "--mount", e.on(asked, "/data"), busybox, "sh", "-c", startAndCount)
	go func() { running <- e.Try("start", late) }()
	Eventually(t, patience, func() error {
		if got := fmt.Sprint(e.Inspect(t, asked).Status["doing"]); !strings.Contains(got, "attaching") {
			return fmt.Errorf("the plugin is %s", got)
		}
		return nil
	})
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(old, syscall.SIGCONT) })
	go func() { answered <- e.Try("stop", unheard) }()
	Eventually(t, patience, func() error {
		if _, err := os.Stat("/proc/" + pid); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the container that is stopped still runs: %v", err)
		}
		return nil
	})
	answer()
	e.Plugin.forgetUsers(t, living)
	e.Plugin.Kill(t)

	said := <-running
	if said.Code == 0 {
		t.Error("a container was started whose Mount was cut")
	}
	readable(t, said.Stderr, "connection to blockvol broke", "try again")
	if err := (<-answered).Err(); err != nil {
		t.Error(err)
	}
	for _, c := range copies {
		if err := c.finish(); err != nil {
			t.Error(err)
		}
	}
	e.grows(t, writer, "/data/lines")
	w.held(t, living)
	if got := e.Docker(t, "exec", writer, "cat", "/data/copied"); got != copiedText {
		t.Errorf("the file that was copied while the plugin died holds %q", got)
	}
	// What nobody uses is let go of; what was asked for can be asked for again.
	for _, v := range []string{gone, stopped, idle, asked} {
		e.letGo(t, v)
	}
	e.Docker(t, "start", late)
	starts(t, e, late, 1)
	e.Docker(t, "start", unheard)
	starts(t, e, unheard, 2)
	if got := e.Busybox(t, on(idle), "cat /data/file /data/copied"); got != "kept\n"+copiedText {
		t.Errorf("the volume of the stopped container holds %q", got)
	}
	e.Docker(t, "rm", "-f", late, unheard)

	// The plugin that was started has never heard of the ID that this container gives back.
	e.Docker(t, "stop", writer)
	for _, v := range []string{living, stopped, asked} {
		e.letGo(t, v)
	}
	for v, want := range map[string]string{living: "1", stopped: "2", asked: "1"} {
		if got := e.Busybox(t, on(v), wholeLines); got != want {
			t.Errorf("the volume holds after %s starts: %s", want, got)
		}
	}
	for _, v := range []string{gone, living, stopped, idle, asked} {
		e.letGo(t, v)
	}
}

// forgetUsers takes the mount IDs of a volume out of the ledger of a plugin that does not run.
func (p *Plugin) forgetUsers(t *testing.T, v string) {
	t.Helper()
	file := filepath.Join(p.StateDir(), "ledger.json")
	var ledger map[string]any
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &ledger)
	}
	if err != nil {
		t.Fatal(err)
	}
	entry := ledger["volumes"].(map[string]any)[v].(map[string]any)
	if entry["users"] == nil {
		t.Fatalf("the ledger knows no users of %s: %s", v, data)
	}
	delete(entry, "users")
	if data, err = json.Marshal(ledger); err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// copying is a docker cp that has begun and has not ended.
type copying struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	tar *tar.Writer
	out strings.Builder
}

const copiedText = "the whole of the file"

// copyInto begins to copy a file into a container's volume.
func (e *Engine) copyInto(t *testing.T, container string) *copying {
	t.Helper()
	c := &copying{cmd: exec.Command("docker", "cp", "-", container+":/data/")}
	c.cmd.Env = append(c.cmd.Environ(), e.env()...)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill() })
	c.tar = tar.NewWriter(c.in)
	if err := c.tar.WriteHeader(&tar.Header{Name: "copied", Mode: 0o644, Size: int64(len(copiedText))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.tar, copiedText[:9]); err != nil {
		t.Fatal(err)
	}
	return c
}

// finish copies the rest.
func (c *copying) finish() error {
	_, err := io.WriteString(c.tar, copiedText[9:])
	err = errors.Join(err, c.tar.Close(), c.in.Close())
	if werr := c.cmd.Wait(); werr != nil {
		err = errors.Join(err, fmt.Errorf("docker cp: %w: %s", werr, &c.out))
	}
	return err
}

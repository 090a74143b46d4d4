package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What the tests of dying and restarting engines share: a container that tells from outside what it has synced, and the simulator's books.

// letGo is how long a volume may take to be detached when the engine or the plugin has died meanwhile: a mount ID of an earlier process counts
// for 30 s.
const letGo = 2 * time.Minute

// writer is a container that appends numbered rows to a file of its volume. Each row is synced, and only then noted outside of the volume. A
// write that fails is noted too.
type writer struct {
	e         *Engine
	s         *AloneSim
	volume    string
	id        string // of the EBS volume
	container string
	notes     string // the folder of the notes, on the host
	began     string // when the container was started
}

const writing = "n=$(tail -n 1 /data/rows 2>/dev/null || echo 0); while n=$((n+1)); echo $n >>/data/rows && sync -d /data/rows; do echo $n >/notes/row; sleep 0.05; done; " +
	"echo row $n >>/notes/failed; exec sleep 1000"

// newWriter makes a volume with labels and options, and a container that writes to it.
func (e *Engine) newWriter(t *testing.T, s *AloneSim, flags ...string) *writer {
	t.Helper()
	w := e.newNoted(t, s)
	args := append([]string{"run", "-d", "--name", w.container, "--stop-timeout", "1", "--mount", e.on(w.volume, "/data"), "-v", w.notes + ":/notes"}, flags...)
	e.Docker(t, append(args, busybox, "sh", "-c", writing)...)
	w.began = w.state(t, "StartedAt")
	w.writes(t)
	return w
}

// newNoted makes the volume and the folder for notes.
func (e *Engine) newNoted(t *testing.T, s *AloneSim) *writer {
	t.Helper()
	v := e.VolumeName(t)
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", "-o", "mode=0750", "--label", "team=storage", v)
	w := &writer{e: e, s: s, volume: v, container: e.Container(t), notes: filepath.Join(e.Dir, "notes", v)}
	there := s.Volumes(t, v)
	if len(there) != 1 {
		t.Fatalf("the account has %+v", there)
	}
	w.id = there[0].ID
	if err := os.MkdirAll(w.notes, 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

// gone ends the container in order, and then the volume must be whole and free, and can be removed.
func (w *writer) gone(t *testing.T) {
	t.Helper()
	w.e.Docker(t, "stop", w.container)
	w.free(t)
	w.whole(t, w.e)
	w.once(t)
	w.removed(t)
}

func (w *writer) removed(t *testing.T) {
	t.Helper()
	w.e.DockerFails(t, []string{"in use"}, "volume", "rm", w.volume)
	w.e.Docker(t, "rm", w.container)
	if err := w.e.removeSoon(w.volume); err != nil {
		t.Error(err)
	}
}

func (w *writer) state(t *testing.T, field string) string {
	t.Helper()
	return w.e.Docker(t, "inspect", "-f", "{{.State."+field+"}}", w.container)
}

// noted is the last row that was synced.
func (w *writer) noted() int {
	b, err := os.ReadFile(filepath.Join(w.notes, "row"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0 // it is being written
	}
	return n
}

// failed tells of a write that failed.
func (w *writer) failed() error {
	b, err := os.ReadFile(filepath.Join(w.notes, "failed"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("the container on %s could not write: %s %v", w.volume, b, err)
}

// writes waits until the container has synced some more rows.
func (w *writer) writes(t *testing.T) {
	t.Helper()
	before := w.noted()
	Eventually(t, letGo, func() error {
		if now := w.noted(); now <= before+2 {
			return fmt.Errorf("the container on %s has synced %d rows, and %d now", w.volume, before, now)
		}
		return nil
	})
	if err := w.failed(); err != nil {
		t.Error(err)
	}
}

// livedOn fails the test unless the container is the same process as at the start and still writes.
func (w *writer) livedOn(t *testing.T) {
	t.Helper()
	w.writes(t)
	if began := w.state(t, "StartedAt"); began != w.began || w.state(t, "Status") != "running" {
		t.Errorf("the container on %s began at %s and now at %s, and is %s", w.volume, w.began, began, w.state(t, "Status"))
	}
}

// intact fails the test unless the volume is as it was made, and on this host once.
func (w *writer) intact(t *testing.T) {
	t.Helper()
	v := w.e.Inspect(t, w.volume)
	// A volume that the plugin has found in use, without having mounted it itself, is draining; who uses it is told as an error.
	if v.Labels["team"] != "storage" || v.Options["size"] != "1GiB" || v.Options["mode"] != "0750" || v.Status["error"] != nil && v.Status["state"] != "draining" {
		t.Errorf("docker volume inspect: %+v", v)
	}
	Eventually(t, letGo, func() error {
		if there, devices := w.s.Volumes(t, w.volume), deviceFiles(w.id); len(there) != 1 || len(there[0].Attachments) != 1 || len(devices) != 1 {
			return fmt.Errorf("the volume is not attached once: %+v, devices %v", there, devices)
		}
		return nil
	})
}

// free waits until nothing of the volume is on a host.
func (w *writer) free(t *testing.T) {
	t.Helper()
	Eventually(t, letGo, func() error {
		if there, devices := w.s.Volumes(t, w.volume), deviceFiles(w.id); len(there) != 1 || len(there[0].Attachments) != 0 || len(devices) != 0 {
			return fmt.Errorf("the volume is not let go: %+v, devices %v", there, devices)
		}
		if err := w.e.volumeMounts(); err != nil && strings.Contains(err.Error(), w.id) {
			return err
		}
		return nil
	})
}

// whole reads the volume on an engine: no row is missing, and none that was noted.
func (w *writer) whole(t *testing.T, e *Engine) {
	t.Helper()
	if err := w.failed(); err != nil {
		t.Error(err)
	}
	got := e.Busybox(t, []string{"--mount", e.on(w.volume, "/data")}, "awk '$1 != NR { print \"line \" NR \" is \" $1; exit } END { print NR }' /data/rows")
	if n, err := strconv.Atoi(got); err != nil || n < w.noted() || n == 0 {
		t.Errorf("the volume %s holds %q; the last row that was synced is %d", w.volume, got, w.noted())
	}
}

// once fails the test if the volume was ever attached while it was attached, and returns how often it was attached. A detach may be there twice:
// a plugin that dies while it waits for one asks for it again after its start.
func (w *writer) once(t *testing.T) (times int) {
	t.Helper()
	held := false
	for _, c := range w.s.Calls(t) {
		if c.Params["VolumeId"] != w.id || c.Code != "" {
			continue
		}
		switch c.Action {
		case "AttachVolume":
			if held {
				t.Errorf("the volume %s was attached while it was attached: %+v", w.volume, c)
			}
			held = true
			times++
		case "DetachVolume":
			held = false
		}
		if c.Params["Force"] == "true" {
			t.Errorf("by force: %+v", c)
		}
	}
	return times
}

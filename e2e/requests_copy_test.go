package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// copies are a file of the host, and a way to copy it into a container's volume, and back.
func (w *wire) copies(t *testing.T) (in func(c string) Result, out func(c string) Result) {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(from, []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in = func(c string) Result { return w.e.Try("cp", from, c+":/data/in") }
	out = func(c string) Result {
		os.Remove(to)
		r := w.e.Try("cp", c+":/data/in", to)
		if got, err := os.ReadFile(to); r.Code == 0 && (err != nil || string(got) != "from the host\n") {
			t.Errorf("docker cp out of the container gives %q %v", got, err)
		}
		return r
	}
	return in, out
}

// held fails the test unless the volume has its one device and its one attachment, mounted by the plugin or not.
func (w *wire) held(t *testing.T, v string) {
	t.Helper()
	vol := w.e.cloudVolume(t, v)
	if d := deviceFiles(vol.ID); len(d) != 1 || len(vol.Attachments) != 1 {
		t.Errorf("volume %s has the devices %v and the attachments %+v", v, d, vol.Attachments)
	}
}

// When the Mount of a docker cp fails, dockerd sends an Unmount for the running container's ID, and none when that container ends.
func (w *wire) copyRefused(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	_, out := w.copies(t)
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
	starts(t, e, c, 1)
	w.tap.Next("Mount", v, refused("no room on the mountain"))
	if r := out(c); r.Code == 0 || !strings.Contains(r.Stderr, "no room on the mountain") {
		t.Errorf("%s says, with status %d: %s", r.Command, r.Code, r.Stderr)
	}
	w.told(t, v, "Create, Mount 1, Mount 1, Unmount 1")
	for range 3 { // longer than the grace
		e.grows(t, c, "/data/lines")
		w.held(t, v)
	}
	e.Docker(t, "stop", c)
	w.told(t, v, "Create, Mount 1, Mount 1, Unmount 1")
	e.letGo(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, wholeLines); got != "1" {
		t.Errorf("the volume holds after one start: %s", got)
	}
	e.letGo(t, v)
}

// denied makes EC2 refuse some actions on a volume.
func (w *wire) denied(t *testing.T, v string, actions ...string) (end func()) {
	t.Helper()
	var ends []func()
	for _, a := range actions {
		ends = append(ends, w.s.InjectFor(t, Fault{Kind: "error", Action: a, Volume: w.e.cloudVolume(t, v).ID, Times: -1, Code: "UnauthorizedOperation", Status: 403,
			Message: "You are not authorized to perform this operation."}))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

func (w *wire) copyWithoutEC2(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	in, out := w.copies(t)
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
	starts(t, e, c, 1)
	permit := w.denied(t, v, "AttachVolume", "DetachVolume", "CreateTags", "DeleteVolume")
	for range 2 {
		for _, r := range []Result{in(c), out(c)} {
			if err := r.Err(); err != nil {
				t.Error(err)
			}
		}
	}
	e.grows(t, c, "/data/lines")
	w.held(t, v)
	permit()
	e.Docker(t, "stop", c)
	e.letGo(t, v)
	if got := e.callsFor(t, e.cloudVolume(t, v).ID); got != "AttachVolume 1, CreateTags 2, DetachVolume 1" {
		t.Errorf("a container with four copies took the calls %s", got)
	}
}

func (w *wire) copyOfStopped(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	in, out := w.copies(t)
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file")
	e.Docker(t, "wait", c)
	e.letGo(t, v)
	permit := w.denied(t, v, "AttachVolume")
	for _, r := range []Result{in(c), out(c)} {
		if r.Code == 0 || !strings.Contains(r.Stderr, v) || !strings.Contains(r.Stderr, "docs/iam-policy.json") {
			t.Errorf("%s says, with status %d: %s", r.Command, r.Code, r.Stderr)
		}
	}
	e.letGo(t, v)
	permit()
	for _, r := range []Result{in(c), out(c)} {
		if err := r.Err(); err != nil {
			t.Error(err)
		}
	}
	e.letGo(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/file /data/in"); got != "kept\nfrom the host" {
		t.Errorf("the volume holds %q", got)
	}
	e.letGo(t, v)
}

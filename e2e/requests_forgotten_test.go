package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// An error that a look-up is answered with makes dockerd forget who uses the volume, and so its next docker volume rm reaches the plugin. This
// plugin never answers so; here dockerd is told so in its name.
func (w *wire) usersForgotten(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
	starts(t, e, c, 1)
	forget := func() {
		t.Helper()
		w.tap.Next("Get", v, refused("RequestLimitExceeded: Request limit exceeded."))
		e.DockerFails(t, nil, "volume", "inspect", v)
	}
	removes := func() int { return strings.Count(w.tap.story(v), "Remove") }
	refuses := func(words ...string) {
		t.Helper()
		before := removes()
		for _, force := range []string{"--force=false", "--force=true"} {
			forget()
			readable(t, e.DockerFails(t, nil, "volume", "rm", force, v), append(words, v, "not removed", "docker ps")...)
		}
		if removes() != before+2 {
			t.Errorf("dockerd has not passed both requests on, but: %s", w.tap.story(v))
		}
		e.grows(t, c, "/data/lines")
		w.held(t, v)
	}
	refuses("may still be starting")
	// After 30 s and a docker cp, which ends the use for Docker, only the kernel knows that the container has it.
	in, _ := w.copies(t)
	if err := in(c).Err(); err != nil {
		t.Error(err)
	}
	Eventually(t, patience, func() error {
		forget()
		if r := e.Try("volume", "rm", v); r.Code == 0 || !strings.Contains(r.Stderr, "still in use on this host") {
			return fmt.Errorf("docker volume rm says, with status %d: %s", r.Code, r.Stderr)
		}
		time.Sleep(time.Second)
		return nil
	})
	refuses("still in use on this host")
	if got := e.callsFor(t, e.cloudVolume(t, v).ID); got != "AttachVolume 1, CreateTags 2" {
		t.Errorf("a container whose volume was to be removed took the calls %s", got)
	}
	e.Docker(t, "stop", c)
	e.letGo(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, wholeLines); got != "1" {
		t.Errorf("the volume holds after one start: %s", got)
	}
	e.letGo(t, v)
}

// The container's folder is a subdirectory of the filesystem: where the filesystem has gone there is no such folder, and the container does
// not start, instead of writing to the host's own disk.
func (w *wire) mountGone(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	id := e.cloudVolume(t, v).ID
	target := filepath.Join(e.Plugin.StateDir(), "mounts", id)
	plugin, err := e.Plugin.PID()
	if err != nil {
		t.Fatal(err)
	}
	engine := e.PID(t)
	mounted := func(pid int) (n int) {
		ms, err := mountsBelow(fmt.Sprintf("/proc/%d/mountinfo", pid), "/")
		if err != nil {
			t.Error(err)
		}
		for _, m := range ms {
			if filepath.Base(m.at) == id {
				n++
			}
		}
		return n
	}
	var before, after int
	w.tap.Next("Mount", v, func(x *exchange) {
		x.passThen(func() { // dockerd waits meanwhile, and not for ever
			before = mounted(plugin)
			for range mounted(engine) {
				command(patience, nil, "", "nsenter", "-t", strconv.Itoa(engine), "-m", "umount", target)
			}
			after = mounted(plugin) + mounted(engine)
		})
	})
	c := e.Container(t)
	e.Docker(t, "create", "--name", c, "--stop-timeout", "1", "--mount", e.on(v, "/data"), busybox, "sh", "-c", startAndCount)
	e.DockerFails(t, []string{"no such file or directory"}, "start", c)
	if before != 1 || after != 0 {
		t.Errorf("mounts before and after they were taken away: %d, %d; nothing was tried", before, after)
	}
	if left, err := filepath.Glob(target + "/*"); err != nil || len(left) > 0 {
		t.Errorf("on the host's own disk there is %v %v", left, err)
	}
	e.Docker(t, "start", c)
	starts(t, e, c, 1)
	if left, err := os.ReadDir(target); err == nil && len(left) > 0 {
		t.Errorf("the filesystem is seen outside the engine: %v", left)
	}
	e.Docker(t, "stop", c)
	e.letGo(t, v)
}

// --volume-driver is for -v. With --mount Docker ignores it without a word and makes a local volume, which the README warns of.
func (w *wire) mountWithoutDriver(t *testing.T) {
	e := w.e
	v := e.VolumeName(t)
	e.Docker(t, "run", "--rm", "--name", e.Container(t), "--volume-driver", e.driver(), "--mount", "type=volume,src="+v+",dst=/data", busybox, "true")
	if got := e.Inspect(t, v).Driver; got != "local" {
		t.Errorf("the volume's driver is %s: the README's first trap is none any more", got)
	}
	if vs := w.s.Volumes(t, v); len(vs) != 0 {
		t.Errorf("the account has %+v", vs)
	}
	readme, err := os.ReadFile(filepath.Join(repo, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "`--volume-driver blockvol --mount src=v,...` ignores the driver") {
		t.Error("the README does not warn of --volume-driver with --mount")
	}
}

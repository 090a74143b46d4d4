package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the tests of containers share: a volume as the cloud and as the host see it.

// settled is how long a volume may take to be detached after its last use: the grace, the detachment, and a slow machine.
const settled = 40 * time.Second

// SimVolume is a volume in the simulated account.
type SimVolume struct {
	ID          string            `json:"id"`
	State       string            `json:"state"`
	Size        int64             `json:"size"`
	Type        string            `json:"type"`
	Zone        string            `json:"zone"`
	IOPS        int64             `json:"iops"`
	Throughput  int64             `json:"throughput"`
	Tags        map[string]string `json:"tags"`
	Attachments []struct {
		Instance string `json:"instance"`
		State    string `json:"state"`
	} `json:"attachments"`
	File string `json:"file"`
}

// Volumes returns the account's volumes that have this name, and all of them for an empty one, whatever their state.
func (s *Sim) Volumes(t testing.TB, name string) (found []SimVolume) {
	t.Helper()
	var state struct{ Volumes []SimVolume }
	s.control(t, "GET", "state", nil, &state)
	for _, v := range state.Volumes {
		if name == "" || v.Tags["blockvol:name"] == name {
			found = append(found, v)
		}
	}
	return found
}

// cloudVolume returns the one volume of the account that has this name.
func (e *Engine) cloudVolume(t testing.TB, name string) SimVolume {
	t.Helper()
	vs := e.Plugin.Sim().Volumes(t, name)
	if len(vs) != 1 {
		t.Fatalf("the account has %d volumes named %s: %+v", len(vs), name, vs)
	}
	return vs[0]
}

// callsFor counts the calls that name a volume, as "AttachVolume 1, DetachVolume 1". Describe calls are left out: volumes share them.
func (e *Engine) callsFor(t testing.TB, id string) string {
	t.Helper()
	var own []Call
	for _, c := range e.Plugin.Sim().Calls(t) {
		if strings.HasPrefix(c.Action, "Describe") {
			continue
		}
		for _, p := range c.Params {
			if p == id {
				own = append(own, c)
				break
			}
		}
	}
	return counted(own)
}

// deviceFiles returns the loop devices that the kernel has over the data of a simulated volume. There is one for each attachment.
func deviceFiles(id string) (devices []string) {
	for dev, file := range loops() {
		if base, _, _ := strings.Cut(filepath.Base(file), " "); base == id {
			devices = append(devices, dev)
		}
	}
	return devices
}

// mountsOf returns where a volume is mounted by the plugin: as the plugin sees it, and as dockerd does. (dockerd sees each mount twice: it
// has bound the plugin's folder to itself, and mounts reach both.)
func (e *Engine) mountsOf(t testing.TB, id string) (plugin, dockerd []string) {
	t.Helper()
	pid, err := e.Plugin.PID()
	if err != nil {
		t.Fatal(err)
	}
	in := func(pid int, dir string) (at []string) {
		ms, err := mountsBelow(fmt.Sprintf("/proc/%d/mountinfo", pid), dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			if filepath.Base(m.at) == id {
				at = append(at, m.at)
			}
		}
		return at
	}
	return in(pid, "/data"), in(e.PID(t), e.Plugin.StateDir())
}

// isAttached is an error unless the volume has exactly one attachment, one device and one mount.
func (e *Engine) isAttached(t testing.TB, name string) error {
	t.Helper()
	v := e.cloudVolume(t, name)
	devices := deviceFiles(v.ID)
	inside, outside := e.mountsOf(t, v.ID)
	if len(v.Attachments) != 1 || len(devices) != 1 || len(inside) != 1 || len(outside) == 0 {
		return fmt.Errorf("volume %s is not attached and mounted once: attachments %+v, devices %v, mounts in the plugin %v, for dockerd %v",
			name, v.Attachments, devices, inside, outside)
	}
	return nil
}

// isDetached is an error as long as anything of the volume is on the host.
func (e *Engine) isDetached(t testing.TB, name string) error {
	t.Helper()
	v := e.cloudVolume(t, name)
	devices := deviceFiles(v.ID)
	inside, outside := e.mountsOf(t, v.ID)
	_, err := os.Stat(filepath.Join(e.Plugin.StateDir(), "mounts", v.ID))
	if len(v.Attachments) != 0 || len(devices) != 0 || len(inside) != 0 || len(outside) != 0 || !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("volume %s is not let go: attachments %+v, devices %v, mounts in the plugin %v, for dockerd %v, mountpoint %v",
			name, v.Attachments, devices, inside, outside, err)
	}
	return nil
}

// staysAttached waits longer than the grace and fails the test if the volume is let go meanwhile.
func (e *Engine) staysAttached(t testing.TB, name string) {
	t.Helper()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		if err := e.isAttached(t, name); err != nil {
			t.Fatal(err)
		}
	}
}

// Detached waits until the volume is let go.
func (e *Engine) Detached(t testing.TB, name string) {
	t.Helper()
	Eventually(t, settled, func() error { return e.isDetached(t, name) })
}

// counter is a script that appends a line to a file ten times a second, synced, and ends with the first write that fails.
func counter(file string) string {
	return fmt.Sprintf("trap 'exit 0' TERM; n=0; while n=$((n+1)); echo $n >>%s && sync -d %[1]s; do sleep 0.1; done; exit 1", file)
}

// grows fails the test unless the file in a running container gets longer.
func (e *Engine) grows(t testing.TB, container, file string) {
	t.Helper()
	lines := func() string { return e.Docker(t, "exec", container, "sh", "-c", "cat "+file+" 2>/dev/null | wc -l") }
	before := lines()
	Eventually(t, 20*time.Second, func() error {
		if now := lines(); now == before {
			return fmt.Errorf("%s in %s still has %s lines", file, container, now)
		}
		return nil
	})
}

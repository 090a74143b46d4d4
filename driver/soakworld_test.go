package driver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/moby/sys/mountinfo"
)

// world watches what a simulated cloud and this kernel do, apart from the plugins under test, and tells what must never happen.
type world struct {
	t       *testing.T
	sim     *ec2sim.Sim
	url     string
	dir     string // of the simulator
	cluster string

	mu        sync.Mutex
	foreign   map[string]string // volumes that are not ours to change, with their content's checksum
	taken     string            // one of them, for which a device with a wrong serial may be taken: what is not attached may be asked to be detached
	mounts    map[string]string // folders in which plugins mount, with the instance
	holds     map[string][]*held
	removable map[string]bool // volume IDs whose removal was asked for
	made      map[string]bool // volume IDs whose filesystem is complete
	calls     int
	faulted   int
	log       *bufio.Reader
	partial   string
	broken    map[string]bool
}

// held is the time during which a container has a volume on a host.
type held struct {
	host       string
	begin, end time.Time // end is zero while it lasts
}

// truth is what the simulator knows, without lag.
type truth struct {
	Volumes []struct {
		ID, State   string
		Tags        map[string]string
		Attachments []struct{ Instance, State string }
	}
}

// newWorld begins to watch. image is what foreign volumes hold.
func newWorld(t *testing.T, r *rig, image string) *world {
	t.Helper()
	w := &world{t: t, sim: r.sim, url: r.api.URL, dir: filepath.Dir(filepath.Dir(r.sim.BackingFile("x"))), cluster: r.settings.Cluster,
		foreign: map[string]string{}, mounts: map[string]string{}, holds: map[string][]*held{}, removable: map[string]bool{}, made: map[string]bool{}, broken: map[string]bool{}}
	f, err := os.Open(filepath.Join(w.dir, "calls.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w.log = bufio.NewReader(f)
	others := r.ours("v1", "ext4")
	others["blockvol:cluster"] = "another"
	for _, tags := range []map[string]string{others, {"Name": "v2", "blockvol:name": "v2"}, nil} {
		id, err := r.sim.Import(ec2sim.ImportSpec{Image: image, SizeGiB: 1, Zone: r.host.Zone, Tags: tags})
		if err != nil {
			t.Fatal(err)
		}
		w.foreign[id] = digest(t, r.sim.BackingFile(id))
	}
	w.hosts(r)
	return w
}

// hosts makes the mounts of these hosts watched.
func (w *world) hosts(rigs ...*rig) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range rigs {
		w.mounts[r.manager.mounts] = r.host.ID
	}
}

// failed returns the ID of the volume of that name which EC2 could not make, or "".
func (w *world) failed(name string) string {
	for _, v := range w.truth().Volumes {
		if v.Tags["blockvol:name"] == name && v.State == "error" {
			return v.ID
		}
	}
	return ""
}

// state returns the states of a volume's attachments.
func (w *world) state(id string) (states []string) {
	for _, v := range w.truth().Volumes {
		for _, a := range v.Attachments {
			if v.ID == id {
				states = append(states, a.State)
			}
		}
	}
	return states
}

// wrong reports a broken promise, once.
func (w *world) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !w.broken[text] {
		w.broken[text] = true
		w.t.Errorf("BROKEN: %s", text)
	}
}

func (w *world) truth() truth {
	var now truth
	res, err := http.Get(w.url + "/_sim/state")
	if err == nil {
		err = json.NewDecoder(res.Body).Decode(&now)
		res.Body.Close()
	}
	if err != nil {
		w.t.Errorf("asking the simulator: %v", err)
	}
	return now
}

// id returns the ID of the volume of that name, or "" when there is none that can be used.
func (w *world) id(name string) string {
	for _, v := range w.truth().Volumes {
		if v.Tags["blockvol:name"] == name && v.Tags["blockvol:cluster"] == w.cluster && v.State != "deleting" && v.State != "error" {
			return v.ID
		}
	}
	return ""
}

// hold notes that a container has a volume from now on, until the returned function is called.
func (w *world) hold(id, host string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &held{host: host, begin: time.Now()}
	w.holds[id] = append(w.holds[id], h)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		h.end = time.Now()
	}
}

// mayRemove notes that the removal of a volume was asked for.
func (w *world) mayRemove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removable[id] = true
}

// watch looks at everything again and again until done is closed.
func (w *world) watch(done <-chan struct{}) {
	for {
		w.look()
		select {
		case <-done:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// look checks all invariants as of now, and the calls since the last look.
func (w *world) look() {
	now := w.truth()
	points, err := mountinfo.GetMounts(nil)
	if err != nil {
		w.t.Errorf("reading mountinfo: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	byName := map[string]string{}
	for _, v := range now.Volumes {
		if len(v.Attachments) > 1 {
			w.wrong("volume %s is attached twice: %v", v.ID, v.Attachments)
		}
		if _, theirs := w.foreign[v.ID]; theirs {
			if len(v.Attachments) > 0 {
				w.wrong("the foreign volume %s was attached", v.ID)
			}
			continue
		}
		if name := v.Tags["blockvol:name"]; v.State != "deleting" && v.State != "error" {
			if other := byName[name]; other != "" {
				w.wrong("%s and %s are both volume %q", v.ID, other, name)
			}
			byName[name] = v.ID
		}
	}
	mounted := map[string]string{}
	for _, p := range points {
		host, ours := w.mounts[filepath.Dir(p.Mountpoint)]
		if !ours {
			continue
		}
		id := filepath.Base(p.Mountpoint)
		if other := mounted[id]; other != "" {
			w.wrong("volume %s is mounted on %s and on %s", id, host, other)
		}
		mounted[id] = host
	}
	w.readCalls()
}

// readCalls judges the calls that EC2 got. The caller holds mu.
func (w *world) readCalls() {
	for {
		line, err := w.log.ReadString('\n')
		if err != nil {
			if err != io.EOF {
				w.wrong("reading the calls: %v", err)
			}
			w.partial += line // the rest comes later
			return
		}
		line, w.partial = w.partial+line, ""
		var c ec2sim.Call
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			w.wrong("a line of the calls cannot be read: %v", err)
			continue
		}
		w.calls++
		if c.Fault != "" {
			w.faulted++
		}
		w.judge(c)
	}
}

func (w *world) judge(c ec2sim.Call) {
	id := c.Params["VolumeId"] + c.Params["ResourceId.1"]
	if _, theirs := w.foreign[id]; theirs && (id != w.taken || c.Action != "DetachVolume") {
		w.wrong("%s was called for the foreign volume %s", c.Action, id)
	}
	switch c.Action {
	case "DetachVolume", "DeleteVolume":
		if c.AccessKey == "AKIAPERSON" {
			return // by a person
		}
		for _, h := range w.holds[id] {
			if c.Time.After(h.begin) && (h.end.IsZero() || c.Time.Before(h.end)) && (c.Action == "DeleteVolume" || h.host == c.Params["InstanceId"]) {
				w.wrong("%s of %s at %s, which a container on %s has since %s", c.Action, id, c.Time.Format(time.StampMilli), h.host, h.begin.Format(time.StampMilli))
			}
		}
		if c.Params["Force"] == "true" {
			w.wrong("volume %s was detached by force", id)
		}
		if c.Action == "DeleteVolume" && !w.removable[id] {
			w.wrong("DeleteVolume of %s, which nobody has removed", id)
		}
	case "CreateTags":
		for k, v := range c.Params {
			switch {
			case !strings.HasPrefix(k, "Tag.") || !strings.HasSuffix(k, ".Value"):
			case strings.HasPrefix(v, "formatting:") && w.made[id]:
				w.wrong("volume %s is formatted a second time", id)
			case v == "ext4" && (c.Status == http.StatusOK || c.Fault == "lost-answer"):
				w.made[id] = true
			}
		}
	}
}

// atRest tells what is still in use: attachments, mounts, mountpoints, loop devices; "" for nothing.
func (w *world) atRest() string {
	for _, v := range w.truth().Volumes {
		if len(v.Attachments) > 0 {
			return fmt.Sprintf("%s (%s) is %s on %s", v.ID, v.Tags["blockvol:name"], v.Attachments[0].State, v.Attachments[0].Instance)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir := range w.mounts {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			return fmt.Sprintf("%s has %v %v", dir, left, err)
		}
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err.Error()
	}
	for _, b := range backing {
		if file, err := os.ReadFile(b); err == nil && strings.HasPrefix(string(file), w.dir+"/") {
			return fmt.Sprintf("%s is %s", b, file)
		}
	}
	return ""
}

// end checks that foreign volumes are as they were, and reports the volumes of ours that exist.
func (w *world) end() (left []string) {
	w.look()
	for id, before := range w.foreign {
		if digest(w.t, w.sim.BackingFile(id)) != before {
			w.t.Errorf("BROKEN: the bytes of the foreign volume %s have changed", id)
		}
	}
	for _, v := range w.truth().Volumes {
		if _, theirs := w.foreign[v.ID]; !theirs && v.State != "deleting" {
			left = append(left, v.ID)
		}
	}
	return left
}

// fsUUID reads the UUID of the ext4 filesystem in a volume.
func fsUUID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	id := make([]byte, 16)
	_, err = f.ReadAt(id, 1024+0x68) // s_uuid, see Documentation/filesystems/ext4/super.rst of the kernel
	return fmt.Sprintf("%x", id), err
}

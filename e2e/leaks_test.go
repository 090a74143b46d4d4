package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// inventory is what the tests must leave as they found it.
type inventory struct {
	loops  map[string]string // device -> backing file
	mounts map[string]bool
	dirs   map[string]bool // of engines
}

func takeInventory() inventory {
	inv := inventory{loops: loops(), mounts: map[string]bool{}, dirs: map[string]bool{}}
	ms, err := mountsBelow("/proc/self/mountinfo", "/")
	if err != nil {
		panic(err)
	}
	for _, m := range ms {
		inv.mounts[m.at] = true
	}
	dirs, err := filepath.Glob(filepath.Join(buildDir, "engines", "*"))
	if err != nil {
		panic(err)
	}
	for _, d := range dirs {
		inv.dirs[d] = true
	}
	return inv
}

// compare tells what has come: loop devices, mounts, folders of engines. (The processes of an engine end with its namespace,
// and scripts/engine says so when they do not.)
func (inv inventory) compare() error {
	now := takeInventory()
	var left []error
	for dev, file := range now.loops {
		// Other programs of the machine may use loop devices too. What a simulator in a plugin leaves is told by Engine.stop.
		if inv.loops[dev] != file && strings.HasPrefix(file, buildDir) {
			left = append(left, fmt.Errorf("loop device %s over %s", dev, file))
		}
	}
	for at := range now.mounts {
		if !inv.mounts[at] && strings.HasPrefix(at, buildDir) {
			left = append(left, fmt.Errorf("mount at %s", at))
		}
	}
	for d := range now.dirs {
		if !inv.dirs[d] {
			left = append(left, fmt.Errorf("the folder of an engine: %s", d))
		}
	}
	return errors.Join(left...)
}

// loops returns the loop devices that are in use, with their files.
func loops() map[string]string {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		panic(err)
	}
	found := map[string]string{}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			found["/dev/"+strings.Split(f, "/")[3]] = strings.TrimSpace(string(b))
		}
	}
	return found
}

// simulated is what the simulators in the engine's plugins have logged. It names every volume that they have attached.
func (e *Engine) simulated() string {
	logs, err := filepath.Glob(filepath.Join(e.Dir, "data/plugins/*/propagated-mount/sim/calls.log"))
	if err != nil {
		panic(err)
	}
	var known strings.Builder
	for _, l := range logs {
		if b, err := os.ReadFile(l); err == nil {
			known.Write(b)
		}
	}
	return known.String()
}

// loopsOf is an error that names the loop devices of an engine: those over files of its folder. The kernel tells the path as the plugin
// sees it (/data/sim/volumes/vol-...), so a simulated volume is known by its random ID, which must be in simulated.
func loopsOf(e *Engine, simulated string) error {
	var left []string
	for dev, file := range loops() {
		id, _, _ := strings.Cut(filepath.Base(file), " ") // "vol-... (deleted)"
		if strings.HasPrefix(file, e.Dir+"/") || strings.HasPrefix(id, "vol-") && strings.Contains(simulated, `"`+id+`"`) {
			left = append(left, dev+" over "+file)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("loop devices: %s", strings.Join(left, "; "))
	}
	return nil
}

type mount struct{ at, fstype, source string }

// mountsBelow reads a mountinfo file.
func mountsBelow(mountinfo, dir string) ([]mount, error) {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, err
	}
	var ms []mount
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		sep := -1
		for i := 6; i < len(f); i++ {
			if f[i] == "-" {
				sep = i
				break
			}
		}
		if sep < 0 || len(f) < sep+3 {
			continue
		}
		if strings.HasPrefix(f[4], strings.TrimSuffix(dir, "/")+"/") {
			ms = append(ms, mount{at: f[4], fstype: f[sep+1], source: f[sep+2]})
		}
	}
	return ms, nil
}

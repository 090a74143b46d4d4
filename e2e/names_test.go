package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// askedFor are the calls of EC2 that name a volume in any way.
func (e *Engine) askedFor(t testing.TB, volume string) (calls []Call) {
	t.Helper()
	for _, c := range e.Plugin.Sim().Calls(t) {
		if slices.Contains(values(c.Params), volume) {
			calls = append(calls, c)
		}
	}
	return calls
}

// One name is one volume for Docker, whatever its driver. What Docker refuses, it refuses without asking blockvol; nothing comes into being.
func TestANameThatALocalVolumeHasIsNotTakenFromIt(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.VolumeName(t)
	e.Docker(t, "volume", "create", "--label", "team=local", v)
	e.Busybox(t, []string{"-v", v + ":/data"}, "echo local >/data/file")
	ours := e.on(v, "/data")
	for _, args := range [][]string{
		{"volume", "create", "-d", e.driver(), "-o", "size=1GiB", v},
		{"run", "--rm", "--name", e.Container(t), "--mount", ours, busybox, "true"},
	} {
		e.DockerFails(t, []string{v, "must be unique"}, args...)
	}
	if vs, calls := e.Plugin.Sim().Volumes(t, v), e.askedFor(t, v); len(vs) != 0 || len(calls) != 0 {
		t.Errorf("the account has %+v, after the calls %+v", vs, calls)
	}
	if got := e.Inspect(t, v); got.Driver != "local" || got.Labels["team"] != "local" {
		t.Errorf("afterwards it is %+v", got)
	}
	if got := e.Busybox(t, []string{"-v", v + ":/data"}, "cat /data/file"); got != "local" {
		t.Errorf("afterwards it holds %q", got)
	}
	// The name is free when the local volume has gone.
	e.Docker(t, "volume", "rm", v)
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", v)
	if got := e.Inspect(t, v); got.Status["id"] != e.cloudVolume(t, v).ID {
		t.Errorf("then it is %+v", got)
	}
}

func TestANameThatBlockvolHasIsNotTakenFromItWhereDockerKnows(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	id := e.cloudVolume(t, v).ID
	for _, args := range [][]string{{"volume", "create", v}, {"volume", "create", "-d", "local", v}} {
		e.DockerFails(t, []string{v, "must be unique"}, args...)
	}
	if _, err := os.Stat(e.localVolume(v)); !os.IsNotExist(err) {
		t.Errorf("there is something on the host's own disk: %v", err)
	}
	if got := e.Inspect(t, v); got.Status["id"] != id || e.callsFor(t, id) != "" {
		t.Errorf("afterwards it is %+v, after %s", got, e.callsFor(t, id))
	}
}

// localVolume is where Docker keeps a volume of its own.
func (e *Engine) localVolume(name string) string {
	return filepath.Join(e.Dir, "data", "volumes", name)
}

// A volume that another host has made is not known to Docker here, and Docker does not ask before it makes a local volume of the name. That hides
// the other one until it is removed, and does nothing to it.
func TestALocalVolumeThatHidesOneOfTheClusterDoesItNoHarm(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.VolumeName(t)
	id, _ := e.Plugin.Sim().Import(t, "", 1, map[string]string{"blockvol:cluster": "sim", "blockvol:name": v, "blockvol:schema": "1", "blockvol:fs": "none",
		"blockvol:fstype": "ext4", "blockvol:subdir": "data"})
	e.Docker(t, "volume", "create", v)
	e.DockerFails(t, []string{v, "must be unique"}, "volume", "create", "-d", e.driver(), v)
	if got := e.Inspect(t, v).Driver; got != "local" {
		t.Errorf("its driver is %s: nothing is hidden any more", got)
	}
	if ls := e.Docker(t, "volume", "ls", "--filter", "name="+v, "--format", "{{.Driver}} {{.Name}}"); ls != "local "+v {
		t.Errorf("docker volume ls shows %q", ls)
	}
	e.Docker(t, "volume", "rm", v)
	if got := e.cloudVolume(t, v); got.ID != id || e.callsFor(t, id) != "" {
		t.Errorf("the volume of the cluster is %+v, after %s", got, e.callsFor(t, id))
	}
	// Now the name means that one, without a word about its driver.
	if got := e.Inspect(t, v); got.Status["id"] != id {
		t.Errorf("afterwards the name means %+v", got)
	}
	if got := e.Busybox(t, []string{"-v", v + ":/data"}, "echo here >/data/file; cat /data/file"); got != "here" {
		t.Errorf("the container says %q", got)
	}
	e.Detached(t, v)
}

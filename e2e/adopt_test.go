package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// filesystem makes an image with a filesystem of 1 GiB, and below data a file, as REX-Ray left its volumes.
func filesystem(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	tree := t.TempDir()
	for _, args := range [][]string{
		{"sh", "-c", `mkdir "$1/data" && echo row >"$1/data/row" && echo top >"$1/top"`, "sh", tree},
		{"truncate", "-s", "1G", path}, {"mkfs.ext4", "-q", "-d", tree, path},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return path
}

func TestVolumesThatExistAreTakenOverWithTheirData(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	p := e.Install(t, "blockvol", "BACKEND=sim", "LOG_LEVEL=debug")
	sim := p.Sim()
	image := filesystem(t)
	reads := func(v, path, want string) {
		t.Helper()
		if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/"+path); got != want {
			t.Errorf("%s: %s holds %q, want %q", v, path, got, want)
		}
	}
	// By its ID, in docker's own words; on its way out it is kept, and taken again by the verb.
	v := e.VolumeName(t)
	id, _ := sim.Import(t, image, 1, map[string]string{"Name": "theirs"})
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "volume-id="+id, v)
	reads(v, "top", "top")
	if st := e.Inspect(t, v).Status; st["id"] != id || st["filesystem"] != "ext4" || st["reclaim"] != "retain" {
		t.Errorf("docker volume inspect shows %v", st)
	}
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", v).Err() })
	again := e.VolumeName(t)
	e.verb(t, verbDone, []string{id, again}, "", "adopt", id, again, "-o", "subdir=data")
	reads(again, "row", "row")
	// One from the day before yesterday has missed its snapshots: the latest is made as soon as it is in use.
	old := e.VolumeName(t)
	oldID, _ := sim.Import(t, image, 1, nil, time.Now().Add(-48*time.Hour))
	readable(t, e.refusesToCreate(t, old, "volume-id="+oldID, "snapshot-schedule=* * * * *"), "snapshot-schedule", "15 minutes")
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "volume-id="+oldID, "-o", "snapshot-schedule=@hourly", "-o", "snapshot-keep=2", old)
	e.RunDetached(t, []string{"--mount", e.on(old, "/data")}, counter("/data/lines"))
	// REX-Ray's, by their names.
	name := e.VolumeName(t)
	sim.Import(t, image, 1, map[string]string{"Name": name})
	e.verb(t, verbDone, []string{name}, "", "adopt", "--from-rexray", name)
	reads(name, "row", "row")
	// By tags, the smallest that fits; and none is told.
	claimed := e.VolumeName(t)
	sim.Import(t, image, 3, map[string]string{"team": "db"})
	small, _ := sim.Import(t, image, 2, map[string]string{"team": "db"})
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "selector=team=db", "-o", "size=2GiB", claimed)
	if st := e.Inspect(t, claimed).Status; st["id"] != small {
		t.Errorf("claimed is %v, want %s", st, small)
	}
	reads(claimed, "top", "top")
	readable(t, e.refusesToCreate(t, e.VolumeName(t), "selector=team=web"), "no volume matches", "selector-fallback=create")
	// What is no filesystem is named and left alone.
	blank := e.VolumeName(t)
	empty, _ := sim.Import(t, "", 1, nil)
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "volume-id="+empty, blank)
	e.DockerFails(t, []string{blank, "blank", "left as it is"}, "run", "--rm", "--mount", e.on(blank, "/data"), busybox, "true")
	readable(t, e.refusesToCreate(t, e.VolumeName(t), "volume-id="+id), id, again, "already")
	readable(t, e.refusesToCreate(t, e.VolumeName(t), "volume-id=vol-12"), "vol-12", "vol-0123456789abcdef0")
	Eventually(t, 2*time.Minute, func() error {
		got := e.verb(t, verbDone, nil, "", "snapshot", "ls", old, "--filter", "scheduled=true", "--format", "{{.Volume}} {{.Consistency}}")
		if got != old+" frozen" {
			return fmt.Errorf("the snapshots by schedule: %q", got)
		}
		return nil
	})
	for _, call := range sim.Calls(t) {
		if call.Action == "CreateVolume" || call.Action == "DeleteVolume" {
			t.Errorf("%s was sent", call.Action)
		}
	}
}

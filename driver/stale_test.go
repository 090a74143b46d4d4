package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// EC2 may show a volume's tags as they were some seconds ago: with the tag formatting, and the data already there. Here the tag is really
// set back, which no look can tell from an old answer.
func TestAStaleTagNeverLeadsToASecondFormat(t *testing.T) {
	for name, opts := range map[string][]string{"ext4": nil, "xfs": {"fstype", "xfs"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			other := r.twin()
			r.create("pgdata", opts...)
			write(t, filepath.Join(r.mount("pgdata", "c1"), "row"), "42")
			r.unmount("pgdata", "c1")
			r.eventually("detached", func() bool { return r.status("pgdata")["state"] == "free" })
			id := r.status("pgdata")["id"].(string)
			before := digest(t, r.sim.BackingFile(id))

			r.tag(id, "blockvol:fs", "formatting:"+r.host.ID)
			time.Sleep(2 * r.timing.Fresh) // what either host has seen before is asked again
			other.refused("Mount", m{"Name": "pgdata", "ID": "c2"}, "pgdata", "not formatted", "try again")
			other.eventually("detached", func() bool { return other.attached() == 0 && other.status("pgdata")["state"] == "free" })
			if digest(t, r.sim.BackingFile(id)) != before {
				t.Fatal("the bytes of the volume have changed")
			}
			// This host formatted it and remembers.
			if got := read(t, filepath.Join(r.mount("pgdata", "c3"), "row")); got != "42" {
				t.Errorf("the data is %q", got)
			}
			r.unmount("pgdata", "c3")
			r.eventually("detached", func() bool { return r.attached() == 0 })
		})
	}
}

func TestATagThatMovesOnWhileItIsLookedAtStopsTheFormat(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Absent = 10 * time.Second })
	path := image(t, func(p string) { put(t, p, 4096*5, []byte("what looks like a killed mkfs")) })
	id, err := r.sim.Import(ec2sim.ImportSpec{Image: path, SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours("moving", "formatting:i-00000000000000009")})
	if err != nil {
		t.Fatal(err)
	}
	before := digest(t, r.sim.BackingFile(id))
	go func() {
		r.eventually("it was looked at once", func() bool {
			return strings.Contains(fmt.Sprint(r.status("moving")["doing"]), "never formatted to the end")
		})
		r.tag(id, "blockvol:fs", "ext4")
	}()
	r.refused("Mount", m{"Name": "moving", "ID": "c1"}, "moving", "not formatted")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	if digest(t, r.sim.BackingFile(id)) != before {
		t.Error("the bytes of the volume have changed")
	}
}

func TestAMountWhoseDeviceIsGoneIsNotCoveredByTheNext(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	p := r.mount("pgdata", "c1")
	write(t, filepath.Join(p, "row"), "42")
	if err := syncFile(filepath.Join(p, "row")); err != nil {
		t.Fatal(err)
	}
	r.forceDetach("pgdata")
	r.eventually("the device is gone", func() bool { return r.attached() == 0 })
	r.eventually("mounted again", func() bool { _, err := r.try("Mount", m{"Name": "pgdata", "ID": "c2"}); return err == nil })
	if points, err := r.manager.disk.MountsUnder(r.manager.mounts); err != nil || len(points) != 1 {
		t.Errorf("mounts: %v %v", points, err)
	}
	if got := read(t, filepath.Join(r.mount("pgdata", "c2"), "row")); got != "42" {
		t.Errorf("the data is %q", got)
	}
	r.unmount("pgdata", "c1")
	r.unmount("pgdata", "c2")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	if points, err := r.manager.disk.MountsUnder(r.manager.mounts); err != nil || len(points) != 0 {
		t.Errorf("left mounted: %v %v", points, err)
	}
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

package driver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// crashesAtOnce is how many crashes are tested at a time: they wait most of the time.
const crashesAtOnce = 6

// crash is one way to die: at a step, on a volume that is new or has data, with or without the request that died being sent again.
type crash struct {
	step  Step
	used  bool // the volume has a filesystem with data in it, as a host that died has left it
	again bool
}

func (c crash) String() string {
	s := Steps[c.step].Of + "/" + c.step.String()
	if c.used {
		s += "/used"
	}
	if c.again {
		return s + "/repeated"
	}
	return s + "/forgotten"
}

// crashes are all ways to die at all steps.
func crashes() []crash {
	var all []crash
	for s := range Step(len(Steps)) {
		for _, again := range []bool{false, true} {
			switch Steps[s].Of {
			case "mount":
				all = append(all, crash{s, true, again}, crash{s, false, again})
			case "unmount", "take", "stop", "adopt", "adopted", "snapshot":
				all = append(all, crash{s, true, again})
			default:
				all = append(all, crash{s, false, again})
			}
		}
	}
	return all
}

// Killed at whatever step, started again, asked again or not: the volume exists once, was formatted at most once, has its data, nothing
// unused stays mounted or attached, and everything that is asked for next succeeds.
func TestNoCrashLosesOrLeaksAnything(t *testing.T) {
	t.Parallel()
	image := dirtyImage(t)
	todo := make(chan crash)
	var workers sync.WaitGroup
	for range crashesAtOnce {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for c := range todo {
				t.Run(c.String(), func(t *testing.T) { testCrash(t, c, image) })
			}
		}()
	}
	for _, c := range crashes() {
		todo <- c
	}
	close(todo)
	workers.Wait()
}

func TestEveryStepHasARowOfItsOwn(t *testing.T) {
	names := map[string]bool{}
	for s, row := range Steps {
		if row.Name == "" || row.Means == "" || names[row.Name] {
			t.Errorf("step %d has no name, no meaning, or that of another: %+v", s, row)
		}
		names[row.Name] = true
		switch row.Of {
		case "create", "mount", "format", "take", "stop", "unmount", "remove", "release", "retire", "preserve", "purge", "adopt", "adopted", "snapshot", "update":
		default:
			t.Errorf("the step %q belongs to %q, for which no test drives it", row.Name, row.Of)
		}
	}
}

const crashName = "db"

// repairCutSuperblock does what docs/troubleshooting.md says where an e2fsck was killed at the moment in which it wrote the superblock: it writes
// only the bytes that change, one piece after the other, and the checksum is one of them. That is rare.
func (r *rig) repairCutSuperblock() {
	r.t.Helper()
	use := m{"Name": crashName, "ID": "look"}
	if _, err := r.try("Mount", use); err == nil {
		r.unmount(crashName, "look")
	} else if strings.Contains(err.Error(), "Superblock checksum does not match superblock") {
		device := r.status(crashName)["device"].(string)
		if out, err := exec.Command("e2fsck", "-y", device).CombinedOutput(); err != nil && !strings.Contains(err.Error(), "exit status 1") {
			r.t.Fatalf("%v: %s", err, out)
		}
	}
}

func testCrash(t *testing.T, c crash, image string) {
	if Steps[c.step].Of == "snapshot" {
		testCrashOfASnapshot(t, c)
		return
	}
	r := newMachine(t, func(t *Timing) { t.HandOver, t.Purge = time.Second, 2*time.Second })
	create := m{"Name": crashName, "Opts": m{"size": "1"}}
	again := m{"Name": crashName}
	adopts := strings.HasPrefix(Steps[c.step].Of, "adopt")
	if adopts {
		id, err := r.sim.Import(ec2sim.ImportSpec{Image: image, SizeGiB: 1, Zone: r.host.Zone})
		if err != nil {
			t.Fatal(err)
		}
		create = m{"Name": crashName, "Opts": m{"volume-id": id, "subdir": "data"}}
		again = create
	} else if c.used {
		if _, err := r.sim.Import(ec2sim.ImportSpec{Image: image, SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours(crashName, "ext4")}); err != nil {
			t.Fatal(err)
		}
	}
	if Steps[c.step].Of == "stop" {
		r.settings.Fencing, r.settings.ImpairedAfter = fenceImpaired, time.Minute
	}
	switch Steps[c.step].Of {
	case "retire":
		r.settings.DeleteDelay = time.Hour
	case "purge":
		r.settings.DeleteDelay = time.Second
	}
	x := r.startProcess()
	var call string
	var req m
	rows := map[string]string{} // what the volume must hold
	if c.used {
		rows["old"] = "kept"
	}
	switch of := Steps[c.step].Of; of {
	case "create", "adopt":
		call, req = "Create", create
	case "take":
		call, req = "Mount", m{"Name": crashName, "ID": "c1"}
		r.power(r.leaveOn(ec2sim.Instance{}, crashName), ec2sim.StateStopped)
	case "stop":
		call, req = "Mount", m{"Name": crashName, "ID": "c1"}
		r.ail(r.leaveOn(ec2sim.Instance{}, crashName), time.Hour)
	case "mount", "format", "adopted":
		call, req = "Mount", m{"Name": crashName, "ID": "c1"}
		if !c.used || adopts {
			r.must("Create", create)
		}
	case "unmount":
		call, req = "Unmount", m{"Name": crashName, "ID": "c1"}
		write(t, filepath.Join(r.mount(crashName, "c1"), "new"), "too")
		rows["new"] = "too"
	case "remove", "retire", "purge":
		call, req = "Remove", m{"Name": crashName}
		r.must("Create", create)
	case "preserve":
		call, req = "Remove", m{"Name": crashName}
		create["Opts"].(m)["reclaim"] = "snapshot"
		r.must("Create", create)
		r.mount(crashName, "c0")
		r.unmount(crashName, "c0")
		again = create
	case "release":
		call, req = "Remove", m{"Name": crashName}
		r.must("Create", m{"Name": crashName, "Opts": m{"size": "1", "reclaim": "retain"}})
	case "update":
		call = "Update"
		create["Opts"] = m{"size": "1", "fstype": "xfs"} // which every root may grow
		r.must("Create", create)
		write(t, filepath.Join(r.mount(crashName, "c1"), "new"), "too")
		rows["new"] = "too"
	default:
		t.Fatalf("no test drives %q", of)
	}
	send := func() error { _, err := r.try(call, req); return err }
	if call == "Update" {
		send = func() error {
			a, err := r.ask(t.Context(), "Update", UpdateRequest{Volume: crashName, Set: m2s("size", "2")})
			if err == nil && a.Error != "" {
				err = errors.New(a.Error)
			}
			return err
		}
	}
	x.dieAt(c.step)
	_ = send() // cut by the crash, or answered before it
	x.died(c.step)
	id, uuid := r.onlyVolume(call != "Mount" && call != "Unmount")

	r.start()
	if c.step == StepFsck && c.again {
		r.repairCutSuperblock()
	}
	switch {
	case c.again && call == "Update": // the volume may be let go of at this moment
		r.eventually("the update succeeds", func() bool { return send() == nil })
	case c.again:
		r.must(call, req)
	}
	if call == "Mount" && c.again {
		write(t, filepath.Join(r.mount(crashName, "c1"), "new"), "too")
		rows["new"] = "too"
		r.unmount(crashName, "c1")
	}
	r.nothingUnused()
	if call != "Remove" || !c.again {
		if now, _ := r.onlyVolume(call != "Mount"); call == "Mount" && now != id {
			t.Errorf("the volume was %s and is now %s", id, now)
		}
	}
	// Everything goes on.
	if c.step == StepFsck {
		r.repairCutSuperblock()
	}
	r.must("Create", again)
	path := r.mount(crashName, "c2")
	for name, want := range rows {
		if got := read(t, filepath.Join(path, name)); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if grown := r.capacity(path) >= large; call == "Update" && grown != (c.again || c.step != StepModify) {
		t.Errorf("the filesystem has %d bytes", r.capacity(path))
	}
	now, nowUUID := r.onlyVolume(false)
	if id != "" && call != "Remove" && now != id {
		t.Errorf("the volume was %s and is now %s", id, now)
	}
	if uuid != "" && nowUUID != uuid {
		t.Errorf("the volume was formatted again: its filesystem was %s and is now %s", uuid, nowUUID)
	}
	r.unmount(crashName, "c2")
	r.nothingUnused()
	r.must("Remove", m{"Name": crashName})
	if vols := r.volumes(); len(vols) != 0 {
		t.Errorf("left after the removal: %+v", vols)
	}
	want := 0
	switch {
	case Steps[c.step].Of == "release", adopts:
		want = 1
	case Steps[c.step].Of == "retire" && (c.again || c.step == StepRetireSent):
		want = 2 // the one that was removed at the crash, and the one after it
	case Steps[c.step].Of == "retire":
		want = 1
	}
	if Steps[c.step].Of == "preserve" {
		r.eventually("nothing is left but a completed snapshot of each of the two", func() bool {
			all, err := r.eyes.Snapshots(t.Context(), "")
			of := map[string]bool{}
			for _, s := range all {
				if s.State == cloud.SnapshotCompleted {
					of[s.VolumeID] = true
				}
			}
			return err == nil && len(of) == 2 && len(r.given(crashName)) == 0
		})
	}
	if Steps[c.step].Of == "purge" {
		r.eventually("nothing is kept", func() bool { return len(r.given(crashName)) == 0 })
	}
	if kept := r.given(crashName); len(kept) != want {
		t.Errorf("kept outside of the cluster are %v, want %d", kept, want)
	}
}

// given are the IDs of the volumes that had a name and were given up.
func (r *rig) given(name string) (ids []string) {
	r.t.Helper()
	out, err := r.person().DescribeVolumes(context.Background(), &ec2.DescribeVolumesInput{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range out.Volumes {
		for _, tag := range v.Tags {
			if *tag.Key == "blockvol:name" && *tag.Value == "released:"+name && v.State != types.VolumeStateDeleting {
				ids = append(ids, *v.VolumeId)
			}
		}
	}
	return ids
}

// leaveOn attaches volumes to a new host, on which no plugin runs, and returns its ID.
func (r *rig) leaveOn(i ec2sim.Instance, names ...string) string {
	r.t.Helper()
	i.Zone = r.host.Zone
	other, err := r.sim.AddInstance(i)
	if err != nil {
		r.t.Fatal(err)
	}
	p := r.plan()
	p.Instance = other.ID
	c, err := p.cloud(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx := r.t.Context()
	for _, name := range names {
		vol, err := c.ByName(ctx, name)
		if err == nil {
			err = c.Attach(ctx, vol)
		}
		if err == nil {
			err = c.WaitAttached(ctx, vol.ID)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return other.ID
}

// power makes an instance running, stopped or terminated.
func (r *rig) power(id, state string) {
	r.t.Helper()
	if err := r.sim.SetInstanceState(id, state); err != nil {
		r.t.Fatal(err)
	}
}

// ail makes a status check of an instance fail since some time ago.
func (r *rig) ail(id string, ago time.Duration) {
	r.t.Helper()
	if err := r.sim.SetInstanceStatus(id, ec2sim.StatusChange{System: ec2sim.CheckImpaired, Since: time.Now().Add(-ago)}); err != nil {
		r.t.Fatal(err)
	}
}

// volumes are those that the simulator has, without those being deleted.
func (r *rig) volumes() []cloud.Volume {
	r.t.Helper()
	if r.eyes == nil {
		c, err := r.plan().cloud(r.log)
		if err != nil {
			r.t.Fatal(err)
		}
		r.eyes = c
	}
	all, err := r.eyes.List(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	var live []cloud.Volume
	for _, v := range all {
		if v.State != cloud.Deleting && v.State != cloud.Deleted {
			live = append(live, v)
		}
	}
	return live
}

// onlyVolume returns the ID of the one volume there is, and the UUID of its filesystem if its tag says that it has one.
func (r *rig) onlyVolume(orNone bool) (id, uuid string) {
	r.t.Helper()
	vols := r.volumes()
	if len(vols) == 0 && orNone {
		return "", ""
	}
	if len(vols) != 1 {
		r.t.Fatalf("there are %d volumes, want one: %+v", len(vols), vols)
	}
	if vols[0].Attrs[attrFS] != "ext4" {
		return vols[0].ID, ""
	}
	// The superblock lies at 1024, its UUID at 0x68 (Documentation/filesystems/ext4/super.rst).
	f, err := os.Open(r.sim.BackingFile(vols[0].ID))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 16)
	if _, err := f.ReadAt(b, 1024+0x68); err != nil || bytes.Equal(b, make([]byte, 16)) {
		r.t.Fatalf("%s is tagged ext4, but its filesystem has the UUID %x (%v)", vols[0].ID, b, err)
	}
	return vols[0].ID, string(b)
}

// nothingUnused waits until nothing is attached and nothing is left under the folder for mounts.
func (r *rig) nothingUnused() {
	r.t.Helper()
	r.eventually("nothing is attached, mounted, or left to mount on", func() bool {
		points, err := r.manager.disk.MountsUnder(r.manager.mounts)
		if err != nil {
			r.t.Fatal(err)
		}
		left, err := os.ReadDir(r.manager.mounts)
		if err != nil {
			r.t.Fatal(err)
		}
		if r.attached()+len(points)+len(left) > 0 {
			return false
		}
		for _, v := range r.volumes() {
			if _, here := v.On(r.host.ID); here {
				return false
			}
		}
		return true
	})
}

// dirtyImage is an ext4 filesystem with data as a host that died has left it: its journal holds what its blocks do not.
func dirtyImage(t *testing.T) string {
	t.Helper()
	path := image(t, func(p string) { run(t, "mkfs.ext4", "-q", p) })
	at := t.TempDir()
	run(t, "mount", "-o", "loop", path, at)
	defer run(t, "umount", at)
	if err := os.Mkdir(filepath.Join(at, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "data", "old"), "kept")
	for _, p := range []string{"old", ""} {
		f, err := os.Open(filepath.Join(at, "data", p))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	copied := filepath.Join(t.TempDir(), "dirty")
	run(t, "cp", "--sparse=always", path, copied)
	run(t, "sh", "-c", "dumpe2fs -h "+copied+" 2>&1 | grep -q needs_recovery")
	return copied
}

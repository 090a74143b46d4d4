package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/disk"
	"golang.org/x/sys/unix"
)

// update changes a volume as `blockvol update` does.
func (r *rig) update(req UpdateRequest) Updated {
	r.t.Helper()
	var out Updated
	r.askFor("Update", req, &out)
	return out
}

// notUpdated asks for a change that has to fail with an error that has all these words in it.
func (r *rig) notUpdated(req UpdateRequest, words ...string) asked {
	r.t.Helper()
	a, err := r.ask(r.t.Context(), "Update", req)
	if err != nil || a.Error == "" {
		r.t.Errorf("%+v was done: %s, %v", req, a.Result, err)
	}
	for _, w := range words {
		if !strings.Contains(a.Error, w) {
			r.t.Errorf("%+v: the error %q does not say %q", req, a.Error, w)
		}
	}
	return a
}

// capacity is the size of the filesystem at a path, in bytes.
func (r *rig) capacity(path string) int64 {
	r.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		r.t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

// delays changes how long the simulated EC2 takes.
func (r *rig) delays(change func(*ec2sim.Delays)) {
	d := r.sim.Delays()
	change(&d)
	r.sim.SetDelays(d)
}

// mayGrowExt tells whether this process may grow an ext4 that is mounted: the kernel wants CAP_SYS_RESOURCE for it.
func mayGrowExt(t *testing.T) bool {
	t.Helper()
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		t.Fatal(err)
	}
	return caps[unix.CAP_SYS_RESOURCE/32].Effective&(1<<(unix.CAP_SYS_RESOURCE%32)) != 0
}

// large is more than a filesystem of 1 GiB has, and less than one of 2 GiB.
const large = 3 << 29

func TestAVolumeGrowsWhileAContainerWrites(t *testing.T) {
	r := newRig(t)
	r.delays(func(d *ec2sim.Delays) { d.Modify, d.Optimize = 300*time.Millisecond, time.Hour })
	for _, fs := range []string{"ext4", "xfs"} {
		name := "db-" + fs
		r.create(name, "fstype", fs)
		path := r.mount(name, "c1")
		f, err := os.Create(filepath.Join(path, "rows"))
		if err != nil {
			t.Fatal(err)
		}
		var rows, stop atomic.Int64
		t.Cleanup(func() { stop.Store(1) })
		ended := make(chan error, 1)
		go func() {
			var err error
			for err == nil && stop.Load() == 0 {
				if _, err = fmt.Fprintf(f, "row %d\n", rows.Load()); err == nil {
					err = f.Sync()
				}
				rows.Add(1)
			}
			ended <- err
		}()
		r.calls()
		may := fs != "ext4" || mayGrowExt(t)
		req := UpdateRequest{Volume: name, Set: m2s("size", "+1GiB")}
		if !may {
			r.notUpdated(req, name, "has 2 GiB now", "CAP_SYS_RESOURCE")
		} else if got := r.update(req); got.Volume != name || !got.Grown || got.SizeGiB != 2 || !got.Lasting || got.State != "optimizing" || len(got.Changes) != 1 || got.Changes[0].To != "2 GiB" {
			t.Errorf("%s: %+v", fs, got)
		}
		if size := r.capacity(path); (size >= large) != may {
			t.Errorf("%s: the container sees %d bytes", fs, size)
		}
		if n := r.calls(); n["ModifyVolume"] != 1 {
			t.Errorf("%s: EC2 was asked %v", fs, n)
		}
		if st := r.status(name); st["size"] != "2 GiB" {
			t.Errorf("%s: inspect shows %v", fs, st)
		}
		before := rows.Load()
		r.eventually("the container goes on writing", func() bool { return rows.Load() > before+3 || len(ended) > 0 })
		stop.Store(1)
		if err := <-ended; err != nil {
			t.Errorf("%s: the writer failed: %v", fs, err)
		}
		f.Close()
		r.unmount(name, "c1")
		r.eventually("detached", func() bool { return r.attached() == 0 })
		path = r.mount(name, "c2")
		lines := strings.Split(strings.TrimSuffix(read(t, filepath.Join(path, "rows")), "\n"), "\n")
		if int64(len(lines)) != rows.Load() || lines[len(lines)-1] != fmt.Sprintf("row %d", len(lines)-1) || (r.capacity(path) >= large) != may {
			t.Errorf("%s: %d rows, want %d; %d bytes", fs, len(lines), rows.Load(), r.capacity(path))
		}
		r.unmount(name, "c2")
	}
}

func TestAFilesystemGrowsOnTheHostThatHasItOrAtItsNextMount(t *testing.T) {
	r := newRig(t)
	two := r.twin()
	r.create("free", "fstype", "xfs")
	r.create("there", "fstype", "xfs")
	for range 2 { // the second time there is nothing left to do
		got := r.update(UpdateRequest{Volume: "free", Set: m2s("Volume_Size", "2")})
		if got.Grown || len(got.Changes) > 0 && !strings.Contains(strings.Join(got.Notes, "\n"), "mounted the next time") {
			t.Errorf("not mounted: %+v", got)
		}
	}
	path := r.mount("free", "c1")
	if size := r.capacity(path); size < large {
		t.Errorf("mounted after it: %d bytes", size)
	}
	path = two.mount("there", "c1")
	write(t, filepath.Join(path, "row"), "42")
	got := r.update(UpdateRequest{Volume: "there", Set: m2s("size", "2")})
	if got.Grown || !strings.Contains(strings.Join(got.Notes, "\n"), two.host.ID) {
		t.Errorf("mounted elsewhere: %+v", got)
	}
	two.calls()
	r.eventually("the other host grows it", func() bool { return two.capacity(path) >= large })
	r.eventually("inspect there shows it", func() bool { return two.status("there")["size"] == "2 GiB" })
	if read(t, filepath.Join(path, "row")) != "42" {
		t.Error("the data is not there")
	}
	r.unmount("free", "c1")
	two.unmount("there", "c1")
}

func TestAModificationKeepsNoContainerWaiting(t *testing.T) {
	r := newRig(t)
	r.delays(func(d *ec2sim.Delays) { d.Modify = time.Hour })
	r.create("db")
	r.mount("db", "c1")
	ctx, cancel := context.WithCancel(t.Context())
	waiting, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		first := true
		_, _ = r.ask(ctx, "Update", UpdateRequest{Volume: "db", Set: m2s("size", "2", "tag.Team", "db")}, func(said string) {
			if strings.Contains(said, "is modifying") && first {
				first = false
				close(waiting)
			}
		})
	}()
	select {
	case <-waiting:
	case <-ended:
		t.Fatal("it has ended, or failed")
	}
	r.mount("db", "c2")
	r.unmount("db", "c1")
	r.unmount("db", "c2")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	if st := r.status("db"); fmt.Sprint(st["tags"]) != "map[Team:db]" {
		t.Errorf("inspect shows %v", st)
	}
	select {
	case <-ended:
		t.Error("it was not waited for")
	default:
	}
	cancel()
	<-ended
	if got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "2"), NoWait: true}); got.State != "modifying" { // the same once more
		t.Errorf("%+v", got)
	}
}

func TestOptionsOfAVolumeAreChangedAndCountFromThenOn(t *testing.T) {
	r := newRig(t)
	r.create("db", "tag.Team", "db", "tag.old", "x", "fencing", "never")
	id := r.status("db")["id"].(string)
	r.mount("db", "c1")
	r.calls()
	got := r.update(UpdateRequest{Volume: id, Set: m2s("reclaim", "retain", "mount_options", "noatime", "tag.Team", "web", "size", "1GiB"), Unset: []string{"fence", "tag.old"}})
	if got.Volume != "db" || len(got.Changes) != 5 || got.Lasting || !strings.Contains(strings.Join(got.Notes, "\n"), "next mount") {
		t.Errorf("%+v", got)
	}
	if n := r.calls(); n["ModifyVolume"] != 0 || n["CreateTags"] != 1 || n["DeleteTags"] != 1 {
		t.Errorf("EC2 was asked %v", n)
	}
	st := r.status("db")
	if st["reclaim"] != "retain" || fmt.Sprint(st["tags"]) != "map[Team:web]" {
		t.Errorf("inspect shows %v", st)
	}
	if v := r.volumes()[0]; v.Attrs[attrFencing] != "" || v.Attrs["mount-options"] != "noatime" {
		t.Errorf("EC2 has %+v", v)
	}
	r.unmount("db", "c1")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	path := r.mount("db", "c2")
	var options unix.Statfs_t
	if err := unix.Statfs(path, &options); err != nil || options.Flags&unix.ST_NOATIME == 0 {
		t.Errorf("it is mounted with flags %x, %v", options.Flags, err)
	}
	r.unmount("db", "c2")
	// Who creates it as it was is told what it is now.
	r.refused("Create", m{"Name": "db", "Opts": m{"size": "1", "reclaim": "delete", "tag.Team": "db"}}, "reclaim is retain, asked for delete", `tag.Team is "web", asked for "db"`, "blockvol update")
	r.refused("Create", m{"Name": "db", "Opts": m{"fstype": "xfs"}}, "fstype is ext4, asked for xfs", "use it as it is, or choose another name")
	r.must("Create", m{"Name": "db", "Opts": m{"size": "1", "reclaim": "retain", "tag.Team": "web", "mount-options": "noatime"}})
	r.remove("db")
	if kept := r.given("db"); len(kept) != 1 || kept[0] != id {
		t.Errorf("kept are %v", kept)
	}
}

func TestAnUpdateThatCannotBeDoneChangesNothingAndTellsTheWayOut(t *testing.T) {
	r := newMachine(t)
	r.settings.MaxSizeGiB = 8
	r.start()
	r.create("db", "size", "3")
	id := r.status("db")["id"].(string)
	before, err := json.Marshal(r.volumes())
	if err != nil {
		t.Fatal(err)
	}
	r.calls()
	for _, c := range []struct {
		req   UpdateRequest
		words []string
	}{
		{UpdateRequest{Volume: "a/b", Set: m2s("size", "4")}, []string{"a/b"}},
		{UpdateRequest{Volume: "none", Set: m2s("size", "4")}, []string{`there is no volume "none"`}},
		{UpdateRequest{Volume: "vol-0123456789abcdef0", Set: m2s("size", "4")}, []string{"vol-0123456789abcdef0"}},
		{UpdateRequest{Volume: "db", Set: m2s("size", "2")}, []string{`"db"`, id, "size is 3 GiB", "can only grow", "copy the files"}},
		{UpdateRequest{Volume: "db", Set: m2s("size", "9")}, []string{`"db"`, id, "9 GiB", "MAX_SIZE", "8 GiB"}},
		{UpdateRequest{Volume: "db", Set: m2s("size", "+6")}, []string{"9 GiB", "MAX_SIZE"}},
		{UpdateRequest{Volume: "db", Set: m2s("size", "4", "type", "io2")}, []string{"io2", "needs iops=N"}},
		{UpdateRequest{Volume: "db", Set: m2s("size", "4", "tag.Team", "db", "fstype", "xfs")}, []string{"fstype cannot be changed", "copy the files"}},
		{UpdateRequest{Volume: "db", Set: m2s("mount-options", "allocsize=1m")}, []string{"allocsize", "xfs", "this volume has ext4"}},
		{UpdateRequest{Volume: "db", Set: m2s("reclaim", "burn")}, []string{"burn"}},
		{UpdateRequest{Volume: "db", Unset: []string{"size"}}, []string{"size always has a value"}},
		{UpdateRequest{Volume: "db", ID: "vol-0123456789abcdef0", Set: m2s("size", "4")}, []string{`"db"`, id, "look again"}},
	} {
		a := r.notUpdated(c.req, c.words...)
		if a.Refused != (c.req.ID != "") {
			t.Errorf("%+v: refused is %v", c.req, a.Refused)
		}
	}
	if got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "3", "type", "gp3", "reclaim", "delete"), Unset: []string{"tag.none"}}); len(got.Changes) != 0 {
		t.Errorf("it has all that already: %+v", got)
	}
	got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "4", "tag.Team", "db"), DryRun: true})
	if !got.DryRun || len(got.Changes) != 2 || got.SizeGiB != 4 {
		t.Errorf("the dry run tells %+v", got)
	}
	n := r.calls()
	if n["ModifyVolume"]+n["CreateTags"]+n["DeleteTags"] != 0 {
		t.Errorf("EC2 was asked %v", n)
	}
	if after, err := json.Marshal(r.volumes()); err != nil || string(after) != string(before) {
		t.Errorf("it was %s and is %s, %v", before, after, err)
	}

	// What EC2 refuses: its rule is told with the time.
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "ModifyVolume", Code: "UnauthorizedOperation", Status: 403}); err != nil {
		t.Fatal(err)
	}
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("size", "4", "tag.Team", "db")}, "not allowed", "docs/iam-snapshots.json")
	if v := r.volumes()[0]; len(v.Tags) != 0 || v.SizeGiB != 3 {
		t.Errorf("half of it was done: %+v", v)
	}
	r.delays(func(d *ec2sim.Delays) { d.Optimize = time.Hour })
	r.update(UpdateRequest{Volume: "db", Set: m2s("size", "4")})
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("size", "5")}, `"db"`, id, "cannot be modified yet", "optimizing", "try again when it is completed")
	if got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "5"), DryRun: true}); !strings.Contains(strings.Join(got.Notes, "\n"), "EC2 would not accept it now") {
		t.Errorf("the dry run tells %+v", got)
	}
	r.tag(id, "blockvol:schema", "9")
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("size", "5")}, "newer blockvol", "upgrade")
	r.tag(id, "blockvol:schema", "1")
	other := r.there("", r.ours("db", "ext4"))
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("tag.Team", "db")}, id, other, "2 times")
}

func TestTheTimeOfTheNextModificationIsToldToThePerson(t *testing.T) {
	r := newRig(t)
	l := r.sim.Limits()
	l.Modifications = 1
	r.sim.SetLimits(l)
	r.create("db")
	before := time.Now()
	got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "2"), Completed: true})
	if got.State != "completed" || got.Percent != 100 {
		t.Errorf("%+v", got)
	}
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("size", "3")}, "cannot be modified yet", before.Add(24*time.Hour).UTC().Format("2006-01-02T15"))
}

// Whatever becomes of the calls: the volume is modified once, and the filesystem is as large as it.
func TestFaultsWhileAVolumeGrows(t *testing.T) {
	t.Parallel()
	for _, f := range []ec2sim.Fault{
		{Kind: "lost-answer", Action: "ModifyVolume"},
		{Kind: "hang", Action: "ModifyVolume"},
		{Kind: "error", Action: "ModifyVolume", Code: "RequestLimitExceeded", Status: 503, Times: 3},
		{Kind: "error", Action: "ModifyVolume", Code: "InternalError", Status: 500, Times: 2},
		{Kind: "error", Action: "DescribeVolumesModifications", Code: "RequestLimitExceeded", Status: 503, Times: 3},
		{Kind: "hang", Action: "DescribeVolumesModifications"},
		{Kind: "lost-answer", Action: "CreateTags"},
	} {
		t.Run(fmt.Sprint(f.Kind, "-", f.Action, "-", f.Code), func(t *testing.T) {
			t.Parallel()
			r := newMachine(t)
			r.ebs.Attempt, r.ebs.MaxBackoff = time.Second, 300*time.Millisecond
			r.start()
			r.delays(func(d *ec2sim.Delays) { d.Modify, d.Optimize = 100*time.Millisecond, time.Hour })
			r.create("db", "fstype", "xfs")
			path := r.mount("db", "c1")
			if err := r.sim.Inject(f); err != nil {
				t.Fatal(err)
			}
			req := UpdateRequest{Volume: "db", Set: m2s("size", "2", "tag.Team", "db")}
			r.eventually("it is updated", func() bool {
				a, err := r.ask(t.Context(), "Update", req)
				return err == nil && a.Error == ""
			})
			r.eventually("the filesystem has grown", func() bool { return r.capacity(path) >= large })
			if v := r.volumes()[0]; v.SizeGiB != 2 || v.Tags["Team"] != "db" {
				t.Errorf("EC2 has %+v", v)
			}
			r.unmount("db", "c1")
		})
	}
	t.Run("EC2 fails", func(t *testing.T) {
		r := newRig(t)
		r.create("db")
		if err := r.sim.Inject(ec2sim.Fault{Kind: "modify-failed", Message: "out of luck"}); err != nil {
			t.Fatal(err)
		}
		r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("size", "2")}, `"db"`, "was not modified", "out of luck", "can be modified again")
		if got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "2")}); got.State == "" || !slices.Contains([]string{"optimizing", "completed"}, got.State) {
			t.Errorf("again: %+v", got)
		}
	})
}

// untold is a kernel that shows the size that its devices had, until their controllers are asked.
type untold struct {
	kernel
	size  int64
	asked *atomic.Int64
}

func (d untold) shows(dev disk.Device, err error) (disk.Device, error) {
	if d.asked.Load() == 0 {
		dev.Size = min(dev.Size, d.size)
	}
	return dev, err
}

func (d untold) Find(serial string) (disk.Device, error) { return d.shows(d.kernel.Find(serial)) }

func (d untold) List() ([]disk.Device, error) {
	list, err := d.kernel.List()
	for i := range list {
		list[i], _ = d.shows(list[i], nil)
	}
	return list, err
}

func (d untold) Grow(ctx context.Context, dev disk.Device, target, fstype string) (bool, error) {
	if d.asked.Load() == 0 {
		return false, nil
	}
	return d.kernel.Grow(ctx, dev, target, fstype)
}

func (d untold) AskController(disk.Device) error { d.asked.Add(1); return nil }

// stiff is a kernel that refuses to grow a filesystem for some time.
type stiff struct {
	kernel
	gives *atomic.Bool
}

func (s stiff) Grow(ctx context.Context, dev disk.Device, target, fstype string) (bool, error) {
	if !s.gives.Load() {
		return false, errors.New("the filesystem is stiff")
	}
	return s.kernel.Grow(ctx, dev, target, fstype)
}

// startOn is start with another kernel.
func (r *rig) startOn(change func(kernel) kernel) {
	r.t.Helper()
	r.start()
	r.stop()
	var err error
	if r.manager, err = r.plan().manager(r.log); err != nil {
		r.t.Fatal(err)
	}
	r.manager.disk = change(r.manager.disk)
	r.serve()
}

func TestAKernelThatWasNotToldOfTheNewSizeIsMadeToLook(t *testing.T) {
	r := newMachine(t)
	var asked atomic.Int64
	r.startOn(func(k kernel) kernel { return untold{k, 1 << 30, &asked} })
	r.create("here", "fstype", "xfs")
	path := r.mount("here", "c1")
	if got := r.update(UpdateRequest{Volume: "here", Set: m2s("size", "2")}); !got.Grown || asked.Load() == 0 || r.capacity(path) < large {
		t.Errorf("%+v after %d requests, %d bytes", got, asked.Load(), r.capacity(path))
	}
	r.unmount("here", "c1")
	// Enlarged by somebody else: the sweep asks as soon as EC2 has said so.
	asked.Store(0)
	r.create("other", "fstype", "xfs")
	path = r.mount("other", "c1")
	id, gib := r.status("other")["id"].(string), int32(2)
	if _, err := r.person().ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: &id, Size: &gib}); err != nil {
		t.Fatal(err)
	}
	r.eventually("a list has brought it", func() bool {
		var rows VolumeRows
		r.askFor("List", NoRequest{}, &rows)
		return slices.ContainsFunc(rows.Volumes, func(v VolumeRow) bool { return v.Name == "other" && v.SizeGiB == 2 })
	})
	r.eventually("the filesystem has grown", func() bool { return r.capacity(path) >= large })
	r.unmount("other", "c1")
}

func TestAFilesystemThatCannotBeGrownIsToldUntilItIs(t *testing.T) {
	r := newMachine(t)
	var gives atomic.Bool
	r.startOn(func(k kernel) kernel { return stiff{k, &gives} })
	r.create("db", "fstype", "xfs")
	gives.Store(true)
	path := r.mount("db", "c1")
	gives.Store(false)
	r.notUpdated(UpdateRequest{Volume: "db", Set: m2s("size", "2", "tag.Team", "db")}, `"db"`, "has 2 GiB now", "could not be grown", "is stiff", "once a minute")
	r.shows(ProblemNotGrown, "db", "is stiff", "docs/growing.md")
	if v := r.volumes()[0]; v.SizeGiB != 2 || v.Tags["Team"] != "db" {
		t.Errorf("the rest was not done: %+v", v)
	}
	gives.Store(true)
	r.eventually("it is tried again", func() bool { return r.capacity(path) >= large })
	r.eventually("health tells of it no more", func() bool {
		for _, p := range r.manager.Health(t.Context()).Problems {
			if p.Kind == ProblemNotGrown {
				return false
			}
		}
		return true
	})
	r.unmount("db", "c1")
}

func TestAnOldAnswerAboutAModificationIsNotTakenForTheNewOne(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Absent = 3 * time.Second }) // longer than answers are old
	r.create("db", "fstype", "xfs")
	path := r.mount("db", "c1")
	r.update(UpdateRequest{Volume: "db", Set: m2s("size", "2"), Completed: true})
	r.delays(func(d *ec2sim.Delays) { d.Visible, d.Modify, d.Optimize = time.Second, 100*time.Millisecond, time.Hour })
	if got := r.update(UpdateRequest{Volume: "db", Set: m2s("size", "4")}); got.State != "optimizing" || !got.Grown || r.capacity(path) < 7<<29 {
		t.Errorf("%+v, %d bytes", got, r.capacity(path))
	}
	r.delays(func(d *ec2sim.Delays) { d.Visible = 0 })
	r.unmount("db", "c1")
}

package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// snap makes a snapshot of a volume and returns its ID when it is completed.
func (r *rig) snap(volume string) string {
	r.t.Helper()
	var row SnapshotRow
	r.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: volume, Wait: true}, &row)
	return row.ID
}

// Two copies of one filesystem and the original, in use on one host at the same time, each with its own data.
func TestCopiesOfAVolumeAreUsedBesideItWithTheirOwnData(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	for _, fs := range []string{"ext4", "xfs"} {
		name := "db-" + fs
		r.create(name, "fstype", fs, "subdir", "pg", "mode", "0700", "mount-options", "noatime")
		path := r.mount(name, "c1")
		write(t, filepath.Join(path, "row"), "1")
		id := r.snap(name)
		write(t, filepath.Join(path, "row"), "2")
		restored := m{"Name": "restored-" + fs, "Opts": m{"snapshot-id": "latest:" + name}}
		r.must("Create", restored)
		r.must("Create", m{"Name": "copy-" + fs, "Opts": m{"from": name, "size": "2"}})
		write(t, filepath.Join(path, "row"), "3")
		for other, want := range map[string]string{"restored-" + fs: "1", "copy-" + fs: "2"} {
			at := r.mount(other, "c2")
			if got := read(t, filepath.Join(at, "row")); got != want {
				t.Errorf("%s holds %q, want %q", other, got, want)
			}
			if info, err := os.Stat(at); err != nil || info.Mode().Perm() != 0o700 || filepath.Base(at) != "pg" {
				t.Errorf("%s: its folder is %s, %v, %v", other, at, info.Mode(), err)
			}
			write(t, filepath.Join(at, "row"), other)
			st := r.status(other)
			if st["filesystem"] != fs || st["reclaim"] != "delete" {
				t.Errorf("inspect of %s shows %v", other, st)
			}
		}
		if got := read(t, filepath.Join(path, "row")); got != "3" {
			t.Errorf("the original holds %q", got)
		}
		if !freezes(t, path) {
			t.Error("the original is still frozen")
		}
		// Grown to what was asked for; ext4 needs a capability for that which not every machine gives to tests.
		if used, free := r.status("copy-" + fs)["usedBytes"].(float64), r.status("copy-" + fs)["freeBytes"].(float64); fs == "xfs" && used+free < 1.7*(1<<30) {
			t.Errorf("the filesystem of the larger copy has %v bytes", used+free)
		}
		// Asked for again, with a newer snapshot there, it is the same volume.
		first := r.status("restored-" + fs)["id"]
		r.snap(name)
		r.must("Create", restored)
		if again := r.status("restored-" + fs)["id"]; again != first {
			t.Errorf("the volume was %v and is %v", first, again)
		}
		r.refused("Create", m{"Name": "restored-" + fs, "Opts": m{"from": name}}, "restored-"+fs, "from is not set", name)
		r.refused("Create", m{"Name": name, "Opts": m{"snapshot-id": id}}, name, "snapshot-id is not set", id)
		for n, v := range []string{name, "restored-" + fs, "copy-" + fs} {
			r.unmount(v, map[bool]string{true: "c1", false: "c2"}[n == 0])
		}
		// The data of a snapshot outlive the volume.
		r.remove(name)
		r.must("Create", m{"Name": name, "Opts": m{"snapshot-id": id}})
		if got := read(t, filepath.Join(r.mount(name, "c3"), "row")); got != "1" {
			t.Errorf("made of the first snapshot it holds %q", got)
		}
		r.unmount(name, "c3")
	}
}

func TestAVolumeOfASnapshotThatIsPendingIsWaitedForAndTheRetryFindsIt(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Request = 2 * time.Second })
	d := r.sim.Delays()
	d.Snapshot = 6 * time.Second
	r.sim.SetDelays(d)
	r.create("db")
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.unmount("db", "c1")
	var row SnapshotRow
	r.askFor("CreateSnapshot", CreateSnapshotRequest{Volume: "db"}, &row)
	if row.State != "pending" {
		t.Fatalf("made is %+v", row)
	}
	create := m{"Name": "copy", "Opts": m{"snapshot-id": row.ID}}
	r.refused("Create", create, "copy", "waiting for the snapshot", row.ID, "%", "try again")
	r.must("Create", create)
	if got := read(t, filepath.Join(r.mount("copy", "c2"), "row")); got != "42" {
		t.Errorf("it holds %q", got)
	}
	r.unmount("copy", "c2")
	// For a person the whole way is told.
	var v VolumeRow
	a := r.askFor("Copy", CopyRequest{Name: "second", Snapshot: row.ID}, &v)
	if v.Name != "second" || v.ID == "" || v.SnapshotID != row.ID || v.Filesystem != "ext4" {
		t.Errorf("made is %+v, said was %q", v, a.said)
	}
}

func TestWhatNoVolumeCanBeMadeOfIsRefusedAndNothingIsLeft(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.setting(map[string]string{"MAX_SIZE": "4GiB"})
	r.start()
	r.oftenSnapshots()
	r.create("db", "size", "2")
	r.mount("db", "c1")
	r.unmount("db", "c1")
	id := r.snap("db")
	r.create("blank")
	other := r.person()
	tagged := func(key, value string) string {
		vol := r.status("db")["id"].(string)
		out, err := other.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &vol})
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			r.tag(*out.SnapshotId, key, value)
			r.tag(*out.SnapshotId, "blockvol:name", "db")
		}
		r.eventually("completed", func() bool {
			got, err := other.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*out.SnapshotId}})
			return err == nil && got.Snapshots[0].State == "completed"
		})
		return *out.SnapshotId
	}
	theirs := tagged("blockvol:cluster", "another")
	large, err := r.sim.Import(ec2sim.ImportSpec{SizeGiB: 8, Zone: r.host.Zone})
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &large})
	if err != nil {
		t.Fatal(err)
	}
	r.calls()
	before := len(r.volumes())
	for _, c := range []struct {
		opts m
		says []string
	}{
		{m{"snapshot-id": "snap-0123456789abcdef0"}, []string{"snap-0123456789abcdef0", "no snapshot"}},
		{m{"snapshot-id": "latest:none"}, []string{`"none"`, "blockvol snapshot ls"}},
		{m{"snapshot-id": theirs}, []string{theirs, `"another"`, r.settings.Cluster}},
		{m{"snapshot-id": id, "size": "1"}, []string{"size", id, "2 GiB", "1 GiB"}},
		{m{"snapshot-id": id, "size": "5"}, []string{"MAX_SIZE", "5 GiB", "4 GiB"}},
		{m{"snapshot-id": *out.SnapshotId}, []string{"MAX_SIZE", "8 GiB", "4 GiB"}},
		{m{"snapshot-id": id, "fstype": "xfs"}, []string{"fstype", "ext4", "xfs"}},
		{m{"from": "none"}, []string{"from=none", "none"}},
		{m{"from": "copy"}, []string{"from=copy", "itself"}},
		{m{"from": "vol-0123456789abcdef0"}, []string{"vol-0123456789abcdef0"}},
		{m{"from": "blank"}, []string{"blank", "no filesystem"}},
		{m{"from": "db", "size": "1"}, []string{"size", "db", "2 GiB"}},
		{m{"from": "db", "snapshot-id": id}, []string{"snapshot-id and from"}},
	} {
		r.refused("Create", m{"Name": "copy", "Opts": c.opts}, c.says...)
	}
	if n := r.calls(); n["CreateVolume"]+n["CopyVolumes"]+n["CreateSnapshot"] != 0 || len(r.volumes()) != before {
		t.Errorf("something was made: %v", n)
	}
	a, err := r.ask(t.Context(), "Copy", CopyRequest{Name: "copy", Snapshot: id, Options: map[string]string{"from": "db", "snapshot": id}})
	if err != nil || !strings.Contains(a.Error, "snapshot-id") {
		t.Errorf("said twice: %+v, %v", a, err)
	}
}

// A snapshot that blockvol did not make is like a volume that it did not make: its filesystem is found, and never made.
func TestAVolumeOfAForeignSnapshotIsUsedAsItIs(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	of := func(image string) string {
		vol := r.there(image, nil)
		out, err := r.person().CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &vol})
		if err != nil {
			t.Fatal(err)
		}
		return *out.SnapshotId
	}
	r.must("Create", m{"Name": "old", "Opts": m{"snapshot-id": of(foreign(t, "mkfs.xfs", "-q")), "size": "2"}})
	path := r.mount("old", "c1")
	if read(t, filepath.Join(path, "top")) != "old" || read(t, filepath.Join(path, "data", "row")) != "42" {
		t.Error("the container does not get the root of the volume")
	}
	if st := r.status("old"); st["filesystem"] != "xfs" || st["reclaim"] != "delete" {
		t.Errorf("inspect shows %v", st)
	}
	r.unmount("old", "c1")
	r.must("Create", m{"Name": "nothing", "Opts": m{"snapshot-id": of("")}})
	r.refused("Mount", m{"Name": "nothing", "ID": "c1"}, "nothing", "blank", "formats no volume")
	r.remove("nothing")
}

func TestACopyOfAVolumeThatAnotherHostUsesIsMadeAndRecovers(t *testing.T) {
	r := newRig(t)
	two := r.twin()
	r.create("db")
	path := r.mount("db", "c1")
	if err := writeThrough(filepath.Join(path, "row"), "42"); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.Sync(); err != nil {
		t.Fatal(err)
	}
	folder.Close()
	var v VolumeRow
	a := two.askFor("Copy", CopyRequest{Name: "copy", Volume: "db"}, &v)
	if !strings.Contains(strings.Join(a.said, "\n"), r.host.ID+" has the volume") {
		t.Errorf("said was %q", a.said)
	}
	if got := read(t, filepath.Join(two.mount("copy", "c2"), "row")); got != "42" {
		t.Errorf("the copy holds %q", got)
	}
	two.unmount("copy", "c2")
	r.unmount("db", "c1")
}

// Where EC2 does not copy volumes, a snapshot is the way, and is gone afterwards.
func TestAVolumeIsCopiedByASnapshotWhereItMustBe(t *testing.T) {
	r := newRig(t)
	r.oftenSnapshots()
	r.create("db")
	path := r.mount("db", "c1")
	write(t, filepath.Join(path, "row"), "42")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "CopyVolumes", Code: "UnsupportedOperation", Times: -1}); err != nil {
		t.Fatal(err)
	}
	r.must("Create", m{"Name": "copy", "Opts": m{"from": "db"}})
	if !freezes(t, path) {
		t.Error("the original is still frozen")
	}
	if got := read(t, filepath.Join(r.mount("copy", "c2"), "row")); got != "42" || len(r.snapshots()) != 0 {
		t.Errorf("the copy holds %q, and there are %d snapshots", got, len(r.snapshots()))
	}
	r.unmount("copy", "c2")
	r.unmount("db", "c1")
}

package driver

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// has tells whether the host says that the volume of the name is that one.
func (r *rig) has(name, id string) bool {
	r.t.Helper()
	got, err := r.try("Get", m{"Name": name})
	if err != nil {
		return false
	}
	status, _ := got["Volume"].(map[string]any)["Status"].(map[string]any)
	return status["id"] == id
}

func TestARemovedVolumeIsThereForAWhileWithItsDataAndItsNameIsFree(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = time.Hour
	r.start()
	two := r.twin()
	r.create("db")
	id := r.status("db")["id"].(string)
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.refused("Remove", m{"Name": "db"}, "db", "not removed")
	two.refused("Remove", m{"Name": "db"}, "db", r.host.ID)
	r.unmount("db", "c1")
	r.eventually("it can be removed", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
	r.must("Create", m{"Name": "db", "Opts": m{"size": "2"}}) // at once, with other options
	if now := r.status("db")["id"]; now == id {
		t.Error("the volume that was removed came back")
	}
	two.eventually("the other host sees the new one", func() bool { return two.has("db", r.status("db")["id"].(string)) })
	two.eventually("and can remove it", func() bool { _, err := two.try("Remove", m{"Name": "db"}); return err == nil })
	two.must("Remove", m{"Name": "db"}) // once more
	for _, host := range []*rig{r, two} {
		host.eventually("not there", func() bool {
			_, err := host.try("Get", m{"Name": "db"})
			return err != nil && strings.Contains(err.Error(), "no volume")
		})
		if got := host.must("List", m{})["Volumes"]; got != nil && len(got.([]any)) != 0 {
			t.Errorf("listed are %v", got)
		}
	}
	if got := r.given("db"); len(got) != 2 {
		t.Errorf("there for a while are %v", got)
	}
	if n := r.calls()["DeleteVolume"]; n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
	// Its data is there.
	r.must("Create", m{"Name": "again", "Opts": m{"volume-id": id}})
	if got := read(t, filepath.Join(r.mount("again", "c2"), "row")); got != "42" {
		t.Errorf("it holds %q", got)
	}
	r.unmount("again", "c2")
}

// What nobody has named, or never was a volume, is not missed.
func TestWhatNobodyCanMissIsDeletedAtOnce(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = time.Hour
	r.start()
	name := strings.Repeat("0123456789abcdef", 4)
	r.create(name)
	r.must("Remove", m{"Name": name})
	if n := r.calls()["DeleteVolume"]; n != 1 || len(r.given(name)) != 0 {
		t.Errorf("an anonymous volume: DeleteVolume was sent %d times, kept are %v", n, r.given(name))
	}
	for _, named := range []string{name[1:], strings.ToUpper(name), "a" + name} {
		r.create(named)
		r.must("Remove", m{"Name": named})
		if len(r.given(named)) != 1 {
			t.Errorf("%s was deleted at once", named)
		}
	}
}

// The host that removed it is gone when the time is over: another one deletes it, once, and nothing else.
func TestWhatWasRemovedIsDeletedForGoodWhenItsTimeIsOverByAnyHost(t *testing.T) {
	t.Parallel()
	r := newMachine(t, func(t *Timing) { t.Purge = time.Second })
	r.settings.DeleteDelay = 4 * time.Second
	r.start()
	r.create("db")
	r.create("kept", "reclaim", "retain")
	r.create("living")
	r.must("Remove", m{"Name": "db"})
	r.must("Remove", m{"Name": "kept"})
	if len(r.given("db")) != 1 {
		t.Error("it did not wait")
	}
	r.crash()
	r.settings.DeleteDelay = 0 // what is set now plays no part
	two, three := r.twin(), r.twin()
	r.eventually("deleted for good", func() bool { return len(r.given("db")) == 0 })
	for _, host := range []*rig{two, three} {
		if err := host.manager.purge(t.Context()); err != nil {
			t.Error(err)
		}
		host.status("living")
	}
	if n := r.calls()["DeleteVolume"]; n != 1 || len(r.given("kept")) != 1 {
		t.Errorf("DeleteVolume was sent %d times; kept are %v", n, r.given("kept"))
	}
}

// A host that is not stopped deletes what it removed when the time is over, however rarely hosts look.
func TestTheHostThatRemovedAVolumeDeletesItInTime(t *testing.T) {
	r := newMachine(t)
	r.settings.DeleteDelay = 2 * time.Second
	t.Parallel()
	r.start()
	r.create("db")
	r.must("Remove", m{"Name": "db"})
	r.eventually("deleted for good", func() bool { return len(r.given("db")) == 0 })
	if n := r.calls()["DeleteVolume"]; n != 1 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

// A removed volume whose tags somebody has edited stays, and no other is touched in its place.
func TestAPurgeTouchesNothingThatSomebodyHasChanged(t *testing.T) {
	t.Parallel()
	r := newMachine(t, func(t *Timing) { t.Purge = 500 * time.Millisecond })
	r.settings.DeleteDelay = 4 * time.Second
	r.start()
	ids := map[string]string{}
	for _, name := range []string{"renamed", "kept", "held", "gone"} {
		r.create(name)
		ids[name] = r.status(name)["id"].(string)
		r.must("Remove", m{"Name": name})
	}
	r.tag(ids["renamed"], "blockvol:name", "renamed") // as the documents tell it
	r.tag(ids["kept"], "blockvol:released-at", "2001-02-03T04:05:06Z")
	other, err := r.sim.AddInstance(ec2sim.Instance{Zone: r.host.Zone})
	if err != nil {
		t.Fatal(err)
	}
	id, device := ids["held"], "/dev/xvdx"
	if _, err := r.person().AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &other.ID, Device: &device}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the one that is as it was is deleted", func() bool { return len(r.given("gone")) == 0 })
	if err := r.manager.purge(t.Context()); err != nil {
		t.Error(err)
	}
	if n := r.calls()["DeleteVolume"]; n != 1 || len(r.given("kept")) != 1 || len(r.given("held")) != 1 {
		t.Errorf("DeleteVolume was sent %d times; kept are %v %v", n, r.given("kept"), r.given("held"))
	}
	r.eventually("the one that has its name again is found", func() bool { _, err := r.try("Get", m{"Name": "renamed"}); return err == nil })
}

// Two hosts at once: one mounts what the other removes. Whoever wins, the volume is with its data either in use under its name or there for a while.
func TestAVolumeThatIsMountedAndRemovedAtOnceIsOneOfTheTwo(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = time.Hour
	r.start()
	two := r.twin()
	for range 4 {
		r.create("db")
		id := r.status("db")["id"].(string)
		two.eventually("it knows the volume", func() bool { return two.has("db", id) })
		removed := make(chan error, 1)
		go func() { _, err := r.try("Remove", m{"Name": "db"}); removed <- err }()
		_, mountErr := two.try("Mount", m{"Name": "db", "ID": "c1"})
		removeErr := <-removed
		gone := len(r.given("db")) > 0
		if mountErr == nil && (removeErr == nil || gone) {
			t.Errorf("mounted, and removed (%v) or given up (%v)", removeErr, gone)
		}
		if mountErr == nil {
			two.unmount("db", "c1")
		}
		r.eventually("removed in the end", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
		two.eventually("and detached", func() bool { return two.attached() == 0 })
		if got := r.given("db"); len(got) != 1 || got[0] != id {
			t.Fatalf("there are %v, want %s", got, id)
		}
		r.eventually("nobody has it", func() bool { // and the next round counts its own
			_, err := r.person().DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &id})
			return err == nil
		})
	}
}

func TestTheDelayOfADeletionIsReadAsPeopleWriteIt(t *testing.T) {
	read := func(value string) (Settings, error) {
		return ReadSettings(func(name string) string { return map[string]string{"CLUSTER": "c", "DELETE_DELAY": value}[name] })
	}
	for value, want := range map[string]time.Duration{"": 24 * time.Hour, "0": 0, "0s": 0, "7d": 7 * 24 * time.Hour, "90m": 90 * time.Minute, "0d": 0, "365d": 365 * 24 * time.Hour, " 12h ": 12 * time.Hour} {
		if s, err := read(value); err != nil || s.DeleteDelay != want {
			t.Errorf("DELETE_DELAY=%s is %s, %v; want %s", value, s.DeleteDelay, err, want)
		}
	}
	for _, value := range []string{"-1h", "-1d", "366d", "99999999999d", "24", "1w", "soon", "1.5d", "d"} {
		if _, err := read(value); err == nil || !strings.Contains(err.Error(), "DELETE_DELAY="+value) || !strings.Contains(err.Error(), "7d") {
			t.Errorf("DELETE_DELAY=%s: %v", value, err)
		}
	}
}

func TestAVolumeIsRemovedIntoASnapshot(t *testing.T) {
	t.Parallel()
	r := newMachine(t, func(t *Timing) { t.Purge = time.Second })
	d := r.sim.Delays()
	d.Snapshot = time.Hour
	r.sim.SetDelays(d)
	r.settings.DeleteDelay = time.Hour
	r.start()
	r.create("db", "reclaim", "snapshot", "mount-options", "noatime")
	id := r.status("db")["id"].(string)
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.unmount("db", "c1")
	r.remove("db")
	r.must("Create", m{"Name": "db", "Opts": m{"size": "2", "reclaim": "snapshot"}}) // the name is free at once
	r.create("empty", "reclaim", "snapshot")
	r.remove("empty") // nothing was ever on it: it goes like any other
	two := r.twin()
	var pending cloud.Snapshot
	r.eventually("the snapshot is begun", func() bool {
		r.volumes()
		all, err := r.eyes.Snapshots(t.Context(), "")
		if err == nil && len(all) == 1 {
			pending = all[0]
		}
		return pending.State == cloud.SnapshotPending && pending.VolumeID == id
	})
	if pending.Volume != "db" || pending.Attrs["fs"] != "ext4" || pending.Attrs["mount-options"] != "noatime" || pending.Attrs[attrConsistency] != consistentUnmounted {
		t.Errorf("%+v", pending)
	}
	r.crash()
	if row := two.undeletable()[id]; row.End != EndSnapshot {
		t.Errorf("%+v", row)
	}
	for range 3 { // it goes on being there, and no other snapshot is made
		if err := two.manager.purge(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if all, err := r.eyes.Snapshots(t.Context(), ""); err != nil || len(all) != 1 || len(r.given("db")) != 1 || r.calls()["DeleteVolume"] != 0 {
		t.Errorf("while it is pending there are %+v, %v, and the volumes %v", all, err, r.given("db"))
	}
	if row := two.undeletable()[id]; row.Name != "db" {
		t.Errorf("%+v", row)
	}
	two.askFor("Undelete", UndeleteRequest{Volume: id, Name: "back"}, &AdoptedVolume{})
	d.Snapshot = 10 * time.Millisecond
	r.sim.SetDelays(d)
	two.remove("back")
	two.eventually("another host deletes it when its snapshot is completed", func() bool { return len(r.given("back")) == 0 })
	all, err := r.eyes.Snapshots(t.Context(), id)
	completed := 0
	for _, s := range all {
		if s.State == cloud.SnapshotCompleted && s.Volume == "back" {
			completed++
		}
	}
	if err != nil || completed != 1 || r.calls()["DeleteVolume"] != 1 {
		t.Errorf("there are %+v, %v", all, err)
	}
	if len(r.given("empty")) != 1 || !two.has("db", two.status("db")["id"].(string)) {
		t.Errorf("of others there are %v", r.given("empty"))
	}
}

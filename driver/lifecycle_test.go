package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestDataOutlivesTheContainerAndTheAttachment(t *testing.T) {
	r := newRig(t)
	r.create("pgdata", "tag.team", "db")
	p := r.mount("pgdata", "c1")
	if filepath.Base(p) != "data" || !strings.HasPrefix(p, r.manager.mounts) {
		t.Errorf("the mountpoint is %s, want a folder named data under %s", p, r.manager.mounts)
	}
	write(t, filepath.Join(p, "row"), "42")
	st := r.status("pgdata")
	for key, want := range map[string]any{"state": "mounted", "size": "1 GiB", "type": "gp3", "filesystem": "ext4", "attachedTo": r.host.ID, "zone": r.host.Zone, "volumeState": "in-use"} {
		if st[key] != want {
			t.Errorf("status %s is %v, want %v", key, st[key], want)
		}
	}
	for _, key := range []string{"id", "device", "usedBytes", "freeBytes", "users", "tags", "iops", "throughput", "encrypted"} {
		if _, ok := st[key]; !ok {
			t.Errorf("status does not tell %s: %v", key, st)
		}
	}
	r.unmount("pgdata", "c1")
	r.eventually("detached after the last use", func() bool {
		st := r.status("pgdata")
		return r.attached() == 0 && st["state"] == "free" && st["volumeState"] == "available"
	})
	if _, err := os.Stat(filepath.Dir(p)); !os.IsNotExist(err) {
		t.Errorf("the mountpoint is left behind: %v", err)
	}
	p = r.mount("pgdata", "c2")
	if got := read(t, filepath.Join(p, "row")); got != "42" {
		t.Errorf("the data is %q", got)
	}
	r.unmount("pgdata", "c2")
	r.must("Remove", m{"Name": "pgdata"})
	r.refused("Get", m{"Name": "pgdata"}, "no volume")
	if n := r.attached(); n != 0 {
		t.Errorf("%d devices are left", n)
	}
}

func TestEC2CallsPerOperation(t *testing.T) {
	t.Parallel()
	r := newMachine(t, func(t *Timing) { t.Fresh, t.Grace, t.AskCloud = 4*time.Second, 4*time.Second, time.Minute })
	r.ebs.FirstPoll, r.ebs.Attaching, r.ebs.Detaching = 2*time.Second, 2*time.Second, 2*time.Second // by then it is done, and one look is enough
	r.start()
	r.eventually("ready", func() bool { return r.manager.ready(t.Context()) == nil && r.manager.cloud.Warm(t.Context()) == nil })
	time.Sleep(100 * time.Millisecond)
	step := func(what string, want int, do func()) {
		t.Helper()
		r.calls()
		do()
		n, total := r.calls(), 0
		for _, k := range n {
			total += k
		}
		if total != want {
			t.Errorf("%s took %d EC2 calls %v, want %d", what, total, n, want)
		}
	}
	get := func() { r.try("Get", m{"Name": "pgdata"}) }
	step("create", 3, func() { get(); r.create("pgdata") })
	time.Sleep(r.timing.Fresh)
	step("first mount", 5, func() { get(); get(); r.mount("pgdata", "c1") })
	step("second mount, Path, Get, Capabilities of an attached volume", 0, func() {
		get()
		r.mount("pgdata", "c2")
		r.must("Path", m{"Name": "pgdata"})
		r.post("Capabilities", "{}")
		r.unmount("pgdata", "c2")
	})
	step("restart within the grace", 0, func() { get(); r.unmount("pgdata", "c1"); get(); r.mount("pgdata", "c3") })
	step("last unmount with detach", 2, func() {
		get()
		r.unmount("pgdata", "c3")
		r.eventually("detached", func() bool {
			v := r.manager.record("pgdata")
			v.mu.Lock()
			defer v.mu.Unlock()
			return v.phase == phaseFree
		})
	})
	time.Sleep(r.timing.Fresh)
	step("mount of a formatted volume", 3, func() { get(); get(); r.mount("pgdata", "c4") })
	r.unmount("pgdata", "c4")
	r.eventually("detached", func() bool { return r.attached() == 0 && r.status("pgdata")["state"] == "free" })
	time.Sleep(r.timing.Fresh)
	step("remove", 2, func() { get(); get(); r.must("Remove", m{"Name": "pgdata"}) })
}

func TestTwoContainersShareAVolumeOnOneHost(t *testing.T) {
	r := newRig(t)
	r.create("shared")
	var wg sync.WaitGroup
	paths := make([]string, 8)
	for i := range paths {
		wg.Add(1)
		go func() {
			defer wg.Done()
			res, err := r.try("Mount", m{"Name": "shared", "ID": fmt.Sprint("c", i)})
			if err != nil {
				t.Error(err)
				return
			}
			paths[i] = res["Mountpoint"].(string)
		}()
	}
	wg.Wait()
	for _, p := range paths {
		if p != paths[0] {
			t.Fatalf("the mountpoints differ: %q", paths)
		}
	}
	if n := r.calls()["AttachVolume"]; n != 1 {
		t.Errorf("%d AttachVolume calls", n)
	}
	for i := range paths[1:] {
		r.unmount("shared", fmt.Sprint("c", i))
	}
	time.Sleep(2 * r.timing.Grace)
	if r.status("shared")["state"] != "mounted" {
		t.Error("unmounted while one container uses it")
	}
	r.unmount("shared", fmt.Sprint("c", len(paths)-1))
	r.eventually("detached", func() bool { return r.attached() == 0 })
}

// docker cp on a running container sends Mount and Unmount with the ID that the container itself uses.
func TestDockerCpDoesNotTakeTheVolumeFromItsContainer(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	p := r.mount("pgdata", "c1")
	release := r.hold(filepath.Dir(p))
	for range 3 {
		r.mount("pgdata", "c1")
		r.unmount("pgdata", "c1")
	}
	if st := r.status("pgdata"); st["state"] != "draining" {
		t.Errorf("state is %v, want draining", st["state"])
	}
	time.Sleep(3 * r.timing.Grace)
	if r.attached() != 1 {
		t.Fatal("detached while a container has it")
	}
	r.refused("Remove", m{"Name": "pgdata"}, "not removed", "docker ps --filter volume=pgdata")
	// A new container gets the same filesystem, without a call to EC2.
	r.calls()
	p = r.mount("pgdata", "c2")
	write(t, filepath.Join(p, "row"), "42")
	if n := r.calls(); len(n) != 0 {
		t.Errorf("mounting again took EC2 calls: %v", n)
	}
	r.unmount("pgdata", "c2")
	release()
	r.eventually("detached once the container has ended, without another Unmount", func() bool { return r.attached() == 0 })
}

func TestALostUnmountDoesNotLeakAfterARestart(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.HandOver = 10 * time.Second })
	r.create("pgdata")
	write(t, filepath.Join(r.mount("pgdata", "c1"), "row"), "42")
	r.crash()
	r.start()
	r.eventually("known to be mounted after the restart", func() bool { return r.status("pgdata")["state"] == "mounted" })
	r.eventually("detached: nobody ever unmounts c1", func() bool { return r.attached() == 0 })
	if got := read(t, filepath.Join(r.mount("pgdata", "c2"), "row")); got != "42" {
		t.Errorf("the data is %q", got)
	}
	r.unmount("pgdata", "c2")
}

func TestAContainerSurvivesTheDeathOfThePlugin(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	p := r.mount("pgdata", "c1")
	release := r.hold(filepath.Dir(p))
	r.crash()
	r.start()
	time.Sleep(r.timing.HandOver + 2*r.timing.Sweep)
	if r.attached() != 1 {
		t.Fatal("detached under a living container")
	}
	p = r.mount("pgdata", "c2")
	write(t, filepath.Join(p, "row"), "42")
	r.unmount("pgdata", "c1")
	r.unmount("pgdata", "c2")
	release()
	r.eventually("detached", func() bool { return r.attached() == 0 })
}

func TestALostLedgerCostsNothing(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(t *Timing) { t.HandOver = 15 * time.Second })
			r.create("pgdata")
			p := r.mount("pgdata", "c1")
			r.crash()
			if err := damage(filepath.Join(r.state, "ledger.json")); err != nil {
				t.Fatal(err)
			}
			r.start()
			r.eventually("ready", func() bool { return r.manager.ready(t.Context()) == nil })
			// The answer to that Mount may not have reached its container: it stays for a while.
			time.Sleep(2 * r.timing.Sweep)
			write(t, filepath.Join(p, "row"), "42")
			r.unmount("pgdata", "c1")
			r.eventually("detached in the end", func() bool { return r.attached() == 0 })
		})
	}
}

func TestShutdownDetachesWhatIsFreeAndKeepsWhatIsUsed(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace = time.Hour })
	r.create("used")
	r.create("idle")
	release := r.hold(filepath.Dir(r.mount("used", "c1")))
	r.mount("idle", "c2")
	r.unmount("idle", "c2")
	if r.attached() != 2 {
		t.Fatal("the grace was not kept")
	}
	r.stop()
	r.eventually("the idle volume is detached, the other not", func() bool { return r.attached() == 1 })
	r.timing = testTiming()
	r.start()
	r.unmount("used", "c1")
	release()
	r.eventually("detached", func() bool { return r.attached() == 0 })
}

func TestRemoveProvesThatTheVolumeIsFree(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.HandOver = 6 * time.Second })
	r.create("pgdata")
	p := r.mount("pgdata", "c1")
	release := r.hold(filepath.Dir(p))
	r.refused("Remove", m{"Name": "pgdata"}, "not removed", "handed to a container")
	time.Sleep(r.timing.HandOver + 100*time.Millisecond)
	r.refused("Remove", m{"Name": "pgdata"}, "not removed", "still in use on this host")
	if r.calls()["DeleteVolume"] != 0 {
		t.Fatal("DeleteVolume was sent for a volume in use")
	}
	release()
	r.eventually("removed when it is free", func() bool { _, err := r.try("Remove", m{"Name": "pgdata"}); return err == nil })
	r.must("Remove", m{"Name": "pgdata"}) // its answer may have been lost
}

func TestRemoveRefusesAVolumeThatAnotherHostHas(t *testing.T) {
	r := newRig(t)
	other := r.twin()
	r.create("pgdata")
	other.mount("pgdata", "c1")
	time.Sleep(r.timing.Fresh)
	r.refused("Remove", m{"Name": "pgdata"}, "not removed", other.host.ID)
	r.refused("Mount", m{"Name": "pgdata", "ID": "c2"}, "pgdata", "attached to "+other.host.ID)
	if st := r.status("pgdata"); st["attachedTo"] != other.host.ID {
		t.Errorf("attachedTo is %v", st["attachedTo"])
	}
	other.unmount("pgdata", "c1")
	other.eventually("detached there", func() bool { return other.attached() == 0 })
	r.eventually("mounted here", func() bool { _, err := r.try("Mount", m{"Name": "pgdata", "ID": "c2"}); return err == nil })
	r.unmount("pgdata", "c2")
}

// twin is a second host in the same zone of the same simulated cloud.
func (r *rig) twin() *rig {
	r.t.Helper()
	host, err := r.sim.AddInstance(ec2sim.Instance{Zone: r.host.Zone})
	if err != nil {
		r.t.Fatal(err)
	}
	two := *r
	two.host, two.state = host, filepath.Join(r.t.TempDir(), "state")
	two.start()
	return &two
}

func TestASecondPluginOnTheInstanceServesNothing(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	second := *r
	second.state = filepath.Join(t.TempDir(), "state")
	second.start()
	second.refused("Create", m{"Name": "other"}, "another blockvol", fmt.Sprint("process ", os.Getpid()))
	second.refused("Mount", m{"Name": "pgdata", "ID": "c1"}, "another blockvol")
}

func TestSettingsOfAnotherClusterNeverMakeVolumesDisappear(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	r.stop()
	r.settings.Cluster = "another"
	r.start()
	if st := r.status("pgdata"); !strings.Contains(fmt.Sprint(st["error"]), "belong to") {
		t.Errorf("Get does not tell what is wrong: %v", st)
	}
	if status, body := r.post("Get", `{"Name":"another"}`); status != 0 {
		t.Errorf("Get of a name that nobody knows was answered: %d %s", status, body)
	}
	r.refused("Create", m{"Name": "pgdata"}, "belong to", "set the old values again")
	r.refused("Remove", m{"Name": "pgdata"}, "belong to")
}

func TestGetSurvivesATroubledCloud(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	time.Sleep(r.timing.Fresh)
	r.api.CloseClientConnections()
	r.api.Close()
	began := time.Now()
	if st := r.status("pgdata"); st["id"] == nil {
		t.Errorf("a known volume is answered without its ID: %v", st)
	}
	if d := time.Since(began); d > r.timing.Request/2 {
		t.Errorf("it took %s", d)
	}
	began = time.Now()
	names := r.must("List", m{})["Volumes"].([]any)
	if len(names) != 1 || time.Since(began) > r.timing.Request/2 {
		t.Errorf("List answered %v in %s", names, time.Since(began))
	}
}

func TestAKnownVolumeIsGoneOnlyAfterTwoLooks(t *testing.T) {
	r := newRig(t)
	other := r.twin()
	r.create("pgdata")
	file := r.sim.BackingFile(r.status("pgdata")["id"].(string))
	time.Sleep(r.timing.Fresh)
	other.must("Remove", m{"Name": "pgdata"})
	r.eventually("deleted", func() bool { _, err := os.Stat(file); return os.IsNotExist(err) }) // what EC2 shows as deleting is gone at once
	began := time.Now()
	var err error
	r.eventually("gone", func() bool { _, err = r.try("Get", m{"Name": "pgdata"}); return err != nil })
	if !strings.Contains(err.Error(), "no volume") {
		t.Error(err)
	}
	if d := time.Since(began); d < r.timing.Absent {
		t.Errorf("believed to be gone after %s", d)
	}
	r.create("pgdata") // the name is free
}

func TestCreateIsIdempotentAndTellsDifferences(t *testing.T) {
	r := newRig(t)
	r.create("pgdata", "type", "gp3")
	id := r.status("pgdata")["id"]
	r.create("pgdata", "type", "gp3")
	if got := r.status("pgdata")["id"]; got != id {
		t.Errorf("a second volume was made: %v and %v", id, got)
	}
	r.refused("Create", m{"Name": "pgdata", "Opts": m{"size": "2"}}, "exists already", "differs", "2 GiB")
	r.refused("Create", m{"Name": "other", "Opts": m{"availability-zone": "mars-1a"}}, "mars-1a", r.host.Zone)
	if n := len(r.must("List", m{})["Volumes"].([]any)); n != 1 {
		t.Errorf("%d volumes exist", n)
	}
}

func TestCreateDeleteCreateOfOneNameWorksAtTheFirstTry(t *testing.T) {
	r := newRig(t)
	for range 50 {
		r.create("again")
		r.must("Remove", m{"Name": "again"})
	}
}

func TestTwoHostsCreateOneNameOnce(t *testing.T) {
	r := newRig(t)
	other := r.twin()
	for i := range 20 {
		name := fmt.Sprint("both", i)
		var wg sync.WaitGroup
		for _, h := range []*rig{r, other} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if _, err := h.try("Create", m{"Name": name, "Opts": m{"size": "1"}}); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		if a, b := r.status(name)["id"], other.status(name)["id"]; a != b || a == nil {
			t.Fatalf("two volumes of one name: %v and %v", a, b)
		}
	}
}

package driver

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/options"
)

func TestAVolumeThatIsToBeKeptIsKeptWithItsDataAndItsNameIsFree(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.setting(map[string]string{"PROFILES": "safe: reclaim=retain"})
	r.start()
	two := r.twin()
	r.create("db", "profile", "safe")
	id := r.status("db")["id"].(string)
	if got := r.status("db")["reclaim"]; got != "retain" {
		t.Errorf("inspect shows reclaim %v", got)
	}
	write(t, filepath.Join(r.mount("db", "c1"), "row"), "42")
	r.refused("Remove", m{"Name": "db"}, "db", "not removed")
	two.refused("Remove", m{"Name": "db"}, "db", r.host.ID)
	if got := r.given("db"); len(got) != 0 {
		t.Errorf("given up while it is in use: %v", got)
	}
	r.unmount("db", "c1")
	r.eventually("it can be removed", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
	r.must("Remove", m{"Name": "db"}) // once more
	if got := r.given("db"); len(got) != 1 || got[0] != id {
		t.Fatalf("kept are %v, want %s", got, id)
	}
	if n := r.calls()["DeleteVolume"]; n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
	for _, host := range []*rig{r, two} {
		host.eventually("not there", func() bool { // a slow EC2 is answered for from memory
			_, err := host.try("Get", m{"Name": "db"})
			return err != nil && strings.Contains(err.Error(), "no volume")
		})
		if got := host.must("List", m{})["Volumes"]; got != nil && len(got.([]any)) != 0 {
			t.Errorf("listed are %v", got)
		}
	}
	two.create("db", "reclaim", "delete")
	if now := two.status("db")["id"]; now == id {
		t.Error("the volume that was given up came back")
	}
	r.eventually("it is found where it was removed", func() bool { _, err := r.try("Mount", m{"Name": "db", "ID": "c2"}); return err == nil })
	r.unmount("db", "c2")
	r.refused("Create", m{"Name": "db", "Opts": m{"reclaim": "retain"}}, "reclaim is delete, asked for retain")
	r.eventually("it can be removed", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
	if got := r.given("db"); len(got) != 1 || got[0] != id {
		t.Errorf("kept are %v, want %s alone", got, id)
	}
	if n := r.calls()["DeleteVolume"]; n != 1 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

func TestAVolumeWithARuleForItsEndThatIsNotKnownIsNotRemoved(t *testing.T) {
	r := newRig(t)
	r.create("db")
	id := r.status("db")["id"].(string)
	r.tag(id, "blockvol:reclaim", "shred")
	time.Sleep(r.timing.Fresh)
	r.refused("Remove", m{"Name": "db"}, "db", id, "not removed", "blockvol:reclaim", "shred", "upgrade")
	r.calls()
	r.refused("Remove", m{"Name": "db"}, "shred")
	if n := r.calls(); n["DeleteVolume"]+n["CreateTags"] != 0 {
		t.Errorf("sent was %v", n)
	}
	r.tag(id, "blockvol:reclaim", "delete")
	r.eventually("it is removed", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
	r.refused("Create", m{"Name": "db", "Opts": m{"reclaim": "recycle"}}, "reclaim", "recycle", "delete or retain or snapshot")
}

// Two hosts at once: one mounts what the other removes. Whoever wins, the volume is with its data either in use under its name or kept.
func TestAVolumeThatIsMountedAndGivenUpAtOnceIsOneOfTheTwo(t *testing.T) {
	r := newMachine(t)
	r.settings.DeleteDelay = time.Hour
	r.start()
	two := r.twin()
	for round := range 8 {
		r.create("db", "reclaim", options.Reclaims[round%2])
		id := r.status("db")["id"].(string)
		two.eventually("it knows the volume", func() bool { _, err := two.try("Get", m{"Name": "db"}); return err == nil })
		removed := make(chan error, 1)
		go func() { _, err := r.try("Remove", m{"Name": "db"}); removed <- err }()
		answer, mountErr := two.try("Mount", m{"Name": "db", "ID": "c1"})
		removeErr := <-removed
		kept := len(r.given("db")) > 0
		switch {
		case mountErr == nil && (removeErr == nil || kept):
			t.Errorf("mounted on %v, and removed (%v) or given up (%v)", answer, removeErr, kept)
		case mountErr == nil:
			two.unmount("db", "c1")
		case removeErr == nil && !kept:
			t.Error("removed, and not kept")
		}
		r.eventually("removed in the end", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
		two.eventually("and detached", func() bool { return two.attached() == 0 })
		if got := r.given("db"); len(got) != 1 || got[0] != id {
			t.Fatalf("kept are %v, want %s", got, id)
		}
		r.eventually("nobody has it", func() bool { // and the next round counts its own
			_, err := r.person().DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &id})
			return err == nil
		})
	}
}

// A host that looked the volume up before it was given up attaches it afterwards: it notices, and lets go of it again.
func TestAVolumeThatWasGivenUpWhileItWasBeingAttachedIsNotMounted(t *testing.T) {
	for _, rule := range []string{options.ReclaimRetain, options.ReclaimDelete} {
		t.Run(rule, func(t *testing.T) { givenUpWhileAttached(t, rule) })
	}
}

func givenUpWhileAttached(t *testing.T, rule string) {
	t.Parallel()
	r := newMachine(t)
	r.settings.DeleteDelay = time.Hour
	r.start()
	two := r.twin()
	r.create("db", "reclaim", rule)
	id := r.status("db")["id"].(string)
	two.eventually("it knows the volume", func() bool { _, err := two.try("Get", m{"Name": "db"}); return err == nil })
	hold := 5 * time.Second
	for removed := false; !removed; hold *= 2 { // longer where the machine is slow
		if err := r.sim.Inject(ec2sim.Fault{Kind: "delay", Action: "AttachVolume", Duration: hold}); err != nil {
			t.Fatal(err)
		}
		mounted := make(chan error, 1)
		go func() { _, err := two.try("Mount", m{"Name": "db", "ID": "c1"}); mounted <- err }()
		r.eventually("EC2 is about to attach it", func() bool { return len(r.sim.Faults()) == 0 })
		_, err := r.try("Remove", m{"Name": "db"})
		removed = err == nil
		switch err := <-mounted; {
		case removed && (err == nil || !strings.Contains(err.Error(), "removed on another host")):
			t.Errorf("what was given up is mounted: %v", err)
		case !removed && err == nil:
			two.unmount("db", "c1")
			two.eventually("detached", func() bool { return two.attached() == 0 })
		}
	}
	two.eventually("it lets go of it", func() bool {
		out, err := r.person().DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
		return two.attached() == 0 && err == nil && len(out.Volumes[0].Attachments) == 0
	})
	if got := r.given("db"); len(got) != 1 || got[0] != id {
		t.Errorf("kept are %v", got)
	}
}

// Whatever EC2 answers while a volume is given up: the next try ends it, the volume is there once with all its tags, and it was not deleted.
func TestFaultsWhileAVolumeIsGivenUpLoseNothing(t *testing.T) {
	t.Parallel()
	for _, f := range []ec2sim.Fault{
		{Kind: "lost-answer", Action: "CreateTags"},
		{Kind: "hang", Action: "CreateTags"},
		{Kind: "error", Action: "CreateTags", Code: "InternalError", Status: 500},
		{Kind: "error", Action: "CreateTags", Code: "UnauthorizedOperation", Status: 403},
		{Kind: "error", Action: "CreateTags", Code: "InvalidVolume.NotFound"},
		{Kind: "invisible", Action: "CreateTags", Duration: time.Second},
		{Kind: "error", Action: "DescribeVolumes", Code: "UnauthorizedOperation", Status: 403},
		{Kind: "error", Action: "DescribeVolumes", Code: "RequestLimitExceeded", Status: 503},
		{Kind: "invisible", Action: "DescribeVolumes"},
	} {
		t.Run(f.Kind+"-"+f.Action+"-"+f.Code, func(t *testing.T) {
			t.Parallel()
			r := newMachine(t)
			r.ebs.Attempt, r.ebs.MaxBackoff = time.Second, 300*time.Millisecond
			r.start()
			r.create("db", "reclaim", "retain")
			id := r.status("db")["id"].(string)
			if err := r.sim.Inject(f); err != nil {
				t.Fatal(err)
			}
			r.eventually("it is removed", func() bool { _, err := r.try("Remove", m{"Name": "db"}); return err == nil })
			r.sim.ClearFaults()
			r.eventually("EC2 shows that it was given up", func() bool { got := r.given("db"); return len(got) == 1 && got[0] == id })
			r.eventually("the name is free", func() bool { _, err := r.try("Create", m{"Name": "db", "Opts": m{"size": "2"}}); return err == nil })
			r.eventually("and of another volume", func() bool { now := r.status("db")["id"]; return now != nil && now != id })
			if got := r.given("db"); len(got) != 1 || got[0] != id || r.calls()["DeleteVolume"] != 0 {
				t.Errorf("kept are %v, want %s", got, id)
			}
		})
	}
}

package driver

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// newIllRig is a rig whose rule is impaired.
func newIllRig(t *testing.T, change ...func(*Timing)) *rig {
	t.Helper()
	t.Parallel()
	r := newMachine(t, change...)
	r.settings.Fencing, r.settings.ImpairedAfter = fenceImpaired, time.Minute
	r.start()
	return r
}

// filled makes a volume with data that no host has.
func (r *rig) filled(name string, opts ...string) {
	r.t.Helper()
	r.create(name, opts...)
	write(r.t, filepath.Join(r.mount(name, "before"), "row"), "42")
	r.unmount(name, "before")
	r.eventually(name+" is free", func() bool { return r.who(name).Instance == "" })
}

// taken mounts a volume as soon as that succeeds, and checks that its data is there.
func (r *rig) taken(name string) {
	r.t.Helper()
	path := ""
	r.eventually(name+" is mounted here", func() bool {
		res, err := r.try("Mount", m{"Name": name, "ID": "after"})
		if err == nil {
			path = res["Mountpoint"].(string)
		}
		return err == nil
	})
	if got := read(r.t, filepath.Join(path, "row")); got != "42" {
		r.t.Errorf("the data is %q", got)
	}
	r.unmount(name, "after")
	r.eventually("detached", func() bool { return r.attached() == 0 })
}

// untouched checks that nothing was done to any other host since the last look.
func (r *rig) untouched(what string) {
	r.t.Helper()
	if n := r.calls(); n["StopInstances"]+n["DetachVolume"] != 0 {
		r.t.Errorf("%s: %v", what, n)
	}
}

func TestAHostThatIsIllForLongIsStoppedAndItsVolumeTakenWithItsData(t *testing.T) {
	r := newIllRig(t, func(t *Timing) { t.Request = 2 * time.Second })
	r.filled("db")
	ill := r.leaveOn(ec2sim.Instance{}, "db")
	r.ail(ill, time.Hour)
	d := r.sim.Delays()
	d.Stop = 5 * time.Second
	r.sim.SetDelays(d)
	r.calls()
	r.refused("Mount", m{"Name": "db", "ID": "after"}, "db", "still stopping "+ill, "since", "try again")
	r.taken("db")
	stops, detaches := 0, 0
	for _, c := range r.sim.Calls() {
		switch {
		case c.Action == "StopInstances":
			stops++
			if c.Params["InstanceId.1"] != ill || c.Params["Force"] != "" || c.Params["Hibernate"] != "" {
				t.Errorf("StopInstances was sent with %v", c.Params)
			}
		case c.Action == "DetachVolume" && c.Params["InstanceId"] == ill:
			detaches++
			if c.Params["Force"] == "true" || stops == 0 {
				t.Errorf("after %d stops, DetachVolume was sent with %v", stops, c.Params)
			}
		}
	}
	if stops != 1 || detaches != 1 {
		t.Errorf("%d stops and %d detaches; the retries must join the first", stops, detaches)
	}
}

func TestAHostIsNotStoppedUnlessItIsIllForLongAndMayBeStopped(t *testing.T) {
	r := newIllRig(t)
	var names []string
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		names = append(names, n+"db")
		r.create(n + "db")
	}
	r.create("fdb", "fencing", "stopped")
	well := r.leaveOn(ec2sim.Instance{}, names[0])
	spot := r.leaveOn(ec2sim.Instance{Spot: ec2sim.SpotPersistent}, names[1])
	ephemeral := r.leaveOn(ec2sim.Instance{Root: ec2sim.RootInstanceStore}, names[2])
	protected := r.leaveOn(ec2sim.Instance{DisableAPIStop: true}, names[3])
	for _, id := range []string{spot, ephemeral, protected} {
		r.ail(id, time.Hour)
	}
	r.calls()
	mount := func(name string, words ...string) {
		t.Helper()
		r.refused("Mount", m{"Name": name, "ID": "c1"}, append(words, name)...)
		r.untouched(name)
	}
	mount("adb", well, "running", "system check ok", "instance check ok", "1m0s", "blockvol detach adb --stop-instance")
	for _, change := range []ec2sim.StatusChange{
		{System: ec2sim.CheckInitializing, Instance: ec2sim.CheckInitializing},
		{System: ec2sim.CheckImpaired, Instance: ec2sim.CheckInitializing, Since: time.Now().Add(-time.Hour)},
		{System: ec2sim.CheckNoData, Instance: ec2sim.CheckNoData},
		{System: ec2sim.CheckOK, Instance: ec2sim.CheckImpaired, Since: time.Now()},
		{System: ec2sim.CheckOK, Instance: ec2sim.CheckOK, AttachedEBS: ec2sim.CheckImpaired, Since: time.Now().Add(-time.Hour)},
	} {
		if err := r.sim.SetInstanceStatus(well, change); err != nil {
			t.Fatal(err)
		}
		mount("adb", well, "running", "1m0s")
	}
	mount("bdb", spot, "Spot", "impaired since")
	mount("cdb", ephemeral, "instance store")
	mount("ddb", protected, "protected", "disable-api-stop")
	ill := r.leaveOn(ec2sim.Instance{}, "edb", "fdb")
	r.ail(ill, time.Hour)
	r.calls()
	mount("fdb", ill, "running") // its own rule goes first
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "DescribeInstanceStatus", Code: "UnauthorizedOperation"}); err != nil {
		t.Fatal(err)
	}
	mount("edb", ill, "status checks", "cannot be told", "iam-policy.json")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "StopInstances", Code: "UnauthorizedOperation"}); err != nil {
		t.Fatal(err)
	}
	r.refused("Mount", m{"Name": "edb", "ID": "c1"}, "edb", ill, "ec2:StopInstances", "iam-fencing.json")
	if n := r.calls(); n["DetachVolume"] != 0 {
		t.Errorf("EC2 did not stop it: %v", n)
	}
}

func TestTheDefaultRuleStopsNobody(t *testing.T) {
	r := newRig(t)
	r.create("db")
	ill := r.leaveOn(ec2sim.Instance{}, "db")
	r.ail(ill, time.Hour)
	r.calls()
	r.refused("Mount", m{"Name": "db", "ID": "c1"}, ill, "running")
	r.untouched("fencing=stopped")
}

// A host that gets well while we look, or lets go of the volume, is not stopped.
func TestAHostMustBeIllTwiceAndStillHaveTheVolume(t *testing.T) {
	for what, meanwhile := range map[string]func(r *rig, ill string) error{
		"well": func(r *rig, ill string) error {
			return r.sim.SetInstanceStatus(ill, ec2sim.StatusChange{System: ec2sim.CheckOK})
		},
		"free": func(r *rig, ill string) error {
			id := r.volumes()[0].ID
			_, err := r.person().DetachVolume(r.t.Context(), &ec2.DetachVolumeInput{VolumeId: &id, InstanceId: &ill})
			for err == nil && len(r.volumes()[0].Attachments) > 0 {
				time.Sleep(20 * time.Millisecond)
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newIllRig(t, func(t *Timing) { t.Absent = 4 * time.Second })
			r.filled("db")
			ill := r.leaveOn(ec2sim.Instance{}, "db")
			r.ail(ill, time.Hour)
			r.sim.ResetCalls()
			done := make(chan error, 1)
			go func() {
				for r.countCalls("DescribeInstanceStatus") == 0 {
					time.Sleep(20 * time.Millisecond)
				}
				done <- meanwhile(r, ill)
			}()
			_, err := r.try("Mount", m{"Name": "db", "ID": "c1"})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if what == "well" && (err == nil || !strings.Contains(err.Error(), "running")) {
				t.Errorf("taken from a host that is well again: %v", err)
			}
			if what == "free" && err != nil {
				t.Errorf("a volume that nobody has was not taken: %v", err)
			}
			if r.countCalls("StopInstances") != 0 {
				t.Error("the host was stopped")
			}
			if what == "free" {
				r.unmount("db", "c1")
				r.eventually("detached", func() bool { return r.attached() == 0 })
			}
		})
	}
}

func (r *rig) countCalls(action string) (n int) {
	for _, c := range r.sim.Calls() {
		if c.Action == action {
			n++
		}
	}
	return n
}

func TestAStopThatHangsIsToldAndNothingIsTakenBeforeItsEnd(t *testing.T) {
	r := newIllRig(t, func(t *Timing) { t.Stop = 2 * time.Second })
	r.filled("db")
	ill := r.leaveOn(ec2sim.Instance{}, "db")
	r.ail(ill, time.Hour)
	if err := r.sim.Inject(ec2sim.Fault{Kind: "stuck-stopping"}); err != nil {
		t.Fatal(err)
	}
	r.calls()
	for range 2 { // the second one finds it stopping
		r.refused("Mount", m{"Name": "db", "ID": "c1"}, "db", ill, "stopping", "aws ec2 stop-instances --force --instance-ids "+ill)
	}
	if n := r.calls(); n["StopInstances"] != 1 || n["DetachVolume"] != 0 {
		t.Errorf("while it is stopping: %v", n)
	}
	force := true
	if _, err := r.person().StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{ill}, Force: &force}); err != nil {
		t.Fatal(err)
	}
	r.taken("db")
}

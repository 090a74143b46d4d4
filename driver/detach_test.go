package driver

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// who asks who has a volume.
func (r *rig) who(name string) Holder {
	r.t.Helper()
	var h Holder
	r.askFor("Holder", HolderRequest{name}, &h)
	return h
}

// detach asks for the end of what who has said, with a change.
func (r *rig) detach(name string, change func(*DetachRequest)) asked {
	r.t.Helper()
	h := r.who(name)
	req := DetachRequest{Volume: name, ID: h.ID, Instance: h.Instance}
	change(&req)
	a, err := r.ask(r.t.Context(), "Detach", req)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func plain(*DetachRequest)         {}
func stopFirst(req *DetachRequest) { req.Stop = true }
func byForce(req *DetachRequest)   { req.Force = true }

// isRefused checks that nothing was done, for a reason with these words.
func (r *rig) isRefused(a asked, words ...string) {
	r.t.Helper()
	if !a.Refused {
		r.t.Errorf("not refused: %+v", a)
	}
	for _, w := range words {
		if !strings.Contains(a.Error, w) {
			r.t.Errorf("the reason %q does not say %q", a.Error, w)
		}
	}
	r.untouched("refused")
}

func (r *rig) isDone(a asked) {
	r.t.Helper()
	if a.Error != "" {
		r.t.Errorf("not done: %s", a.Error)
	}
}

func TestDetachHere(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace = time.Hour; t.HandOver = 500 * time.Millisecond })
	r.create("db")
	if h := r.who("db"); h.Instance != "" || h.Proves == "" {
		t.Errorf("a volume that nobody has: %+v", h)
	}
	r.isDone(r.detach("db", plain))

	path := r.mount("db", "c1")
	container := r.hold(path)
	if h := r.who("db"); !h.Here || h.Instance != r.host.ID || h.Users != 1 || h.Since == nil {
		t.Errorf("a volume that this host has: %+v", h)
	}
	r.calls()
	r.isRefused(r.detach("db", plain), "db", "docker ps -a --filter volume=db")
	if _, ok := r.manager.mountedAt(r.manager.record("db")); !ok {
		t.Error("refused, but unmounted")
	}
	r.unmount("db", "c1")
	r.isRefused(r.detach("db", plain), "db", "docker ps --filter volume=db") // the kernel knows better than Docker
	container()
	r.isDone(r.detach("db", plain))
	if n := r.attached(); n != 0 {
		t.Errorf("%d devices are left, and the grace is an hour", n)
	}
	a, err := r.ask(t.Context(), "Holder", HolderRequest{"nobody"})
	if err != nil || !strings.Contains(a.Error, "nobody") {
		t.Errorf("a volume that does not exist: %+v %v", a, err)
	}
}

// On call it is often the ID that is known, from the console or an alarm.
func TestAVolumeToDetachMayBeNamedByItsID(t *testing.T) {
	r := newRig(t)
	r.create("db")
	id := r.who("db").ID
	foreign, err := r.person().CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: &r.host.Zone, Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	if h := r.who(id); h.Volume != "db" || h.ID != id {
		t.Errorf("by ID it is %+v", h)
	}
	for _, nobody := range []string{*foreign.VolumeId, "vol-0123456789abcdef0"} {
		if a, err := r.ask(t.Context(), "Holder", HolderRequest{nobody}); err != nil || !strings.Contains(a.Error, nobody) || !strings.Contains(a.Error, "in this cluster") {
			t.Errorf("%s: %+v %v", nobody, a, err)
		}
	}
	// What is decided by the ID is done by the name.
	a, err := r.ask(t.Context(), "Detach", DetachRequest{Volume: id, ID: id})
	if err != nil || !strings.Contains(a.Error, id) {
		t.Errorf("%+v %v", a, err)
	}
	// A name goes before an ID.
	r.create(id)
	if h := r.who(id); h.Volume != id || h.ID == id {
		t.Errorf("the volume that is named like the ID of another is %+v", h)
	}
	// Two volumes of one name are told apart by nobody here.
	r.create("db2")
	second := r.who("db2").ID
	r.tag(second, "blockvol:name", "db")
	r.eventually("both refused", func() bool {
		a, err := r.ask(t.Context(), "Holder", HolderRequest{second})
		return err == nil && strings.Contains(a.Error, id) && strings.Contains(a.Error, second)
	})
}

func TestDetachFromADeadHostIsPlainAndFromOthersRefused(t *testing.T) {
	r := newRig(t)
	r.filled("db")
	id := r.leaveOn(ec2sim.Instance{Hibernation: true}, "db")
	if h := r.who("db"); h.Instance != id || h.Power != "running" || h.Dead || h.SystemCheck != "ok" || h.InstanceCheck != "ok" || len(h.WaysOut) != 3 {
		t.Errorf("a healthy holder: %+v", h)
	}
	r.calls()
	r.isRefused(r.detach("db", plain), id, "running", "--stop-instance")
	r.ail(id, time.Hour)
	if h := r.who("db"); h.Dead || h.SystemCheck != "impaired" || h.SystemSince == nil || !strings.Contains(h.Proves, "fail") {
		t.Errorf("an ill holder: %+v", h)
	}
	r.isRefused(r.detach("db", plain), id, "running")
	hibernate := true
	if _, err := r.person().StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{id}, Hibernate: &hibernate}); err != nil {
		t.Fatal(err)
	}
	r.eventually("hibernated", func() bool { return r.who("db").Power == "stopped" })
	if h := r.who("db"); !h.Hibernated || h.Dead {
		t.Errorf("a hibernated holder: %+v", h)
	}
	r.calls()
	r.isRefused(r.detach("db", plain), id, "hibernated")
	r.isRefused(r.detach("db", stopFirst), id, "hibernated")
	r.power(id, ec2sim.StateRunning)
	r.power(id, ec2sim.StateStopped)
	// What cannot be told proves nothing.
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "DescribeInstances", Code: "UnauthorizedOperation", Times: -1}); err != nil {
		t.Fatal(err)
	}
	if h := r.who("db"); h.Dead || h.Unknown == "" || len(h.WaysOut) == 0 {
		t.Errorf("a holder of which nothing can be told: %+v", h)
	}
	if a := r.detach("db", plain); a.Error == "" {
		t.Error("done without a proof")
	}
	r.untouched("nothing can be told")
	r.sim.ClearFaults()

	if h := r.who("db"); !h.Dead || len(h.WaysOut) != 0 {
		t.Errorf("a dead holder: %+v", h)
	}
	// What a person has seen must still be true.
	r.isRefused(r.detach("db", func(req *DetachRequest) { req.Instance = "i-0123456789abcdef0" }), "look again")
	r.isRefused(r.detach("db", func(req *DetachRequest) { req.ID = "vol-0123456789abcdef0" }), "look again")
	r.sim.ResetCalls()
	r.isDone(r.detach("db", plain))
	for _, c := range r.sim.Calls() {
		if c.Action == "DetachVolume" && (c.Params["InstanceId"] != id || c.Params["Force"] == "true") {
			t.Errorf("DetachVolume was sent with %v", c.Params)
		}
	}
	if n := r.lookedAt(id); n < 4 { // to show it, to see whether it is worth a proof, and twice to prove it
		t.Errorf("looked at it %d times", n)
	}
	if h := r.who("db"); h.Instance != "" {
		t.Errorf("afterwards: %+v", h)
	}
	r.taken("db")
}

func TestDetachStopsTheInstanceOnlyIfAPersonSaysSoAndItMayBeStopped(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Stop = 2 * time.Second })
	for _, n := range []string{"spotdb", "tmpdb", "keptdb"} {
		r.create(n)
	}
	r.filled("db")
	r.leaveOn(ec2sim.Instance{Spot: ec2sim.SpotOneTime}, "spotdb")
	r.leaveOn(ec2sim.Instance{Root: ec2sim.RootInstanceStore}, "tmpdb")
	r.leaveOn(ec2sim.Instance{DisableAPIStop: true}, "keptdb")
	id := r.leaveOn(ec2sim.Instance{}, "db")
	r.calls()
	for name, word := range map[string]string{"spotdb": "Spot", "tmpdb": "instance store", "keptdb": "protected"} {
		if h := r.who(name); !strings.Contains(h.NoStop, word) || strings.Contains(strings.Join(h.WaysOut, " "), "--stop-instance") {
			t.Errorf("%s: %+v", name, h)
		}
		r.isRefused(r.detach(name, stopFirst), name, word)
	}
	if err := r.sim.Inject(ec2sim.Fault{Kind: "stuck-stopping"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one waits for the stop of the first
		if a := r.detach("db", stopFirst); !strings.Contains(a.Error, "--force --instance-ids "+id) {
			t.Errorf("a stop that hangs: %+v", a)
		}
	}
	if n := r.calls(); n["StopInstances"] != 1 || n["DetachVolume"] != 0 {
		t.Errorf("while it is stopping: %v", n)
	}
	r.power(id, ec2sim.StateStopped)
	r.power(id, ec2sim.StateRunning)
	r.manager.timing.Stop = time.Minute // this one is to succeed, however slow the machine is
	a := r.detach("db", stopFirst)
	r.isDone(a)
	if said := strings.Join(a.said, "\n"); !strings.Contains(said, "stopping "+id) || !strings.Contains(said, "twice") {
		t.Errorf("it said %q", said)
	}
	for _, c := range r.sim.Calls() {
		if c.Params["Force"] == "true" || c.Params["Hibernate"] == "true" {
			t.Errorf("%s was sent with %v", c.Action, c.Params)
		}
	}
	r.taken("db")
}

func TestForceTakesWhatIsOursFromAnybodyAndNothingElse(t *testing.T) {
	r := newRig(t)
	r.create("db")
	id := r.leaveOn(ec2sim.Instance{}, "db")
	// A volume of the same name in another cluster, on the same host.
	foreign := *r
	foreign.settings.Cluster += "-other"
	foreign.state, foreign.host.ID = filepath.Join(t.TempDir(), "state"), id
	foreign.start()
	foreign.create("theirs")
	r.calls()
	if a, err := r.ask(t.Context(), "Detach", DetachRequest{Volume: "theirs", ID: "vol-1", Instance: id, Force: true}); err != nil || !strings.Contains(a.Error, "theirs") {
		t.Errorf("another cluster's volume: %+v %v", a, err)
	}
	r.untouched("another cluster's")
	r.sim.ResetCalls()
	r.isDone(r.detach("db", byForce))
	forced := 0
	for _, c := range r.sim.Calls() {
		if c.Action == "DetachVolume" && c.Params["Force"] == "true" && c.Params["InstanceId"] == id {
			forced++
		}
	}
	if forced != 1 {
		t.Errorf("%d forced detaches", forced)
	}
	if h := r.who("db"); h.Instance != "" {
		t.Errorf("afterwards: %+v", h)
	}
	// Of this host, too, with a container that uses it.
	path := r.mount("db", "c1")
	release := r.hold(path)
	r.isDone(r.detach("db", byForce))
	release()
	r.unmount("db", "c1")
	r.eventually("nothing is left of it here", func() bool {
		points, err := r.manager.disk.MountsUnder(r.manager.mounts)
		return err == nil && len(points) == 0 && r.attached() == 0
	})
}

package driver

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/sirupsen/logrus"
)

// outcome is what a person may notice of a fault.
type outcome int

const (
	told    outcome = iota // a request fails, and its error names volume and cause; the next one works
	unseen                 // no request fails
	perhaps                // it depends on the moment
)

// planned is one row of the fault plan: before each request of a volume's life the fault is armed anew.
type planned struct {
	fault   ec2sim.Fault
	outcome outcome
	words   []string // what the error says besides the volume's name; default: the code
	only    string   // arm it before this request alone
	limits  func(*ec2sim.Limits)
	visible time.Duration                     // every Describe is so old
	during  func(r *rig, w *world, id string) // happens while the volume is mounted
	restart bool                              // the plugin is killed and started before the second mount
}

func (p planned) name() string {
	f := p.fault
	parts := []string{f.Kind, f.Action, f.Code, p.only}
	if f.Message != "" {
		parts = append(parts, strings.Fields(f.Message)[0]+fmt.Sprint(len(f.Message)))
	}
	if f.Times > 1 {
		parts = append(parts, fmt.Sprint(f.Times))
	}
	if f.Serial != "" {
		parts = append(parts, f.Serial)
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "-")
}

var (
	allActions      = []string{"CreateVolume", "DescribeVolumes", "AttachVolume", "DetachVolume", "CreateTags", "DeleteVolume", "DescribeInstances", "DescribeInstanceTypes"}
	mutatingActions = []string{"CreateVolume", "AttachVolume", "DetachVolume", "CreateTags", "DeleteVolume"}
)

// Codes that any action can give. Those of the first table are repeated by blockvol itself.
var (
	passing = []struct {
		code   string
		status int
	}{{"RequestLimitExceeded", 503}, {"Throttling", 400}, {"ThrottlingException", 400}, {"EC2ThrottledException", 400}, {"BandwidthLimitExceeded", 400},
		{"InternalError", 500}, {"InternalFailure", 500}, {"ServerInternal", 500}, {"Unavailable", 503}, {"ServiceUnavailable", 503}, {"NeverHeardOf", 503}}
	lasting = []string{"UnauthorizedOperation", "AuthFailure", "OptInRequired", "InvalidParameterValue", "UnsupportedOperation", "OperationNotPermitted", "NeverHeardOf"}
)

// Codes that one action gives for reasons of its own.
var ownCodes = []planned{
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "VolumeLimitExceeded"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "MaxIOPSLimitExceeded"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "InvalidKmsKey.NotFound"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "InvalidKmsKey.InvalidState"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "KMSKeyNotAccessibleFault"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "InsufficientVolumeCapacity"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "TagLimitExceeded"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "UnknownVolumeType"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "InvalidParameterCombination"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "InvalidParameterDependency"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "InvalidZone.NotFound"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "DryRunOperation"}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "IdempotentParameterMismatch", Message: "The client token provided is inconsistent with parameters used in previous request(s)."}},
	{fault: ec2sim.Fault{Action: "CreateVolume", Code: "IdempotentParameterMismatch", Message: "The client token you have provided is associated with a resource that is already deleted. Please use a different client token."}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "AttachmentLimitExceeded"}},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "InvalidInstanceID.NotFound"}},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "InvalidVolume.ZoneMismatch"}},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "EncryptedVolumesNotSupported"}},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "InvalidParameterValue", Message: "Invalid value '/dev/xvdf' for unixDevice. Attachment point /dev/xvdf is already in use"}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "InvalidVolume.NotFound"}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "VolumeInUse"}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "AttachVolume", Code: "IncorrectState"}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "DetachVolume", Code: "IncorrectState"}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "DetachVolume", Code: "IncorrectState", Message: "Volume 'vol-0123456789abcdef0' is in the 'available' state."}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "DetachVolume", Code: "InvalidAttachment.NotFound"}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "DetachVolume", Code: "InvalidVolume.NotFound"}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "CreateTags", Code: "InvalidVolume.NotFound"}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "CreateTags", Code: "InvalidID"}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "CreateTags", Code: "TagLimitExceeded"}},
	{fault: ec2sim.Fault{Action: "DeleteVolume", Code: "VolumeInUse"}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "DeleteVolume", Code: "IncorrectState"}, outcome: perhaps},
	{fault: ec2sim.Fault{Action: "DeleteVolume", Code: "InvalidVolume.NotFound"}, outcome: unseen},
	{fault: ec2sim.Fault{Action: "DescribeVolumes", Code: "InvalidVolume.NotFound", Message: "The volume 'vol-0123456789abcdef0' does not exist."}, outcome: perhaps, words: []string{"vol-0123456789abcdef0"}},
}

// What goes wrong without an error code.
var ownKinds = []planned{
	{fault: ec2sim.Fault{Kind: "kms-failed"}, words: []string{"key"}, only: "Create"},
	{fault: ec2sim.Fault{Kind: "create-failed"}, words: []string{"remove it"}, only: "Create"},
	{fault: ec2sim.Fault{Kind: "invisible", Action: "CreateVolume", Duration: 250 * time.Millisecond}, outcome: unseen},
	{fault: ec2sim.Fault{Kind: "invisible", Action: "DescribeVolumes"}, outcome: perhaps, words: []string{}},
	{fault: ec2sim.Fault{Kind: "invisible", Action: "CreateTags", Duration: time.Second}, outcome: perhaps, words: []string{"blockvol:fs"}},
	{fault: ec2sim.Fault{Kind: "invisible", Action: "AttachVolume", Duration: 250 * time.Millisecond}, outcome: unseen},
	{fault: ec2sim.Fault{Kind: "invisible", Action: "DetachVolume", Duration: 250 * time.Millisecond}, outcome: perhaps, words: []string{}},
	{fault: ec2sim.Fault{Kind: "invisible", Action: "DeleteVolume", Duration: 250 * time.Millisecond}, outcome: unseen},
	{fault: ec2sim.Fault{Kind: "page-size", Action: "DescribeVolumes", Count: 5}, outcome: unseen},
	{fault: ec2sim.Fault{Kind: "stuck-attaching"}, words: []string{"attaching"}, only: "Mount"},
	{fault: ec2sim.Fault{Kind: "no-device"}, words: []string{"no device with serial"}},
	{fault: ec2sim.Fault{Kind: "late-device", Duration: 400 * time.Millisecond}, outcome: unseen},
	{fault: ec2sim.Fault{Kind: "late-device", Duration: 1200 * time.Millisecond}, outcome: unseen},
	{fault: ec2sim.Fault{Kind: "wrong-serial"}, words: []string{"no device with serial"}},
	{fault: ec2sim.Fault{Kind: "wrong-serial", Serial: "SIBLING"}, words: []string{"no device with serial"}},
	{fault: ec2sim.Fault{Kind: "empty-serial"}, words: []string{"serial"}},
	{fault: ec2sim.Fault{Kind: "stuck-detaching"}, outcome: perhaps, words: []string{"detach"}, only: "Unmount"},
}

// faultPlan is the whole matrix.
func faultPlan() []planned {
	var rows []planned
	for _, action := range allActions {
		for _, p := range passing {
			rows = append(rows, planned{fault: ec2sim.Fault{Kind: "error", Action: action, Code: p.code, Status: p.status}, outcome: unseen})
		}
		for _, code := range lasting {
			p := planned{fault: ec2sim.Fault{Kind: "error", Action: action, Code: code}}
			if strings.HasPrefix(action, "Describe") {
				p.outcome = perhaps // what they tell is remembered for a while, and looked at in the background too
			}
			rows = append(rows, p)
		}
		rows = append(rows, planned{fault: ec2sim.Fault{Kind: "hang", Action: action}, outcome: unseen},
			planned{fault: ec2sim.Fault{Kind: "delay", Action: action, Duration: 700 * time.Millisecond}, outcome: unseen})
	}
	for _, action := range mutatingActions {
		rows = append(rows, planned{fault: ec2sim.Fault{Kind: "lost-answer", Action: action}, outcome: unseen})
	}
	for _, row := range ownCodes {
		row.fault.Kind = "error"
		rows = append(rows, row)
	}
	rows = append(rows, ownKinds...)
	for i := range rows {
		if rows[i].words == nil && rows[i].fault.Code != "" {
			rows[i].words = []string{rows[i].fault.Code}
		}
		rows[i].restart = strings.HasPrefix(rows[i].fault.Action, "DescribeInst")
	}
	return append(rows,
		planned{fault: ec2sim.Fault{Kind: "throttling storm"}, outcome: unseen, limits: func(l *ec2sim.Limits) {
			l.Throttle = map[string]ec2sim.Rate{"read": {Burst: 1, PerSecond: 3}, "write": {Burst: 1, PerSecond: 2}}
		}},
		planned{fault: ec2sim.Fault{Kind: "stale describes"}, outcome: perhaps, words: []string{}, visible: 250 * time.Millisecond},
		planned{fault: ec2sim.Fault{Kind: "device disappears under use"}, outcome: perhaps, words: []string{}, during: func(r *rig, w *world, id string) {
			r.detachByHand(id, true)
			r.eventually("the device is gone", func() bool { return r.attached() == 0 })
		}},
		planned{fault: ec2sim.Fault{Kind: "busy"}, outcome: perhaps, words: []string{"detach"}, during: func(r *rig, w *world, id string) {
			r.detachByHand(id, false)
			r.eventually("busy", func() bool { return slices.Contains(w.state(id), "busy") })
		}},
	)
}

// Whatever EC2 and the device do, in every step of a volume's life: no data is lost, nothing is formatted twice, no other volume is touched, the error
// says what is the matter with which volume, the next try works, and in the end nothing is left.
func TestTheFaultPlan(t *testing.T) {
	t.Parallel()
	path := image(t, func(p string) { run(t, "mkfs.ext4", "-q", p) })
	var rows sync.WaitGroup
	slots := make(chan struct{}, 16) // they wait most of the time
	for _, p := range faultPlan() {
		slots <- struct{}{}
		rows.Go(func() {
			defer func() { <-slots }()
			t.Run(p.name(), func(t *testing.T) { p.run(t, path) })
		})
	}
	rows.Wait()
}

func (p planned) run(t *testing.T, image string) {
	r := newMachine(t, func(t *Timing) {
		t.AskCloud, t.Attach, t.Detach, t.Request, t.Absent = 800*time.Millisecond, 30*time.Second, 30*time.Second, time.Minute, 300*time.Millisecond
		t.HandOver, t.Grace = 500*time.Millisecond, 100*time.Millisecond
	})
	r.log.SetLevel(logrus.InfoLevel)
	r.ebs.MaxBackoff, r.ebs.Consistency = 300*time.Millisecond, 3*time.Second
	if p.fault.Kind == "hang" {
		r.ebs.Attempt = time.Second
	}
	r.start()
	w := newWorld(t, r, image)
	sibling := r.sibling(image)
	w.foreign[sibling], w.taken = digest(t, r.sim.BackingFile(sibling)), sibling
	if p.fault.Serial == "SIBLING" {
		p.fault.Serial = strings.Replace(sibling, "-", "", 1)
	}
	if p.limits != nil {
		l := r.sim.Limits()
		p.limits(&l)
		r.sim.SetLimits(l)
	}
	if p.visible > 0 {
		d := r.sim.Delays()
		d.Visible = p.visible
		r.sim.SetDelays(d)
	}
	name, noticed := "pgdata", false
	arm := func(call string) {
		if r.sim.ClearFaults(); p.limits != nil || p.visible > 0 || p.during != nil || p.only != "" && p.only != call {
			return
		}
		if err := r.sim.Inject(p.fault); err != nil {
			t.Fatal(err)
		}
	}
	insist := func(call string, req m) map[string]any {
		t.Helper()
		arm(call)
		var res map[string]any
		for tries, deadline := 0, time.Now().Add(2*time.Minute); ; tries++ {
			var err error
			if res, err = r.try(call, req); err == nil {
				return res
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s never works: %v", call, err)
			}
			if p.ordinary(call, err) {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			noticed = true
			if p.outcome == unseen {
				t.Errorf("%s failed: %v", call, err)
			}
			for _, word := range append([]string{name}, p.words...) {
				if !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(word)) && tries == 0 {
					t.Errorf("%s: the error does not say %q: %v", call, word, err)
				}
			}
			if p.fault.Kind == "create-failed" {
				w.mayRemove(w.failed(name))
				r.must("Remove", m{"Name": name}) // what the error says; Create itself never deletes
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	uuid := ""
	use := func(id, want, next string) {
		path := insist("Mount", m{"Name": name, "ID": id})["Mountpoint"].(string)
		volume := w.id(name)
		if want != "" {
			if got := read(t, path+"/row"); got != want {
				t.Errorf("the data is %q, want %q", got, want)
			}
		}
		write(t, path+"/row", next)
		if err := syncFile(path + "/row"); err != nil {
			t.Error(err)
		}
		now, err := fsUUID(r.sim.BackingFile(volume))
		if err != nil || uuid != "" && now != uuid {
			t.Errorf("the filesystem was %s and is %s %v", uuid, now, err)
		}
		uuid = now
		end := w.hold(volume, r.host.ID)
		release := r.hold(path)
		w.look()
		if p.during != nil {
			p.during(r, w, volume)
		}
		end()
		release()
		insist("Unmount", m{"Name": name, "ID": id})
		if p.fault.Kind == "stuck-detaching" {
			time.Sleep(500 * time.Millisecond) // it stays so until a person forces it
			r.detachByHand(volume, true)
		}
		r.comesToRest(w)
	}
	insist("Create", m{"Name": name, "Opts": m{"size": "1", "kms-key-id": "alias/mine"}})
	use("c1", "", "1")
	if p.restart {
		r.crash()
		arm("start")
		r.start()
		w.hosts(r)
	}
	use("c2", "1", "2")
	w.mayRemove(w.id(name))
	insist("Remove", m{"Name": name})
	if p.outcome == told && !noticed && p.fault.Action != "DetachVolume" { // dockerd ignores what an Unmount says
		t.Error("nobody was told")
	}
	r.sim.ClearFaults()
	r.eventually("no volume of ours is left", func() bool { return len(w.end()) == 0 })
	r.comesToRest(w)
}

// ordinary tells errors that are no fault: a volume is still leaving, or was handed out a moment ago.
func (p planned) ordinary(call string, err error) bool {
	for _, wait := range []string{"may still be starting", "is being detached from this host", "still detaching", "is not removed: it is detaching", "shutting down", "still finding out"} {
		if strings.Contains(err.Error(), wait) {
			return true
		}
	}
	return false
}

// sibling makes another volume of the cluster, with data, which nobody uses.
func (r *rig) sibling(image string) string {
	r.t.Helper()
	id, err := r.sim.Import(ec2sim.ImportSpec{Image: image, SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours("sibling", "ext4")})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) comesToRest(w *world) {
	r.t.Helper()
	left := ""
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if left = w.atRest(); left == "" {
			return
		}
	}
	r.t.Fatalf("still in use: %s", left)
}

// detachByHand is what a person does with the AWS CLI.
func (r *rig) detachByHand(id string, force bool) {
	r.t.Helper()
	c := ec2.New(ec2.Options{Region: "us-sim-1", BaseEndpoint: &r.api.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIAPERSON", "x", "")})
	if _, err := c.DetachVolume(r.t.Context(), &ec2.DetachVolumeInput{VolumeId: &id, InstanceId: &r.host.ID, Force: &force}); err != nil {
		r.t.Fatal(err)
	}
}

package ebs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestOneNameIsCreatedAndDeletedFiftyTimesAtTheFirstTry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	seen := map[string]bool{}
	for i := range 50 {
		v := w.create(c, "again")
		if seen[v.ID] {
			t.Fatalf("round %d: got the deleted volume %s", i, v.ID)
		}
		seen[v.ID] = true
		if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if n := w.count("CreateVolume"); n != 50 {
		t.Errorf("%d CreateVolume calls for 50 volumes", n)
	}
}

func TestANameWhoseVolumeAnotherHostDeletedIsCreatedAtTheFirstTry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.client(), w.client()
	for round := range 5 {
		old := w.create(a, "moving")
		seen, err := b.ByName(timeout(t, time.Minute), "moving")
		if err != nil || seen.ID != old.ID {
			t.Fatalf("round %d: the other host sees %v, %v", round, seen.ID, err)
		}
		if err := b.Delete(timeout(t, time.Minute), old.ID); err != nil {
			t.Fatal(err)
		}
		made := w.create(a, "moving")
		if made.ID == old.ID {
			t.Fatalf("round %d: got the deleted volume", round)
		}
		if err := b.Delete(timeout(t, time.Minute), made.ID); err != nil {
			t.Fatal(err)
		}
		a, b = w.client(), w.client() // nobody remembers
	}
}

func TestTwoProcessesAtOnceMakeOneVolumeAHundredTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	clients := []*Client{w.on(h), w.on(h)}
	var names sync.WaitGroup
	slots := make(chan struct{}, 10)
	for i := range 100 {
		names.Add(1)
		slots <- struct{}{}
		go func() {
			defer names.Done()
			defer func() { <-slots }()
			name := fmt.Sprintf("race%d", i%20) // names come again after their volume was deleted
			if i >= 20 {
				name = fmt.Sprintf("race%d", i)
			}
			var both sync.WaitGroup
			ids := make([]string, len(clients))
			for n, c := range clients {
				both.Add(1)
				go func() {
					defer both.Done()
					v, err := c.Create(timeout(t, time.Minute), spec(name))
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					ids[n] = v.ID
				}()
			}
			both.Wait()
			if ids[0] != ids[1] {
				t.Errorf("%s: two volumes, %s and %s", name, ids[0], ids[1])
			}
		}()
	}
	names.Wait()
	all, err := clients[0].List(timeout(t, time.Minute))
	if err != nil || len(all) != 100 {
		t.Errorf("100 names gave %d volumes (%v)", len(all), err)
	}
}

func TestACreationTakesTwoCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.create(c, "first") // finds out the identity
	w.ResetCalls()
	w.create(c, "second")
	w.wantCalls("create", "CreateVolume 1, DescribeVolumes 1")
}

func TestTheNewVolumeIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	want := cloud.Spec{
		Name: "pg.data-1_x", SizeGiB: 17, Type: "gp3", IOPS: 4000, Throughput: 200, Encrypted: true, KMSKeyID: "alias/ours", Zone: region + "b",
		Attrs: map[string]string{"fs": "none", "subdir": "data"}, Tags: map[string]string{"team": "storage", "cost centre": "a/b=c"},
	}
	got, err := c.Create(timeout(t, time.Minute), want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != want.Name || got.SizeGiB != 17 || got.Type != "gp3" || got.IOPS != 4000 || got.Throughput != 200 || !got.Encrypted || got.Zone != want.Zone ||
		got.State != cloud.Available || got.Serial != "vol"+got.ID[4:] || got.SnapshotID != "" || len(got.Attachments) != 0 || got.Created.IsZero() {
		t.Errorf("got %+v", got)
	}
	if fmt.Sprint(got.Attrs) != fmt.Sprint(want.Attrs) || fmt.Sprint(got.Tags) != fmt.Sprint(want.Tags) {
		t.Errorf("attributes %v and tags %v, want %v and %v", got.Attrs, got.Tags, want.Attrs, want.Tags)
	}
	var sent map[string]string
	for _, call := range w.Calls() {
		if call.Action == "CreateVolume" {
			sent = call.Params
		}
	}
	tags := map[string]string{}
	for i := 1; i < 20; i++ {
		at := fmt.Sprintf("TagSpecification.1.Tag.%d.", i)
		if key := sent[at+"Key"]; key != "" {
			tags[key] = sent[at+"Value"]
		}
	}
	for key, value := range map[string]string{"blockvol:cluster": "test", "blockvol:name": "pg.data-1_x", "blockvol:schema": "1", "Name": "pg.data-1_x", "blockvol:fs": "none", "team": "storage"} {
		if tags[key] != value {
			t.Errorf("CreateVolume itself set %s=%q, want %q", key, tags[key], value)
		}
	}
	if len(sent["ClientToken"]) != 64 {
		t.Errorf("the client token %q has not 64 characters", sent["ClientToken"])
	}
	if sent["KmsKeyId"] != "alias/ours" || sent["Encrypted"] != "true" {
		t.Errorf("the key was not sent: %v", sent)
	}
}

func TestTheRequestDependsOnTheSpecAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		h := w.host(ec2sim.Instance{Zone: region + "b", Type: "t3.micro"})
		s := spec("same")
		s.Tags = map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}
		if _, err := w.on(h).Create(timeout(t, time.Minute), s); err != nil {
			t.Fatal(err)
		}
	}
	var first map[string]string
	for _, call := range w.Calls() {
		if call.Action != "CreateVolume" {
			continue
		}
		if first == nil {
			first = call.Params
		} else if fmt.Sprint(call.Params) != fmt.Sprint(first) {
			t.Errorf("two hosts sent\n%v\n%v", first, call.Params)
		}
	}
	if n := w.count("CreateVolume"); n != 3 {
		t.Errorf("%d CreateVolume calls, want 3", n)
	}
}

func TestANewVolumeThatIsNotSeenYetIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "CreateVolume", Duration: 400 * time.Millisecond})
	// The pause after which a volume has vanished is shorter than its invisibility, and yet it is not taken for gone too early.
	c.timing.Vanish = 450 * time.Millisecond
	v := w.create(c, "late")
	if v.State != cloud.Available {
		t.Errorf("state %s", v.State)
	}
	if n := w.count("CreateVolume"); n != 1 {
		t.Errorf("%d CreateVolume calls", n)
	}
}

func TestEverythingWorksWhenReadsLagBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Visible, d.Delete = 150*time.Millisecond, time.Hour }) // until then the volume is there, and deleting
	c := w.client()
	for range 3 {
		v := w.create(c, "lagging")
		w.attach(c, v)
		w.detach(c, v)
		if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
			t.Fatal(err)
		}
		if v, err := c.ByName(timeout(t, time.Minute), "lagging"); !errors.Is(err, cloud.ErrNotFound) && (err != nil || v.State != cloud.Deleting) {
			t.Errorf("a read that does not know of our delete yet made it %q, %v", v.State, err)
		}
	}
}

func TestALostAnswerToCreateVolumeMakesNoSecondVolume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.inject(ec2sim.Fault{Kind: "lost-answer", Action: "CreateVolume", Times: 3})
	w.create(c, "lost")
	all, err := c.List(timeout(t, time.Minute))
	if err != nil || len(all) != 1 {
		t.Errorf("%d volumes (%v)", len(all), err)
	}
	if n := w.count("CreateVolume"); n != 4 {
		t.Errorf("%d CreateVolume calls, want 4", n)
	}
}

func TestACreateGivenUpInTheMiddleIsContinuedByTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Create = 12 * time.Second })
	c := w.client()
	_, err := c.Create(timeout(t, 6*time.Second), spec("slow"))
	contains(t, err, `"slow"`, "creating", "nothing is lost")
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cloud.ErrState) {
		t.Errorf("the error is not a deadline with a state: %v", err)
	}
	w.create(c, "slow")
	all, _ := c.List(timeout(t, time.Minute))
	if len(all) != 1 {
		t.Errorf("%d volumes", len(all))
	}
}

func TestAVolumeThatVanishesForItsKeyIsToldAndTheNextCreateWorks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	s := spec("secret")
	s.Encrypted, s.KMSKeyID = true, "alias/disabled"
	_, err := c.Create(timeout(t, time.Minute), s)
	if !errors.Is(err, cloud.ErrKMS) {
		t.Fatalf("not ErrKMS: %v", err)
	}
	contains(t, err, `"secret"`, "alias/disabled", "kms:CreateGrant")
	w.ResetCalls()
	s.KMSKeyID = "alias/good"
	v, err := c.Create(timeout(t, time.Minute), s)
	if err != nil || v.State != cloud.Available {
		t.Fatalf("the create after it: %v, %v", v.State, err)
	}
	if n := w.count("CreateVolume"); n != 1 {
		t.Errorf("%d CreateVolume calls, want 1: the burned token was used again", n)
	}
}

func TestAnotherHostWalksPastTheTokenOfAVolumeThatVanished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.client(), w.client()
	w.inject(ec2sim.Fault{Kind: "kms-failed"})
	_, err := a.Create(timeout(t, time.Minute), spec("gone"))
	if !errors.Is(err, cloud.ErrVanished) {
		t.Fatalf("not ErrVanished: %v", err)
	}
	contains(t, err, `"gone"`, "CloudTrail")
	w.create(b, "gone")
}

func TestAVolumeInStateErrorIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.inject(ec2sim.Fault{Kind: "create-failed"})
	_, err := c.Create(timeout(t, time.Minute), spec("broken"))
	if !errors.Is(err, cloud.ErrState) {
		t.Fatalf("not ErrState: %v", err)
	}
	contains(t, err, `"broken"`, "state error", "docker volume rm broken")
	v, err := c.ByName(timeout(t, time.Minute), "broken")
	if err != nil || v.State != cloud.Failed {
		t.Fatalf("%v, %v", v.State, err)
	}
	if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
		t.Fatal(err)
	}
	w.create(c, "broken")
}

func TestTheAccountsLimitIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.create(c, "fits")
	w.setLimits(func(l *ec2sim.Limits) { l.Volumes = 1 })
	_, err := c.Create(timeout(t, time.Minute), spec("too-many"))
	if !errors.Is(err, cloud.ErrQuota) {
		t.Fatalf("not ErrQuota: %v", err)
	}
	contains(t, err, `"too-many"`, "Service Quotas", "VolumeLimitExceeded", "request ")
}

func TestAtTheAccountsLimitAnExistingVolumeIsStillFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.create(w.client(), "there")
	w.setLimits(func(l *ec2sim.Limits) { l.Volumes = 1 })
	if v := w.create(w.client(), "there"); v.ID != old.ID {
		t.Errorf("got %s, want %s", v.ID, old.ID)
	}
}

func TestAVolumeWithOtherOptionsIsReturnedAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.create(w.client(), "small")
	s := spec("small")
	s.SizeGiB = 9
	v, err := w.client().Create(timeout(t, time.Minute), s)
	if err != nil || v.ID != old.ID || v.SizeGiB != 1 {
		t.Errorf("got %s of %d GiB, %v", v.ID, v.SizeGiB, err)
	}
}

func TestAVolumeThatAnotherHostMadeWithOtherOptionsAfterOurDeleteIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.client(), w.client()
	old := w.create(a, "v")
	if err := a.Delete(timeout(t, time.Minute), old.ID); err != nil {
		t.Fatal(err)
	}
	s := spec("v")
	s.SizeGiB = 2
	made, err := b.Create(timeout(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	if v := w.create(a, "v"); v.ID != made.ID || v.SizeGiB != 2 {
		t.Errorf("got %s of %d GiB, want %s", v.ID, v.SizeGiB, made.ID)
	}
}

func TestAnEarlierCreationThatNobodyCanSeeIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.inject(ec2sim.Fault{Kind: "invisible", Action: "CreateVolume", Duration: time.Minute})
	a := w.client(func(cfg *Config) { cfg.Timing.Vanish = time.Minute })
	if _, err := a.Create(timeout(t, 6*time.Second), spec("hidden")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	s := spec("hidden")
	s.SizeGiB = 2
	start := time.Now()
	_, err := w.client().Create(timeout(t, time.Minute), s)
	if !errors.Is(err, cloud.ErrInvalid) {
		t.Fatalf("not ErrInvalid: %v", err)
	}
	contains(t, err, `"hidden"`, "other options", "wait a minute", "IdempotentParameterMismatch")
	if took := time.Since(start); took < quickTiming.Consistency {
		t.Errorf("gave up after %v, before the window of %v had passed", took, quickTiming.Consistency)
	}
}

func TestANameIsFreeWhileItsOldVolumeIsStillBeingDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setDelays(func(d *ec2sim.Delays) { d.Delete = 3 * time.Second })
	c := w.client()
	old := w.create(c, "leaving")
	if err := c.Delete(timeout(t, time.Minute), old.ID); err != nil {
		t.Fatal(err)
	}
	if v, err := c.ByName(timeout(t, time.Minute), "leaving"); err != nil || v.State != cloud.Deleting {
		t.Errorf("the volume that is being deleted: %v, %v", v.State, err)
	}
	made := w.create(c, "leaving")
	if made.ID == old.ID {
		t.Fatal("got the old volume")
	}
	if v, err := c.ByName(timeout(t, time.Minute), "leaving"); err != nil || v.ID != made.ID {
		t.Errorf("by name: %v, %v", v.ID, err)
	}
}

func TestTwoVolumesOfOneNameAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "twice")
	second := w.foreign(map[string]string{tagCluster: "test", tagName: "twice", tagSchema: "1"})
	var ambiguous *cloud.AmbiguousError
	if _, err := c.ByName(timeout(t, time.Minute), "twice"); !errors.As(err, &ambiguous) {
		t.Fatalf("by name: %v", err)
	}
	contains(t, ambiguous, v.ID, second)
	if _, err := c.Create(timeout(t, time.Minute), spec("twice")); !errors.Is(err, cloud.ErrAmbiguous) {
		t.Errorf("create: %v", err)
	}
	all, _ := c.List(timeout(t, time.Minute))
	if len(all) != 2 {
		t.Errorf("%d volumes are left of two", len(all))
	}
}

func TestImpossibleSpecsAreRefusedWithoutACall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	for what, change := range map[string]func(*cloud.Spec){
		"no name":            func(s *cloud.Spec) { s.Name = "" },
		"no zone":            func(s *cloud.Spec) { s.Zone = "" },
		"no size":            func(s *cloud.Spec) { s.SizeGiB = 0 },
		"a size beyond EC2":  func(s *cloud.Spec) { s.SizeGiB = 1 << 40 },
		"a reserved key":     func(s *cloud.Spec) { s.Attrs["cluster"] = "other" },
		"a key of AWS":       func(s *cloud.Spec) { s.Tags = map[string]string{"aws:x": "y"} },
		"a value too long":   func(s *cloud.Spec) { s.Tags = map[string]string{"x": fmt.Sprintf("%0300d", 1)} },
		"too many tags":      func(s *cloud.Spec) { s.Tags = manyTags(50) },
		"a negative rate":    func(s *cloud.Spec) { s.IOPS = -1 },
		"a name beyond tags": func(s *cloud.Spec) { s.Name = fmt.Sprintf("%0300d", 1) },
	} {
		s := spec("x")
		change(&s)
		if _, err := c.Create(timeout(t, time.Minute), s); !errors.Is(err, cloud.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.wantCalls("refusing", "")
}

func manyTags(n int) map[string]string {
	tags := map[string]string{}
	for i := range n {
		tags[fmt.Sprintf("key%d", i)] = "v"
	}
	return tags
}

package ebs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// there makes a volume that blockvol did not make.
func (w *world) there(spec ec2sim.ImportSpec) string {
	w.t.Helper()
	if spec.SizeGiB == 0 {
		spec.SizeGiB = 1
	}
	id, err := w.Import(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func adoption(id, name string) cloud.Adoption {
	return cloud.Adoption{ID: id, Name: name, Attrs: map[string]string{"fs": "adopted", "subdir": "/", "reclaim": "retain"}, Tags: map[string]string{"by": "hand"}}
}

// claimsLeft are the tags of claims on a volume.
func (w *world) claimsLeft(id string) (left []string) {
	for key := range w.tags(id) {
		if strings.HasPrefix(key, claimPrefix) {
			left = append(left, key)
		}
	}
	return left
}

func TestAnAdoptedVolumeIsTheClustersAndKeepsItsOwnTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.client(), w.client()
	ctx := timeout(t, time.Minute)
	id := w.there(ec2sim.ImportSpec{Tags: map[string]string{"Name": "old", "team": "db"}})
	v, err := a.Adopt(ctx, adoption(id, "db"))
	if err != nil || v.ID != id || v.Name != "db" || v.Attrs["fs"] != "adopted" {
		t.Fatalf("%+v, %v", v, err)
	}
	tags := w.tags(id)
	for key, want := range map[string]string{"Name": "old", "team": "db", "by": "hand", "blockvol:cluster": "test", "blockvol:name": "db", "blockvol:schema": "2", "blockvol:reclaim": "retain"} {
		if tags[key] != want {
			t.Errorf("the tag %s is %q, want %q", key, tags[key], want)
		}
	}
	if left := w.claimsLeft(id); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
	if got, err := b.ByName(ctx, "db"); err != nil || got.ID != id {
		t.Errorf("%+v, %v", got, err)
	}
	// Removed and adopted again, on another host, under another name: nothing of the first name stands in the way.
	if err := a.Release(ctx, id); err != nil {
		t.Fatal(err)
	}
	if v, err = b.Adopt(ctx, adoption(id, "other")); err != nil || v.ID != id {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, c := range []*Client{a, b} {
		if got, err := c.ByName(ctx, "other"); err != nil || got.ID != id || got.State == cloud.Deleting {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := c.ByName(ctx, "db"); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
	// A volume of the first name is made as ever, on all hosts the same.
	one, err := a.Create(ctx, spec("db"))
	if err != nil {
		t.Fatal(err)
	}
	if two, err := w.client().Create(ctx, spec("db")); err != nil || two.ID != one.ID {
		t.Errorf("%+v, %v", two, err)
	}
}

func TestWhatCannotBeAdoptedIsRefusedWithTheReasonAndLeftAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, 3*time.Minute)
	living := w.create(c, "living")
	held := w.there(ec2sim.ImportSpec{})
	other := w.host(ec2sim.Instance{})
	device := "/dev/xvdx"
	if _, err := w.raw.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &held, InstanceId: &other.ID, Device: &device}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		id    string
		kind  error
		parts []string
	}{
		{"vol-0123456789abcdef0", cloud.ErrNotFound, []string{"no volume", "vol-0123456789abcdef0"}},
		{w.there(ec2sim.ImportSpec{Zone: "us-sim-1b"}), cloud.ErrZone, []string{"us-sim-1b", "us-sim-1a", "own zone"}},
		{w.there(ec2sim.ImportSpec{Type: "io2", SizeGiB: 4, IOPS: 100, MultiAttach: true}), cloud.ErrState, []string{"multi-attach"}},
		{w.there(ec2sim.ImportSpec{Tags: map[string]string{"blockvol:cluster": "their", "blockvol:name": "db"}}), cloud.ErrState, []string{`"their"`, `"test"`}},
		{w.there(ec2sim.ImportSpec{Tags: map[string]string{"blockvol:cluster": "test", "blockvol:name": "released:db", "blockvol:schema": "9"}}), cloud.ErrState, []string{"9", "upgrade"}},
		{living.ID, cloud.ErrState, []string{`"living"`, "already"}},
		{held, cloud.ErrInUse, []string{other.ID, "detach it"}},
	} {
		before := map[string]string{}
		if x.kind != cloud.ErrNotFound {
			before = w.tags(x.id)
		}
		_, err := c.Adopt(ctx, adoption(x.id, "db"))
		if !errors.Is(err, x.kind) {
			t.Errorf("%s: %v, want %v", x.id, err, x.kind)
			continue
		}
		contains(t, err, append(x.parts, x.id)...)
		if x.kind != cloud.ErrNotFound && !reflect.DeepEqual(w.tags(x.id), before) {
			t.Errorf("%s: its tags were %v and are %v", x.id, before, w.tags(x.id))
		}
	}
	free := w.there(ec2sim.ImportSpec{})
	w.ResetCalls()
	a := adoption(free, "db")
	a.Check = func(v cloud.Volume) error {
		return cloud.Errorf(cloud.ErrState, "%d GiB is not what is wanted", v.SizeGiB)
	}
	if _, err := c.Adopt(ctx, a); err == nil || !strings.Contains(err.Error(), "1 GiB is not") {
		t.Errorf("%v", err)
	}
	w.wantCalls("a volume that does not fit", "DescribeVolumes 1")
	w.inject(ec2sim.Fault{Kind: "error", Action: "CreateTags", Code: "UnauthorizedOperation", Status: 403})
	_, err := c.Adopt(ctx, adoption(free, "db"))
	contains(t, err, free, "not allowed", "docs/iam-adopt.json")
	// A claim of a host that died counts no longer than a minute; one of a host that lives does.
	for age, free := range map[time.Duration]bool{time.Second: false, 2 * time.Minute: true} {
		id := w.there(ec2sim.ImportSpec{Tags: map[string]string{"blockvol:claim:i-00000000000000001": time.Now().Add(-age).UTC().Format(time.RFC3339) + " i-00000000000000001 x test/web"}})
		_, err := c.Adopt(ctx, adoption(id, "n"+fmt.Sprint(len(age.String()))))
		if (err == nil) != free || err != nil && (!errors.Is(err, cloud.ErrClaimed) || !strings.Contains(err.Error(), "test/web")) {
			t.Errorf("a claim that is %s old: %v", age, err)
		}
	}
}

// A hundred times two hosts want one volume at the same moment, each for a name of its own, or both for the same: one has it in the end, under one
// name, and the other is told so. Where the machine is so slow that nobody dared to take it, both try again, one after the other.
func TestTwoHostsThatWantOneVolumeAtOnceGetItOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type pair struct{ a, b *Client }
	var pairs []pair
	for range 12 {
		pairs = append(pairs, pair{w.informed(w.host(ec2sim.Instance{}), quickTiming.Consistency), w.informed(w.host(ec2sim.Instance{}), quickTiming.Consistency)})
	}
	lost := 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for p, pair := range pairs {
		all.Go(func() {
			for round := range 9 {
				id := w.there(ec2sim.ImportSpec{})
				same := p%3 == 0
				names := [2]string{fmt.Sprintf("a%d-%d", p, round), fmt.Sprintf("b%d-%d", p, round)}
				if same {
					names[1] = names[0]
				}
				var won [2]cloud.Volume
				var errs [2]error
				var two sync.WaitGroup
				for n, c := range []*Client{pair.a, pair.b} {
					two.Go(func() {
						time.Sleep(time.Duration(rand.Int64N(1 + int64(3*time.Second)*int64(round%2))))
						won[n], errs[n] = c.Adopt(timeout(t, 2*time.Minute), adoption(id, names[n]))
					})
				}
				two.Wait()
				for n, c := 0, []*Client{pair.a, pair.b}; errors.Is(errs[0], cloud.ErrClaimed) && errors.Is(errs[1], cloud.ErrClaimed) && n < 10; n++ {
					won[n%2], errs[n%2] = c[n%2].Adopt(timeout(t, 2*time.Minute), adoption(id, names[n%2]))
				}
				has := w.tags(id)["blockvol:name"]
				winners := 0
				for n := range 2 {
					switch {
					case errs[n] == nil && won[n].ID == id && won[n].Name == names[n] && has == names[n]:
						winners++
					case errors.Is(errs[n], cloud.ErrClaimed), errors.Is(errs[n], cloud.ErrState) && strings.Contains(errs[n].Error(), "already"):
						mu.Lock()
						lost++
						mu.Unlock()
					default:
						t.Errorf("%s: %s got %+v, %v; it is called %s", id, names[n], won[n], errs[n], has)
					}
				}
				if winners != 1 && !(same && winners == 2) {
					t.Errorf("%s: %d hosts have it; it is called %s; %v", id, winners, has, errs)
				}
				if left := w.claimsLeft(id); len(left) != 0 {
					t.Errorf("%s: left are %v", id, left)
				}
			}
		})
	}
	all.Wait()
	if lost < 10 {
		t.Errorf("only %d times somebody lost: they did not meet", lost)
	}
}

func TestTheVolumesThatASelectorMayTakeAreListedTheSmallestFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	ctx := timeout(t, time.Minute)
	tags := func(more ...string) map[string]string {
		all := map[string]string{"team": "db", "tier": "a*"}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	big := w.there(ec2sim.ImportSpec{SizeGiB: 9, Tags: tags()})
	small := w.there(ec2sim.ImportSpec{SizeGiB: 3, Tags: tags()})
	w.there(ec2sim.ImportSpec{SizeGiB: 2, Tags: tags()})
	w.there(ec2sim.ImportSpec{SizeGiB: 4, Tags: tags("tier", "ab")})
	w.there(ec2sim.ImportSpec{SizeGiB: 4, Zone: "us-sim-1b", Tags: tags()})
	w.there(ec2sim.ImportSpec{SizeGiB: 4, Tags: tags("blockvol:cluster", "their", "blockvol:name", "x")})
	w.there(ec2sim.ImportSpec{SizeGiB: 4, Tags: tags("blockvol:cluster", "test", "blockvol:name", "released:x", "blockvol:schema", "2")})
	w.there(ec2sim.ImportSpec{SizeGiB: 4, Type: "io2", IOPS: 100, MultiAttach: true, Tags: tags()})
	got, err := c.Adoptable(ctx, map[string]string{"team": "db", "tier": "a*"}, 3)
	if err != nil || !reflect.DeepEqual(got, []string{small, big}) {
		t.Errorf("%v, %v, want %s and %s", got, err, small, big)
	}
	if got, err := c.Adoptable(ctx, map[string]string{"team": "web"}, 1); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// many makes so many volumes of the rig's cluster, as other hosts would have, and returns their names.
func (r *rig) many(n int) []string {
	r.t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("db-%03d", i)
		tags := map[string]string{"blockvol:cluster": r.settings.Cluster, "blockvol:name": names[i], "blockvol:schema": "1", "blockvol:fs": "none",
			"blockvol:fstype": "ext4", "blockvol:subdir": "data"}
		if _, err := r.sim.Import(ec2sim.ImportSpec{SizeGiB: 1, Zone: r.host.Zone, Tags: tags}); err != nil {
			r.t.Fatal(err)
		}
	}
	return names
}

// forAll does the same for every name at the same time.
func forAll(names []string, do func(name string) error) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			if err := do(name); err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// An engine that starts asks for each volume that it knows, all at the same time. A call of EC2 for each would be throttled, and the engine
// would take the errors for the ends of volumes.
func TestFiveHundredVolumesAreKnownByAFewCalls(t *testing.T) {
	t.Parallel()
	const volumes, page = 500, 200
	r := newMachine(t, func(t *Timing) { t.Fresh, t.ListFresh, t.Sweep = time.Hour, time.Hour, time.Hour })
	names := r.many(volumes)
	if _, err := r.sim.Import(ec2sim.ImportSpec{SizeGiB: 1, Tags: map[string]string{"blockvol:cluster": "another", "blockvol:name": "theirs"}}); err != nil {
		t.Fatal(err)
	}
	limits := r.sim.Limits()
	limits.PageSize = page
	r.sim.SetLimits(limits)
	r.calls()
	r.start()
	r.eventually("all known", func() bool { return len(r.manager.all()) == volumes })
	if n := r.calls(); n["DescribeVolumes"] != (volumes+page-1)/page {
		t.Errorf("the start took these calls: %v", n)
	}

	// From here on EC2 is silent: what is known is answered all the same, and not one call waits for an answer.
	if err := r.sim.Inject(ec2sim.Fault{Kind: "hang", Action: "DescribeVolumes", Times: -1}); err != nil {
		t.Fatal(err)
	}
	listed := r.must("List", m{})["Volumes"].([]any)
	for i, v := range listed {
		if got := v.(map[string]any)["Name"]; len(listed) != volumes || got != names[i] {
			t.Fatalf("List names %d volumes, and as number %d %v", len(listed), i, got)
		}
	}
	if len(listed) != volumes {
		t.Errorf("List names %d volumes", len(listed))
	}
	get := func(name string) error { _, err := r.try("Get", m{"Name": name}); return err }
	if err := forAll(names, get); err != nil {
		t.Error(err)
	}
	if n := r.calls(); len(n) > 0 {
		t.Errorf("what was known took these calls: %v", n)
	}
	r.stop()

	// A plugin that does not know them yet, or too long ago, asks for many with one call.
	r.sim.ClearFaults()
	if err := r.sim.Inject(ec2sim.Fault{Kind: "delay", Action: "DescribeVolumes", Times: -1, Duration: time.Second}); err != nil {
		t.Fatal(err)
	}
	r.timing.Fresh, r.timing.Absent = 0, time.Hour // so that each Get asks, and waits for the answer
	r.start()
	r.eventually("all known", func() bool { return len(r.manager.all()) == volumes })
	r.calls()
	if err := forAll(names, get); err != nil {
		t.Error(err)
	}
	if n := r.calls()["DescribeVolumes"]; n == 0 || n > volumes/10 {
		t.Errorf("%d Gets at once took %d calls", volumes, n)
	}
}

// As many containers as an instance takes volumes, and more, start at the same time on one host.
func TestFiftyContainersAtOnceGetTheirVolumesOrHearOfTheLimit(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Request = patient }) // 25 filesystems are made at once
	names := r.many(50)
	var mu sync.Mutex
	paths, refusals := map[string]string{}, map[string]string{}
	run := func(name string) error {
		res, err := r.try("Mount", m{"Name": name, "ID": "c-" + name})
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			refusals[name] = err.Error()
			return nil
		}
		paths[name] = res["Mountpoint"].(string)
		return os.WriteFile(filepath.Join(paths[name], "owner"), []byte(name), 0o644)
	}
	if err := forAll(names, run); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d got their volumes, %d were refused", len(paths), len(refusals))
	if len(refusals) == 0 || r.attached() != len(paths) {
		t.Errorf("%d volumes are attached, for %d containers", r.attached(), len(paths))
	}
	for name, said := range refusals {
		for _, word := range []string{name, r.host.ID, "larger instance type"} {
			if !strings.Contains(said, word) {
				t.Errorf("the refusal %q does not say %q", said, word)
			}
		}
		// It is true: nobody else could attach it.
		id, device := r.status(name)["id"].(string), "/dev/sdf"
		_, err := r.person().AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &r.host.ID, Device: &device})
		if err == nil || !strings.Contains(err.Error(), "AttachmentLimitExceeded") {
			t.Errorf("a person attaches %s: %v", name, err)
		}
	}
	for name, path := range paths {
		if got := read(t, filepath.Join(path, "owner")); got != name {
			t.Errorf("in the volume of %s there is what %q has written", name, got)
		}
	}
	if err := forAll(names, func(name string) error { _, err := r.try("Unmount", m{"Name": name, "ID": "c-" + name}); return err }); err != nil {
		t.Error(err)
	}
	r.eventually("nothing is left", func() bool { return r.attached() == 0 })

	// Those that were refused have their turn, and the others find what they have written.
	for name := range refusals {
		if _, err := os.Stat(filepath.Join(r.mount(name, "later"), "owner")); !os.IsNotExist(err) {
			t.Errorf("%s was refused, and holds something: %v", name, err)
		}
		r.unmount(name, "later")
		break
	}
	for name := range paths {
		if got := read(t, filepath.Join(r.mount(name, "later"), "owner")); got != name {
			t.Errorf("later %s holds %q", name, got)
		}
		r.unmount(name, "later")
		break
	}
	r.eventually("nothing is left", func() bool { return r.attached() == 0 })
}

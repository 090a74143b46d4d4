package ec2sim

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

func (b *bench) inject(f Fault) {
	b.t.Helper()
	if err := b.Inject(f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) createVia(ctx context.Context) (string, error) {
	out, err := b.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zoneA), Size: aws.Int32(1), ClientToken: aws.String("t")})
	if err != nil {
		return "", err
	}
	return *out.VolumeId, nil
}

func TestAnErrorFaultHitsTheCallsItIsMeantForAndNothingIsDone(t *testing.T) {
	b := newBench(t)
	id, other := b.volume(), b.volume()
	b.inject(Fault{Kind: "error", Action: "AttachVolume", Volume: id, Skip: 1, Times: 2, Code: "RequestLimitExceeded", Message: "slow down"})
	if err := b.attach(other, hostA, "/dev/xvdf"); err != nil {
		t.Errorf("another volume was hit: %v", err)
	}
	if err := b.attach(id, hostA, "/dev/xvdf"); code(err) != "InvalidParameterValue" {
		t.Errorf("the first call passes to EC2's own error: %v", err)
	}
	for range 2 {
		if err := b.attach(id, hostA, "/dev/xvdg"); code(err) != "RequestLimitExceeded" || b.state(id) != "available" {
			t.Errorf("%v, volume %s", err, b.state(id))
		}
	}
	b.attached(id, hostA, "/dev/xvdg")
	calls := b.Calls()
	if hit := calls[2]; hit.Fault != "error" || hit.Status != 503 || hit.Code != "RequestLimitExceeded" || hit.Action != "AttachVolume" || hit.Params["VolumeId"] != id {
		t.Errorf("logged as %+v", hit)
	}
	b.ResetCalls()
	if len(b.Calls()) != 0 {
		t.Error("calls are still there")
	}
}

func TestAHangingCallDoesNothingAndALostAnswerHasDoneIt(t *testing.T) {
	b := newBench(t)
	b.inject(Fault{Kind: "hang", Action: "CreateVolume"})
	if _, err := b.createVia(within(t, 2*time.Second)); err == nil {
		t.Error("a hanging call was answered")
	}
	b.inject(Fault{Kind: "hang", Action: "CreateVolume", Duration: 50 * time.Millisecond})
	if _, err := b.createVia(within(t, time.Minute)); err == nil {
		t.Error("a call that was cut was answered")
	}
	if got := len(b.controlState().Volumes); got != 0 {
		t.Fatalf("calls that hung made %d volumes", got)
	}
	b.inject(Fault{Kind: "lost-answer", Action: "CreateVolume"})
	if _, err := b.createVia(within(t, time.Minute)); err == nil {
		t.Error("a lost answer came")
	}
	volumes := b.controlState().Volumes
	if len(volumes) != 1 {
		t.Fatalf("%d volumes", len(volumes))
	}
	if id, err := b.createVia(within(t, time.Minute)); err != nil || id != volumes[0].ID {
		t.Errorf("the repeated call made %s, %v; want %s", id, err, volumes[0].ID)
	}
}

func TestAHangingCallEndsWithTheSimulator(t *testing.T) {
	b := newBench(t)
	b.inject(Fault{Kind: "hang", Action: "CreateVolume"})
	done := make(chan error, 1)
	go func() { _, err := b.createVia(within(t, 20*time.Second)); done <- err }()
	eventually(t, "the call has arrived", func() bool { return len(b.Faults()) == 0 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil {
			t.Error("a hanging call was answered")
		}
	case <-time.After(5 * time.Second):
		t.Error("the call still hangs")
	}
}

func TestANewVolumeCanBeInvisibleForAWhile(t *testing.T) {
	b := newBench(t)
	b.inject(Fault{Kind: "invisible", Duration: 300 * time.Millisecond})
	ctx := within(t, time.Minute)
	id, err := b.createVia(ctx)
	if err != nil {
		t.Fatal(err)
	}
	seen := func() bool {
		_, err := b.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
		return err == nil
	}
	if seen() {
		t.Error("visible at once")
	}
	eventually(t, "visible", seen)
	b.inject(Fault{Kind: "invisible", Action: "DescribeVolumes", Volume: id})
	if seen() || !seen() {
		t.Error("not hidden from exactly one Describe")
	}
}

func TestVolumesCanFailToBeMade(t *testing.T) {
	b := newBench(t)
	b.inject(Fault{Kind: "create-failed"})
	failed, err := b.createVia(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	b.becomes(failed, "error")
	b.inject(Fault{Kind: "kms-failed"})
	vanishes, err := b.create()
	if err != nil {
		t.Fatal(err)
	}
	b.becomes(vanishes.ID, "available") // The fault is for calls over the wire; this one went around it.
	over, err := b.ec2.CreateVolume(within(t, time.Minute), &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zoneA), Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	b.becomes(*over.VolumeId, "gone")
}

func TestAttachmentsAndDevicesCanGoWrong(t *testing.T) {
	b := newBench(t)
	serialOf := func(device string) string {
		return mustRead(t, filepath.Join(b.DevDir(hostA), ".sysfs/block", filepath.Base(device), "device/serial"))
	}
	nodes := func() int {
		all, _ := filepath.Glob(filepath.Join(b.DevDir(hostA), "nvme*"))
		return len(all)
	}
	attach := func(f Fault) string {
		id := b.volume()
		b.inject(f)
		if err := b.attach(id, hostA, "/dev/xvdf"); err != nil {
			t.Fatal(err)
		}
		return id
	}
	end := func(id string, force bool) {
		b.detach(id, force)
		b.becomes(id, "available")
		if nodes() != 0 {
			t.Fatal("a device is left")
		}
	}

	id := attach(Fault{Kind: "stuck-attaching"})
	time.Sleep(3 * quick.Attach)
	if got := b.state(id); got != "in-use/attaching" || nodes() != 0 {
		t.Errorf("stuck-attaching: %s", got)
	}
	end(id, false)

	id = attach(Fault{Kind: "no-device"})
	b.becomes(id, "in-use/attached")
	time.Sleep(3 * quick.Attach)
	if nodes() != 0 {
		t.Error("no-device: there is one")
	}
	end(id, false)

	id = attach(Fault{Kind: "late-device", Duration: 3 * time.Second})
	b.becomes(id, "in-use/attached")
	if nodes() != 0 {
		t.Error("late-device: it is there at once")
	}
	eventually(t, "late device", func() bool { return b.device(id, hostA) != "" })
	end(id, false)

	id = attach(Fault{Kind: "wrong-serial", Serial: "vol0123456789abcdef0"})
	b.becomes(id, "in-use/attached")
	if got := serialOf("nvme1n1"); got != "vol0123456789abcdef0\n" {
		t.Errorf("wrong-serial: %q", got)
	}
	end(id, false)

	id = attach(Fault{Kind: "empty-serial"})
	b.becomes(id, "in-use/attached")
	if got := serialOf("nvme1n1"); got != "                    \n" {
		t.Errorf("empty-serial: %q", got)
	}
	b.inject(Fault{Kind: "stuck-detaching"})
	b.detach(id, false)
	time.Sleep(3 * quick.Detach)
	if got := b.state(id); got != "in-use/detaching" {
		t.Errorf("stuck-detaching: %s", got)
	}
	end(id, true)
}

func TestFaultsThatMakeNoSenseAreRefused(t *testing.T) {
	b := newBench(t)
	for _, f := range []Fault{{}, {Kind: "flood"}, {Kind: "error"}, {Kind: "delay"}, {Kind: "page-size"}, {Kind: "invisible"}, {Kind: "late-device"},
		{Kind: "hang", Action: "DescribeMoons"}} {
		if err := b.Inject(f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
	for _, raw := range []string{`{"kind":"hang","tmies":2}`, `{"kind":"hang","duration":"soon"}`, `{"kind":"hang","duration":5}`} {
		var f Fault
		if err := json.Unmarshal([]byte(raw), &f); err == nil {
			t.Errorf("%s was read as %+v", raw, f)
		}
	}
}

func TestAnImageBecomesAVolumeWithItsHoles(t *testing.T) {
	b := newBench(t)
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, text := range map[int64]string{0: "first", 600 << 20: "middle", 1100<<20 - 4: "last"} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	id, err := b.Import(ImportSpec{Image: image, SnapshotID: "snap-0123456789abcdef0", Tags: map[string]string{"aws:any": "thing"}})
	if err != nil {
		t.Fatal(err)
	}
	device := b.attached(id, hostA, "/dev/xvdf")
	if got := read(t, device, 5, 0) + read(t, device, 6, 600<<20) + read(t, device, 4, 1100<<20-4); got != "firstmiddlelast" {
		t.Errorf("the device reads %q", got)
	}
	out, err := b.ec2.DescribeVolumes(within(t, time.Minute), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil || *out.Volumes[0].Size != 2 || *out.Volumes[0].SnapshotId != "snap-0123456789abcdef0" || *out.Volumes[0].Tags[0].Key != "aws:any" {
		t.Errorf("%+v, %v", out, err)
	}
	info, err := os.Stat(b.BackingFile(id))
	if err != nil || info.Size() != 2<<30 || used(info) > 4<<20 {
		t.Errorf("%d bytes, %d on disk, %v", info.Size(), used(info), err)
	}
	if _, err := b.Import(ImportSpec{Image: image, SizeGiB: 1}); err == nil {
		t.Error("an image was cut short")
	}
}

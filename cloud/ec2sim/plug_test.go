package ec2sim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	"golang.org/x/sys/unix"
)

// volume makes a blank volume of 1 GiB.
func (b *bench) volume() string {
	b.t.Helper()
	id, err := b.Import(ImportSpec{SizeGiB: 1})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *bench) attach(id, host, device string) error {
	b.t.Helper()
	_, err := b.ec2.AttachVolume(within(b.t, 10*time.Second), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &host, Device: &device})
	return err
}

func (b *bench) detach(id string, force bool) {
	b.t.Helper()
	if _, err := b.ec2.DetachVolume(within(b.t, 10*time.Second), &ec2.DetachVolumeInput{VolumeId: &id, Force: &force}); err != nil {
		b.t.Fatal(err)
	}
}

// state is "available", "in-use/attached", ...
func (b *bench) state(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.Sim.state.Volumes[id]
	if v == nil {
		return "gone"
	}
	out := v.State
	for _, a := range v.Attachments {
		out += "/" + a.State
	}
	return out
}

func (b *bench) becomes(id, state string) {
	b.t.Helper()
	eventually(b.t, id+" "+state+" instead of "+b.state(id), func() bool { return b.state(id) == state })
}

// device finds a volume's device on a host as a driver does: by its serial.
func (b *bench) device(id, host string) string {
	views, _ := filepath.Glob(filepath.Join(b.DevDir(host), ".sysfs/block/*"))
	for _, view := range views {
		if raw, _ := os.ReadFile(filepath.Join(view, "device/serial")); strings.TrimSpace(string(raw)) == serial(id) {
			return filepath.Join(b.DevDir(host), filepath.Base(view))
		}
	}
	return ""
}

// attached attaches a volume and returns its device.
func (b *bench) attached(id, host, name string) string {
	b.t.Helper()
	if err := b.attach(id, host, name); err != nil {
		b.t.Fatal(err)
	}
	b.becomes(id, "in-use/attached")
	device := b.device(id, host)
	if device == "" {
		b.t.Fatalf("%s is attached to %s but has no device", id, host)
	}
	return device
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return fmt.Sprint(err)
}

func write(t *testing.T, device, text string, at int64) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, device string, n int, at int64) string {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, n)
	if _, err := f.ReadAt(got, at); err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// mounted formats a device and mounts it.
func mounted(t *testing.T, device string) (dir string, unmount func()) {
	t.Helper()
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "nodiscard", device).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
	return mount(t, device)
}

// mount mounts a device with ext4.
func mount(t *testing.T, device string) (dir string, unmount func()) {
	t.Helper()
	return mountAs(t, "ext4", device, "commit", "1")
}

// mountAs mounts a device outside every mount namespace, so that none that somebody makes in the meantime keeps a copy of it.
func mountAs(t *testing.T, kind, device string, options ...string) (dir string, unmount func()) {
	t.Helper()
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	err = unix.FsconfigSetString(fs, "source", device)
	for n := 0; n < len(options); n += 2 {
		err = errors.Join(err, unix.FsconfigSetString(fs, options[n], options[n+1]))
	}
	if err := errors.Join(err, unix.FsconfigCreate(fs)); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unmount = sync.OnceFunc(func() { unix.Close(at) })
	t.Cleanup(unmount)
	return fmt.Sprintf("/proc/self/fd/%d", at), unmount
}

// loopsOf returns the loop devices that the kernel has over files in a folder.
func loopsOf(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if raw, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(raw), dir+"/") {
			out = append(out, f)
		}
	}
	return out
}

func TestDataStayWithTheVolumeOnItsWayToAnotherHost(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	onA := b.attached(id, hostA, "/dev/xvdf")
	const text = "written on host A, not synced"
	write(t, onA, text, 900<<20)
	loop := filepath.Base(filepath.Dir(filepath.Dir(loopsOf(t, b.cfg.Dir)[0])))
	b.detach(id, false)
	b.becomes(id, "available")
	if _, err := os.Lstat(onA); !errors.Is(err, os.ErrNotExist) || b.device(id, hostA) != "" {
		t.Fatalf("the device is still on host A: %v", err)
	}
	if left := loopsOf(t, b.cfg.Dir); len(left) > 0 {
		t.Fatalf("detached, but the kernel has %v", left)
	}
	eventually(t, "the number of "+loop+" is gone, or somebody else's", func() bool {
		_, err := os.Stat("/sys/block/" + loop)
		_, bound := os.Stat("/sys/block/" + loop + "/loop/backing_file")
		return errors.Is(err, os.ErrNotExist) || bound == nil
	})
	onB := b.attached(id, hostB, "/dev/xvdg")
	if got := read(t, onB, len(text), 900<<20); got != text {
		t.Fatalf("host B reads %q", got)
	}
}

func TestADeviceShowsItsSizeSerialAndNumber(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	device := b.attached(id, hostA, "/dev/xvdf")
	view := filepath.Join(b.DevDir(hostA), ".sysfs/block", filepath.Base(device))
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"dev": fmt.Sprintf("%d:%d\n", unix.Major(st.Rdev), unix.Minor(st.Rdev)), "size": "2097152\n",
		"device/serial": serial(id) + "\n", "device/model": fmt.Sprintf("%-40s\n", "Amazon Elastic Block Store"),
	} {
		if got := mustRead(t, filepath.Join(view, file)); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size, err := f.Seek(0, 2); err != nil || size != 1<<30 {
		t.Errorf("the device has %d bytes, %v", size, err)
	}
}

func TestTheKernelAnnouncesADeviceOnceAllIsInPlace(t *testing.T) {
	b := newBench(t)
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(events, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	id := b.volume()
	if err := b.attach(id, hostA, "/dev/xvdf"); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 8192)
	for {
		n, err := unix.Read(events, message)
		if err != nil {
			t.Fatalf("no event came after the device was in place: %v", err)
		}
		device := b.device(id, hostA)
		var st unix.Stat_t
		if device != "" {
			if err := unix.Stat(device, &st); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(message[:n], []byte("ACTION=change\x00")) && bytes.Contains(message[:n], fmt.Appendf(nil, "\x00MINOR=%d\x00", unix.Minor(st.Rdev))) {
				return
			}
		}
	}
}

func TestAVolumeIsAttachedOnce(t *testing.T) {
	b := newBench(t)
	id, other := b.volume(), b.volume()
	delays := quick
	delays.Attach = time.Hour
	b.SetDelays(delays)
	if err := b.attach(id, hostA, "/dev/xvdf"); err != nil {
		t.Fatal(err)
	}
	if got := b.state(id); got != "in-use/attaching" {
		t.Errorf("right after AttachVolume the volume is %s", got)
	}
	for _, host := range []string{hostA, hostB} {
		if err := b.attach(id, host, "/dev/xvdg"); code(err) != "VolumeInUse" {
			t.Errorf("second attach, to %s: %v", host, err)
		}
	}
	err := b.attach(other, hostA, "/dev/xvdf")
	if code(err) != "InvalidParameterValue" || !strings.Contains(err.Error(), "Attachment point /dev/xvdf is already in use") {
		t.Errorf("two volumes under one name: %v", err)
	}
}

func TestAnAttachThatWasEndedDoesNotHastenTheNext(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	delays := quick
	delays.Attach = 400 * time.Millisecond
	b.SetDelays(delays)
	if err := b.attach(id, hostA, "/dev/xvdf"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	b.detach(id, false)
	b.becomes(id, "available")
	started := time.Now()
	b.attached(id, hostA, "/dev/xvdf")
	if took := time.Since(started); took < delays.Attach {
		t.Errorf("attached after %s instead of %s", took, delays.Attach)
	}
}

func TestADetachIsBusyWhileTheHostHasItMountedAndThenCompletesByItself(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	dir, unmount := mounted(t, b.attached(id, hostA, "/dev/xvdf"))
	b.detach(id, false)
	b.becomes(id, "in-use/busy")
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("still works"), 0o600); err != nil {
		t.Errorf("a busy device must go on working: %v", err)
	}
	out, err := b.ec2.DescribeVolumes(within(t, time.Minute), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil || string(out.Volumes[0].Attachments[0].State) != "busy" {
		t.Errorf("DescribeVolumes: %+v, %v", out, err)
	}
	unmount()
	b.becomes(id, "available")
	dir, _ = mount(t, b.attached(id, hostB, "/dev/xvdf"))
	if got := mustRead(t, filepath.Join(dir, "f")); got != "still works" {
		t.Errorf("on host B the file holds %q", got)
	}
}

func TestAfterAForcedDetachTheOldHostGetsIOErrorsAndCannotHarmTheNewOne(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	dir, unmount := mounted(t, b.attached(id, hostA, "/dev/xvdf"))
	old, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	b.detach(id, true)
	b.becomes(id, "available")
	if b.device(id, hostA) != "" {
		t.Error("host A still sees the device")
	}
	if _, err := old.WriteString("too late"); err == nil {
		err = old.Sync()
		if err == nil {
			t.Error("host A wrote to a volume that was taken away from it")
		}
	}
	onB := b.attached(id, hostB, "/dev/xvdf")
	write(t, onB, "host B", 512<<20)
	if got := read(t, onB, 6, 512<<20); got != "host B" {
		t.Errorf("host B reads %q", got)
	}
	old.Close()
	unmount()
	eventually(t, "the dead device is gone", func() bool { return len(loopsOf(t, b.cfg.Dir)) == 1 })
	b.detach(id, false)
	b.becomes(id, "available")
}

func TestAStoppedHostLosesItsDevicesAndFindsThemAgain(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	b.attached(id, hostA, "/dev/xvdf")
	if err := b.SetInstanceState(hostA, StateStopped); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no device on the stopped host", func() bool { return b.device(id, hostA) == "" })
	if got := b.state(id); got != "in-use/attached" {
		t.Errorf("the volume of a stopped host is %s", got)
	}
	if err := b.SetInstanceState(hostA, StateRunning); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device is back", func() bool { return b.device(id, hostA) != "" })
	if err := b.SetInstanceState(hostA, StateTerminated); err != nil {
		t.Fatal(err)
	}
	b.becomes(id, "available")
	if err := b.attach(id, hostA, "/dev/xvdf"); code(err) != "IncorrectState" {
		t.Errorf("attach to a terminated host: %v", err)
	}
	b.attached(id, hostB, "/dev/xvdf")
}

func TestItWorksInAContainerWhoseDevHasNoLoopNodes(t *testing.T) {
	b := newBench(t)
	b.disk.(*disks).loops.dev = t.TempDir()
	id := b.volume()
	write(t, b.attached(id, hostA, "/dev/xvdf"), "inside", 0)
	b.detach(id, false)
	b.becomes(id, "available")
	if got := read(t, b.BackingFile(id), 6, 0); got != "inside" {
		t.Errorf("the file starts with %q", got)
	}
	if left, err := filepath.Glob(filepath.Join(b.cfg.Dir, "nodes", "loop[0-9]*")); err != nil || len(left) > 0 {
		t.Errorf("nodes left: %v, %v", left, err)
	}
}

func TestManyVolumesAttachAtOnceToDifferentDevices(t *testing.T) {
	b := newBench(t)
	b.SetLimits(func() Limits { l := b.Limits(); l.ShuffleDevices = true; return l }())
	ids := map[string]bool{}
	for n := range 8 {
		id := b.volume()
		ids[id] = true
		if err := b.attach(id, hostA, "/dev/xvd"+string(rune('f'+n))); err != nil {
			t.Fatal(err)
		}
	}
	devices := map[string]bool{}
	for id := range ids {
		b.becomes(id, "in-use/attached")
		device := b.device(id, hostA)
		devices[device] = true
		write(t, device, id, 0)
	}
	if len(devices) != 8 {
		t.Fatalf("8 volumes, %d devices", len(devices))
	}
	for id := range ids {
		b.detach(id, false)
		b.becomes(id, "available")
		if got := read(t, b.BackingFile(id), len(id), 0); got != id {
			t.Errorf("the file of %s starts with %q", id, got)
		}
	}
}

func TestAttachIsRefusedForAReason(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	far, err := b.Import(ImportSpec{SizeGiB: 1, Zone: "us-sim-1b"})
	if err != nil {
		t.Fatal(err)
	}
	b.SetDelays(Delays{Create: time.Hour})
	new, err := b.ec2.CreateVolume(within(t, time.Minute), &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zoneA), Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ volume, host, device, want string }{
		{"vol-0123456789abcdef0", hostA, "/dev/xvdf", "InvalidVolume.NotFound"},
		{"vol-xyz", hostA, "/dev/xvdf", "InvalidVolumeID.Malformed"},
		{"disk", hostA, "/dev/xvdf", "InvalidParameterValue"},
		{id, "i-0123456789abcdef0", "/dev/xvdf", "InvalidInstanceID.NotFound"},
		{id, "host", "/dev/xvdf", "InvalidInstanceID.Malformed"},
		{id, hostA, "/dev/nvme1n1", "InvalidParameterValue"},
		{id, hostA, "/dev/xvda", "InvalidParameterValue"},
		{far, hostA, "/dev/xvdf", "InvalidVolume.ZoneMismatch"},
		{*new.VolumeId, hostA, "/dev/xvdf", "IncorrectState"},
	} {
		if err := b.attach(c.volume, c.host, c.device); code(err) != c.want {
			t.Errorf("attach %s to %s as %s: %v, want %s", c.volume, c.host, c.device, err, c.want)
		}
	}
}

func TestAHostTakesAsManyVolumesAsItsTypeAllows(t *testing.T) {
	b := newBench(t)
	b.SetLimits(Limits{Attachments: map[string]int{"m5.large": 2}})
	for _, device := range []string{"/dev/xvdf", "/dev/xvdg"} {
		if err := b.attach(b.volume(), hostA, device); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.attach(b.volume(), hostA, "/dev/xvdh"); code(err) != "AttachmentLimitExceeded" {
		t.Errorf("third volume: %v", err)
	}
}

func TestDetachIsRefusedForAReason(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	ctx := within(t, time.Minute)
	_, err := b.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id})
	if code(err) != "IncorrectState" || !strings.Contains(err.Error(), "is in the 'available' state") {
		t.Errorf("detach of an available volume: %v", err)
	}
	b.attached(id, hostA, "/dev/xvdf")
	if _, err = b.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id, InstanceId: aws.String(hostB)}); code(err) != "InvalidAttachment.NotFound" {
		t.Errorf("detach from the wrong host: %v", err)
	}
	if _, err = b.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); code(err) != "VolumeInUse" {
		t.Errorf("delete of an attached volume: %v", err)
	}
	if got := b.state(id); got != "in-use/attached" {
		t.Errorf("after all refusals the volume is %s", got)
	}
}

package ec2sim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// instance is what DescribeInstances shows.
func (b *bench) instance(id string) types.Instance {
	b.t.Helper()
	out, err := b.ec2.DescribeInstances(within(b.t, 10*time.Second), &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil || len(out.Reservations) != 1 || len(out.Reservations[0].Instances) != 1 {
		b.t.Fatalf("DescribeInstances %s: %+v, %v", id, out, err)
	}
	return out.Reservations[0].Instances[0]
}

func (b *bench) power(id string) string { b.t.Helper(); return string(b.instance(id).State.Name) }

func (b *bench) reaches(id, state string) {
	b.t.Helper()
	eventually(b.t, id+" "+state, func() bool { return b.power(id) == state })
}

func (b *bench) start(id string) error {
	_, err := b.ec2.StartInstances(within(b.t, 10*time.Second), &ec2.StartInstancesInput{InstanceIds: []string{id}})
	return err
}

func (b *bench) stop(in *ec2.StopInstancesInput, id string) error {
	in.InstanceIds = []string{id}
	_, err := b.ec2.StopInstances(within(b.t, 10*time.Second), in)
	return err
}

func (b *bench) terminate(id string) error {
	_, err := b.ec2.TerminateInstances(within(b.t, 10*time.Second), &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	return err
}

// must ends the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// alive tells whether a mounted filesystem still takes data.
func alive(f *os.File) bool {
	_, err := f.WriteString("x")
	return err == nil && f.Sync() == nil
}

func newFile(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "f"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString("synced;"); err != nil || f.Sync() != nil {
		t.Fatal(err)
	}
	return f
}

func TestAHostThatIsShownAsStoppedWritesNothingAnyMore(t *testing.T) {
	b := newBench(t)
	d := quick
	d.Stop, d.Detach = 50*time.Millisecond, time.Hour
	b.SetDelays(d)
	id := b.volume()
	dir, unmount := mounted(t, b.attached(id, hostA, "/dev/xvdf"))
	f := newFile(t, dir)
	out, err := b.ec2.StopInstances(within(t, time.Minute), &ec2.StopInstancesInput{InstanceIds: []string{hostA}})
	must(t, err)
	if c := out.StoppingInstances[0]; *c.InstanceId != hostA || c.PreviousState.Name != "running" || c.CurrentState.Name != "stopping" || *c.CurrentState.Code != 64 {
		t.Errorf("StopInstances answers %+v", c)
	}
	if err := b.start(hostA); code(err) != "IncorrectInstanceState" {
		t.Errorf("start while stopping: %v", err)
	}
	b.reaches(hostA, "stopped")
	if alive(f) {
		t.Error("a stopped host has written")
	}
	if b.device(id, hostA) != "" || b.state(id) != "in-use/attached" {
		t.Errorf("device %q, volume %s", b.device(id, hostA), b.state(id))
	}
	i := b.instance(hostA)
	at, err := time.Parse("User initiated (2006-01-02 15:04:05 GMT)", aws.ToString(i.StateTransitionReason))
	if err != nil || time.Since(at) > time.Minute || *i.StateReason.Code != "Client.UserInitiatedShutdown" || *i.StateReason.Message != "Client.UserInitiatedShutdown: User initiated shutdown" {
		t.Errorf("reason %q, %+v, %v", *i.StateTransitionReason, i.StateReason, err)
	}
	// What is still mounted in a host without power does not hold the volume, nor does anybody wait for it.
	_, err = b.ec2.DetachVolume(within(t, time.Minute), &ec2.DetachVolumeInput{VolumeId: &id, InstanceId: aws.String(hostA)})
	must(t, err)
	b.becomes(id, "available")
	b.SetDelays(quick)
	onB, _ := mount(t, b.attached(id, hostB, "/dev/xvdf"))
	if got := mustRead(t, filepath.Join(onB, "f")); !strings.HasPrefix(got, "synced;") {
		t.Errorf("host B reads %q", got)
	}
	must(t, b.start(hostA))
	b.reaches(hostA, "running")
	if alive(f) {
		t.Error("the old mount works again")
	}
	if i := b.instance(hostA); *i.StateTransitionReason != "" || i.StateReason != nil {
		t.Errorf("a running host has the reason %v, %+v", *i.StateTransitionReason, i.StateReason)
	}
	f.Close()
	unmount()
}

func TestAStoppedHostFindsItsDevicesAgainAndARunningOneIsLeftAlone(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	write(t, b.attached(id, hostA, "/dev/xvdf"), "kept", 0)
	must(t, b.start(hostA))
	if b.power(hostA) != "running" || b.device(id, hostA) == "" {
		t.Error("starting a running host has changed it")
	}
	must(t, b.stop(&ec2.StopInstancesInput{}, hostA))
	b.reaches(hostA, "stopped")
	must(t, b.stop(&ec2.StopInstancesInput{}, hostA))
	late := b.volume()
	must(t, b.attach(late, hostA, "/dev/xvdg"))
	b.becomes(late, "in-use/attached")
	if b.device(late, hostA) != "" {
		t.Error("a stopped host has a device")
	}
	must(t, b.start(hostA))
	eventually(t, "both devices", func() bool { return b.device(id, hostA) != "" && b.device(late, hostA) != "" })
	if got := read(t, b.device(id, hostA), 4, 0); got != "kept" {
		t.Errorf("the device reads %q", got)
	}
}

func TestAStopThatIsStuckLeavesTheHostAliveUntilItIsForced(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	dir, unmount := mounted(t, b.attached(id, hostA, "/dev/xvdf"))
	f := newFile(t, dir)
	b.inject(Fault{Kind: "stuck-stopping", Times: 2})
	must(t, b.stop(&ec2.StopInstancesInput{}, hostA))
	must(t, b.stop(&ec2.StopInstancesInput{Force: aws.Bool(true)}, hostA)) // hit, too
	time.Sleep(3 * busyRetry)
	if got := b.power(hostA); got != "stopping" || !alive(f) {
		t.Errorf("the stuck host is %s", got)
	}
	must(t, b.stop(&ec2.StopInstancesInput{}, hostA))
	time.Sleep(2 * busyRetry)
	if got := b.power(hostA); got != "stopping" {
		t.Errorf("a plain stop has ended the stuck one: %s", got)
	}
	must(t, b.stop(&ec2.StopInstancesInput{Force: aws.Bool(true)}, hostA))
	b.reaches(hostA, "stopped")
	if alive(f) {
		t.Error("a stopped host has written")
	}
	f.Close()
	unmount()
	must(t, b.start(hostA))
	b.reaches(hostA, "running")
	b.inject(Fault{Kind: "stuck-stopping"})
	must(t, b.stop(&ec2.StopInstancesInput{}, hostA))
	must(t, b.SetInstanceState(hostA, StateRunning))
	if got := b.power(hostA); got != "running" {
		t.Errorf("the shortcut leaves a stuck host %s", got)
	}
}

func TestAHibernatedHostGoesOnWithItsMountsUnlessTheVolumeWasTaken(t *testing.T) {
	b := newBench(t)
	made, err := b.AddInstance(Instance{Hibernation: true})
	must(t, err)
	kept, taken := b.volume(), b.volume()
	var files []*os.File
	for n, id := range []string{kept, taken} {
		dir, unmount := mounted(t, b.attached(id, made.ID, []string{"/dev/xvdf", "/dev/xvdg"}[n]))
		f := newFile(t, dir)
		files = append(files, f)
		defer unmount()
		defer f.Close()
	}
	if err := b.stop(&ec2.StopInstancesInput{Hibernate: aws.Bool(true)}, hostA); code(err) != "UnsupportedHibernationConfiguration" {
		t.Errorf("hibernate a host that is not made for it: %v", err)
	}
	must(t, b.stop(&ec2.StopInstancesInput{Hibernate: aws.Bool(true)}, made.ID))
	b.reaches(made.ID, "stopped")
	if i := b.instance(made.ID); *i.StateReason.Code != "Client.UserInitiatedHibernate" || !*i.HibernationOptions.Configured {
		t.Errorf("%+v, %+v", i.StateReason, i.HibernationOptions)
	}
	b.detach(taken, false)
	b.becomes(taken, "available")
	must(t, b.start(made.ID))
	b.reaches(made.ID, "running")
	if !alive(files[0]) || alive(files[1]) {
		t.Errorf("after the hibernation: kept %v, taken %v", alive(files[0]), alive(files[1]))
	}
}

func TestATerminatedHostLosesItsVolumesAndIsForgottenLater(t *testing.T) {
	b := newBench(t)
	d := quick
	d.Terminate, d.Terminated = 50*time.Millisecond, 400*time.Millisecond
	b.SetDelays(d)
	goes, stays := b.volume(), b.volume()
	dir, unmount := mounted(t, b.attached(stays, hostA, "/dev/xvdf"))
	f := newFile(t, dir)
	b.attached(goes, hostA, "/dev/xvdg")
	_, err := b.ec2.ModifyInstanceAttribute(within(t, time.Minute), &ec2.ModifyInstanceAttributeInput{InstanceId: aws.String(hostA),
		BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{{DeviceName: aws.String("/dev/xvdg"), Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: aws.Bool(true)}}}})
	must(t, err)
	must(t, b.terminate(hostA))
	if got := b.power(hostA); got != "shutting-down" {
		t.Errorf("just terminated: %s", got)
	}
	b.reaches(hostA, "terminated")
	if alive(f) {
		t.Error("a terminated host has written")
	}
	must(t, b.terminate(hostA))
	b.becomes(stays, "available")
	b.becomes(goes, "gone")
	if err := b.start(hostA); code(err) != "IncorrectInstanceState" && code(err) != "InvalidInstanceID.NotFound" {
		t.Errorf("start after the end: %v", err)
	}
	eventually(t, "forgotten", func() bool {
		_, err := b.ec2.DescribeInstances(within(t, time.Minute), &ec2.DescribeInstancesInput{InstanceIds: []string{hostA}})
		return code(err) == "InvalidInstanceID.NotFound"
	})
	f.Close()
	unmount()

	lingers := b.volume()
	b.attached(lingers, hostB, "/dev/xvdf")
	b.inject(Fault{Kind: "keeps-volumes"})
	must(t, b.terminate(hostB))
	b.reaches(hostB, "terminated")
	if got := b.state(lingers); got != "in-use/attached" || b.device(lingers, hostB) != "" {
		t.Errorf("keeps-volumes: the volume is %s, device %q", got, b.device(lingers, hostB))
	}
	b.detach(lingers, false)
	b.becomes(lingers, "available")
}

func TestARebootTakesDevicesFromUnderTheirMountsAndGivesThemBack(t *testing.T) {
	b := newBench(t)
	id, busy := b.volume(), b.volume()
	dir, unmount := mounted(t, b.attached(id, hostA, "/dev/xvdf"))
	f := newFile(t, dir)
	_, unmountBusy := mounted(t, b.attached(busy, hostA, "/dev/xvdg"))
	b.detach(busy, false)
	b.becomes(busy, "in-use/busy")
	old := b.Sim.state.Volumes[id].on(hostA).Plug.Loop
	_, err := b.ec2.RebootInstances(within(t, time.Minute), &ec2.RebootInstancesInput{InstanceIds: []string{hostA}})
	must(t, err)
	b.becomes(busy, "available")
	eventually(t, "a new device", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		p := b.Sim.state.Volumes[id].on(hostA).Plug
		return p.Node != 0 && p.Loop != old
	})
	if alive(f) {
		t.Error("what was mounted before the reboot still writes")
	}
	again, _ := mount(t, b.device(id, hostA))
	if got := mustRead(t, filepath.Join(again, "f")); !strings.HasPrefix(got, "synced;") {
		t.Errorf("after the reboot the file holds %q", got)
	}
	f.Close()
	unmount()
	unmountBusy()
}

func TestAStopGoesOnAfterARestartOfTheSimulator(t *testing.T) {
	b := newBench(t)
	id := b.volume()
	b.attached(id, hostA, "/dev/xvdf")
	b.SetDelays(Delays{Stop: 50 * time.Millisecond})
	must(t, b.stop(&ec2.StopInstancesInput{}, hostA))
	must(t, b.Close())
	again, err := New(Config{Dir: b.cfg.Dir, Delays: quick})
	must(t, err)
	t.Cleanup(func() { again.Destroy() })
	c := serve(t, again)
	c.reaches(hostA, "stopped")
	if c.device(id, hostA) != "" || c.state(id) != "in-use/attached" {
		t.Errorf("device %q, volume %s", c.device(id, hostA), c.state(id))
	}
	if err := b.SetInstanceState(hostB, StateStopped); err == nil {
		t.Error("a closed simulator has stopped a host")
	}
}

func TestPowerIsRefusedForAReason(t *testing.T) {
	b := newBench(t)
	d := quick
	d.Start, d.Terminate = time.Hour, time.Hour
	b.SetDelays(d)
	add := func(i Instance) string {
		made, err := b.AddInstance(i)
		must(t, err)
		return made.ID
	}
	ctx := within(t, 30*time.Second)
	run, err := b.ec2.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	must(t, err)
	pending, ending := *run.Instances[0].InstanceId, add(Instance{})
	must(t, b.terminate(ending))
	store, spot, persistent := add(Instance{Root: RootInstanceStore}), add(Instance{Spot: SpotOneTime}), add(Instance{Spot: SpotPersistent})
	noStop, noEnd := add(Instance{DisableAPIStop: true}), add(Instance{DisableAPITermination: true})
	stop := func(id string) error { return b.stop(&ec2.StopInstancesInput{}, id) }
	reboot := func(id string) error {
		_, err := b.ec2.RebootInstances(ctx, &ec2.RebootInstancesInput{InstanceIds: []string{id}})
		return err
	}
	for _, c := range []struct {
		name string
		do   func(string) error
		id   string
		want string
	}{
		{"start unknown", b.start, "i-0123456789abcdef0", "InvalidInstanceID.NotFound"},
		{"start malformed", b.start, "host", "InvalidInstanceID.Malformed"},
		{"start ending", b.start, ending, "IncorrectInstanceState"},
		{"stop pending", stop, pending, "IncorrectInstanceState"},
		{"stop ending", stop, ending, "IncorrectInstanceState"},
		{"stop with its root in an instance store", stop, store, "UnsupportedOperation"},
		{"stop one-time spot", stop, spot, "UnsupportedOperation"},
		{"stop protected", stop, noStop, "OperationNotPermitted"},
		{"terminate stop-protected", b.terminate, noStop, "OperationNotPermitted"},
		{"terminate protected", b.terminate, noEnd, "OperationNotPermitted"},
		{"reboot pending", reboot, pending, "IncorrectInstanceState"},
	} {
		before := len(b.Instances())
		if err := c.do(c.id); code(err) != c.want || len(b.Instances()) != before {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	_, err = b.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{hostA, noStop}})
	if code(err) != "OperationNotPermitted" || b.power(hostA) != "running" {
		t.Errorf("one refused, one not: %v, and the other is %s", err, b.power(hostA))
	}
	_, err = b.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{hostA}, DryRun: aws.Bool(true)})
	if code(err) != "DryRunOperation" || b.power(hostA) != "running" {
		t.Errorf("dry run: %v, and the host is %s", err, b.power(hostA))
	}
	if err := stop(persistent); err != nil {
		t.Errorf("stop a persistent spot instance: %v", err)
	}
	if err := stop(noEnd); err != nil {
		t.Errorf("stop what is protected from its end only: %v", err)
	}
	if got := b.instance(spot); got.InstanceLifecycle != "spot" || got.SpotInstanceRequestId == nil || b.instance(hostA).InstanceLifecycle != "" || b.instance(store).RootDeviceType != "instance-store" {
		t.Errorf("%+v", got)
	}
	if err := errors.Join(b.SetInstanceState(ending, StateTerminated), b.SetInstanceState(noStop, StateStopped)); err != nil {
		t.Error(err)
	}
	for _, err := range []error{b.SetInstanceState(ending, StateRunning), b.SetInstanceState(hostA, StatePending), b.SetInstanceState("i-0", StateStopped)} {
		if err == nil {
			t.Error("the shortcut does what cannot be")
		}
	}
}

func TestStoppedIsSaidAfterTheDevicesAreGone(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"/dev/xvdf", "/dev/xvdg", "/dev/xvdh"} {
		_, unmount := mounted(t, b.attached(b.volume(), hostA, name))
		defer unmount()
	}
	must(t, b.SetInstanceState(hostA, StateStopped))
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, v := range b.Sim.state.Volumes {
		if p := v.on(hostA).Plug; p != (plug{}) {
			t.Errorf("the host is stopped and still has %s as %+v", id, p)
		}
	}
}

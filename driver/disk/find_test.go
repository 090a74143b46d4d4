package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOnlyTheExactSerialFindsADevice(t *testing.T) {
	m := newMachine(t)
	a, _ := m.disk(16 * mib)
	l := m.attach(m.image(16 * mib))
	padded := m.show(l, "vol00000000000000abc      ")
	m.show(m.attach(m.image(16*mib)), "")
	m.show(m.attach(m.image(16*mib)), "    ")
	m.sysfs("ram0", "x", 0, 16*mib)
	must(t, os.RemoveAll(filepath.Join(m.Sys, "block/ram0/device"))) // as most devices: no serial at all

	for serial, want := range map[string]Device{
		a.Serial:               a,
		a.Serial + "  ":        a,
		"vol00000000000000abc": padded,
	} {
		if got, err := m.Find(serial); err != nil || got != want {
			t.Errorf("%q: %+v, %v", serial, got, err)
		}
	}
	for _, serial := range []string{"vol0", a.Serial + "0", a.Serial[:len(a.Serial)-1], strings.ToUpper(a.Serial), "vol-" + a.Serial[3:], "Amazon Elastic Block Store"} {
		if got, err := m.Find(serial); !errors.Is(err, ErrNoDevice) {
			t.Errorf("%q: %+v, %v", serial, got, err)
		}
	}
	list, err := m.List()
	if err != nil || len(list) != 2 || list[0] != a || list[1] != padded {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestAnEmptySerialFindsNothing(t *testing.T) {
	m := newMachine(t)
	m.show(m.attach(m.image(16*mib)), "")
	for _, serial := range []string{"", "  ", "\n", "\x00"} {
		if _, err := m.Find(serial); !errors.Is(err, ErrSerial) {
			t.Errorf("find %q: %v", serial, err)
		}
		if _, err := m.Wait(soon(t), serial); !errors.Is(err, ErrSerial) {
			t.Errorf("wait for %q: %v", serial, err)
		}
	}
	if _, err := m.Claim(Device{Name: "nvme1n1", Path: filepath.Join(m.Dev, "nvme1n1"), Major: 7}); !errors.Is(err, ErrSerial) {
		t.Errorf("claim without a serial: %v", err)
	}
}

func TestTwoDevicesWithOneSerialAreBothRefused(t *testing.T) {
	m := newMachine(t)
	m.show(m.attach(m.image(16*mib)), "vol1")
	m.show(m.attach(m.image(16*mib)), "vol1 ")
	_, err := m.Find("vol1")
	if !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), "nvme1n1") || !strings.Contains(err.Error(), "nvme2n1") {
		t.Errorf("find: %v", err)
	}
	if _, err := m.Wait(soon(t), "vol1"); !errors.Is(err, ErrDuplicate) {
		t.Errorf("wait: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := m.WaitGone(ctx, "vol1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two devices are not gone: %v", err)
	}
}

func TestADeviceIsNotReadyBeforeItsSizeAndItsNode(t *testing.T) {
	m := newMachine(t)
	l := m.attach(m.image(16 * mib))
	minor := uint32(l.num)
	check := func(want error, when string) {
		t.Helper()
		if _, err := m.Find("vol1"); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	check(ErrNoDevice, "nothing there")
	m.sysfs("nvme1n1", "vol1", minor, 0)
	m.node("nvme1n1", minor)
	check(ErrNotReady, "no size")
	must(t, os.Remove(filepath.Join(m.Dev, "nvme1n1")))
	m.sysfs("nvme1n1", "vol1", minor, 16*mib)
	check(ErrNotReady, "no node")
	if _, err := m.Find("vol1"); errors.Is(err, ErrNoDevice) {
		t.Error("a device without a node counts as gone")
	}
	m.node("nvme1n1", minor+1)
	check(ErrNotReady, "a node of another number")
	node := filepath.Join(m.Dev, "nvme1n1")
	must(t, os.Remove(node))
	must(t, unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(7, minor))))
	check(ErrNotReady, "a character device")
	must(t, os.Remove(node))
	m.node("nvme1n1", minor)
	check(nil, "all there")
	must(t, os.WriteFile(filepath.Join(m.Sys, "block/nvme1n1/dev"), nil, 0o644))
	check(ErrNoDevice, "a hidden path, without a number")
}

func TestAWaitIsNotOverBeforeTheDeviceCanBeOpened(t *testing.T) {
	m := newMachine(t)
	m.Rescan = 5 * time.Millisecond
	real := m.show(m.attach(m.image(16*mib)), "other")
	// A number that no driver has: sysfs and node are there, and an open is ENXIO.
	m.sysfs("nvme9n1", "vol1", 0, 16*mib)
	number := filepath.Join(m.Sys, "block/nvme9n1/dev")
	must(t, os.WriteFile(number, []byte("4095:1\n"), 0o644))
	must(t, unix.Mknod(filepath.Join(m.Dev, "nvme9n1"), unix.S_IFBLK|0o600, int(unix.Mkdev(4095, 1))))
	if _, err := m.Find("vol1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if d, err := m.Wait(ctx, "vol1"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoDevice) {
		t.Errorf("a device that cannot be opened: %+v, %v", d, err)
	}
	must(t, os.Remove(filepath.Join(m.Dev, "nvme9n1")))
	must(t, os.WriteFile(number, fmt.Appendf(nil, "7:%d\n", real.Minor), 0o644))
	m.node("nvme9n1", real.Minor)
	if d, err := m.Wait(soon(t), "vol1"); err != nil || d.Minor != real.Minor {
		t.Errorf("a device that can: %+v, %v", d, err)
	}
}

// A name that now means another device must not be touched under the old one's serial.
func TestADeviceThatWasReplacedIsNotOpened(t *testing.T) {
	m := newMachine(t)
	old, l := m.disk(16 * mib)
	other := m.attach(m.image(16 * mib))
	ctx := soon(t)
	reach := map[string]func() error{
		"claim":   func() error { _, err := m.Claim(old); return err },
		"lock":    func() error { _, err := m.Lock(ctx, old); return err },
		"inspect": func() error { _, err := m.Inspect(ctx, old); return err },
		"format":  func() error { return m.Format(ctx, old, "ext4", FormatOptions{Overwrite: true}) },
		"check":   func() error { return m.Check(ctx, old, "ext4") },
		"mount":   func() error { return m.Mount(ctx, old, m.target(), "ext4", nil) },
		"grow":    func() error { _, err := m.Grow(ctx, old, "/", "ext4"); return err },
	}
	try := func(when string) {
		t.Helper()
		for name, f := range reach {
			if err := f(); !errors.Is(err, ErrNoDevice) {
				t.Errorf("%s when %s: %v", name, when, err)
			}
		}
	}
	before := sum(t, other.image)
	// The same name and number, another serial: the number was given away.
	m.sysfs(old.Name, "vol2", old.Minor, old.Size)
	try("the number was given to another")
	// The same name, another number.
	must(t, os.Remove(old.Path))
	m.node(old.Name, uint32(other.num))
	m.sysfs(old.Name, old.Serial, old.Minor, old.Size)
	try("its node is another device's")
	m.sysfs(old.Name, "vol2", uint32(other.num), old.Size)
	try("the name was given to another")
	m.sysfs(old.Name, old.Serial, uint32(other.num), old.Size)
	try("the same volume came back under another number")
	must(t, os.RemoveAll(filepath.Join(m.Sys, "block", old.Name)))
	try("it is gone from sysfs")
	must(t, os.Remove(old.Path))
	m.sysfs(old.Name, old.Serial, old.Minor, old.Size)
	try("its node is gone")
	if sum(t, other.image) != before || sum(t, l.image) != before {
		t.Error("a device was written to")
	}
}

// poke makes the kernel send an event about a loop device.
func poke(t *testing.T, l *loop) {
	must(t, os.WriteFile(filepath.Join("/sys/block", filepath.Base(l.file.Name()), "uevent"), []byte("change"), 0o200))
}

func TestAWaitIsWokenByTheKernel(t *testing.T) {
	m := newMachine(t)
	m.Rescan = time.Hour
	for _, c := range []struct {
		name  string
		early bool // the event comes before the machine shows the device
	}{{"shown before the event", false}, {"shown after the event", true}} {
		t.Run(c.name, func(t *testing.T) {
			l := m.attach(m.image(16 * mib))
			serial := "vol" + strings.ReplaceAll(c.name, " ", "")
			got := make(chan error, 1)
			ready := make(chan struct{})
			var at time.Time
			go func() {
				close(ready)
				_, err := m.Wait(soon(t), serial)
				at = time.Now()
				got <- err
			}()
			<-ready
			select {
			case err := <-got:
				t.Fatal("did not wait:", err)
			case <-time.After(100 * time.Millisecond):
			}
			if c.early {
				poke(t, l)
				time.Sleep(3 * time.Millisecond)
			}
			m.show(l, serial)
			began := time.Now()
			if !c.early {
				poke(t, l)
			}
			must(t, <-got)
			if took := at.Sub(began); took > 10*time.Second {
				t.Errorf("took %s", took)
			} else {
				t.Logf("took %s", took)
			}
		})
	}
}

func TestAWaitForTheEndIsWokenByTheKernel(t *testing.T) {
	m := newMachine(t)
	m.Rescan = time.Hour
	d, l := m.disk(16 * mib)
	got := make(chan error, 1)
	go func() { got <- m.WaitGone(soon(t), d.Serial) }()
	// Without a node it cannot be used, but it is still there.
	must(t, os.Remove(d.Path))
	poke(t, l)
	select {
	case err := <-got:
		t.Fatal("did not wait:", err)
	case <-time.After(400 * time.Millisecond):
	}
	began := time.Now()
	must(t, os.RemoveAll(filepath.Join(m.Sys, "block", d.Name)))
	poke(t, l)
	must(t, <-got)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestAWaitWithoutEventsLooksRegularly(t *testing.T) {
	m := newMachine(t)
	m.Rescan = 10 * time.Millisecond
	l := m.attach(m.image(16 * mib))
	got := make(chan error, 1)
	go func() { _, err := m.Wait(soon(t), "vol1"); got <- err }()
	time.Sleep(300 * time.Millisecond) // until the last look after the loop device's own events
	m.show(l, "vol1")
	began := time.Now()
	must(t, <-got)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestAWaitEndsWithItsContextAndTellsWhatWasSeen(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(16 * mib)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err := m.Wait(ctx, "vol404")
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), d.Serial) || !strings.Contains(err.Error(), "vol404") {
		t.Error(err)
	}
}

func TestLostEventsAreAReasonToLook(t *testing.T) {
	script := []struct {
		text string
		err  error
	}{
		{"change@/devices/virtual/net/eth0\x00SUBSYSTEM=net\x00", nil},
		{"", unix.ENOBUFS},
		{"add@/devices/virtual/block/loop9\x00ACTION=add\x00SUBSYSTEM=block\x00", nil},
		{"", os.ErrClosed},
	}
	m := newMachine(t)
	events := make(chan struct{}, len(script))
	i := 0
	m.hear(func(b []byte) (int, error) {
		s := script[i]
		i++
		return copy(b, s.text), s.err
	}, events)
	if i != len(script) || len(events) != 2 {
		t.Errorf("%d of %d read, %d reasons to look, want 2", i, len(script), len(events))
	}
}

package nvme

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"golang.org/x/sys/unix"
)

var buildDir string

func TestMain(m *testing.M) {
	buildDir = os.Getenv("BLOCKVOL_E2E")
	if buildDir == "" {
		fmt.Fprintln(os.Stderr, "This test needs the plugin and a kernel, which are made by: make test"+
			"\nTo run it alone: make test RUN=TestAHostWithRealNVMe. To run it again without making anything: BLOCKVOL_E2E=$PWD/build go test ./e2e/nvme")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestAHostWithRealNVMe boots one machine for all cases; each leaves it without volumes.
func TestAHostWithRealNVMe(t *testing.T) {
	h := newHost(t)
	if udev := h.sh(t, "ls -d /run/udev /dev/disk 2>/dev/null; ps | grep -v grep | grep udev; true"); udev != "" {
		t.Fatalf("the machine has udev: %s", udev)
	}
	t.Run("volumes that arrive in the opposite order of their names keep their data apart", func(t *testing.T) { oppositeOrder(t, h) })
	t.Run("at once", func(t *testing.T) {
		for _, c := range []struct {
			promise string
			test    func(*testing.T, *host, string)
			fstypes []string
		}{
			{"a volume follows its life without udev", life, []string{"ext4", "xfs"}},
			{"a volume that grew is grown at the next mount", growth, []string{"ext4", "xfs"}},
			{"a volume that somebody holds stays attached until it is let go", heldElsewhere, []string{"ext4"}},
			{"a device that vanishes under a mount is survived", vanishing, []string{"ext4"}},
		} {
			for _, fstype := range c.fstypes {
				t.Run(c.promise+", "+fstype, func(t *testing.T) {
					t.Parallel()
					c.test(t, h, fstype)
				})
			}
		}
	})
	t.Run("a filesystem grows while it is written to", func(t *testing.T) { online(t, h) })
	t.Run("a reboot with volumes attached loses nothing and leaves nothing", func(t *testing.T) { reboot(t, h) })
	if left := h.sh(t, "grep ' /data/mounts/' /proc/mounts; ls /data/mounts /dev | grep -E 'vol-|nvme[0-9]+n'; true"); left != "" {
		t.Errorf("the machine still has: %s", left)
	}
}

func life(t *testing.T, h *host, fstype string) {
	name := "life-" + fstype
	h.create(t, name, fstype)
	folder := h.mount(t, name, "first")
	sum := h.sh(t, "set -e; cd "+folder+"; dd if=/dev/urandom of=data bs=1M count=8 2>/dev/null; sync; md5sum data")
	if got := h.sh(t, "grep "+h.id(t, name)+" /proc/mounts"); !strings.HasPrefix(got, "/dev/"+h.device(t, name)+" ") || !strings.Contains(got, " "+fstype+" ") {
		t.Errorf("mounted is %q", got)
	}
	h.scraped(t, name)
	h.leave(t, name, "first")
	h.notMounted(t, name)
	again := h.mount(t, name, "second")
	if got := h.sh(t, "cd "+again+" && md5sum data"); got != sum {
		t.Errorf("after detaching, the file's sum is %q, it was %q", got, sum)
	}
	h.leave(t, name, "second")
	h.remove(t, name)
}

// scraped looks at the metrics of a mounted volume. Its device is asked for statistics, as on EC2, and says that it has none.
func (h *host) scraped(t *testing.T, name string) {
	t.Helper()
	got := h.sh(t, "wget -qO- http://127.0.0.1:9809/metrics | grep 'volume=\""+name+"\"'")
	id := `{volume="` + name + `",volume_id="` + h.id(t, name) + `"} `
	for _, want := range []string{"blockvol_volume_unresponsive" + id + "0", "blockvol_volume_uses" + id + "1", "blockvol_filesystem_used_bytes" + id} {
		if !strings.Contains("\n"+got, "\n"+want) {
			t.Errorf("the metrics of %s do not have %q:\n%s", name, want, got)
		}
	}
	if strings.Contains(got, "blockvol_ebs_") {
		t.Errorf("a device that is not of EBS has statistics of EBS:\n%s", got)
	}
}

func oppositeOrder(t *testing.T, h *host) {
	h.create(t, "one", "ext4")
	h.create(t, "two", "ext4")
	// arrive mounts both at once, and has one's device come a good while after that of the other.
	arrive := func(late, early, use string) map[string]string {
		t.Helper()
		if err := h.sim.Inject(ec2sim.Fault{Kind: "late-device", Volume: h.id(t, late), Duration: 3 * time.Second}); err != nil {
			t.Fatal(err)
		}
		var folder string
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			folder, err = h.call("Mount", late, use, nil)
		}()
		h.eventually(t, "the attachment of "+late, func() error {
			if v, _ := h.inCloud(t, late); len(v.Attachments) == 0 || v.Attachments[0].State != "attached" {
				return fmt.Errorf("%+v", v)
			}
			return nil
		})
		folders := map[string]string{early: h.mount(t, early, use)}
		<-done
		if err != nil {
			folder = h.mount(t, late, use) // it may only have been slow
		}
		folders[late] = folder
		if e, l := h.device(t, early), h.device(t, late); e >= l {
			t.Fatalf("%s is %s and %s is %s: the order is not what this is about", early, e, late, l)
		}
		return folders
	}
	for name, folder := range arrive("one", "two", "first") {
		h.sh(t, "echo -n "+name+" >"+folder+"/name && sync")
	}
	h.leave(t, "one", "first")
	h.leave(t, "two", "first")
	for name, folder := range arrive("two", "one", "second") {
		h.contains(t, folder+"/name", name)
	}
	h.leave(t, "one", "second")
	h.leave(t, "two", "second")
	h.remove(t, "one")
	h.remove(t, "two")
}

// heldElsewhere has a process with the volume's folder mounted in a namespace of its own, as a container that outlives its last Unmount. A
// mere copy of the plugin's mount would not do: the kernel drops those when the mountpoint is removed.
func heldElsewhere(t *testing.T, h *host, fstype string) {
	h.create(t, "held", fstype)
	folder := h.mount(t, "held", "first")
	h.sh(t, "echo -n before >"+folder+"/file && sync")
	holder := h.sh(t, "mkdir -p /run/container; unshare -m sh -c 'mount -o bind "+folder+" /run/container && exec sleep 600' >/dev/null 2>&1 & echo $!")
	h.eventually(t, "the holder's own mount", func() error {
		if out := h.sh(t, "grep ' /run/container ' /proc/"+holder+"/mountinfo; true"); out == "" {
			return fmt.Errorf("not there")
		}
		return nil
	})
	h.must(t, "Unmount", "held", "first", nil)
	h.eventually(t, "the plugin's own unmount", func() error {
		if out := h.sh(t, "grep "+h.id(t, "held")+" /proc/mounts; true"); out != "" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	h.becomes(t, "held", "held")
	// Longer than grace and several probes; what must not happen has no event to wait for.
	time.Sleep(6 * time.Second)
	h.becomes(t, "held", "held")
	if n := h.calls(t, "DetachVolume", "held"); n != 0 {
		t.Fatal("the plugin asked for the detachment of a volume that is in use")
	}
	// An operator's detachment is not carried out either while the host uses the device.
	if _, err := h.ec2.DetachVolume(context.Background(), &ec2.DetachVolumeInput{VolumeId: aws.String(h.id(t, "held"))}); err != nil {
		t.Fatal(err)
	}
	h.eventually(t, "the attachment being busy", func() error {
		if v, _ := h.inCloud(t, "held"); len(v.Attachments) != 1 || v.Attachments[0].State != "busy" {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
	if got := h.sh(t, "cat /proc/"+holder+"/root/run/container/file; kill "+holder); got != "before" {
		t.Errorf("the holder reads %q", got)
	}
	h.detached(t, "held")
	h.contains(t, h.mount(t, "held", "second")+"/file", "before")
	h.leave(t, "held", "second")
	h.remove(t, "held")
}

// growth enlarges the volume while it is detached: QEMU's controllers do not tell a new size while they are plugged in.
func growth(t *testing.T, h *host, fstype string) {
	name := "grown-" + fstype
	h.create(t, name, fstype)
	folder := h.mount(t, name, "first")
	before := h.blocks(t, folder)
	h.sh(t, "echo -n small >"+folder+"/file")
	h.leave(t, name, "first")
	if err := os.Truncate(h.sim.BackingFile(h.id(t, name)), 3<<30); err != nil {
		t.Fatal(err)
	}
	folder = h.mount(t, name, "second")
	if after := h.blocks(t, folder); after < 2*before {
		t.Errorf("on a volume three times as large the filesystem has %d KiB, it had %d", after, before)
	}
	h.contains(t, folder+"/file", "small")
	h.leave(t, name, "second")
	h.remove(t, name)
}

// online runs the driver's own test of that, on loop devices. It is here because the kernel lets nobody grow a mounted ext4 without
// CAP_SYS_RESOURCE, which the machine that runs the tests may not have, and this one has.
func online(t *testing.T, h *host) {
	const test = "TestAVolumeGrowsWhileAContainerWrites"
	caps := strings.TrimSpace(h.sh(t, "grep CapEff /proc/self/status | cut -f 2"))
	if set, err := strconv.ParseUint(caps, 16, 64); err != nil || set&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		t.Fatalf("the machine's processes have the capabilities %s, %v", caps, err)
	}
	if out := h.sh(t, "cd /tmp && /driver.test -test.v -test.run '^"+test+"$' 2>&1; true"); !strings.Contains(out, "--- PASS: "+test) {
		t.Errorf("it says: %s", out)
	}
}

// blocks is the size of the filesystem in KiB.
func (h *host) blocks(t *testing.T, folder string) (kib int64) {
	t.Helper()
	out := h.sh(t, "df -k "+folder)
	fields := strings.Fields(out[strings.Index(out, "\n")+1:])
	if len(fields) < 2 {
		t.Fatalf("df: %q", out)
	}
	if _, err := fmt.Sscan(fields[1], &kib); err != nil {
		t.Fatalf("df: %v: %q", err, out)
	}
	return kib
}

// vanishing detaches by force under a mount, as an operator does it with EC2.
func vanishing(t *testing.T, h *host, fstype string) {
	h.create(t, "pulled", fstype)
	h.create(t, "other", fstype)
	folder, other := h.mount(t, "pulled", "first"), h.mount(t, "other", "first")
	h.sh(t, "echo -n synced >"+folder+"/file && sync")
	if _, err := h.ec2.DetachVolume(context.Background(), &ec2.DetachVolumeInput{VolumeId: aws.String(h.id(t, "pulled")), Force: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	h.detached(t, "pulled")
	if out := h.sh(t, "dd if=/dev/zero of="+folder+"/more bs=1M count=1 conv=fsync 2>&1; true"); !strings.Contains(out, "Input/output error") && !strings.Contains(out, "Read-only file system") {
		t.Errorf("a write to a device that is gone: %s", out)
	}
	// The plugin answers, other volumes are not affected.
	h.must(t, "Get", "pulled", "", nil)
	h.must(t, "List", "", "", nil)
	h.sh(t, "echo -n fine >"+other+"/file && sync")
	h.must(t, "Unmount", "pulled", "first", nil)
	h.eventually(t, "the dead mount being gone", func() error { return h.mounted(t, "pulled") })
	h.contains(t, h.mount(t, "pulled", "second")+"/file", "synced")
	h.contains(t, other+"/file", "fine")
	h.leave(t, "pulled", "second")
	h.leave(t, "other", "first")
	h.remove(t, "pulled")
	h.remove(t, "other")
}

// reboot is a power cut. The plugin's own folder is lost with it, so all it knows is what kernel and cloud say.
func reboot(t *testing.T, h *host) {
	for name, fs := range map[string]string{"asked": "ext4", "forgotten": "xfs"} {
		h.create(t, name, fs)
		folder := h.mount(t, name, "first")
		h.sh(t, "echo -n "+name+" >"+folder+"/file && sync && echo lost >"+folder+"/unsynced")
	}
	h.reset(t)
	h.becomes(t, "asked", "free")
	h.becomes(t, "forgotten", "free")
	h.post(t, "/start", "")
	folder := h.mount(t, "asked", "after")
	h.contains(t, folder+"/file", "asked")
	h.detached(t, "forgotten")
	if n := h.calls(t, "AttachVolume", "asked"); n != 1 {
		t.Errorf("%d calls to attach a volume that stayed attached, not 1", n)
	}
	h.contains(t, folder+"/file", "asked")
	h.leave(t, "asked", "after")
	h.contains(t, h.mount(t, "forgotten", "after")+"/file", "forgotten")
	h.leave(t, "forgotten", "after")
	h.remove(t, "asked")
	h.remove(t, "forgotten")
}

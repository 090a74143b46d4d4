package ec2sim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"golang.org/x/sys/unix"
)

// childVariable makes the test binary be `blockvol sim`.
const childVariable = "EC2SIM_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		cmd := Command()
		cmd.SetArgs(os.Args[1:])
		if err := cmd.ExecuteContext(context.Background()); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sim runs `blockvol sim` with the arguments to its end and returns what it printed.
func sim(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(within(t, 20*time.Second), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// startSim starts `blockvol sim` as a process of its own and waits until it serves.
func startSim(t *testing.T, args ...string) (*exec.Cmd, banner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--format", "json", "--delay-create", "30ms", "--delay-attach", "50ms", "--delay-detach", "50ms"}, args...)...)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var b banner
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &b)
	}
	if err != nil {
		t.Fatalf("the simulator printed %q: %v", line, err)
	}
	return cmd, b
}

func TestARestartedSimulatorFindsItsVolumesAndTheDeviceThatIsMounted(t *testing.T) {
	b := newBench(t)
	mountedID, idleID, pendingID := b.volume(), b.volume(), b.volume()
	device := b.attached(mountedID, hostA, "/dev/xvdf")
	dir, unmount := mounted(t, device)
	idle := b.attached(idleID, hostA, "/dev/xvdg")
	write(t, idle, "idle", 4096)
	b.SetDelays(Delays{Attach: time.Hour})
	if err := b.attach(pendingID, hostB, "/dev/xvdf"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if left := loopsOf(t, b.cfg.Dir); len(left) != 1 {
		t.Errorf("after Close the kernel has %v; want the mounted one only", left)
	}
	if _, err := os.Lstat(idle); err == nil {
		t.Error("after Close the node of an idle device is still there; its number may soon be somebody else's")
	}
	// A simulator that was killed in the middle may have left a node that nothing stands behind.
	stray := filepath.Join(b.DevDir(hostA), "nvme7n1")
	if err := errors.Join(makeNode(stray, unix.S_IFBLK, unix.Mkdev(loopMajor, 9999)), os.MkdirAll(filepath.Join(b.DevDir(hostA), ".sysfs/block/nvme7n1"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("while it was away"), 0o600); err != nil {
		t.Fatal(err)
	}

	again, err := New(Config{Dir: b.cfg.Dir, Delays: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Destroy() })
	c := serve(t, again)
	for id, want := range map[string]string{mountedID: "in-use/attached", idleID: "in-use/attached", pendingID: "in-use/attaching"} {
		if got := c.state(id); got != want {
			t.Errorf("after the restart %s is %s, want %s", id, got, want)
		}
	}
	if got := c.device(mountedID, hostA); got != device {
		t.Errorf("the mounted device was %s and is now %q", device, got)
	}
	if left, _ := filepath.Glob(filepath.Join(b.DevDir(hostA), "nvme7n1")); len(left) > 0 {
		t.Errorf("a stray node is still there: %v", left)
	}
	if got := read(t, c.device(idleID, hostA), 4, 4096); got != "idle" {
		t.Errorf("the idle device reads %q", got)
	}
	c.detach(mountedID, false)
	c.becomes(mountedID, "in-use/busy")
	unmount()
	c.becomes(mountedID, "available")
	c.detach(pendingID, false)
	c.becomes(pendingID, "available")
	dir, _ = mount(t, c.attached(mountedID, hostB, "/dev/xvdh"))
	if got := mustRead(t, filepath.Join(dir, "f")); got != "while it was away" {
		t.Errorf("the file holds %q", got)
	}
}

func TestAKilledSimulatorLeavesNoDeviceOnceNothingIsMounted(t *testing.T) {
	state := t.TempDir()
	process, banner := startSim(t, "--dir", state, "--instance", hostA)
	c := &bench{t: t, ec2: client(banner.Endpoint, "AKIATEST", "secret")}
	ids := []string{}
	for _, name := range []string{"/dev/xvdf", "/dev/xvdg"} {
		out, err := sim(t, "import", "--size", "1", "--endpoint", banner.Endpoint)
		id := strings.TrimSpace(out)
		if err != nil || c.attach(id, hostA, name) != nil {
			t.Fatal(out, err)
		}
		ids = append(ids, id)
		eventually(t, "attached", func() bool {
			out, err := c.ec2.DescribeVolumes(within(t, time.Minute), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
			return err == nil && out.Volumes[0].Attachments[0].State == "attached"
		})
	}
	_, unmount := mounted(t, filepath.Join(banner.Instances[0].DevDir, "nvme1n1"))
	if got := len(loopsOf(t, state)); got != 2 {
		t.Fatalf("%d devices", got)
	}
	process.Process.Kill()
	process.Wait()
	eventually(t, "only the mounted device is left", func() bool { return len(loopsOf(t, state)) == 1 })
	unmount()
	eventually(t, "no device is left", func() bool { return len(loopsOf(t, state)) == 0 })

	again, err := New(Config{Dir: state, Delays: quick})
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, again)
	for _, id := range ids {
		if b.state(id) != "in-use/attached" || b.device(id, hostA) == "" {
			t.Errorf("after kill and restart %s is %s, device %q", id, b.state(id), b.device(id, hostA))
		}
	}
	if err := again.Destroy(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(state); len(left) > 0 || len(loopsOf(t, state)) > 0 {
		t.Errorf("Destroy left %v, %v", left, loopsOf(t, state))
	}
}

func TestOneFolderHasOneSimulator(t *testing.T) {
	b := newBench(t)
	if second, err := New(Config{Dir: b.cfg.Dir}); err == nil {
		second.Close()
		t.Fatal("two simulators in one folder")
	}
}

func TestAStateOfAnotherRegionIsRefused(t *testing.T) {
	b := newBench(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if second, err := New(Config{Dir: b.cfg.Dir, Region: "eu-sim-1"}); err == nil {
		second.Close()
		t.Fatal("a simulator of eu-sim-1 took the state of us-sim-1")
	}
}

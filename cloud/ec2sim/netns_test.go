package ec2sim

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestAnInstanceInANetworkNamespaceIsServedOnTheLoopbackOfThat(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	netns := fmt.Sprintf("blockvol-sim-%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("netns", "add", netns)
	t.Cleanup(func() { ip("netns", "del", netns) })
	ip("-n", netns, "link", "set", "lo", "up")
	_, b := startSim(t, "--instance", hostA+",netns="+netns, "--instance", hostB)
	inside := func(url string) string {
		t.Helper()
		out, err := exec.Command("nsenter", "--net=/var/run/netns/"+netns, "curl", "-s", "-m", "30", url).CombinedOutput()
		if err != nil {
			return err.Error()
		}
		return string(out)
	}
	if got := inside(b.Endpoint + "/_sim/instances"); !strings.Contains(got, hostA) || !strings.Contains(got, hostB) {
		t.Errorf("the EC2 API inside: %s", got)
	}
	if got := inside(b.Instances[0].Metadata + "/latest/meta-data/"); got != "Unauthorized\n" {
		t.Errorf("the instance's metadata inside: %s", got)
	}
	if got := inside(b.Instances[1].Metadata + "/latest/meta-data/"); !strings.Contains(got, "exit status 7") {
		t.Errorf("the metadata of the instance outside, asked inside: %s", got)
	}
	if a, err := http.Get(b.Endpoint + "/_sim/instances"); err != nil || a.StatusCode != http.StatusOK {
		t.Errorf("the EC2 API outside: %v, %v", a, err)
	}
	if a, err := http.Get(b.Instances[0].Metadata); err == nil {
		t.Errorf("the metadata of the instance inside can be reached from outside: %v", a)
	}
	if out, err := sim(t, "--instance", hostA+",netns="+netns, "--listen", "unix:"+t.TempDir()+"/sim.sock"); err == nil || !strings.Contains(out, "netns=") {
		t.Errorf("with a socket: %v, %s", err, out)
	}
	out, err := sim(t, "--instance", hostA+",netns="+netns, "--instance", hostB+",netns=none-of-this-name")
	if err == nil || !strings.Contains(out, "none-of-this-name") {
		t.Errorf("a namespace that is not there: %v, %s", err, out)
	}
}

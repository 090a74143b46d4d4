package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// AloneSim is `blockvol sim` as a program of its own: EC2 and instance metadata on loopback.
type AloneSim struct {
	*Sim
	Endpoint  string `json:"endpoint"`
	Instances []struct {
		ID       string `json:"id"`
		Metadata string `json:"metadata"`
		DevDir   string `json:"devDir"`
	} `json:"instances"`
	Env map[string]string `json:"env"`
}

// aloneSim starts it with its data in the engine's folder.
func (e *Engine) aloneSim(t testing.TB, args ...string) *AloneSim {
	t.Helper()
	return startSim(t, filepath.Join(e.Dir, "sim"), args...)
}

// startSim starts it with its data in a folder and what it writes beside that, and ends it with the test.
func startSim(t testing.TB, dir string, args ...string) *AloneSim {
	t.Helper()
	cmd := exec.Command(filepath.Join(buildDir, "blockvol"), append([]string{"sim", "--format", "json", "--dir", dir}, args...)...)
	log, err := os.Create(dir + ".log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("the simulator wrote:\n%s", b)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		defer guard.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the simulator ended with %v", err)
		}
	})
	guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer guard.Stop()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the simulator did not say where it is: %v", err)
	}
	s := &AloneSim{}
	if err := json.Unmarshal(line, s); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", at.Host)
	}
	s.Sim = &Sim{dir: dir, inside: dir, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	return s
}

// install makes the plugin the first host of the simulated EC2: backend ebs, with nothing special but its addresses and its /dev.
func (s *AloneSim) install(t testing.TB, e *Engine, settings ...string) *Plugin {
	t.Helper()
	return s.installOn(t, e, 0, settings...)
}

// installOn makes an engine's plugin the host of that number.
func (s *AloneSim) installOn(t testing.TB, e *Engine, host int, settings ...string) *Plugin {
	t.Helper()
	p := e.Install(t, "blockvol", s.settings(host, settings...)...)
	p.sim = s.Sim
	return p
}

// settings are those of a plugin that is the host of that number, and more.
func (s *AloneSim) settings(host int, more ...string) []string {
	i := s.Instances[host]
	return append([]string{"BACKEND=ebs", "dev.source=" + i.DevDir, "AWS_ENDPOINT_URL=" + s.Endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + i.Metadata}, more...)
}

// As on EC2: identity, zone, region and the credentials of a role come from instance metadata, devices from /dev.
func TestThePluginWorksWithAnEC2ThatIsNotInsideIt(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	s := e.aloneSim(t, "--instance", "i-0a1b2c3d4e5f60718,type=m5.large,zone=us-sim-1b")
	s.install(t, e, "CLUSTER=alone", "LOG_LEVEL=debug")
	v := e.NewVolume(t, "size=2GiB")
	there := s.Volumes(t, v)
	if len(there) != 1 || there[0].Zone != "us-sim-1b" || there[0].Tags["blockvol:cluster"] != "alone" || there[0].Size != 2 {
		t.Fatalf("the account has %+v", there)
	}
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file; exec sleep 1000")
	status := e.Inspect(t, v).Status
	if status["attachedTo"] != "i-0a1b2c3d4e5f60718" || !strings.HasPrefix(status["device"].(string), "/dev/nvme") || status["simulated"] != nil {
		t.Errorf("docker volume inspect: %v", status)
	}
	e.Docker(t, "rm", "-f", c)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/file; df -m /data | tail -n 1"); !strings.HasPrefix(got, "kept\n") {
		t.Errorf("the second container reads %q", got)
	}
	e.Docker(t, "volume", "rm", v)
	if left := s.Volumes(t, v); len(left) > 0 && left[0].State != "deleting" {
		t.Errorf("after docker volume rm the account has %+v", left)
	}
	calls := s.Calls(t)
	for _, call := range calls {
		if call.Status != http.StatusOK {
			t.Errorf("a call was refused: %+v", call)
		}
	}
	if len(calls) == 0 {
		t.Error("the simulator has seen no call")
	}
	Eventually(t, 20*time.Second, func() error { return loopsOf(e, "") })
}

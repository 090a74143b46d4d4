package ec2sim

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func TestTheCommandServesOnASocketIsSteeredAndCleansUp(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "sim.sock")
	t.Setenv("TMPDIR", dir)
	process, b := startSim(t, "--listen", "unix:"+socket, "--instance", hostA+",type=t3.micro,zone=us-sim-1b", "--instance", hostB)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	if len(b.Instances) != 2 || b.Instances[0].Type != "t3.micro" || b.Instances[0].Zone != "us-sim-1b" || !strings.HasPrefix(b.Instances[0].Metadata, "http://127.0.0.1:") {
		t.Errorf("%+v", b)
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := sim(t, append(args, "--endpoint", "unix:"+socket)...)
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(out)
	}
	id := must("import", "--size", "1", "--tag", "Name=x")
	must("volume-status", id, "impaired")
	must("fault", "error", "--action", "AttachVolume", "--code", "Oops", "--times", "-1")
	var faults []Fault
	if err := json.Unmarshal([]byte(must("fault", "--list")), &faults); err != nil || len(faults) != 1 || faults[0].Code != "Oops" || faults[0].Times != -1 {
		t.Errorf("%+v, %v", faults, err)
	}
	must("fault", "--clear")
	if got := must("fault", "--list"); got != "[]" {
		t.Errorf("after --clear: %s", got)
	}
	if out, err := sim(t, "fault", "flood", "--endpoint", "unix:"+socket); err == nil || !strings.Contains(out, "lost-answer") {
		t.Errorf("an unknown kind: %v, %s", err, out)
	}
	var state struct{ Volumes []struct{ ID, Status string } }
	if err := json.Unmarshal([]byte(must("state")), &state); err != nil || len(state.Volumes) != 1 || state.Volumes[0].ID != id || state.Volumes[0].Status != "impaired" {
		t.Errorf("%+v, %v", state, err)
	}
	if got := must("calls", "--json"); got != "null" && got != "[]" {
		t.Errorf("control is no EC2 call: %s", got)
	}
	if err := process.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if _, err := os.Stat(b.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder it made itself is still there: %v", err)
	}
}

func TestTheCommandListensForThisMachineOnly(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "example.org:80"} {
		if out, err := sim(t, "--listen", address); err == nil || !strings.Contains(out, "--allow-remote") {
			t.Errorf("listen on %s: %v, %s", address, err, out)
		}
		if out, err := sim(t, "--instance", hostA+",imds="+address); err == nil || !strings.Contains(out, "--allow-remote") {
			t.Errorf("metadata on %s: %v, %s", address, err, out)
		}
	}
	_, b := startSim(t, "--listen", "0.0.0.0:0", "--allow-remote")
	if b.Endpoint == "" {
		t.Error("--allow-remote does not allow")
	}
}

func TestWrongFlagsAreToldAndLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, args := range [][]string{
		{"--instance", "host"}, {"--instance", hostA + ",typ=x"}, {"--instance", hostA + ",type=m5.tiny"}, {"--instance", hostA + ",zone=eu-central-1a"},
		{"--format", "xml"}, {"extra"}, {"calls"},
	} {
		if out, err := sim(t, args...); err == nil || !strings.Contains(out, "Error: ") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTheControlDoesWhatTheGoAPIDoes(t *testing.T) {
	b := newBench(t)
	ask := func(method, path, body string, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(within(t, time.Minute), method, b.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for n := 0; n < len(header); n += 2 {
			r.Header.Set(header[n], header[n+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var raw json.RawMessage
		json.NewDecoder(answer.Body).Decode(&raw)
		return answer.StatusCode, string(raw)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		contains           string
	}{
		{"PUT", "/_sim/delays", `{"attach":"5ms"}`, 200, `"attach":"5ms"`},
		{"PUT", "/_sim/delays", `{"attach":5}`, 400, "texts such as"},
		{"PUT", "/_sim/delays", `{"atach":"5ms"}`, 400, "not known"},
		{"PUT", "/_sim/limits", `{"pageSize":9}`, 200, `"volumes":10000`},
		{"PUT", "/_sim/limits", `{"pagesizes":9}`, 400, "unknown field"},
		{"POST", "/_sim/faults", `{"kind":"delay","duration":"7ms"}`, 200, `"duration":"7ms"`},
		{"POST", "/_sim/faults", `{"kind":"x"}`, 400, "lost-answer"},
		{"DELETE", "/_sim/faults?id=none", "", 400, "no fault"},
		{"DELETE", "/_sim/faults", "", 204, ""},
		{"GET", "/_sim/fault-kinds", "", 200, "late-device"},
		{"POST", "/_sim/instances", `{"id":"i-0dddddddddddddddd","type":"c7g.large"}`, 200, `"zone":"us-sim-1a"`},
		{"PUT", "/_sim/instances/i-0dddddddddddddddd/state", `"stopped"`, 204, ""},
		{"PUT", "/_sim/instances/i-0dddddddddddddddd/state", `"asleep"`, 400, "asleep"},
		{"GET", "/_sim/instances", "", 200, `"stopped"`},
		{"POST", "/_sim/volumes", `{"sizeGiB":1,"tags":{"Name":"x"}}`, 200, `"volumeId":"vol-`},
		{"POST", "/_sim/volumes", `{"image":"/does/not/exist"}`, 400, "no such file"},
		{"PUT", "/_sim/volumes/vol-0123456789abcdef0/status", `"ok"`, 400, "there is no volume"},
		{"PUT", "/_sim/limits", `{"retention":[{"resource":"volume","for":"24h"}]}`, 200, `"for":"24h0m0s"`},
		{"PUT", "/_sim/limits", `{"retention":[{"resource":"image","for":"24h"}]}`, 400, "volume or snapshot"},
		{"GET", "/_sim/state", "", 200, `"recycleBin":{`},
		{"GET", "/_sim/state", "", 200, `"pageSize":9`},
		{"DELETE", "/_sim/calls", "", 204, ""},
		{"GET", "/_sim/nothing", "", 404, ""},
	} {
		status, body := ask(c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.contains) {
			t.Errorf("%s %s %s: %d %s; want %d, %s", c.method, c.path, c.body, status, body, c.status, c.contains)
		}
	}
	if d := b.Delays(); d.Attach != 5*time.Millisecond || d.Detach != quick.Detach {
		t.Errorf("delays are %+v", d)
	}
	if status, _ := ask("DELETE", "/_sim/calls", "", "Origin", "http://evil.example"); status != 403 {
		t.Errorf("a web page is let in: %d", status)
	}
	if status, _ := ask("POST", "/_sim/volumes", `{"sizeGiB":1}`, "Content-Type", "text/plain"); status != 415 {
		t.Errorf("a form is let in: %d", status)
	}
}

func TestThePageNamesAllFlagsFaultsAndActions(t *testing.T) {
	page := mustRead(t, "../../docs/simulator.md")
	var names []string
	for kind := range faultKinds {
		names = append(names, "`"+kind+"`")
	}
	for action := range actions {
		names = append(names, action)
	}
	Command().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "verbose" && f.Name != "help" {
			names = append(names, "`--"+f.Name+"`")
		}
	})
	for _, name := range names {
		if !strings.Contains(page, name) {
			t.Errorf("docs/simulator.md does not tell of %s", name)
		}
	}
}

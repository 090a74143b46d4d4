package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// Sim steers the simulator of a plugin with BACKEND=sim, over its HTTP control.
type Sim struct {
	dir    string // as the host sees it
	inside string // as the plugin sees it
	client *http.Client
}

// Sim is the simulator with the plugin's volumes: the one inside it, or the one that it was installed for.
func (p *Plugin) Sim() *Sim {
	if p.sim != nil {
		return p.sim
	}
	return simulator(filepath.Join(p.StateDir(), "sim"), "/data/sim")
}

func simulator(dir, inside string) *Sim {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialIn(ctx, dir, "sim.sock") }
	return &Sim{dir: dir, inside: inside, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// dialIn connects to a unix socket in a folder. The path may be longer than what a socket's address holds: one through the open folder is
// not.
func dialIn(ctx context.Context, dir, socket string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socket))
}

// control makes one request; in and out may be nil.
func (s *Sim) control(t testing.TB, method, path string, in, out any) {
	t.Helper()
	if err := s.ask(method, path, in, out); err != nil {
		t.Fatal(err)
	}
}

func (s *Sim) ask(method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequest(method, "http://sim/_sim/"+path, &body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		return fmt.Errorf("%s /_sim/%s: %s %s %v", method, path, answer.Status, raw, err)
	}
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			return fmt.Errorf("%s /_sim/%s: %v in %s", method, path, err, raw)
		}
	}
	return nil
}

// EC2 is the account's owner, who uses EC2 beside blockvol.
func (s *Sim) EC2() *ec2.Client {
	return ec2.New(ec2.Options{Region: "us-sim-1", BaseEndpoint: aws.String("http://sim"), HTTPClient: s.client, Credentials: credentials.NewStaticCredentialsProvider("AKIAOWNER", "x", "")})
}

// Call is one EC2 call that the simulator got.
type Call struct {
	Time       time.Time         `json:"time"`
	Action     string            `json:"action"`
	Instance   string            `json:"instance"` // whose role signed it
	UserAgent  string            `json:"userAgent"`
	Params     map[string]string `json:"params"`
	Status     int               `json:"status"`
	Code       string            `json:"code"`
	Fault      string            `json:"fault"`
	DurationMS int64             `json:"durationMs"`
}

// Calls returns the calls since the last ResetCalls, without the plugin's look for removed volumes whose time is over, which comes at any time.
func (s *Sim) Calls(t testing.TB) (calls []Call) {
	t.Helper()
	s.control(t, "GET", "calls", nil, &calls)
	return slices.DeleteFunc(calls, func(c Call) bool { return strings.Contains(c.UserAgent, "blockvol-operation/purge") })
}

// ResetCalls forgets the calls so far.
func (s *Sim) ResetCalls(t testing.TB) { t.Helper(); s.control(t, "DELETE", "calls", nil, nil) }

// counted shows calls as "AttachVolume 1, DescribeVolumes 2".
func counted(calls []Call) string {
	n := map[string]int{}
	for _, c := range calls {
		n[c.Action]++
	}
	var parts []string
	for _, a := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%s %d", a, n[a]))
	}
	return strings.Join(parts, ", ")
}

// Fault is something that shall go wrong; `blockvol sim fault` lists the kinds. Duration is a text such as "400ms".
type Fault struct {
	ID       string `json:"id,omitempty"`
	Kind     string `json:"kind"`
	Action   string `json:"action,omitempty"`
	Volume   string `json:"volume,omitempty"`
	Skip     int    `json:"skip,omitempty"`
	Times    int    `json:"times,omitempty"` // 0 is once, -1 until it is removed
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
	Status   int    `json:"status,omitempty"`
	Duration string `json:"duration,omitempty"`
	Count    int    `json:"count,omitempty"`
	Serial   string `json:"serial,omitempty"`
}

// Inject makes something go wrong, and has all faults removed at the end of the test.
func (s *Sim) Inject(t testing.TB, f Fault) {
	t.Helper()
	t.Cleanup(func() { s.ClearFaults(t) })
	s.control(t, "POST", "faults", f, nil)
}

// InjectFor makes something go wrong with one volume, beside the faults of tests that run at the same time. end removes it, as the end of
// the test does.
func (s *Sim) InjectFor(t testing.TB, f Fault) (end func()) {
	t.Helper()
	f.ID = name(t)
	end = sync.OnceFunc(func() {
		if err := s.ask("DELETE", "faults?id="+f.ID, nil, nil); err != nil && !strings.Contains(err.Error(), "no fault") { // it has hit, and is gone
			t.Error(err)
		}
	})
	t.Cleanup(end)
	s.control(t, "POST", "faults", f, nil)
	return end
}

// ClearFaults removes all faults.
func (s *Sim) ClearFaults(t testing.TB) { t.Helper(); s.control(t, "DELETE", "faults", nil, nil) }

// Delays changes delays ("attach": "6.5s") until the end of the test.
func (s *Sim) Delays(t testing.TB, delays map[string]string) {
	t.Helper()
	var old map[string]string
	s.control(t, "GET", "delays", nil, &old)
	t.Cleanup(func() { s.control(t, "PUT", "delays", old, nil) })
	s.control(t, "PUT", "delays", delays, nil)
}

// Import makes a volume of the account that holds an image (a file of the host; empty: a blank one) and has these tags. It returns the
// volume's ID and the file with its data. It was made now, if nothing else is said.
func (s *Sim) Import(t testing.TB, image string, sizeGiB int64, tags map[string]string, created ...time.Time) (id, file string) {
	t.Helper()
	spec := map[string]any{"sizeGiB": sizeGiB, "tags": tags}
	if len(created) > 0 {
		spec["created"] = created[0]
	}
	if image != "" {
		// The plugin sees its own folder only.
		copied := filepath.Join(s.dir, "import-"+name(t))
		if out, err := exec.Command("cp", "--sparse=always", image, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		defer os.Remove(copied)
		spec["image"] = filepath.Join(s.inside, filepath.Base(copied))
	}
	var made struct{ VolumeID string }
	s.control(t, "POST", "volumes", spec, &made)
	return made.VolumeID, filepath.Join(s.dir, "volumes", made.VolumeID)
}

// SetInstanceState makes a simulated host running, stopped or terminated.
func (s *Sim) SetInstanceState(t testing.TB, id, state string) {
	t.Helper()
	s.control(t, "PUT", "instances/"+id+"/state", state, nil)
}

package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ebs"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/metrics"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// rig is one simulated host: a simulated EC2 with real loop devices, the EBS provider on it over HTTP, and a Manager behind the plugin's
// real socket.
type rig struct {
	t        *testing.T
	sim      *ec2sim.Sim
	api      *httptest.Server
	host     ec2sim.Instance
	state    string
	settings Settings
	timing   Timing
	ebs      ebs.Timing
	log      *logrus.Logger

	manager *Manager
	server  *Server
	socket  string
	served  chan error
	eyes    cloud.Cloud // of somebody who only looks
}

// testTiming is the real timing with the long waits cut short.
func testTiming() Timing {
	t := DefaultTiming()
	t.Grace = 300 * time.Millisecond
	t.HandOver = 2 * time.Second
	t.Absent = 300 * time.Millisecond
	t.Sweep = 500 * time.Millisecond
	t.ListFresh = 0
	t.Purge = time.Hour // it comes at any time, and calls are counted
	t.AskCloud = 2 * time.Second
	t.Snapshots = 0
	return t
}

func newRig(t *testing.T, change ...func(*Timing)) *rig {
	t.Helper()
	t.Parallel() // they wait most of the time, each on a cloud of its own
	r := newMachine(t, change...)
	r.start()
	return r
}

// newMachine is a rig on which no plugin runs yet.
func newMachine(t *testing.T, change ...func(*Timing)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, state: filepath.Join(dir, "state"), timing: testTiming(), log: logrus.New(),
		ebs:      ebs.Timing{Attempt: 30 * time.Second, FirstPoll: 80 * time.Millisecond, Attaching: 50 * time.Millisecond, Detaching: 300 * time.Millisecond, PollMin: 50 * time.Millisecond, Vanish: 500 * time.Millisecond, Consistency: 300 * time.Millisecond},
		settings: Settings{Backend: "ebs", Fencing: "stopped", Cluster: "test-" + filepath.Base(dir)}}
	for _, c := range change {
		c(&r.timing)
	}
	r.log.SetOutput(testWriter{t})
	r.log.SetLevel(logrus.DebugLevel)
	sim, err := ec2sim.New(ec2sim.Config{Dir: filepath.Join(dir, "sim"), Region: "us-sim-1", Log: r.log.WithField("part", "simulator"),
		Delays: ec2sim.Delays{Create: 50 * time.Millisecond, Attach: 100 * time.Millisecond, Detach: 100 * time.Millisecond, Delete: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	r.sim = sim
	r.api = httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		r.api.Close()
		if err := sim.Destroy(); err != nil {
			t.Errorf("the simulator left something behind: %v", err)
		}
	})
	if r.host, err = sim.AddInstance(ec2sim.Instance{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts a Manager and its socket, as a new process would.
func (r *rig) start() {
	r.t.Helper()
	if err := os.MkdirAll(r.state, 0o755); err != nil {
		r.t.Fatal(err)
	}
	p := r.plan()
	var err error
	if r.manager, err = p.manager(r.log); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.unmountAll)
	r.serve()
}

// unmountAll keeps what a failed test left mounted from outliving it.
func (r *rig) unmountAll() {
	points, err := r.manager.disk.MountsUnder(filepath.Join(r.state, "mounts"))
	if err != nil {
		r.t.Error(err)
	}
	for _, p := range points {
		if err := unix.Unmount(p.Target, unix.MNT_DETACH); err != nil {
			r.t.Error(err)
		}
	}
}

// plan is all that a plugin on a rig needs to know.
type plan struct {
	Settings                             Settings
	Timing                               Timing
	EBS                                  ebs.Timing
	Endpoint, Instance, Zone, Dev, State string
	Socket                               string // of a plugin in a process of its own
}

func (r *rig) plan() plan {
	return plan{Settings: r.settings, Timing: r.timing, EBS: r.ebs, Endpoint: r.api.URL, Instance: r.host.ID, Zone: r.host.Zone, Dev: r.sim.DevDir(r.host.ID), State: r.state}
}

func (p plan) cloud(log *logrus.Logger) (cloud.Cloud, error) { return p.metered(log, nil) }

// metered is cloud with a Meter.
func (p plan) metered(log *logrus.Logger, meter ebs.Meter) (cloud.Cloud, error) {
	return ebs.New(ebs.Config{
		Cluster: p.Settings.Cluster, Region: "us-sim-1", InstanceID: p.Instance, Zone: p.Zone, Endpoint: p.Endpoint,
		Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "secret-canary", ""), Log: log, Meter: meter,
		Timing: p.EBS,
	})
}

func (p plan) manager(log *logrus.Logger, change ...func(*Config)) (*Manager, error) {
	count := metrics.New("test")
	c, err := p.metered(log, count)
	if err != nil {
		return nil, err
	}
	cfg := Config{Settings: p.Settings, Cloud: c, Disk: &disk.Host{Dev: p.Dev, Sys: filepath.Join(p.Dev, ".sysfs"), Log: log}, StateDir: p.State, Timing: p.Timing, Log: log, Metrics: count}
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

func (r *rig) serve() {
	r.t.Helper()
	r.socket = filepath.Join(r.t.TempDir(), "s.sock")
	l, err := Listen(r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.manager.Start(context.Background())
	server := &Server{Manager: r.manager, Log: r.log}
	served := make(chan error, 1)
	r.server, r.served = server, served
	go func() { served <- server.Serve(l) }()
	r.t.Cleanup(func() { r.stopServer(server, served) })
}

// stop ends the plugin in order, as SIGTERM does.
func (r *rig) stop() { r.stopServer(r.server, r.served) }

func (r *rig) stopServer(s *Server, served chan error) {
	s.Shutdown(context.Background())
	if err, ok := <-served; ok {
		close(served)
		if err != nil {
			r.t.Errorf("serving ended with %v", err)
		}
	}
}

// crash ends the plugin as SIGKILL does: nothing is unmounted, detached or written any more.
func (r *rig) crash() {
	r.t.Helper()
	r.manager.mu.Lock()
	r.manager.closing = true
	lock := r.manager.instance
	r.manager.mu.Unlock()
	r.manager.stop()
	r.server.httpServer().Close()
	if err, ok := <-r.served; ok {
		close(r.served)
		_ = err
	}
	r.manager.working.Wait()
	if lock != nil {
		lock.release()
	}
}

// post sends one request as dockerd does and returns the status and the answer; status 0 is a connection that was cut.
func (r *rig) post(call, body string) (int, string) {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
		},
	}}
	res, err := client.Post("http://plugin/VolumeDriver."+call, "", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(data)
}

// try sends a request and returns the answer, or the error that Docker would show.
func (r *rig) try(call string, req any) (map[string]any, error) {
	r.t.Helper()
	body, err := json.Marshal(req)
	if err != nil {
		r.t.Fatal(err)
	}
	status, text := r.post(call, string(body))
	var res map[string]any
	if status == 0 {
		return nil, fmt.Errorf("cut: %s", text)
	}
	if err := json.Unmarshal([]byte(text), &res); err != nil {
		return nil, fmt.Errorf("%d: %q is not JSON: %w", status, text, err)
	}
	if e, _ := res["Err"].(string); e != "" || status != http.StatusOK {
		return nil, fmt.Errorf("%s", e)
	}
	return res, nil
}

// tryAgain tells whether a request was only not done in time. On a busy machine any may be, and its retry joins the work.
func tryAgain(err error) bool {
	for _, words := range []string{"the work goes on, try again", "not done in time; nothing is lost, try again", "blockvol is still finding out which host this is"} {
		if err != nil && strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}

// must sends a request that has to succeed.
func (r *rig) must(call string, req any) map[string]any {
	r.t.Helper()
	res, err := r.try(call, req)
	for deadline := time.Now().Add(patient); tryAgain(err) && time.Now().Before(deadline); {
		res, err = r.try(call, req)
	}
	if err != nil {
		r.t.Fatalf("%s %v: %v", call, req, err)
	}
	return res
}

// refused sends a request that has to fail with an error that has all these words in it.
func (r *rig) refused(call string, req any, words ...string) {
	r.t.Helper()
	_, err := r.try(call, req)
	if err == nil {
		r.t.Fatalf("%s %v was done, want a refusal with %q", call, req, words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			r.t.Errorf("%s %v: the error %q does not say %q", call, req, err, w)
		}
	}
}

type m map[string]any

func (r *rig) create(name string, opts ...string) {
	r.t.Helper()
	o := m{"size": "1"}
	for i := 0; i+1 < len(opts); i += 2 {
		o[opts[i]] = opts[i+1]
	}
	r.must("Create", m{"Name": name, "Opts": o})
}

func (r *rig) mount(name, id string) string {
	r.t.Helper()
	return r.must("Mount", m{"Name": name, "ID": id})["Mountpoint"].(string)
}

func (r *rig) unmount(name, id string) {
	r.t.Helper()
	r.must("Unmount", m{"Name": name, "ID": id})
}

func (r *rig) status(name string) map[string]any {
	r.t.Helper()
	v := r.must("Get", m{"Name": name})["Volume"].(map[string]any)
	st, _ := v["Status"].(map[string]any)
	return st
}

// calls counts what EC2 was asked since the last time, by action.
func (r *rig) calls() map[string]int {
	n := map[string]int{}
	for _, c := range r.sim.Calls() {
		n[c.Action]++
	}
	r.sim.ResetCalls()
	return n
}

// patient is how long a test waits for what must become true. It says nothing of how long that should take: the machine may be slow.
const patient = 3 * time.Minute

// eventually waits until cond holds.
func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if cond() {
			return
		}
	}
	r.t.Fatalf("within %s not true: %s", patient, what)
}

// attached tells how many devices the host sees.
func (r *rig) attached() int {
	r.t.Helper()
	d, err := r.manager.disk.List()
	if err != nil {
		r.t.Fatal(err)
	}
	return len(d)
}

// person is somebody who uses the AWS CLI beside blockvol.
func (r *rig) person() *ec2.Client {
	return ec2.New(ec2.Options{Region: "us-sim-1", BaseEndpoint: &r.api.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIAPERSON", "x", "")})
}

// forceDetach takes a volume away under its mount.
func (r *rig) forceDetach(name string) {
	r.t.Helper()
	id, force := r.status(name)["id"].(string), true
	if _, err := r.person().DetachVolume(r.t.Context(), &ec2.DetachVolumeInput{VolumeId: &id, InstanceId: &r.host.ID, Force: &force}); err != nil {
		r.t.Fatal(err)
	}
}

// tag changes a tag.
func (r *rig) tag(id, key, value string) {
	r.t.Helper()
	if _, err := r.person().CreateTags(r.t.Context(), &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: &key, Value: &value}}}); err != nil {
		r.t.Error(err)
	}
}

// hold mounts path in a mount namespace of its own, as a container does, until release is called.
func (r *rig) hold(path string) (release func()) {
	r.t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		r.t.Fatalf("taking %s as a container does: %v", path, err)
	}
	done := false
	release = func() {
		if !done {
			done = true
			unix.Close(fd)
		}
	}
	r.t.Cleanup(release)
	return release
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// testWriter sends the log to the test's own.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}

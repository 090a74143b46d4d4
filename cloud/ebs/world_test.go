package ebs

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// The tests drive a Client through HTTP against the simulator of EC2; there is no other fake.

func TestMain(m *testing.M) {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "AWS_") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	os.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	os.Exit(m.Run())
}

// quick are the simulator's delays in most tests.
var quick = ec2sim.Delays{Create: 40 * time.Millisecond, Attach: 40 * time.Millisecond, Detach: 40 * time.Millisecond, Delete: 30 * time.Millisecond, Call: time.Millisecond}

// quickTiming are the intervals that fit them. The limits of what takes as long as the machine does are generous: a call that is given up
// because the machine is busy is repeated, and makes it busier.
var quickTiming = Timing{
	Attempt: 30 * time.Second, MaxBackoff: 20 * time.Millisecond, Call: time.Minute, Lookup: time.Minute, Gather: 50 * time.Millisecond,
	FirstPoll: 60 * time.Millisecond, Attaching: 50 * time.Millisecond, Detaching: 50 * time.Millisecond, PollMin: 20 * time.Millisecond, PollMax: 100 * time.Millisecond,
	Consistency: 500 * time.Millisecond, Vanish: 300 * time.Millisecond,
}

const region = "us-sim-1"

// world is a simulated region with its EC2 endpoint.
type world struct {
	*ec2sim.Sim
	t   testing.TB
	url string
	raw *ec2.Client // somebody else in the account
}

func newWorld(t testing.TB) *world {
	t.Helper()
	sim, err := ec2sim.New(ec2sim.Config{Dir: t.TempDir(), Delays: quick})
	if err != nil {
		t.Fatal(err)
	}
	l := sim.Limits()
	l.SnapshotSeconds = 0
	l.Retention = []ec2sim.Retention{{Resource: "volume", Tags: map[string]string{"blockvol:name": "kept"}, For: time.Hour}, {Resource: "snapshot", Tags: map[string]string{"blockvol:name": "kept"}, For: time.Hour}}
	sim.SetLimits(l)
	server := httptest.NewServer(sim.Handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		if err := sim.Destroy(); err != nil {
			t.Errorf("destroy the simulator: %v", err)
		}
	})
	return &world{Sim: sim, t: t, url: server.URL, raw: rawClient(server.URL)}
}

type anybody struct{}

func (anybody) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKIAANYBODY", SecretAccessKey: "any"}, nil
}

func rawClient(url string) *ec2.Client {
	return ec2.New(ec2.Options{Region: region, BaseEndpoint: aws.String(url), Credentials: anybody{}})
}

// host is a simulated instance with its metadata service.
type host struct {
	ec2sim.Instance
	metadata string
	asked    atomic.Int64 // requests to the metadata service
}

func (w *world) host(i ec2sim.Instance) *host {
	w.t.Helper()
	made, err := w.AddInstance(i)
	if err != nil {
		w.t.Fatal(err)
	}
	h := &host{Instance: made}
	serve := w.Metadata(made.ID)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h.asked.Add(1)
		serve.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(server.Close)
	h.metadata = server.URL
	return h
}

// on makes a client that runs on h, as a process of its own.
func (w *world) on(h *host, change ...func(*Config)) *Client {
	w.t.Helper()
	cfg := Config{Cluster: "test", Endpoint: w.url, MetadataEndpoint: h.metadata, Timing: quickTiming}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// informed makes a client of which many are made: it knows its host and has keys, so it does not ask the metadata service at the same time as all
// the others.
func (w *world) informed(h *host, consistency time.Duration) *Client {
	w.t.Helper()
	return w.on(h, func(cfg *Config) {
		cfg.InstanceID, cfg.Zone, cfg.Region, cfg.Credentials = h.ID, h.Zone, region, anybody{}
		cfg.Timing.Consistency = consistency
	})
}

// client makes a client on a new host.
func (w *world) client(change ...func(*Config)) *Client {
	w.t.Helper()
	return w.on(w.host(ec2sim.Instance{}), change...)
}

func (w *world) inject(f ec2sim.Fault) {
	w.t.Helper()
	if err := w.Inject(f); err != nil {
		w.t.Fatal(err)
	}
}

// calls counts the calls since the last ResetCalls, in the form "AttachVolume 1, DescribeVolumes 2".
func (w *world) calls() string {
	counted := map[string]int{}
	for _, call := range w.Calls() {
		counted[call.Action]++
	}
	var parts []string
	for _, action := range []string{"AttachVolume", "CreateTags", "CreateVolume", "DeleteVolume", "DescribeInstanceTypes", "DescribeInstances", "DescribeVolumes", "DetachVolume"} {
		if n := counted[action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", action, n))
			delete(counted, action)
		}
	}
	for action, n := range counted {
		parts = append(parts, fmt.Sprintf("%s %d", action, n))
	}
	return strings.Join(parts, ", ")
}

func (w *world) count(action string) int {
	n := 0
	for _, call := range w.Calls() {
		if call.Action == action {
			n++
		}
	}
	return n
}

// wantCalls checks the calls since the last ResetCalls, and resets them.
func (w *world) wantCalls(what, want string) {
	w.t.Helper()
	if got := w.calls(); got != want {
		w.t.Errorf("%s took the calls %q, want %q", what, got, want)
	}
	w.ResetCalls()
}

func (w *world) setLimits(change func(*ec2sim.Limits)) {
	l := w.Limits()
	change(&l)
	w.SetLimits(l)
}

func (w *world) setDelays(change func(*ec2sim.Delays)) {
	d := w.Delays()
	change(&d)
	w.SetDelays(d)
}

func spec(name string) cloud.Spec {
	return cloud.Spec{Name: name, SizeGiB: 1, Type: "gp3", Zone: region + "a", Attrs: map[string]string{"fs": "none"}}
}

// timeout is the time a test grants one operation.
func timeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func (w *world) create(c *Client, name string) cloud.Volume {
	w.t.Helper()
	v, err := c.Create(timeout(w.t, time.Minute), spec(name))
	if err != nil {
		w.t.Fatalf("create %s: %v", name, err)
	}
	return v
}

// attach attaches v and waits until it is.
func (w *world) attach(c *Client, v cloud.Volume) {
	w.t.Helper()
	ctx := timeout(w.t, time.Minute)
	if err := c.Attach(ctx, v); err != nil {
		w.t.Fatal(err)
	}
	if err := c.WaitAttached(ctx, v.ID); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) detach(c *Client, v cloud.Volume) {
	w.t.Helper()
	ctx := timeout(w.t, time.Minute)
	if err := c.Detach(ctx, v.ID); err != nil {
		w.t.Fatal(err)
	}
	if err := c.WaitDetached(ctx, v.ID); err != nil {
		w.t.Fatal(err)
	}
}

// foreign makes a volume that is not blockvol's, or not of this cluster.
func (w *world) foreign(tags map[string]string) string {
	w.t.Helper()
	in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String(region + "a"), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3}
	if len(tags) > 0 {
		in.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: toTags(tags)}}
	}
	out, err := w.raw.CreateVolume(timeout(w.t, time.Minute), in)
	if err != nil {
		w.t.Fatal(err)
	}
	return *out.VolumeId
}

// rawState is the volume as EC2 shows it to somebody else; its attachments by instance.
func (w *world) rawState(id string) (state string, attached map[string]string) {
	w.t.Helper()
	out, err := w.raw.DescribeVolumes(timeout(w.t, time.Minute), &ec2.DescribeVolumesInput{Filters: []types.Filter{filter("volume-id", id)}})
	if err != nil {
		w.t.Fatal(err)
	}
	attached = map[string]string{}
	for _, v := range out.Volumes {
		state = string(v.State)
		for _, a := range v.Attachments {
			attached[aws.ToString(a.InstanceId)] = string(a.State)
		}
	}
	return state, attached
}

// eventually waits until check holds.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !check(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// contains checks that an error's text tells all that it should.
func contains(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one that tells %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not tell %q: %v", part, err)
		}
	}
}

// retag changes a tag as somebody else.
func (w *world) retag(id, key, value string) {
	w.t.Helper()
	if _, err := w.raw.CreateTags(timeout(w.t, time.Minute), &ec2.CreateTagsInput{Resources: []string{id}, Tags: toTags(map[string]string{key: value})}); err != nil {
		w.t.Fatal(err)
	}
}

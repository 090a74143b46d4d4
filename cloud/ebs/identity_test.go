package ebs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

func TestNewNeedsNothingButACluster(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	if _, err := New(Config{Cluster: "test", Endpoint: server.URL, MetadataEndpoint: server.URL}); err != nil {
		t.Error(err)
	}
	if asked.Load() != 0 {
		t.Error("New made a network call")
	}
	for what, cfg := range map[string]Config{
		"no cluster":       {},
		"cluster too long": {Cluster: strings.Repeat("x", 257)},
		"instance":         {Cluster: "test", InstanceID: "my-host"},
	} {
		if _, err := New(cfg); !errors.Is(err, cloud.ErrConfig) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := New(Config{})
	contains(t, err, "CLUSTER")
}

func TestIdentityAndCredentialsComeFromMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{Zone: region + "c", Type: "r5.large"})
	c := w.on(h)
	got, err := c.Host(timeout(t, time.Minute))
	want := cloud.Host{ID: h.ID, Type: "r5.large", Zone: region + "c", Region: region, Account: "123456789012"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	w.wantCalls("host", "")
	asked := h.asked.Load()
	if _, err := c.Host(timeout(t, time.Minute)); err != nil || h.asked.Load() != asked {
		t.Errorf("the host was looked up again (%v)", err)
	}
	if _, err := c.List(timeout(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	call := w.Calls()[0]
	if call.Instance != h.ID {
		t.Errorf("the call was not signed by the instance's role: %+v", call)
	}
	if !strings.Contains(call.UserAgent, "app/blockvol") || !strings.Contains(call.UserAgent, "blockvol/dev") ||
		!strings.Contains(call.UserAgent, "blockvol-cluster/test blockvol-operation/background") {
		t.Errorf("user agent %q", call.UserAgent)
	}
}

func TestSettingsReplaceMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h, func(cfg *Config) {
		cfg.InstanceID, cfg.Zone, cfg.Credentials = h.ID, h.Zone, anybody{}
	})
	v := w.create(c, "v") // the region follows from the zone
	w.attach(c, v)
	w.detach(c, v)
	if n := h.asked.Load(); n != 0 {
		t.Errorf("the metadata service was asked %d times", n)
	}
	host, err := c.Host(timeout(t, time.Minute))
	if want := (cloud.Host{ID: h.ID, Zone: h.Zone, Region: region, Type: h.Type}); err != nil || host != want {
		t.Errorf("got %+v, %v", host, err)
	}
}

func TestWithoutMetadataTheSettingsAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	for what, answer := range map[string]http.HandlerFunc{
		"refuses":  func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) },
		"has none": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotFound) },
		"is an older version": func(rw http.ResponseWriter, r *http.Request) { // IMDSv1 alone: no tokens
			if r.Method == http.MethodPut {
				rw.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			rw.Write([]byte(`{"instanceId":"i-00000000000000001","region":"us-sim-1","availabilityZone":"us-sim-1a"}`))
		},
	} {
		server := httptest.NewServer(answer)
		c := w.on(h, func(cfg *Config) { cfg.MetadataEndpoint, cfg.Region, cfg.Credentials = server.URL, region, anybody{} })
		_, err := c.Host(timeout(t, time.Minute))
		if !errors.Is(err, cloud.ErrConfig) {
			t.Errorf("a service that %s: %v", what, err)
		}
		contains(t, err, "IMDSv2", "hop-limit", "INSTANCE_ID", "AVAILABILITY_ZONE", "AWS_REGION")
		if _, err := c.List(timeout(t, time.Minute)); err != nil {
			t.Errorf("what needs no identity still works: %v", err)
		}
		server.Close()
	}
}

func TestIdentityIsTriedAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	var up atomic.Bool
	serve := w.Metadata(h.ID)
	var identities atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/document") {
			identities.Add(1)
		}
		serve.ServeHTTP(rw, r)
	}))
	defer server.Close()
	c := w.on(h, func(cfg *Config) { cfg.MetadataEndpoint = server.URL })
	if _, err := c.Host(timeout(t, time.Minute)); err == nil {
		t.Fatal("no error")
	}
	up.Store(true)
	var wait sync.WaitGroup
	for range 50 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if host, err := c.Host(timeout(t, time.Minute)); err != nil || host.ID != h.ID {
				t.Errorf("%v, %v", host, err)
			}
		}()
	}
	wait.Wait()
	if n := identities.Load(); n != 1 {
		t.Errorf("50 requests at once read the identity %d times", n)
	}
}

func TestARegionThatIsNotTheInstancesIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Region = "eu-west-1" })
	_, err := c.Host(timeout(t, time.Minute))
	if !errors.Is(err, cloud.ErrConfig) {
		t.Fatal(err)
	}
	contains(t, err, "eu-west-1", region, "AWS_REGION")
}

func TestAnInstanceThatEC2DoesNotKnowIsAWrongSetting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	v := w.create(w.on(h), "v")
	c := w.on(h, func(cfg *Config) {
		cfg.InstanceID, cfg.Zone, cfg.Credentials = "i-0123456789abcdef0", h.Zone, anybody{}
	})
	err := c.Attach(timeout(t, time.Minute), v)
	if !errors.Is(err, cloud.ErrConfig) && !errors.Is(err, cloud.ErrNotFound) {
		t.Fatal(err)
	}
	err = c.Warm(timeout(t, time.Minute))
	if !errors.Is(err, cloud.ErrConfig) {
		t.Fatalf("not ErrConfig: %v", err)
	}
	contains(t, err, "INSTANCE_ID")
}

func TestTheRegionOfAZone(t *testing.T) {
	t.Parallel()
	for zone, want := range map[string]string{
		"eu-central-1a": "eu-central-1", "us-gov-west-1b": "us-gov-west-1", "us-west-2-lax-1a": "us-west-2", "ap-southeast-2c": "ap-southeast-2",
		"us-sim-1a": "us-sim-1", "": "", "a": "", "use1-az1": "",
	} {
		if got := regionOfZone(zone); got != want {
			t.Errorf("%s: %q, want %q", zone, got, want)
		}
	}
}

func TestOneTransportCarriesEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	socket := filepath.Join(t.TempDir(), "sim.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	api, metadata := w.Handler(), w.Metadata(h.ID)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host == "metadata.sim" {
			metadata.ServeHTTP(rw, r)
			return
		}
		api.ServeHTTP(rw, r)
	})}
	go server.Serve(listener)
	defer server.Close()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	for what, client := range map[string]HTTPClient{
		"http.Client":     &http.Client{Transport: &http.Transport{DialContext: dial}},
		"BuildableClient": awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) { tr.DialContext = dial }),
	} {
		c, err := New(Config{Cluster: "test", HTTPClient: client, Endpoint: "http://ec2.sim", MetadataEndpoint: "http://metadata.sim", Timing: quickTiming})
		if err != nil {
			t.Fatal(err)
		}
		v := w.create(c, "v")
		w.attach(c, v)
		w.detach(c, v)
		if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The SDK's own settings are enough. This test is not parallel, for it sets the environment.
func TestTheSDKsOwnSettingsAreUnderstood(t *testing.T) {
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	t.Setenv("AWS_ENDPOINT_URL", w.url)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", h.metadata)
	c, err := New(Config{Cluster: "test", Timing: quickTiming})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Host(timeout(t, time.Minute)); err != nil || got.ID != h.ID {
		t.Fatalf("%+v, %v", got, err)
	}
	w.create(c, "v")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAFROMENVIRONMENT")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "something")
	t.Setenv("AWS_REGION", region)
	if c, err = New(Config{Cluster: "test", InstanceID: h.ID, Zone: h.Zone, Timing: quickTiming}); err != nil {
		t.Fatal(err)
	}
	asked := h.asked.Load()
	w.ResetCalls()
	w.create(c, "v2")
	if call := w.Calls()[0]; call.AccessKey != "AKIAFROMENVIRONMENT" {
		t.Errorf("signed by %s", call.AccessKey)
	}
	if h.asked.Load() != asked {
		t.Error("the metadata service was asked")
	}
	t.Setenv("AWS_PROFILE", "missing")
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	if c, err = New(Config{Cluster: "test", Timing: quickTiming}); err != nil {
		t.Fatalf("a wrong setting keeps New from working: %v", err)
	}
	_, err = c.ByName(timeout(t, time.Minute), "v")
	if !errors.Is(err, cloud.ErrConfig) {
		t.Fatalf("not ErrConfig: %v", err)
	}
	contains(t, err, "missing", "AWS_")
}

func TestACallWithoutADeadlineEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	v := w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "stuck-attaching"})
	if err := c.Attach(context.Background(), v); err != nil {
		t.Fatal(err)
	}
	w.inject(ec2sim.Fault{Kind: "hang", Action: "DetachVolume", Times: -1})
	c.timing.Call = 300 * time.Millisecond
	start := time.Now()
	if err := c.WaitAttached(context.Background(), v.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	if err := c.Detach(context.Background(), v.ID); !errors.Is(err, cloud.ErrUnavailable) {
		t.Errorf("detach: %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}

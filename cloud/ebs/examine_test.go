package ebs

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// examined are the findings of a client, by check and subject.
func examined(t *testing.T, c *Client, vols []cloud.Volume) map[string]cloud.Finding {
	t.Helper()
	found := map[string]cloud.Finding{}
	for _, f := range c.Examine(t.Context(), vols) {
		if f.Text == "" || f.Verdict == cloud.Bad && f.Fix == "" {
			t.Errorf("says too little: %+v", f)
		}
		found[strings.TrimSuffix(f.Check+" "+strings.TrimPrefix(f.Subject, "ec2:"), " ")] = f
	}
	for i := range reflect.TypeFor[api]().NumMethod() {
		if action := reflect.TypeFor[api]().Method(i).Name; found["permission "+action].Text == "" {
			t.Errorf("nothing is said of %s", action)
		}
	}
	return found
}

func TestAnExaminationTriesEachPermissionAndChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h, func(cfg *Config) { cfg.Credentials = anybody{} })
	for _, name := range []string{"used", "free"} {
		if _, err := c.Create(t.Context(), cloud.Spec{Name: name, SizeGiB: 1, Type: "gp3", Zone: h.Zone}); err != nil {
			t.Fatal(err)
		}
	}
	used, err := c.ByName(t.Context(), "used")
	if err == nil {
		err = c.Attach(t.Context(), used)
	}
	if err == nil {
		err = c.WaitAttached(t.Context(), used.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	found := examined(t, c, before)
	for what, want := range map[string]cloud.Verdict{
		"credentials": cloud.OK, "metadata": cloud.OK, "instance " + h.ID: cloud.OK,
		"permission DescribeVolumes": cloud.OK, "permission DescribeInstances": cloud.OK, "permission DescribeInstanceStatus": cloud.OK, "permission DescribeInstanceTypes": cloud.OK,
		"permission CreateVolume": cloud.OK, "permission CreateTags": cloud.OK, "permission AttachVolume": cloud.OK,
		"permission DetachVolume": cloud.Unknown, "permission DeleteVolume": cloud.Unknown, // the simulator looks at the volume's state first
		"permission StopInstances": cloud.Unknown,
	} {
		if found[what].Verdict != want {
			t.Errorf("%s: %+v, want %s", what, found[what], want)
		}
	}
	if text := found["credentials"].Text; strings.Contains(text, "AKIAANYBODY") || !strings.Contains(text, "AKIA...BODY") {
		t.Errorf("the access key is shown as %q", text)
	}
	for _, call := range w.Calls() {
		if !strings.HasPrefix(call.Action, "Describe") && call.Params["DryRun"] != "true" || call.Action == "StopInstances" {
			t.Errorf("%s was sent in earnest: %v", call.Action, call.Params)
		}
	}
	after, err := c.List(t.Context())
	for _, vols := range [][]cloud.Volume{before, after} {
		slices.SortFunc(vols, func(a, b cloud.Volume) int { return strings.Compare(a.ID, b.ID) })
	}
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}

	for _, action := range []string{"AttachVolume", "DeleteVolume", "DescribeInstanceStatus"} {
		if err := w.Inject(ec2sim.Fault{Kind: "error", Action: action, Code: "UnauthorizedOperation", Times: -1}); err != nil {
			t.Fatal(err)
		}
	}
	found = examined(t, c, before)
	for _, action := range []string{"AttachVolume", "DeleteVolume", "DescribeInstanceStatus"} {
		if f := found["permission "+action]; f.Verdict != cloud.Bad || !strings.Contains(f.Fix, "docs/iam-policy.json") || !strings.Contains(f.Text, "UnauthorizedOperation") {
			t.Errorf("%s is denied: %+v", action, f)
		}
	}
	if err := w.Inject(ec2sim.Fault{Kind: "error", Action: "DescribeSnapshots", Code: "UnauthorizedOperation", Times: -1}); err != nil {
		t.Fatal(err)
	}
	if f := examined(t, c, before)["permission DescribeSnapshots"]; f.Verdict != cloud.Warning || !strings.Contains(f.Fix, "docs/iam-snapshots.json") {
		t.Errorf("a permission that is a choice is denied: %+v", f)
	}
	w.ClearFaults()
	found = examined(t, c, nil)
	for _, action := range []string{"AttachVolume", "DetachVolume", "DeleteVolume", "CreateTags"} {
		if f := found["permission "+action]; f.Verdict != cloud.Unknown || !strings.Contains(f.Text, "takes a volume") {
			t.Errorf("%s without volumes: %+v", action, f)
		}
	}
}

func TestThePermissionsThatAreAlwaysNeededAreThoseOfThePolicy(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/iam-policy.json")
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[api]().NumMethod() {
		action := reflect.TypeFor[api]().Method(i).Name
		if always[action] != strings.Contains(string(raw), `"ec2:`+action+`"`) {
			t.Errorf("%s: needed always is %v, and docs/iam-policy.json says otherwise", action, always[action])
		}
	}
}

// An endpoint that answers a dry run in earnest gets no other.
func TestAnEndpointThatDoesNotHonourDryRunsIsAskedNothingThatChangesAnything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	sim := w.Handler()
	deaf := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		r.Form.Del("DryRun")
		r.PostForm.Del("DryRun")
		text := r.PostForm.Encode()
		again := httptest.NewRequest(r.Method, r.URL.String(), strings.NewReader(text)).WithContext(r.Context())
		again.Header = r.Header
		sim.ServeHTTP(rw, again)
	}))
	defer deaf.Close()
	c := w.on(h, func(cfg *Config) { cfg.Credentials, cfg.Endpoint = anybody{}, deaf.URL })
	if _, err := c.Create(t.Context(), cloud.Spec{Name: "free", SizeGiB: 1, Type: "gp3", Zone: h.Zone}); err != nil {
		t.Fatal(err)
	}
	vols, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.ResetCalls()
	found := examined(t, c, vols)
	if f := found["permission CreateVolume"]; f.Verdict != cloud.Unknown || !strings.Contains(f.Text, "dry runs") {
		t.Errorf("CreateVolume: %+v", f)
	}
	for _, call := range w.Calls() {
		if !strings.HasPrefix(call.Action, "Describe") {
			t.Errorf("%s was sent: %v", call.Action, call.Params)
		}
	}
}

type nobody struct{}

func (nobody) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{}, context.DeadlineExceeded
}

func TestAnExaminationWithoutCredentialsOrMetadataSaysWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	c := w.on(h, func(cfg *Config) {
		cfg.Credentials, cfg.MetadataEndpoint, cfg.Timing.Call = nobody{}, "http://127.0.0.1:1", time.Second
	})
	found := examined(t, c, nil)
	if f := found["credentials"]; f.Verdict != cloud.Bad || !strings.Contains(f.Fix, "role") {
		t.Errorf("credentials: %+v", f)
	}
	if f := found["metadata"]; f.Verdict != cloud.Bad || !strings.Contains(f.Fix, "hop-limit") {
		t.Errorf("metadata: %+v", f)
	}
}

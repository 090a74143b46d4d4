package ec2sim

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// used is how many bytes a file takes on disk.
func used(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }

func TestTheSDKReadsTheInstanceMetadata(t *testing.T) {
	b := newBench(t)
	server := httptest.NewServer(b.Metadata(hostA))
	defer server.Close()
	c := imds.New(imds.Options{Endpoint: server.URL, EnableFallback: aws.FalseTernary})
	ctx := within(t, time.Minute)
	document, err := c.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if document.InstanceID != hostA || document.Region != "us-sim-1" || document.AvailabilityZone != zoneA || document.AccountID != "123456789012" || document.InstanceType != "m5.large" {
		t.Errorf("%+v", document)
	}
	for path, want := range map[string]string{
		"instance-id": hostA, "placement/region": "us-sim-1", "placement/availability-zone": zoneA, "instance-type": "m5.large",
		"block-device-mapping/": "ami\nroot", "block-device-mapping/root": "/dev/xvda", "iam/security-credentials/": roleName,
	} {
		out, err := c.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		got, _ := io.ReadAll(out.Content)
		if string(got) != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if region, err := c.GetRegion(ctx, nil); err != nil || region.Region != "us-sim-1" {
		t.Errorf("region: %+v, %v", region, err)
	}
	// A call that the instance's role signs is known to come from it.
	role := ec2.New(b.ec2.Options(), func(o *ec2.Options) {
		o.Credentials = ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = c })
	})
	if _, err := role.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{}); err != nil {
		t.Fatal(err)
	}
	if calls := b.Calls(); calls[len(calls)-1].Instance != hostA {
		t.Errorf("%+v", calls[len(calls)-1])
	}
}

func TestMetadataNeedATokenOfTheirOwnInstance(t *testing.T) {
	b := newBench(t)
	ask := func(host, method, path string, header ...string) (int, string) {
		r := httptest.NewRequest(method, path, nil)
		for n := 0; n < len(header); n += 2 {
			r.Header.Set(header[n], header[n+1])
		}
		w := httptest.NewRecorder()
		b.Metadata(host).ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const id = "/latest/meta-data/instance-id"
	if status, _ := ask(hostA, http.MethodGet, id); status != 401 {
		t.Errorf("version 1: %d", status)
	}
	for _, ttl := range []string{"", "0", "21601", "x"} {
		if status, _ := ask(hostA, http.MethodPut, "/latest/api/token", ttlHeader, ttl); status != 400 {
			t.Errorf("TTL %q: %d", ttl, status)
		}
	}
	if status, _ := ask(hostA, http.MethodPut, "/latest/api/token", ttlHeader, "60", "X-Forwarded-For", "1.2.3.4"); status != 403 {
		t.Errorf("through a proxy: %d", status)
	}
	_, token := ask(hostA, http.MethodPut, "/latest/api/token", ttlHeader, "60")
	if status, body := ask(hostA, http.MethodGet, id, tokenHeader, token); status != 200 || body != hostA {
		t.Errorf("with a token: %d %s", status, body)
	}
	if status, _ := ask(hostB, http.MethodGet, id, tokenHeader, token); status != 401 {
		t.Errorf("a token of another instance: %d", status)
	}
	if status, _ := ask(hostA, http.MethodGet, "/latest/meta-data/outpost-arn", tokenHeader, token); status != 404 {
		t.Errorf("what is not there: %d", status)
	}
	b.mu.Lock()
	b.now = func() time.Time { return time.Now().Add(61 * time.Second) }
	b.mu.Unlock()
	if status, _ := ask(hostA, http.MethodGet, id, tokenHeader, token); status != 401 {
		t.Errorf("an old token: %d", status)
	}
}

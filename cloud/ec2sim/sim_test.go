package ec2sim

import (
	"context"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// quick keeps tests short.
var quick = Delays{Create: 30 * time.Millisecond, Attach: 50 * time.Millisecond, Detach: 50 * time.Millisecond, Delete: 30 * time.Millisecond}

const (
	hostA = "i-0aaaaaaaaaaaaaaaa"
	hostB = "i-0bbbbbbbbbbbbbbbb"
	zoneA = "us-sim-1a"
)

// bench is a simulator with two hosts, served over HTTP. Tests that have one run side by side.
type bench struct {
	*Sim
	t   *testing.T
	url string
	ec2 *ec2.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	s, err := New(Config{Dir: t.TempDir(), Delays: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
	})
	for _, id := range []string{hostA, hostB} {
		if _, err := s.AddInstance(Instance{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	return serve(t, s)
}

func serve(t *testing.T, s *Sim) *bench {
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return &bench{Sim: s, t: t, url: server.URL, ec2: client(server.URL, "AKIATEST", "secret")}
}

func client(url, key, secret string) *ec2.Client {
	return ec2.New(ec2.Options{
		Region: "us-sim-1", BaseEndpoint: aws.String(url), Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
		RetryMaxAttempts: 1,
	})
}

// within bounds one test's calls.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition of the simulator itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen within a minute: %s", what)
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

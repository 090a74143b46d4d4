package ebs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/sirupsen/logrus"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// expected are the codes EC2 can answer these actions with, and what they must be for the caller.
var expected = map[string]error{
	"UnauthorizedOperation": cloud.ErrDenied, "AuthFailure": cloud.ErrCredentials, "ExpiredToken": cloud.ErrCredentials, "RequestExpired": cloud.ErrCredentials,
	"InvalidClientTokenId": cloud.ErrCredentials, "OptInRequired": cloud.ErrDenied, "Blocked": cloud.ErrDenied, "PendingVerification": cloud.ErrDenied,
	"DryRunOperation": cloud.ErrInvalid, "InternalError": cloud.ErrUnavailable, "Unavailable": cloud.ErrUnavailable, "ServiceUnavailable": cloud.ErrUnavailable,
	"RequestLimitExceeded": cloud.ErrThrottled, "Throttling": cloud.ErrThrottled, "EC2ThrottledException": cloud.ErrThrottled,
	"InsufficientVolumeCapacity": cloud.ErrCapacity, "MaxIOPSLimitExceeded": cloud.ErrQuota, "VolumeLimitExceeded": cloud.ErrQuota,
	"UnknownVolumeType": cloud.ErrInvalid, "InvalidZone.NotFound": cloud.ErrInvalid, "TagLimitExceeded": cloud.ErrQuota,
	"InvalidParameterDependency": cloud.ErrInvalid, "InvalidInstanceID.NotFound": cloud.ErrConfig, "InvalidVolume.NotFound": cloud.ErrNotFound,
	"IncorrectState": cloud.ErrState, "InvalidAttachment.NotFound": cloud.ErrState, "InvalidSnapshot.NotFound": cloud.ErrInvalid,
	"IdempotentParameterMismatch": cloud.ErrInvalid, "InvalidParameterCombination": cloud.ErrInvalid, "InvalidParameterValue": cloud.ErrInvalid,
	"AttachmentLimitExceeded": cloud.ErrLimit, "InvalidParameter": cloud.ErrInvalid, "UnknownParameter": cloud.ErrInvalid,
	"UnsupportedOperation": cloud.ErrInvalid, "ValidationError": cloud.ErrInvalid, "VolumeInUse": cloud.ErrInUse, "InvalidVolume.ZoneMismatch": cloud.ErrZone,
	"InvalidKmsKey.InvalidState": cloud.ErrKMS, "InvalidKmsKey.NotFound": cloud.ErrKMS, "CustomerKeyHasBeenRevoked": cloud.ErrKMS,
	"InvalidVolumeID.Malformed": cloud.ErrInvalid, "MissingParameter": cloud.ErrInvalid, "VolumeTypeNotAvailableInZone": cloud.ErrInvalid,
	"EncryptedVolumesNotSupported": cloud.ErrHost, "MissingAuthenticationToken": cloud.ErrCredentials,
	"InvalidSnapshotID.Malformed": cloud.ErrInvalid, "InvalidSnapshot.InUse": cloud.ErrState, "IncorrectModificationState": cloud.ErrTooSoon,
	"VolumeModificationRateExceeded": cloud.ErrTooSoon, "SnapshotCreationPerVolumeRateExceeded": cloud.ErrThrottled, "ConcurrentSnapshotLimitExceeded": cloud.ErrThrottled,
	"SnapshotLimitExceeded": cloud.ErrQuota, "ResourceLimitExceeded": cloud.ErrQuota, "VolumeModificationSizeLimitExceeded": cloud.ErrQuota,
	// Not in the table.
	"KMSKeySomethingNew": cloud.ErrKMS, "SomethingNew": cloud.ErrInvalid,
}

func TestEveryErrorCodeBecomesASentenceWithAWayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	slots := make(chan struct{}, 8)
	var wait sync.WaitGroup
	for code, kind := range expected {
		wait.Add(1)
		go func() {
			defer wait.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			name := "v-" + code
			id := w.foreign(map[string]string{tagCluster: "test", tagName: name})
			w.inject(ec2sim.Fault{Kind: "error", Action: "CreateTags", Volume: id, Code: code, Times: -1, Message: "EC2's own words."})
			c := w.informed(h, 50*time.Millisecond)
			if _, err := c.ByName(timeout(t, time.Minute), name); err != nil {
				t.Error(err)
				return
			}
			limit := time.Minute
			if m := codes[code]; m.kind == cloud.ErrThrottled || m.kind == cloud.ErrUnavailable {
				limit = 3 * time.Second // repeated until the caller's time is over
			}
			start := time.Now()
			err := c.SetAttrs(timeout(t, limit), id, map[string]string{"fs": "ext4"})
			if !errors.Is(err, kind) {
				t.Errorf("%s: not %q: %v", code, kind, err)
			}
			contains(t, err, name, id, "change the tags", "; ", "EC2's own words", code, "request ")
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("%s took %v", code, took)
			}
			if m, known := codes[code]; known {
				contains(t, err, m.cause, m.advice)
			}
		}()
	}
	wait.Wait()
}

func TestTheTableOfCodesIsComplete(t *testing.T) {
	t.Parallel()
	for code, m := range codes {
		if m.kind == nil || len(m.cause) < 10 || len(m.advice) < 9 {
			t.Errorf("%s: %+v", code, m)
		}
		if strings.HasSuffix(m.cause, ".") || strings.HasSuffix(m.advice, ".") || strings.ContainsAny(m.cause, ";") {
			t.Errorf("%s is not told in clauses", code)
		}
	}
	for code := range expected {
		if _, known := codes[code]; !known && !strings.Contains(code, "SomethingNew") {
			t.Errorf("%s is not in the table", code)
		}
	}
}

func TestEveryCallSurvivesThrottling(t *testing.T) {
	t.Parallel()
	actions := reflect.TypeFor[api]()
	var wait sync.WaitGroup
	for i := range actions.NumMethod() {
		wait.Add(1)
		go func() {
			defer wait.Done()
			action := actions.Method(i).Name
			w := newWorld(t)
			for _, code := range []string{"RequestLimitExceeded", "Unavailable", "InternalError"} {
				w.inject(ec2sim.Fault{Kind: "error", Action: action, Code: code})
			}
			w.inject(ec2sim.Fault{Kind: "hang", Action: action, Duration: time.Millisecond})
			c := w.client()
			v := w.create(c, "v")
			w.attach(c, v)
			if err := c.SetAttrs(timeout(t, time.Minute), v.ID, map[string]string{"fs": "ext4"}); err != nil {
				t.Errorf("%s: %v", action, err)
			}
			w.detach(c, v)
			if err := c.Delete(timeout(t, time.Minute), v.ID); err != nil {
				t.Errorf("%s: %v", action, err)
			}
			if _, err := c.Adopt(timeout(t, time.Minute), adoption(w.there(ec2sim.ImportSpec{}), "adopted")); err != nil {
				t.Errorf("%s: %v", action, err)
			}
			other := w.host(ec2sim.Instance{}).ID
			if _, err := c.HostHealth(timeout(t, time.Minute), other); err != nil {
				t.Errorf("%s: %v", action, err)
			}
			if err := c.StopHost(timeout(t, time.Minute), other); err != nil {
				t.Errorf("%s: %v", action, err)
			}
			w.useSnapshots(c, action)
			if left := w.Faults(); len(left) != 0 {
				t.Errorf("%s: %d faults never hit", action, len(left))
			}
		}()
	}
	wait.Wait()
}

func TestTheReasonForTheRepeatsIsToldWhenTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.create(c, "v")
	w.inject(ec2sim.Fault{Kind: "error", Action: "DescribeVolumes", Code: "RequestLimitExceeded"})
	w.inject(ec2sim.Fault{Kind: "hang", Action: "DescribeVolumes", Skip: 1})
	c.byName.limit = 2 * time.Second // the call ends before its caller
	_, err := c.ByName(timeout(t, time.Minute), "v")
	if !errors.Is(err, cloud.ErrThrottled) {
		t.Fatalf("not ErrThrottled: %v", err)
	}
	contains(t, err, `"v"`, "RequestLimitExceeded", "request ")
}

func TestNoRoomIsToldAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	w.inject(ec2sim.Fault{Kind: "error", Action: "CreateVolume", Code: "InsufficientVolumeCapacity", Times: -1})
	_, err := c.Create(timeout(t, time.Minute), spec("v"))
	if !errors.Is(err, cloud.ErrCapacity) {
		t.Fatal(err)
	}
	contains(t, err, `"v"`, region+"a")
	if n := w.count("CreateVolume"); n != 1 {
		t.Errorf("%d CreateVolume calls", n)
	}
}

func TestWhatIsForbiddenIsToldAndTheEncodedMessageIsLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log syncBuffer
	logger := logrus.New()
	logger.SetOutput(&log)
	c := w.client(func(cfg *Config) { cfg.Log = logger })
	w.setLimits(func(l *ec2sim.Limits) { l.DeniedActions = []string{"CreateVolume"} })
	_, err := c.Create(timeout(t, time.Minute), spec("v"))
	if !errors.Is(err, cloud.ErrDenied) {
		t.Fatal(err)
	}
	contains(t, err, `"v"`, "ec2:CreateVolume", "docs/iam-policy.json", "decode-authorization-message", "UnauthorizedOperation")
	if strings.Contains(err.Error(), "Encoded authorization") {
		t.Errorf("the encoded message is shown to the user: %v", err)
	}
	if !strings.Contains(log.String(), "encoded=") {
		t.Errorf("the encoded message is not in the log: %s", log.String())
	}
}

// canary is a secret that must never be seen.
type canary struct{}

const canarySecret, canarySession = "CANARYsecretCANARY", "CANARYsessionCANARY"

func (canary) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: "AKIACANARYACCESSKEY", SecretAccessKey: canarySecret, SessionToken: canarySession}, nil
}

func TestCredentialsAreNeverTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host(ec2sim.Instance{})
	// An endpoint that tells all it was sent, as a debugging proxy may.
	echo := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.WriteHeader(http.StatusBadRequest)
		told := html.EscapeString(fmt.Sprint(r.Header.Get("X-Amz-Security-Token"), " ", r.Header, " ", string(body)))
		fmt.Fprintf(rw, "<Response><Errors><Error><Code>Echo</Code><Message>%s</Message></Error></Errors></Response>", told)
	}))
	defer echo.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusBadGateway)
		fmt.Fprintf(rw, "<html>%v</html>", r.Header)
	}))
	defer plain.Close()
	var log syncBuffer
	logger := logrus.New()
	logger.SetOutput(&log)
	logger.SetLevel(logrus.TraceLevel)
	w.setLimits(func(l *ec2sim.Limits) { l.DeniedKeys = []string{"AKIACANARYACCESSKEY"} })
	for what, endpoint := range map[string]string{
		"refused": w.url, "echo": echo.URL, "gateway": plain.URL, "nobody": "http://127.0.0.1:1", "no such host": "http://ec2.invalid", "password": "http://user:CANARYpasswordCANARY@127.0.0.1:1",
	} {
		c := w.on(h, func(cfg *Config) { cfg.Endpoint, cfg.Credentials, cfg.Log = endpoint, canary{}, logger })
		for call, err := range map[string]error{
			"create": second(c.Create(timeout(t, 500*time.Millisecond), spec("v"))),
			"look":   second(c.ByName(timeout(t, 500*time.Millisecond), "v")),
			"delete": c.Delete(timeout(t, 500*time.Millisecond), "vol-0123456789abcdef0"),
			"warm":   c.Warm(timeout(t, 500*time.Millisecond)),
		} {
			if err == nil {
				t.Errorf("%s, %s: no error", what, call)
				continue
			}
			for _, text := range []string{err.Error(), fmt.Sprintf("%v %+v %s", err, err, err)} {
				if strings.Contains(text, "CANARYs") || strings.Contains(text, "CANARYp") {
					t.Errorf("%s, %s tells a secret: %s", what, call, text)
				}
			}
		}
	}
	if text := log.String(); strings.Contains(text, "CANARYs") || strings.Contains(text, "CANARYp") {
		t.Errorf("the log tells a secret: %s", text)
	}
}

func second[T any](_ T, err error) error { return err }

// syncBuffer collects a log that many goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestMissingCredentialsAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.on(w.host(ec2sim.Instance{}), func(cfg *Config) {
		cfg.MetadataEndpoint, cfg.Region = "http://127.0.0.1:1", region
		cfg.Timing.Lookup = 5 * time.Second
	})
	_, err := c.ByName(timeout(t, time.Minute), "v")
	if !errors.Is(err, cloud.ErrCredentials) {
		t.Fatalf("not ErrCredentials: %v", err)
	}
	contains(t, err, `"v"`, "role", "AWS_ACCESS_KEY_ID")
}

func TestAnEndpointThatCannotBeReachedIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Endpoint = "http://127.0.0.1:1" })
	_, err := c.ByName(timeout(t, 500*time.Millisecond), "v")
	if !errors.Is(err, cloud.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	contains(t, err, `"v"`, "AWS_REGION", "try again")
}

func TestThePolicyAllowsExactlyWhatTheCodeUses(t *testing.T) {
	t.Parallel()
	type list []string
	var policy struct {
		Version   string
		Statement []struct {
			Sid, Effect string
			Action      json.RawMessage
			Condition   map[string]map[string]any
		}
	}
	statements := policy.Statement
	for _, file := range []string{"../../docs/iam-policy.json", "../../docs/iam-fencing.json", "../../docs/iam-snapshots.json", "../../docs/iam-adopt.json"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		policy.Statement = nil
		if err := json.Unmarshal(raw, &policy); err != nil {
			t.Fatal(file, err)
		}
		statements = append(statements, policy.Statement...)
	}
	allowed := map[string]bool{}
	for _, s := range statements {
		var many list
		if json.Unmarshal(s.Action, &many) != nil {
			many = list{""}
			if err := json.Unmarshal(s.Action, &many[0]); err != nil {
				t.Fatal(err)
			}
		}
		for _, action := range many {
			allowed[action] = true
			mutates := !strings.HasPrefix(action, "ec2:Describe") && !strings.HasPrefix(action, "ec2:List")
			if mutates && len(s.Condition) == 0 && s.Sid != "OnAnyInstance" && s.Sid != "FromAnySnapshot" {
				t.Errorf("statement %s allows %s without a condition", s.Sid, action)
			}
		}
	}
	used := map[string]bool{}
	for i := range reflect.TypeFor[api]().NumMethod() {
		used["ec2:"+reflect.TypeFor[api]().Method(i).Name] = true
	}
	if !reflect.DeepEqual(allowed, used) {
		t.Errorf("the policy allows %v, the code uses %v", keys(allowed), keys(used))
	}
	explained, err := os.ReadFile("../../docs/iam.md")
	if err != nil {
		t.Fatal(err)
	}
	for action := range used {
		if !strings.Contains(string(explained), "`"+action+"`") {
			t.Errorf("docs/iam.md does not explain %s", action)
		}
	}
	for _, action := range mutating {
		if !used["ec2:"+action] {
			t.Errorf("%s has a retryer and is not used", action)
		}
	}
}

func keys(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

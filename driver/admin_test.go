package driver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// asked is what a verb answered: what it said meanwhile, and its end.
type asked struct {
	said []string
	AdminLine
}

// ask makes a verb's request as the command does, and follows its answer to the end.
func (r *rig) ask(ctx context.Context, verb string, req any, each ...func(said string)) (asked, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return asked{}, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	h, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin"+AdminPath(verb), bytes.NewReader(body))
	if err != nil {
		return asked{}, err
	}
	res, err := client.Do(h)
	if err != nil {
		return asked{}, err
	}
	defer res.Body.Close()
	var a asked
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		a.AdminLine = AdminLine{}
		if err := json.Unmarshal(lines.Bytes(), &a.AdminLine); err != nil {
			return a, err
		}
		if a.Say == "" {
			return a, nil
		}
		a.said = append(a.said, a.Say)
		for _, f := range each {
			f(a.Say)
		}
	}
	return a, errors.New("the answer has no last line")
}

// askFor is ask for a request that has to succeed; the result goes to out.
func (r *rig) askFor(verb string, req, out any) asked {
	r.t.Helper()
	a, err := r.ask(r.t.Context(), verb, req)
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err == nil {
		err = json.Unmarshal(a.Result, out)
	}
	if err != nil {
		r.t.Fatalf("%s %+v: %v", verb, req, err)
	}
	return a
}

// serveVerb serves a verb of the test, and nothing else, on a socket of its own.
func (r *rig) serveVerb(name string, do verb) *Server {
	r.t.Helper()
	r.socket = filepath.Join(r.t.TempDir(), "v.sock")
	l, err := Listen(r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	s := &Server{Manager: r.manager, Log: r.log}
	mux := http.NewServeMux()
	mux.Handle(AdminPath(name), s.guard(name, 0, s.admin(name, do)))
	s.httpServer().Handler = mux
	go s.Serve(l)
	r.t.Cleanup(func() { s.httpServer().Close() })
	return s
}

func TestAVerbMayTakeLongerThanARequestOfDockerAndEndsWithItsCaller(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Request = 500 * time.Millisecond })
	ended := make(chan error, 1)
	long := func(ctx context.Context, _ []byte, say Say) (any, error) {
		for n := range 3 {
			say("%d", n)
			select {
			case <-ctx.Done():
				ended <- ctx.Err()
				return nil, ctx.Err()
			case <-time.After(r.timing.Request):
			}
		}
		return "done", nil
	}
	r.serveVerb("Long", long)
	a, err := r.ask(t.Context(), "Long", NoRequest{})
	if err != nil || string(a.Result) != `"done"` || len(a.said) != 3 {
		t.Errorf("answered %+v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.ask(ctx, "Long", NoRequest{}, func(string) { cancel() }); err == nil {
		t.Error("a caller that went away got an answer")
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the verb ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the verb goes on for nobody")
	}
}

func TestAVerbEndsWhenThePluginShutsDown(t *testing.T) {
	r := newRig(t)
	began := make(chan struct{})
	s := r.serveVerb("Wait", func(ctx context.Context, _ []byte, _ Say) (any, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	done := make(chan asked, 1)
	go func() {
		a, _ := r.ask(context.Background(), "Wait", NoRequest{})
		done <- a
	}()
	<-began
	s.Shutdown(context.Background())
	if a := <-done; a.Error == "" {
		t.Errorf("the caller was not told: %+v", a)
	}
}

func TestAllVolumesAreListedWithWhoHasThem(t *testing.T) {
	r := newRig(t)
	two := r.twin()
	r.create("free")
	r.create("here")
	r.create("there")
	r.mount("here", "c1")
	two.mount("there", "c2")
	var rows VolumeRows
	r.askFor("List", NoRequest{}, &rows)
	if len(rows.Volumes) != 3 || rows.Instance != r.host.ID || rows.Cluster != r.settings.Cluster {
		t.Fatalf("listed %+v", rows)
	}
	for n, want := range []VolumeRow{{Name: "free", Status: "available"}, {Name: "here", Status: "mounted", Host: r.host.ID}, {Name: "there", Status: "attached", Host: two.host.ID}} {
		got := rows.Volumes[n]
		if got.Name != want.Name || got.Host != want.Host || got.Status != want.Status || got.SizeGiB != 1 || got.ID == "" || (got.Since == nil) != (want.Host == "") ||
			got.Created.IsZero() || got.State == "" || got.Attrs[attrFS] == "" || (got.Here == nil) != (want.Host != r.host.ID) {
			t.Errorf("listed %+v, want %+v", got, want)
		}
		if h := got.Here; h != nil && (h.Uses != 1 || h.Device == "" || h.Mountpoint == "" || h.UsedBytes == nil || *h.UsedBytes == 0 || *h.FreeBytes == 0) {
			t.Errorf("here: %+v", h)
		}
	}
	vols, err := r.manager.cfg.Cloud.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n, alone := range CloudRows(vols) { // what anybody with credentials sees
		want := rows.Volumes[n]
		want.Here, want.Status, want.Since, alone.Since = nil, map[string]string{"free": "available"}[want.Name], nil, nil
		if want.Status == "" {
			want.Status = "attached"
		}
		got, err := json.Marshal(alone)
		if err != nil {
			t.Fatal(err)
		}
		if expected, err := json.Marshal(want); err != nil || string(got) != string(expected) {
			t.Errorf("without a host: %s, want %s, %v", got, expected, err)
		}
	}
	r.unmount("here", "c1")
	two.unmount("there", "c2")
	if status, _ := r.post("List", "{}"); status != http.StatusOK {
		t.Errorf("Docker's List: %d", status)
	}
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "DescribeVolumes", Code: "UnauthorizedOperation", Times: -1}); err != nil {
		t.Fatal(err)
	}
	if a, err := r.ask(t.Context(), "List", NoRequest{}); err != nil || a.Error == "" {
		t.Errorf("EC2 does not answer, and the list says nothing of it: %+v %v", a, err)
	}
}

// Work that goes on after its caller has been answered, or has gone, says what it does to nobody.
func TestNothingFollowsTheLastLineOfAnAnswer(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	out := &adminLines{w: w}
	out.say("working")
	out.last("done", nil)
	out.say("still working")
	out.last(nil, errors.New("too late"))
	if got := w.Body.String(); got != `{"say":"working"}`+"\n"+`{"result":"done"}`+"\n" {
		t.Errorf("the answer is %q", got)
	}
}

package driver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// garbage makes requests that no Docker sends: wrong calls, wrong methods, bodies that are no JSON, the wrong JSON, or names that cannot be.
func garbage(rnd *rand.Rand) (method, path, body string) {
	pick := func(list []string) string { return list[rnd.IntN(len(list))] }
	body = pick(garbageBodies)
	if body == "" {
		noise := make([]byte, rnd.IntN(200))
		for i := range noise {
			noise[i] = byte(rnd.Uint32())
		}
		body = string(noise)
	}
	return pick([]string{"POST", "POST", "POST", "POST", "POST", "GET", "DELETE", "BREW"}), "/VolumeDriver." + pick(garbageCalls), body
}

var garbageCalls = []string{"Create", "Get", "Mount", "Unmount", "Remove", "Path", "NoSuchCall", "create", "Create/../Remove", ""}

// garbageBodies are what is always garbage; an empty one stands for noise.
var garbageBodies = func() []string {
	list := []string{"", "", "", " ", `{`, `[]`, `null`, `"used"`, `{"Name":`, `{"Name":["used"]}`, `{"Name":{"Name":"used"}}`, `{"Name":1e999}`, strings.Repeat("[", 20000),
		`{"Name":"used"}{"Name":"used"}`, `{"Name":"../used","Opts":[]}`, `{"Name":"../used","ID":7}`, `{"Name":"../used","Opts":{"size":1}}`}
	for _, name := range []string{"../../etc", "a/b", "x", "-used", "used\x00", "u s e d", strings.Repeat("n", 60<<10), ""} {
		list = append(list, fmt.Sprintf(`{"Name":%q,"ID":"c1","Opts":{"size":"1"}}`, name))
	}
	return list
}()

func TestTenThousandGarbageRequestsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.log.SetOutput(io.Discard)
	r.start()
	r.create("used")
	path := r.mount("used", "c1")
	write(t, filepath.Join(path, "row"), "42")
	r.calls()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	defer client.CloseIdleConnections()
	var accepted, refused, cut atomic.Int64
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Add(1)
		go func() {
			defer senders.Done()
			rnd := rand.New(rand.NewPCG(uint64(sender), 1))
			for range 10000 / 8 {
				method, path, body := garbage(rnd)
				req, err := http.NewRequest(method, "http://plugin"+path, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := client.Do(req)
				if err != nil {
					cut.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode == http.StatusOK && !strings.HasSuffix(path, "Path") {
					accepted.Add(1)
					t.Errorf("%s %s %.100q was accepted", method, path, body)
				}
				refused.Add(1)
			}
		}()
	}
	senders.Wait()
	t.Logf("%d refused, %d cut", refused.Load(), cut.Load())
	if refused.Load() == 0 || cut.Load() == 0 {
		t.Error("the requests were not those meant")
	}
	for _, c := range []string{"CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume", "CreateTags"} {
		if n := r.calls()[c]; n != 0 {
			t.Errorf("%d times %s", n, c)
		}
	}
	if n := len(r.manager.all()); n != 1 {
		t.Errorf("%d volumes are remembered", n)
	}
	r.eventually("no request is in flight", func() bool { return r.server.InFlight() == 0 })
	if got := read(t, filepath.Join(path, "row")); got != "42" {
		t.Errorf("the data is %q", got)
	}
	r.create("new")
	r.unmount("used", "c1")
	r.nothingUnused()
}

// dial opens a connection to the plugin.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func TestSlowClientsDelayNobodyAndAreCut(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Request = 2 * time.Second })
	var slow []net.Conn
	for i := range 200 {
		c := r.dial()
		slow = append(slow, c)
		text := []string{
			"",
			"POST /VolumeDriver.Create HT",
			"POST /VolumeDriver.Create HTTP/1.1\r\nHost: plugin\r\nX-Slow: ",
			"POST /VolumeDriver.Create HTTP/1.1\r\nHost: plugin\r\nContent-Length: 1000\r\n\r\n{\"Name\":\"slow\"",
		}[i%4]
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	r.create("pgdata")
	write(t, filepath.Join(r.mount("pgdata", "c1"), "row"), "42")
	r.unmount("pgdata", "c1")
	for i, c := range slow {
		if i%4 == 0 {
			continue // has asked for nothing: dockerd keeps such connections
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
			t.Fatalf("connection %d is still open", i)
		}
	}
	r.eventually("no request is in flight", func() bool { return r.server.InFlight() == 0 })
	if _, err := r.try("Get", m{"Name": "slow"}); err == nil {
		t.Error("half a request made a volume")
	}
	r.nothingUnused()
}

// dockerd keeps connections for later, and sends an empty body when one is closed as it begins to send.
func TestAConnectionThatDockerKeepsIsNotClosed(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Request = time.Second })
	c := r.dial()
	answers := bufio.NewReader(c)
	for range 2 {
		if _, err := c.Write([]byte("POST /VolumeDriver.Capabilities HTTP/1.1\r\nHost: plugin\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("the connection was closed: %v", err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), "global") {
			t.Errorf("%s %v", body, err)
		}
		time.Sleep(2 * r.timing.Request)
	}
}

// broken is a cloud with a bug: the call that is named panics.
type broken struct {
	cloud.Cloud
	call atomic.Pointer[string]
}

func (b *broken) at(call string) {
	if p := b.call.Load(); p != nil && *p == call {
		panic("a bug in " + call)
	}
}

func (b *broken) Host(ctx context.Context) (cloud.Host, error) {
	b.at("Host")
	return b.Cloud.Host(ctx)
}

func (b *broken) ByName(ctx context.Context, name string) (cloud.Volume, error) {
	b.at("ByName")
	return b.Cloud.ByName(ctx, name)
}

func (b *broken) List(ctx context.Context) ([]cloud.Volume, error) {
	b.at("List")
	return b.Cloud.List(ctx)
}

func (b *broken) Create(ctx context.Context, s cloud.Spec) (cloud.Volume, error) {
	b.at("Create")
	return b.Cloud.Create(ctx, s)
}

func (b *broken) Attach(ctx context.Context, vol cloud.Volume) error {
	b.at("Attach")
	return b.Cloud.Attach(ctx, vol)
}

func (b *broken) Detach(ctx context.Context, id string) error {
	b.at("Detach")
	return b.Cloud.Detach(ctx, id)
}

func (b *broken) Delete(ctx context.Context, id string) error {
	b.at("Delete")
	return b.Cloud.Delete(ctx, id)
}

// A bug in whatever a request does, or in what goes on behind it, ends neither the process nor the volume's turn.
func TestAPanicAnywhereIsAnAnswerAndTheNextTryWorks(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	b := &broken{}
	breaks := func(call string) { b.call.Store(&call) }
	if err := os.MkdirAll(r.state, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.manager, err = r.plan().manager(r.log, func(c *Config) { b.Cloud = c.Cloud; c.Cloud = b }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.unmountAll)
	breaks("Host")
	r.serve()

	create := m{"Name": "db", "Opts": m{"size": "1"}}
	r.refused("Create", create, "failed unexpectedly")
	for _, c := range []struct {
		broken, call string
		req          m
		cut          bool
	}{
		{"ByName", "Create", create, false},
		{"ByName", "Get", m{"Name": "db"}, true},
		{"Create", "Create", create, false},
		{"", "Create", create, false},
		{"List", "List", m{}, false}, // answered from memory
		{"Attach", "Mount", m{"Name": "db", "ID": "c1"}, false},
		{"", "Mount", m{"Name": "db", "ID": "c1"}, false},
		{"Detach", "Unmount", m{"Name": "db", "ID": "c1"}, false},
		{"Delete", "Remove", m{"Name": "db"}, false},
		{"", "Remove", m{"Name": "db"}, false},
	} {
		if c.broken == "Delete" {
			// The panic was in the background; the sweep looks again.
			breaks("")
			r.eventually("detached", func() bool { return r.attached() == 0 })
		}
		time.Sleep(r.timing.Fresh / 10)
		breaks(c.broken)
		works := c.broken == "" || c.call == "List" || c.call == "Unmount"
		_, err := r.try(c.call, c.req)
		switch {
		case works && err != nil:
			t.Errorf("%s with a bug in %q: %v", c.call, c.broken, err)
		case !works && err == nil:
			t.Errorf("%s with a bug in %q was done", c.call, c.broken)
		case c.cut && !strings.HasPrefix(err.Error(), "cut"):
			t.Errorf("%s with a bug in %q was answered: %v", c.call, c.broken, err)
		case !works && !c.cut && !strings.Contains(err.Error(), "failed unexpectedly"):
			t.Errorf("%s with a bug in %q: %v", c.call, c.broken, err)
		}
		if c.broken == "Detach" {
			r.eventually("the grace is over", func() bool { return r.status("db")["state"] == "detaching" })
		}
	}
	r.nothingUnused()
}

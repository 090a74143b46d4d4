package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Tap stands on the plugin's socket, between dockerd and the plugin. It notes what dockerd asks for, hands it on, and can lose a request, an
// answer, or both.
type Tap struct {
	dir    string // of the sockets, as the host sees it
	behind *http.Client
	server *http.Server

	mu    sync.Mutex
	seen  []Request
	rules []*tapRule
}

// Request is one that dockerd made. A retry after a broken connection has no body, and so neither name nor ID.
type Request struct {
	Call, Name, ID string
	Empty          bool
}

// tapRule is what is done with the next requests of a call for a volume.
type tapRule struct {
	call, name string
	times      int
	do         func(x *exchange)
}

// exchange is one request on its way.
type exchange struct {
	tap  *Tap
	call string
	body []byte
	w    http.ResponseWriter
	r    *http.Request
}

const behindTap = "behind.sock"

// Tap puts one in front of the plugin. dockerd must have no connection to the plugin yet that it could use again: it comes right after
// Install. A plugin that is started again while the tap is there takes it for another plugin and ends; so End comes before a kill.
func (p *Plugin) Tap(t testing.TB) *Tap {
	t.Helper()
	tap := &Tap{dir: filepath.Join("/proc", strconv.Itoa(p.e.PID(t)), "root/run/docker/plugins", p.ID)}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialIn(ctx, tap.dir, behindTap) }
	tap.behind = &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	tap.server = &http.Server{Handler: http.HandlerFunc(tap.serve)}
	if err := os.Rename(filepath.Join(tap.dir, "blockvol.sock"), filepath.Join(tap.dir, behindTap)); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(tap.dir) // the path may be too long for a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/blockvol.sock"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	go tap.server.Serve(l)
	t.Cleanup(func() { tap.server.Close() })
	return tap
}

// End takes the tap away: dockerd talks to the plugin again.
func (tap *Tap) End(t testing.TB) {
	t.Helper()
	if err := errors.Join(tap.server.Close(), os.Rename(filepath.Join(tap.dir, behindTap), filepath.Join(tap.dir, "blockvol.sock"))); err != nil {
		t.Fatal(err)
	}
}

// Next says what is done with the next request of a call for a volume.
func (tap *Tap) Next(call, volume string, do func(x *exchange)) { tap.NextTimes(1, call, volume, do) }

// NextTimes says what is done with so many requests of a call for a volume.
func (tap *Tap) NextTimes(times int, call, volume string, do func(x *exchange)) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.rules = append(tap.rules, &tapRule{call, volume, times, do})
}

// Requests returns those for a volume so far, Get and Capabilities left out.
func (tap *Tap) Requests(volume string) (found []Request) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for _, r := range tap.seen {
		if r.Name == volume && r.Call != "Get" {
			found = append(found, r)
		}
	}
	return found
}

// story tells the requests for a volume in one line, with the mount IDs as numbers in the order in which they came up:
// "Create, Mount 1, Unmount 1".
func (tap *Tap) story(volume string) string {
	numbers := map[string]string{}
	var words []string
	for _, r := range tap.Requests(volume) {
		word := r.Call
		if r.ID != "" {
			if numbers[r.ID] == "" {
				numbers[r.ID] = strconv.Itoa(len(numbers) + 1)
			}
			word += " " + numbers[r.ID]
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// retries counts the requests of a call that came without a body.
func (tap *Tap) retries(call string) (n int) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for _, r := range tap.seen {
		if r.Call == call && r.Empty {
			n++
		}
	}
	return n
}

func (tap *Tap) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	x := &exchange{tap: tap, call: strings.TrimPrefix(r.URL.Path, "/VolumeDriver."), body: body, w: w, r: r}
	req := Request{Call: x.call, Empty: len(body) == 0}
	_ = json.Unmarshal(body, &req) // what is no JSON has no name
	do := (*exchange).pass
	tap.mu.Lock()
	tap.seen = append(tap.seen, req)
	for _, rule := range tap.rules {
		if rule.times > 0 && rule.call == x.call && rule.name == req.Name {
			rule.times--
			do = rule.do
			break
		}
	}
	tap.mu.Unlock()
	do(x)
}

// send makes the request to the plugin.
func (x *exchange) send(ctx context.Context) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, x.r.Method, "http://plugin"+x.r.URL.Path, bytes.NewReader(x.body))
	if err != nil {
		return 0, nil, err
	}
	r.Header = x.r.Header
	a, err := x.tap.behind.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	answer, err = io.ReadAll(a.Body)
	return a.StatusCode, answer, err
}

func (x *exchange) cut() { panic(http.ErrAbortHandler) }

func (x *exchange) answer(status int, body []byte) {
	x.w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.1+json")
	x.w.WriteHeader(status)
	x.w.Write(body)
}

// pass hands request and answer on; a connection that one side cuts is cut for the other.
func (x *exchange) pass() { x.passThen(func() {}) }

// passThen does something when the plugin has answered, before dockerd has the answer.
func (x *exchange) passThen(do func()) {
	status, answer, err := x.send(x.r.Context())
	if err != nil {
		x.cut()
	}
	do()
	x.answer(status, answer)
}

// lost never reaches the plugin.
func lost(x *exchange) { x.cut() }

// answerLost is carried out, and dockerd never learns of it.
func answerLost(x *exchange) {
	x.send(context.Background())
	x.cut()
}

// cutAfter breaks the connection, for both sides, some time after the request was sent.
func cutAfter(d time.Duration) func(x *exchange) {
	return func(x *exchange) {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		x.send(ctx)
		x.cut()
	}
}

// refused is answered with an error, and never reaches the plugin.
func refused(text string) func(x *exchange) {
	return func(x *exchange) {
		body, err := json.Marshal(map[string]string{"Err": text})
		if err != nil {
			panic(err)
		}
		x.answer(http.StatusInternalServerError, body)
	}
}

// late reaches the plugin after dockerd has given up on it. It tells how long dockerd has waited.
func late(waited chan<- time.Duration) func(x *exchange) {
	return func(x *exchange) {
		began := time.Now()
		<-x.r.Context().Done()
		waited <- time.Since(began)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		x.send(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { cancel() }}))
		x.cut()
	}
}

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A host that boots without network and without credentials must have its plugin: dockerd disables one that does not accept in time, and then
// no container of it starts any more. And what a plugin is asked, however senseless, must not keep it from serving.
func TestThePluginServesWithoutNetworkAndThroughAFlood(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	t.Run("no network", e.withoutNetwork)
	e.Plugin.Restart(t, "BACKEND=sim", "CLUSTER=flood", "AWS_ENDPOINT_URL=", "AWS_EC2_METADATA_SERVICE_ENDPOINT=", "LOG_LEVEL=debug", "DETACH_GRACE=500ms")
	t.Run("a flood", e.flooded)
}

// deaf accepts connections and never answers.
func deaf(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return "http://" + l.Addr().String()
}

func (e *Engine) withoutNetwork(t *testing.T) {
	for _, network := range []struct{ name, address string }{
		{"nothing is reached", "http://127.0.0.1:1"},
		{"nothing answers", deaf(t)},
	} {
		settings := []string{"BACKEND=ebs", "CLUSTER=boot", "AWS_ENDPOINT_URL=" + network.address, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + network.address}
		began := time.Now()
		if e.Plugin == nil {
			e.Install(t, "blockvol", settings...)
		} else {
			e.Plugin.Restart(t, settings...)
		}
		enabled := time.Since(began)
		var can struct{ Capabilities struct{ Scope string } }
		if refusal, err := e.Plugin.Socket(t).Ask("Capabilities", map[string]string{}, &can); err != nil || refusal != "" || can.Capabilities.Scope != "global" {
			t.Errorf("%s: Capabilities: %+v %s %v", network.name, can, refusal, err)
		}
		ls := e.Try("volume", "ls", "-q")
		t.Logf("%s: made, enabled and started after %.1f s; docker volume ls took %.2f s", network.name, enabled.Seconds(), ls.Took.Seconds())
		if ls.Code != 0 || ls.Took > 20*time.Second {
			t.Errorf("%s: %s took %s: %s", network.name, ls.Command, ls.Took, ls.Stderr)
		}
		v := e.VolumeName(t)
		r := e.Try("volume", "create", "-d", e.driver(), "-o", "size=1GiB", v)
		if r.Code == 0 {
			t.Fatalf("%s: a volume was created", network.name)
		}
		t.Logf("%s: after %.1f s %s", network.name, r.Took.Seconds(), r.Stderr)
		readable(t, r.Stderr, "instance metadata")
		if got := e.Docker(t, "plugin", "inspect", "-f", "{{.Enabled}}", e.Plugin.Name); got != "true" {
			t.Errorf("%s: the plugin is enabled: %s", network.name, got)
		}
	}
}

// raw gives connections to the plugin's socket.
func (p *Plugin) raw(t testing.TB) func() (net.Conn, error) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(p.e.PID(t)), "root/run/docker/plugins", p.ID)
	return func() (net.Conn, error) { return dialIn(context.Background(), dir, "blockvol.sock") }
}

// senseless is what a request can be but should not. %d is its number.
var senseless = []struct{ method, path, body string }{
	{"POST", "/VolumeDriver.Mount", `{"Name":"../../etc/%d","ID":"x"}`}, // each of these is a line in the log
	{"POST", "/VolumeDriver.Mount", `{"Name":"no-such-volume-%d"`},
	{"POST", "/VolumeDriver.Unmount", `{"Name":"no-such-volume-%d","ID":"x"}`},
	{"POST", "/VolumeDriver.Create", `[%d]`},
	{"POST", "/VolumeDriver.Create", `{"Name":%d,"Opts":7}`},
	{"POST", "/VolumeDriver.Create", `{"Name":"flood-%d","Opts":{"size":"-1","nonsense":"\u0000"}}`},
	{"POST", "/VolumeDriver.Remove", ``},
	{"POST", "/VolumeDriver.Get", `null %d`},
	{"POST", "/VolumeDriver.Path", `"%d"`},
	{"GET", "/VolumeDriver.Remove", ``},
	{"POST", "/%%2e%%2e/%d", `{}`},
	{"DELETE", "/", ``},
}

// pour makes so many senseless requests over one connection after the other.
func pour(dial func() (net.Conn, error), from, n int) error {
	var c net.Conn
	var r *bufio.Reader
	for i := from; i < from+n; i++ {
		if c == nil {
			var err error
			if c, err = dial(); err != nil {
				return err
			}
			r = bufio.NewReader(c)
		}
		g := senseless[i%len(senseless)]
		fill := func(s string) string {
			if strings.Contains(s, "%") {
				return fmt.Sprintf(s, i)
			}
			return s
		}
		body := fill(g.body)
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\n\r\n%s", g.method, strings.ReplaceAll(g.path, "%d", strconv.Itoa(i)), len(body), body)
		c.SetDeadline(time.Now().Add(2 * time.Minute))
		a, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, a.Body)
		}
		if err != nil || i%101 == 0 { // now and then something that is no request at all
			io.WriteString(c, "\x16\x03\x01\x00\xff\x00 no HTTP \r\n\r\n")
			c.Close()
			c = nil
		}
		if err != nil && !cutIsRight(err) {
			return fmt.Errorf("request %d (%s %s %s): %w", i, g.method, g.path, body, err)
		}
	}
	if c != nil {
		c.Close()
	}
	return nil
}

// cutIsRight tells whether a connection was cut, and not merely silent: a Get that cannot be answered is cut.
func cutIsRight(err error) bool {
	timeout, ok := err.(interface{ Timeout() bool })
	return !ok || !timeout.Timeout()
}

func (e *Engine) flooded(t *testing.T) {
	p := e.Plugin
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
	starts(t, e, c, 1)

	// Clients that send a byte a second, in the header and in the body.
	stop := make(chan struct{})
	var slow, flood sync.WaitGroup
	dial := p.raw(t)
	for i := range 50 {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		request := "POST /VolumeDriver.Mount HTTP/1.1\r\nHost: plugin\r\nContent-Length: 1000\r\n\r\n"
		if i%2 == 0 {
			io.WriteString(conn, request)
			request = strings.Repeat(`{"Name":"`, 100)
		}
		slow.Go(func() {
			defer conn.Close()
			for _, b := range []byte(request) {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					conn.Write([]byte{b}) // the plugin may have hung up
				}
			}
		})
	}
	// Names and options that would make long lines in the log: through dockerd, and longer ones than its client can be given.
	long := strings.Repeat("long", 30<<10)
	e.DockerFails(t, []string{"is not allowed"}, "volume", "create", "-d", e.driver(), long)
	e.DockerFails(t, []string{"tag.k"}, "volume", "create", "-d", e.driver(), "-o", "tag.k="+long, e.VolumeName(t))
	e.DockerFails(t, []string{"unknown"}, "volume", "create", "-d", e.driver(), "-o", long+"=1", e.VolumeName(t))
	plugin := p.Socket(t)
	huge := strings.Repeat("huge", 240<<10)
	for call, in := range map[string]any{
		"Mount": map[string]string{"Name": v, "ID": huge}, "Unmount": map[string]string{"Name": v, "ID": huge}, "Get": map[string]string{"Name": huge},
		"Remove": map[string]string{"Name": huge}, "Create": map[string]any{"Name": v, "Opts": map[string]string{"mkfs-options": huge}},
	} {
		if _, err := plugin.Ask(call, in, nil); err != nil {
			t.Errorf("%s with much in it: %.200s", call, err)
		}
	}
	if err := plugin.Do("Unmount", map[string]string{"Name": v, "ID": huge}); err != nil { // in whatever order they were made
		t.Errorf("%.200s", err)
	}

	const requests, together = 10000, 4
	began := time.Now()
	for i := range together {
		flood.Go(func() {
			if err := pour(dial, i*requests/together, requests/together); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		ls := e.Try("volume", "ls", "-q")
		t.Logf("in the flood docker volume ls took %.2f s", ls.Took.Seconds())
		if ls.Stdout != v || ls.Took > 20*time.Second {
			t.Errorf("in the flood docker volume ls shows after %s: %s%s", ls.Took, ls.Stdout, ls.Stderr)
		}
		e.grows(t, c, "/data/lines")
	}
	flood.Wait()
	t.Logf("%d requests took %.1f s", requests, time.Since(began).Seconds())
	e.grows(t, c, "/data/lines")

	// It still does its work, and what it says still reaches dockerd's log.
	if got := e.Busybox(t, []string{"--mount", e.on(e.NewVolume(t, "size=1GiB"), "/data")}, "echo here >/data/file; cat /data/file"); got != "here" {
		t.Errorf("after the flood a new container says %q", got)
	}
	for n := range 1000 {
		token := fmt.Sprintf("after the flood %d", n)
		if refusal, err := plugin.Ask("Mount", map[string]string{"Name": token, "ID": "x"}, nil); err != nil || !strings.Contains(refusal, "is not allowed") {
			t.Fatalf("Mount is refused with %q %v", refusal, err)
		}
		if poll(2*time.Second, func() error { return e.logged(token) }) == nil {
			break
		}
		if n == 30 {
			t.Fatal("what the plugin says does not reach dockerd's log any more")
		}
	}
	for line := range bytes.Lines([]byte(e.Log())) {
		if len(line) > 64<<10 && bytes.Contains(line, []byte(" plugin=")) {
			t.Errorf("a line of %d bytes of the plugin is in the log: %.200s", len(line), line)
		}
	}
	close(stop)
	slow.Wait()
	e.Docker(t, "stop", c)
	e.letGo(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, wholeLines); got != "1" {
		t.Errorf("the volume holds after one start: %s", got)
	}
	e.letGo(t, v)
}

// logged is an error unless dockerd's log has a text.
func (e *Engine) logged(text string) error {
	if !strings.Contains(e.Log(), text) {
		return fmt.Errorf("the log is without %q", text)
	}
	return nil
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"encoding/json"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/sirupsen/logrus"
)

// empty is a cloud without volumes that lets nobody make one. It fails the test when it is asked for a name that cannot be one.
type empty struct {
	cloud.Cloud
	t *testing.T
}

func (e *empty) Host(context.Context) (cloud.Host, error) {
	return cloud.Host{ID: "i-1", Zone: "z", Region: "r"}, nil
}

func (e *empty) named(name string) {
	if checkName(name) != nil {
		e.t.Errorf("the cloud was asked for %q", name)
	}
}

func (e *empty) ByName(_ context.Context, name string) (cloud.Volume, error) {
	e.named(name)
	return cloud.Volume{}, cloud.ErrNotFound
}

func (e *empty) List(context.Context) ([]cloud.Volume, error) { return nil, nil }

func (e *empty) Create(_ context.Context, s cloud.Spec) (cloud.Volume, error) {
	e.named(s.Name)
	if s.SizeGiB < 1 || s.Attrs[attrFS] != disk.TagNone {
		e.t.Errorf("asked for %+v", s)
	}
	return cloud.Volume{}, cloud.Errorf(cloud.ErrDenied, "volume %q: not here", s.Name)
}

// FuzzRequest sends whatever there is to every call. No panic, an answer that dockerd can read or a cut connection, nothing done without a
// name, and the same request gets the same answer.
func FuzzRequest(f *testing.F) {
	for _, call := range []string{"Activate", "Capabilities", "Create", "Get", "List", "Mount", "Unmount", "Remove", "Path", "None"} {
		for _, body := range []string{
			`{"Name":"pgdata","ID":"c1","Opts":{"size":"1"}}`, `{"Name":"pgdata","Opts":null}`, `{"name":"pgdata","NAME":"other"}`, "", " \n", `{}`, `null`, `[]`,
			`{"Name":"pgdata"} {}`, `{"Name":"../x"}`, `{"Name":7}`, `{"Name":"pgdata","Opts":{"size":"1","type":"gp3","tag.a":"b"}}`, "{\"Name\":\"\xff\"}",
		} {
			f.Add(http.MethodPost, call, []byte(body))
		}
	}
	f.Add(http.MethodGet, "Remove", []byte(`{"Name":"pgdata"}`))
	// One of each kind of answer that a search has found besides.
	f.Add("\n", "0", []byte("0"))
	f.Add(http.MethodPost, "// \x13\x1e", []byte("\x13^"))
	f.Add(http.MethodPost, "Create\x00", []byte("{} "))
	for call, body := range map[string]string{
		"Get": "  \n\n", "List": "rr", "Path": `{"Naae":"pgdmta","ID":"c1","Opts":{"size":"1"}}`, "Unmount": "{\"name\":\"pgdata\",\"NIIIIIIIAME\":\"other\"}",
		"Remove": "{\"\xf4\":0}", "Mount": "{\"name\":\"pgdata\",\"NAME\":\"\xa0\xa0\xa0other\"}", "Create": "{\"Name\":\"pgdata\",\"Opts\":{\"size\":\"1\",\"tag.\xee\xd8\":\"gp3\"}}",
	} {
		f.Add(http.MethodPost, call, []byte(body))
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sys", "block"), 0o755); err != nil {
		f.Fatal(err)
	}
	nothing := &empty{}
	timing := testTiming()
	timing.Absent = time.Millisecond // which a Remove of what is not there waits for
	manager, err := New(Config{Settings: Settings{Backend: "ebs", Cluster: fmt.Sprint("fuzz-", os.Getpid())}, Cloud: nothing,
		Disk: &disk.Host{Dev: dir, Sys: filepath.Join(dir, "sys")}, StateDir: filepath.Join(dir, "state"), Timing: timing, Log: log})
	if err != nil {
		f.Fatal(err)
	}
	// No Start: nothing shall go on beside the request but what it began itself.
	manager.base, manager.stop = context.WithCancel(context.Background())
	f.Cleanup(func() { manager.Close(context.Background()) })
	handler := (&Server{Manager: manager, Log: log}).Handler()
	f.Fuzz(func(t *testing.T, method, call string, body []byte) {
		nothing.t = t
		path := "/VolumeDriver." + call
		if call == "Activate" {
			path = "/Plugin.Activate"
		}
		status, text := ask(t, handler, method, path, body)
		if again, other := ask(t, handler, method, path, body); again != status || other != text {
			t.Errorf("%s %s %q was answered with %d %q, and then with %d %q", method, path, body, status, text, again, other)
		}
		var answer map[string]any
		switch {
		case status == 0, status == http.StatusMovedPermanently, status == http.StatusTemporaryRedirect, status == http.StatusPermanentRedirect: // cut; a path with // or ..
			return
		case !utf8.ValidString(text) || json.Unmarshal([]byte(text), &answer) != nil:
			t.Fatalf("%s %s %q: the answer %d %q is no JSON object", method, path, body, status, text)
		case status != http.StatusOK && answer["Err"] == "":
			t.Errorf("%s %s %q: %d without a reason", method, path, body, status)
		case method != http.MethodPost && status == http.StatusOK:
			t.Errorf("%s %s %q was accepted", method, path, body)
		}
		var req struct{ Name string }
		valid := json.Unmarshal(body, &req) == nil && checkName(req.Name) == nil
		switch call {
		case "Create", "Get", "Mount":
			if status == http.StatusOK {
				t.Errorf("%s %q was done in a cloud that has nothing", call, body)
			}
		case "Unmount", "Remove":
			if status == http.StatusOK && !valid {
				t.Errorf("%s %q was done without a name", call, body)
			}
		}
	})
}

// ask makes one request; status 0 is a connection that was cut.
func ask(t *testing.T, h http.Handler, method, path string, body []byte) (status int, text string) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			status, text = 0, ""
		}
	}()
	req, err := http.NewRequest(method, "http://plugin/", strings.NewReader(string(body)))
	if err != nil {
		return
	}
	req.URL.Path = path
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

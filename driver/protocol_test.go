package driver

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
	"github.com/sirupsen/logrus"
)

// unready is a plugin whose settings are wrong: it answers without any cloud.
func unready(t *testing.T) *rig {
	t.Helper()
	settings, err := ReadSettings(func(string) string { return "" })
	if err == nil {
		t.Fatal("settings without CLUSTER were accepted")
	}
	r := &rig{t: t, state: t.TempDir(), settings: settings, log: logrus.New()}
	r.log.SetOutput(testWriter{t})
	r.manager, err = New(Config{Settings: settings, SettingsErr: err, StateDir: r.state, Disk: &disk.Host{Dev: "/dev", Sys: "/sys"}, Timing: testTiming(), Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	r.serve()
	return r
}

func TestAMissingClusterIsToldAtEveryRequest(t *testing.T) {
	r := unready(t)
	if status, body := r.post("Capabilities", ""); status != http.StatusOK || !strings.Contains(body, `"global"`) {
		t.Errorf("Capabilities answered %d %s", status, body)
	}
	for call, req := range map[string]any{
		"Create": m{"Name": "pgdata"}, "Get": m{"Name": "pgdata"}, "List": m{}, "Remove": m{"Name": "pgdata"},
		"Mount": m{"Name": "pgdata", "ID": "x"}, "Unmount": m{"Name": "pgdata", "ID": "x"},
	} {
		r.refused(call, req, "CLUSTER is not set", "docker plugin set")
	}
}

func TestGetIsCutAndNotAnsweredWhenDockerMayKnowTheVolume(t *testing.T) {
	r := unready(t)
	r.manager.ledger.put("pgdata", entry{ID: "vol-1"})
	if st := r.status("pgdata"); !strings.Contains(fmt.Sprint(st["error"]), "CLUSTER is not set") {
		t.Errorf("Get of a volume that Docker knows does not tell what is wrong: %v", st)
	}
	if status, body := r.post("Get", `{"Name":"other"}`); status != 0 {
		t.Errorf("Get was answered although volumes are known here and the settings are wrong: %d %s", status, body)
	}
}

// An empty body is dockerd's retry of a request whose connection broke. Whatever Get is answered, dockerd takes for a fact.
func TestAnEmptyBodyIsCarriedOutByNobodyAndGetIsNotAnswered(t *testing.T) {
	r := unready(t)
	if status, body := r.post("Get", ""); status != 0 {
		t.Errorf("Get with an empty body was answered: %d %s", status, body)
	}
	for _, call := range []string{"Create", "Mount", "Unmount", "Remove", "Path"} {
		if status, body := r.post(call, ""); status != http.StatusBadRequest || !strings.Contains(body, "try again") {
			t.Errorf("%s with an empty body was answered: %d %s", call, status, body)
		}
	}
	for _, call := range []string{"Capabilities", "List"} {
		if status, _ := r.post(call, ""); status == 0 {
			t.Errorf("%s with an empty body was cut", call)
		}
	}
}

func TestMalformedRequestsGetOneClearSentence(t *testing.T) {
	r := unready(t)
	for _, c := range []struct {
		call, body string
		status     int
		word       string
	}{
		{"Create", `{"Name":`, 400, "not the JSON object"},
		{"Create", `[]`, 400, "not the JSON object"},
		{"Create", `{"Name":"x"} trailing`, 400, "something behind"},
		{"Create", `{"Name":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "1 MiB"},
		{"Create", `{}`, 500, "not allowed"},
		{"NoSuchCall", `{}`, 404, "not a call"},
	} {
		status, body := r.post(c.call, c.body)
		if status != c.status || !strings.Contains(body, c.word) {
			t.Errorf("%s %.40s answered %d %.200s, want %d with %q", c.call, c.body, status, body, c.status, c.word)
		}
	}
}

func TestHostileNamesAreRefusedEverywhere(t *testing.T) {
	r := unready(t)
	for _, name := range []string{"", "x", "../x", "a/b", "a b", "-x", ".x", "a\nb", "ä", strings.Repeat("x", 129), "a\x00b"} {
		for call, req := range map[string]any{
			"Create": m{"Name": name}, "Get": m{"Name": name}, "Remove": m{"Name": name},
			"Mount": m{"Name": name, "ID": "x"}, "Unmount": m{"Name": name, "ID": "x"},
		} {
			r.refused(call, req, "not allowed")
		}
		if got := r.must("Path", m{"Name": name})["Mountpoint"]; got != "" {
			t.Errorf("Path of %q is %q", name, got)
		}
	}
}

func TestAPanicIsAnAnswerAndThePluginLives(t *testing.T) {
	r := unready(t)
	h := r.server.guard("/VolumeDriver.Create", time.Minute, func(http.ResponseWriter, *http.Request) { panic("broken") })
	srv := &http.Server{Handler: h}
	l, err := Listen(r.socket + "2")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	twin := *r
	twin.socket += "2"
	if status, body := twin.post("Create", "{}"); status != 500 || !strings.Contains(body, "broken") {
		t.Errorf("a panic was answered with %d %s", status, body)
	}
	if n := r.server.InFlight(); n != 0 {
		t.Errorf("%d requests are still counted", n)
	}
}

func TestOnlyPostIsAnswered(t *testing.T) {
	r := unready(t)
	req, err := http.NewRequest(http.MethodGet, "http://plugin/VolumeDriver.Remove", strings.NewReader(`{"Name":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	w := &recorder{header: http.Header{}}
	r.server.Handler().ServeHTTP(w, req)
	if w.status != http.StatusMethodNotAllowed {
		t.Errorf("GET was answered with %d", w.status)
	}
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(s int)           { r.status = s }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }

func TestTheSocketIsNotStolenFromALivingPlugin(t *testing.T) {
	r := unready(t)
	if l, err := Listen(r.socket); err == nil {
		l.Close()
		t.Fatal("a second plugin took over the socket of a living one")
	} else if !strings.Contains(err.Error(), "in use") {
		t.Errorf("the error is %q", err)
	}
}

func TestShutdownTakesLessThanEightSeconds(t *testing.T) {
	r := unready(t)
	began := time.Now()
	r.stop()
	if d := time.Since(began); d > shutdownBudget {
		t.Errorf("shutting down took %s", d)
	}
}

package cli

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver"
)

// engine serves a Docker Engine that has these volumes, and names it as the one to ask.
func engine(t *testing.T, volumes string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/volumes" {
			t.Errorf("the engine is asked for %s", r.URL.Path)
		}
		fmt.Fprintf(w, `{"Volumes":[%s],"Warnings":null}`, volumes)
	})
	t.Setenv("DOCKER_HOST", "unix://"+socket)
}

func TestTheDoctorSaysOneLineForEachFindingAndFailsIfOneIsBad(t *testing.T) {
	engine(t, `{"Name":"pgdata","Driver":"local"},{"Name":"shop_pgdata","Driver":"local"},{"Name":"pgdaat","Driver":"local"},{"Name":"cache","Driver":"local"},{"Name":"pgdata2","Driver":"blockvol:latest"}`)
	found := driver.Findings{Volumes: []string{"pgdata"}, Findings: []cloud.Finding{{Check: "permission", Subject: "ec2:AttachVolume", Verdict: cloud.OK, Text: "allowed"}}}
	verbs := map[string]any{"About": driver.About{Version: "1", Cluster: "prod"}, "Doctor": &found}
	socket := answers(t, verbs)
	r := runWith(t, Config{Version: "1"}, "doctor", "--socket", socket)
	want := "ok       plugin: version 1 answers on " + socket + ", CLUSTER=prod\nok       permission ec2:AttachVolume: allowed\n"
	if r.code != ExitDone || !strings.HasPrefix(r.out, want) || !strings.HasSuffix(r.out, "\n2 ok, 3 warnings, 0 bad, 0 unknown\n") {
		t.Errorf("exit status %d, %s", r.code, r.out)
	}
	for _, w := range []string{"warning  local volumes pgdata: it is local to this host and has the name of a volume of blockvol", "warning  local volumes shop_pgdata: ", "warning  local volumes pgdaat: ", "; fix: "} {
		if !strings.Contains(r.out, w) {
			t.Errorf("without %q: %s", w, r.out)
		}
	}
	found.Findings[0] = cloud.Finding{Check: "permission", Subject: "ec2:AttachVolume", Verdict: cloud.Bad, Text: "not allowed", Fix: "the policy"}
	r = runWith(t, Config{Version: "1"}, "doctor", "--socket", socket, "--format", "json")
	var got []cloud.Finding
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != ExitFailed || len(got) != 5 || got[1].Fix != "the policy" {
		t.Errorf("exit status %d, %v, %s", r.code, err, r.out)
	}
}

func TestTheDoctorTellsWhatItCouldNotLookAt(t *testing.T) {
	found := driver.Findings{Volumes: []string{"pgdata"}, Findings: []cloud.Finding{}}
	socket := answers(t, map[string]any{"About": driver.About{Version: "1.4.0"}, "Doctor": found})
	for host, word := range map[string]string{"unix:///does/not/exist.sock": "/does/not/exist.sock", "tcp://ann:canary@docker.example.com:2375": "docker.example.com"} {
		t.Setenv("DOCKER_HOST", host)
		r := runWith(t, Config{Version: "1.4.1"}, "doctor", "--socket", socket)
		if r.code != ExitDone || !strings.Contains(r.out, "unknown  local volumes: not looked at: ") || !strings.Contains(r.out, word) || strings.Contains(r.out, "canary") {
			t.Errorf("%s: %+v", host, r)
		}
	}
	engine(t, "")
	if r := runWith(t, Config{Version: "2.0.0"}, "doctor", "--socket", socket); r.code != ExitDone || !strings.Contains(r.out, "warning  plugin: version 1.4.0") || !strings.Contains(r.out, "2.0.0") {
		t.Errorf("another version: %+v", r)
	}
	r := runWith(t, Config{Version: "1"}, "doctor", "--socket", "/does/not/exist.sock")
	if r.code != ExitFailed || !strings.HasPrefix(r.out, "bad      plugin: ") || !strings.Contains(r.out, "docker plugin ls") {
		t.Errorf("without a plugin: %+v", r)
	}
}

func TestABundleIsForItsOwnerAloneAndHoldsNoValuesOfTags(t *testing.T) {
	engine(t, "")
	rows := fleet()
	rows.Volumes[1].Tags["password"] = "tag-canary"
	socket := answers(t, map[string]any{"About": driver.About{Version: "1"}, "Doctor": driver.Findings{}, "Health": driver.Health{Ready: true}, "List": rows,
		"Support": driver.Support{Settings: []driver.SettingValue{{Name: "CLUSTER", Value: "prod"}}, Log: "line\n"}})
	path := filepath.Join(t.TempDir(), "b.tgz")
	if r := runWith(t, Config{Version: "1"}, "doctor", "--socket", socket, "--bundle", path); r.code != ExitDone || !strings.Contains(r.errout, path) {
		t.Fatalf("%+v", r)
	}
	files := unpack(t, path)
	for name, word := range map[string]string{"doctor.json": `"plugin"`, "about.json": `"version"`, "health.json": `"ready": true`, "volumes.json": `"password": "(redacted)"`, "settings.json": `"prod"`,
		"ledger.json": "{", "log": "line\n", "command-version": "1\n"} {
		if !strings.Contains(files["blockvol/"+name], word) {
			t.Errorf("%s is without %q: %q", name, word, files["blockvol/"+name])
		}
	}
	for name, text := range files {
		if strings.Contains(text, "canary") {
			t.Errorf("a secret is in %s: %s", name, text)
		}
	}
	if len(files) != 8 {
		t.Errorf("%d files", len(files))
	}
	if r := runWith(t, Config{Version: "1"}, "doctor", "--socket", socket, "--bundle", path); r.code != ExitUsage {
		t.Errorf("over a file that exists: %+v", r)
	}
	// Without a plugin there is still what was found; in a folder that does not exist there is nothing.
	alone := filepath.Join(t.TempDir(), "a.tgz")
	if r := runWith(t, Config{Version: "1"}, "doctor", "--socket", "/does/not/exist.sock", "--bundle", alone); r.code != ExitFailed || len(unpack(t, alone)) != 2 {
		t.Errorf("%+v", r)
	}
	if r := runWith(t, Config{Version: "1"}, "doctor", "--socket", socket, "--bundle", filepath.Join(alone, "b.tgz")); r.code != ExitFailed || r.out != "" {
		t.Errorf("%+v", r)
	}
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(data)
	}
}

func TestNamesThatResembleEachOther(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		theirs, ours string
		want         bool
	}{
		{"pgdata", "pgdata", true}, {"PGData", "pgdata", true}, {"pg-data", "pg_data", true}, {"shop_pgdata", "pgdata", true},
		{"pgdat", "pgdata", true}, {"pgdataa", "pgdata", true}, {"pgdaat", "pgdata", true}, {"pgdbta", "pgdata", true},
		{"pgdata-old", "pgdata", false}, {"web", "wed", false}, {"cache", "pgdata", false}, {"shoppgdata", "pgdata", false},
		{strings.Repeat("a", 64), strings.Repeat("a", 63) + "b", false},
	} {
		if got := resembles(c.theirs, c.ours); got != c.want {
			t.Errorf("%s and %s: %v", c.theirs, c.ours, got)
		}
	}
}

package driver

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/driver/options"
)

var update = flag.Bool("update", false, "rewrite the generated parts of README.md")

// between returns the text between the markers of one generated part.
func between(t *testing.T, text, part string) (before, inner, after string) {
	t.Helper()
	begin, end := "<!-- "+part+": ", "<!-- end of "+part+" -->"
	i := strings.Index(text, begin)
	j := strings.Index(text, end)
	if i < 0 || j < i {
		t.Fatalf("README.md has no part %q", part)
	}
	i += strings.Index(text[i:], "\n") + 1
	return text[:i], text[i:j], text[j:]
}

func settingsMarkdown() string {
	var b strings.Builder
	b.WriteString("| setting | default | meaning |\n|---|---|---|\n")
	for _, s := range SettingsTable() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, s.Default, s.Doc)
	}
	return b.String()
}

func TestReadmeTablesAreThoseOfTheCode(t *testing.T) {
	const path = "../README.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for part, want := range map[string]string{"settings": settingsMarkdown(), "options": options.Markdown()} {
		want = "\n" + strings.TrimSpace(want) + "\n\n"
		before, inner, after := between(t, text, part)
		if inner != want && !*update {
			t.Errorf("the part %q of README.md is not what the code says: run go test ./driver -run Readme -update", part)
		}
		text = before + want + after
	}
	if *update && text != string(data) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestThePluginManifestHasEverySettingAndNoDefaults(t *testing.T) {
	data, err := os.ReadFile("../config.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Env []struct {
			Name, Description string
			Value             *string
			Settable          []string
		}
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, e := range manifest.Env {
		have[e.Name] = true
		if e.Value != nil {
			t.Errorf("%s has a value in config.json: an upgraded plugin would keep the old one; defaults belong into the code", e.Name)
		}
		if len(e.Settable) != 1 || e.Settable[0] != "value" || e.Description == "" {
			t.Errorf("%s is not settable or not described: %+v", e.Name, e)
		}
	}
	for _, s := range SettingsTable() {
		if !have[s.Name] {
			t.Errorf("config.json lacks %s", s.Name)
		}
		delete(have, s.Name)
	}
	for name := range have {
		t.Errorf("config.json has %s, which the code does not know", name)
	}
}

func TestWrongSettingsAreAllToldAtOnceWithTheWayOut(t *testing.T) {
	env := map[string]string{"BACKEND": "ebs", "DETACH_GRACE": "soon", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml", "DEFAULT_OPTIONS": "sise=3", "INSTANCE_ID": "7", "AWS_SECRET_ACCESS_KEY": "canary"}
	_, err := ReadSettings(func(n string) string { return env[n] })
	if err == nil {
		t.Fatal("accepted")
	}
	for _, w := range []string{"CLUSTER", "DETACH_GRACE=soon", "2s", "LOG_LEVEL=loud", "LOG_FORMAT=xml", "DEFAULT_OPTIONS", "sise", "INSTANCE_ID=7"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Error("the error shows a secret")
	}
}

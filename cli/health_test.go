package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// health runs `blockvol health` and returns its exit code and standard output.
func health(t *testing.T, args ...string) (int, string) {
	t.Helper()
	root := &cobra.Command{Use: "blockvol", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(Commands(Config{Version: "1"})...)
	root.SetArgs(append([]string{"health"}, args...))
	var out bytes.Buffer
	root.SetOut(&out)
	return Execute(t.Context(), root), out.String()
}

func TestHealthOfAPluginThatServesNothingIsOneLineAndExitCodeOne(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	plugin(t, socket, "prod", "1")
	code, out := health(t, "--socket", socket)
	if code != ExitFailed || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "settings: settings are wrong; since ") {
		t.Errorf("exit code %d, %q", code, out)
	}
	code, out = health(t, "--socket", socket, "--format", "json")
	var h driver.Health
	if err := json.Unmarshal([]byte(out), &h); err != nil || code != ExitFailed || h.Ready || len(h.Problems) != 1 || h.Problems[0].Kind != driver.ProblemSettings || h.Cluster != "prod" {
		t.Errorf("exit code %d, %q, %v", code, out, err)
	}
	if code, out = health(t, "--socket", socket, "--live"); code != ExitDone || out != "live\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestHealthOfAPluginThatIsReadyIsExitCodeZero(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		_ = json.NewEncoder(w).Encode(driver.AdminLine{Result: json.RawMessage(`{"ready":true,"cluster":"prod","instance":"i-1","problems":[]}`)})
	})
	if code, out := health(t, "--socket", socket); code != ExitDone || out != "ready: cluster prod, instance i-1\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
	for format, want := range map[string]string{
		"json":                          `"ready": true`,
		"{{.Cluster}}/{{.Instance}}":    "prod/i-1\n",
		`{{len .Problems}}\t{{.Ready}}`: "0\ttrue\n",
	} {
		if code, out := health(t, "--socket", socket, "--format", format); code != ExitDone || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, %q", format, code, out)
		}
	}
	if code, out := health(t, "--socket", filepath.Join(t.TempDir(), "none.sock"), "--format", "{{.Nothing}}"); code != ExitUsage || out != "" {
		t.Errorf("a template that asks for what there is not: exit code %d, %q", code, out)
	}
}

// Every result can be had by a template: of one thing from itself, of several from each of them.
func TestAnAnswerIsJSONOrWhatATemplateMakesOfIt(t *testing.T) {
	whole := driver.PruneRows{Cluster: "prod", Rows: []driver.PruneRow{{ID: "vol-1"}, {ID: "snap-1"}}}
	tmpl, err := parseTemplate("{{.ID}}", driver.PruneRow{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		as   *answer
		want string
	}{{&answer{tmpl}, "vol-1\nsnap-1\n"}, {&answer{}, `"cluster": "prod"`}} {
		var out bytes.Buffer
		if err := c.as.list(&out, whole, whole.Rows); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q, %v", out.String(), err)
		}
	}
}

func TestHealthOfAPluginThatDoesNotAnswerIsExitCodeOne(t *testing.T) {
	dir := t.TempDir()
	for _, flag := range []string{"--live", "--live=false"} {
		if code, out := health(t, "--socket", filepath.Join(dir, "none.sock"), flag); code != ExitFailed || out != "" {
			t.Errorf("%s without a plugin: exit code %d, %q", flag, code, out)
		}
	}
	silent := filepath.Join(dir, "silent.sock")
	end := make(chan struct{})
	answering(t, silent, func(http.ResponseWriter, *http.Request) { <-end })
	t.Cleanup(func() { close(end) })
	if code, out := health(t, "--socket", silent, "--live", "--timeout", "200ms"); code != ExitFailed || out != "" {
		t.Errorf("with a plugin that hangs: exit code %d, %q", code, out)
	}
	if code, _ := health(t, "--socket", silent, "--format", "xml"); code != ExitUsage {
		t.Errorf("a format that is not known: exit code %d", code)
	}
}

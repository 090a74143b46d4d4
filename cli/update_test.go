package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/driver"
	"github.com/blockvol/blockvol/driver/options"
	"github.com/spf13/cobra"
)

// updatable serves a plugin with a volume of 10 GiB, and keeps what is asked of it.
func updatable(t *testing.T, answer driver.Updated) (socket string, asked *[]driver.UpdateRequest) {
	t.Helper()
	socket, asked = filepath.Join(t.TempDir(), "s.sock"), &[]driver.UpdateRequest{}
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		var req driver.UpdateRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != driver.AdminPath("Update") {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		*asked = append(*asked, req)
		out := answer
		out.DryRun, out.Grown = req.DryRun, !req.DryRun
		result, err := json.Marshal(out)
		if err != nil {
			t.Error(err)
		}
		if !req.DryRun {
			_ = json.NewEncoder(w).Encode(driver.AdminLine{Say: "EC2 is modifying vol-1: 7 %"})
		}
		_ = json.NewEncoder(w).Encode(driver.AdminLine{Result: result})
	})
	return socket, asked
}

func TestAnUpdateShowsWhatItWouldChangeAndAsksBeforeWhatLasts(t *testing.T) {
	growth := driver.Updated{Volume: "db", ID: "vol-1", SizeGiB: 15, Lasting: true, Notes: []string{"it is slow"}, Changes: []options.Changed{{Name: "size", From: "10 GiB", To: "15 GiB"}}}
	tag := driver.Updated{Volume: "db", ID: "vol-1", Changes: []options.Changed{{Name: "tag.Team", From: "", To: `"db"`}}}
	for _, c := range []struct {
		answer driver.Updated
		typed  string
		args   []string
		code   int
		asks   int
		out    string
		errout []string
	}{
		{growth, "", []string{"vol-1", "size=+5GiB"}, ExitFailed, 1, "", []string{"size: 10 GiB -> 15 GiB", "it is slow", "cannot be made smaller again", "not confirmed"}},
		{growth, "n\n", []string{"db", "size=+5GiB"}, ExitFailed, 1, "", []string{"not confirmed"}},
		{growth, "y\n", []string{"vol-1", "size=+5GiB"}, ExitDone, 2, "db (vol-1): size: 10 GiB -> 15 GiB\n", []string{"EC2 is modifying vol-1: 7 %\n", "has its new size", "it is slow"}},
		{growth, "", []string{"db", "size=+5GiB", "-y"}, ExitDone, 2, "db (vol-1): size: 10 GiB -> 15 GiB\n", nil},
		{growth, "", []string{"db", "size=+5GiB", "--dry-run"}, ExitDone, 1, "db (vol-1): size: 10 GiB -> 15 GiB\n", []string{"dry run", "it is slow"}},
		{tag, "", []string{"db", "tag.Team=db"}, ExitDone, 2, `db (vol-1): tag.Team: not set -> "db"` + "\n", nil},
		{driver.Updated{Volume: "db", ID: "vol-1"}, "", []string{"db", "size=10", "-y"}, ExitDone, 1, "db (vol-1): nothing to change\n", nil},
		{growth, "", []string{"db"}, ExitUsage, 0, "", []string{"KEY=VALUE"}},
		{growth, "", []string{"db", "size"}, ExitUsage, 0, "", []string{`"size"`}},
		{growth, "", []string{"db", "=5"}, ExitUsage, 0, "", nil},
		{growth, "", []string{"db", "size=5", "size=6"}, ExitUsage, 0, "", []string{"twice"}},
		{growth, "", []string{"db", "size=15", "--no-wait", "--until-completed"}, ExitUsage, 0, "", nil},
		{growth, "", []string{"db", "size=15", "--format", "xml"}, ExitUsage, 0, "", nil},
	} {
		socket, asked := updatable(t, c.answer)
		root := &cobra.Command{Use: "blockvol", SilenceUsage: true, SilenceErrors: true}
		root.AddCommand(Commands(Config{Version: "1"})...)
		var out, errout bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&errout)
		root.SetIn(strings.NewReader(c.typed))
		root.SetArgs(append([]string{"update", "--socket", socket}, c.args...))
		err := root.ExecuteContext(t.Context())
		code := ExitDone
		var exit *exitError
		switch {
		case errors.As(err, &exit):
			code = exit.code
		case err != nil:
			code = ExitFailed
		}
		if err != nil {
			errout.WriteString(err.Error())
		}
		if code != c.code || len(*asked) != c.asks || out.String() != c.out {
			t.Errorf("%q, typed %q: exit status %d after %d requests, %q, %q", c.args, c.typed, code, len(*asked), out.String(), errout.String())
			continue
		}
		for _, w := range c.errout {
			if !strings.Contains(errout.String(), w) {
				t.Errorf("%q: %q is missing in %q", c.args, w, errout.String())
			}
		}
		if c.asks == 2 {
			first, last := (*asked)[0], (*asked)[1]
			if !first.DryRun || last.DryRun || last.Volume != "db" || last.ID != "vol-1" {
				t.Errorf("%q: asked %+v", c.args, *asked)
			}
			if values := slices.Collect(maps.Values(last.Set)); c.answer.SizeGiB != 0 && !slices.Equal(values, []string{"15GiB"}) {
				t.Errorf("%q: the size that was shown is not what is asked for: %+v", c.args, last)
			}
		}
	}
	if got := completeChanges("t"); !slices.Equal(got, []string{"type=", "throughput=", "tag."}) {
		t.Errorf("completed are %q", got)
	}
	req, err := parseUpdate([]string{"db", "tag.a-", "tag.b-=x-", "fencing-", "mount-options=a=b"})
	if err != nil || !slices.Equal(req.Unset, []string{"tag.a", "fencing"}) || !maps.Equal(req.Set, map[string]string{"tag.b-": "x-", "mount-options": "a=b"}) {
		t.Errorf("%+v, %v", req, err)
	}
}

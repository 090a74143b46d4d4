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

// drainable serves a plugin with a fleet that counts how often it is drained.
func drainable(t *testing.T) (socket string, drained *int) {
	t.Helper()
	socket, drained = filepath.Join(t.TempDir(), "s.sock"), new(int)
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		var answer any = fleet()
		if r.URL.Path == driver.AdminPath("Drain") {
			*drained++
			answer = driver.Drained{Instance: "i-1", Draining: true}
		}
		result, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(driver.AdminLine{Say: "looking"})
		_ = json.NewEncoder(w).Encode(driver.AdminLine{Result: result})
	})
	return socket, drained
}

func TestADrainShowsWhatItWouldDoAndAsks(t *testing.T) {
	socket, drained := drainable(t)
	answer := func(typed string, args ...string) result {
		t.Helper()
		root := &cobra.Command{Use: "blockvol", SilenceUsage: true, SilenceErrors: true}
		root.AddCommand(Commands(Config{Version: "1"})...)
		var out, errout bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&errout)
		root.SetIn(strings.NewReader(typed))
		root.SetArgs(append([]string{"drain", "--socket", socket}, args...))
		code := Execute(t.Context(), root)
		return result{code, out.String(), errout.String()}
	}
	const plan = "VOLUME  ID     STATE    USES  PLAN\npgdata  vol-2  mounted  1     wait\n"
	for _, typed := range []string{"", "n\n", "maybe\n"} {
		if r := answer(typed); r.code != ExitFailed || *drained != 0 || !strings.Contains(r.errout, plan) || !strings.Contains(r.errout, "i-1") {
			t.Errorf("answered %q: drained %d times, %+v", typed, *drained, r)
		}
	}
	if r := answer("y\n", "--dry-run"); r.code != ExitDone || *drained != 0 || r.out != plan || !strings.Contains(r.errout, "dry run") {
		t.Errorf("--dry-run: drained %d times, %+v", *drained, r)
	}
	if r := answer("", "--dry-run", "--format", "json"); r.code != ExitDone || *drained != 0 || !strings.Contains(r.out, `"plan": "wait"`) {
		t.Errorf("--dry-run in JSON: drained %d times, %+v", *drained, r)
	}
	if r := answer("", "--dry-run", "--undo"); r.code != ExitUsage || *drained != 0 {
		t.Errorf("--dry-run --undo: drained %d times, %+v", *drained, r)
	}
	for n, args := range [][]string{{"y\n"}, {"Yes\n"}, {"", "-y"}, {"", "--yes"}, {"", "--undo"}} {
		if r := answer(args[0], args[1:]...); r.code != ExitDone || *drained != n+1 || !strings.Contains(r.errout, "looking\n") {
			t.Errorf("%q: drained %d times, %+v", args, *drained, r)
		}
	}
}

func TestProgressIsOneLineThatIsWrittenAnewOnATerminalAndPlainLinesElsewhere(t *testing.T) {
	var b bytes.Buffer
	plain := &progress{out: &b}
	plain.say("attaching vol-1")
	plain.say("waiting")
	plain.end()
	if got := b.String(); got != "attaching vol-1\nwaiting\n" {
		t.Errorf("elsewhere: %q", got)
	}
	b.Reset()
	p := &progress{out: &b, width: 20}
	p.say("stopping the instance i-1")
	p.say("done")
	p.end()
	p.end()
	got := b.String()
	for _, line := range strings.Split(strings.ReplaceAll(got, "\n", clearLine), clearLine) {
		if len([]rune(line)) >= 20 && !strings.HasPrefix(line, "stopping the instance i-1 (") {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
	if strings.Count(got, "\n") != 2 || !strings.Contains(got, "stopping the instance i-1 (") || !strings.Contains(got, "…") || !strings.HasSuffix(got, ")\n") {
		t.Errorf("on a terminal: %q", got)
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// kept are snapshots as a plugin tells of them.
func kept() driver.SnapshotRows {
	now := time.Now()
	return driver.SnapshotRows{Cluster: "prod", Instance: "i-1", Snapshots: []driver.SnapshotRow{
		{ID: "snap-3", Volume: "pgdata", VolumeID: "vol-2", SizeGiB: 100, State: "pending", Progress: 42, Started: now.Add(-90 * time.Second), Consistency: "frozen"},
		{ID: "snap-2", Volume: "pgdata", VolumeID: "vol-2", SizeGiB: 100, Bytes: 3 << 30, State: "completed", Progress: 100, Started: now.Add(-5*time.Hour - time.Minute), Consistency: "crash",
			Description: "before the upgrade", Tags: map[string]string{"team": "db"}},
		{ID: "snap-1", Volume: "gone", VolumeID: "vol-9", SizeGiB: 8, State: "error", Started: now.Add(-49 * time.Hour), Consistency: "unmounted", Scheduled: "@daily"},
	}}
}

func TestTheListOfSnapshotsLinesUpAndIsFiltered(t *testing.T) {
	socket := answers(t, map[string]any{"Snapshots": kept()})
	table := `ID      VOLUME  SIZE    DATA  STATUS       CONSISTENCY  AGE  DESCRIPTION
snap-3  pgdata  100GiB  -     pending 42%  frozen       90s  -
snap-2  pgdata  100GiB  3GiB  completed    crash        5h   before the upgrade
snap-1  gone    8GiB    -     error        unmounted    2d   -
`
	for args, want := range map[string]string{
		"":                                       table,
		"-q":                                     "snap-3\nsnap-2\nsnap-1\n",
		"-q -f status=completed -f status=error": "snap-2\nsnap-1\n",
		"-q -f volume=vol-2 -f consistency=CRASH": "snap-2\n",
		"-q -f tag=team=db":                       "snap-2\n",
		"-q -f tag=team=web":                      "",
		"-q -f scheduled=true":                    "snap-1\n",
		"-q -f scheduled=False -f volume=pgdata":  "snap-3\nsnap-2\n",
		"-q -f scheduled=@daily":                  "",
		"-f id=snap-1 --format {{.ID}}:{{.Volume}}:{{.Status}}:{{.SizeGiB}}:{{.Age}}": "snap-1:gone:error:8:2d\n",
	} {
		r := runWith(t, Config{Version: "1"}, append(strings.Fields("snapshot ls --socket "+socket), strings.Fields(args)...)...)
		got := r.out
		if args == "" { // the age may have grown by a second since
			got = strings.Replace(got, " 91s ", " 90s ", 1)
		}
		if r.code != ExitDone || got != want {
			t.Errorf("%s: %d %s\n%s, want\n%s", args, r.code, r.errout, got, want)
		}
	}
	for _, args := range []string{"--filter x=y", "--filter id", "--format {{.Nothing}}", "a b"} {
		if r := runWith(t, Config{Version: "1"}, append(strings.Fields("snapshot ls --socket "+socket), strings.Fields(args)...)...); r.code != ExitUsage {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// answersAsked is answers, which notes what it was asked.
func answersAsked(t *testing.T, asked *[]string, verbs map[string]any) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s.sock")
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.Path)
		w.Header().Set(driver.VersionHeader, "1")
		line := driver.AdminLine{Error: r.URL.Path + " was not expected"}
		if answer, ok := verbs[strings.TrimPrefix(r.URL.Path, driver.AdminPath(""))]; ok {
			result, err := json.Marshal(answer)
			if err != nil {
				t.Error(err)
			}
			line = driver.AdminLine{Result: result}
		}
		_ = json.NewEncoder(w).Encode(line)
	})
	return socket
}

// runTyped is runWith for a person who types.
func runTyped(t *testing.T, typed string, args ...string) result {
	t.Helper()
	root := &cobra.Command{Use: "blockvol", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(Commands(Config{Version: "1"})...)
	var out, errout bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errout)
	root.SetIn(strings.NewReader(typed))
	root.SetArgs(args)
	code := Execute(t.Context(), root)
	return result{code, out.String(), errout.String()}
}

func TestSnapshotsAreDeletedOnlyAfterAYes(t *testing.T) {
	asked := []string{}
	socket := answersAsked(t, &asked, map[string]any{"Snapshots": kept(), "RemoveSnapshot": driver.RemoveSnapshotRequest{}})
	for _, c := range []struct {
		args, typed, out, says string
		code                   int
		deletes                int
	}{
		{"rm snap-2 snap-1", "", "", "Delete 2 snapshots for good? [y/N]", ExitFailed, 0},
		{"rm snap-2", "no\n", "", "before the upgrade", ExitFailed, 0},
		{"rm snap-2 --dry-run", "", "", "dry run: would delete 1 snapshot", ExitDone, 0},
		{"rm snap-2 snap-1", "y\n", "snap-2\nsnap-1\n", "Delete 2 snapshots for good?", ExitDone, 2},
		{"rm -y snap-2 snap-2", "", "snap-2\n", "", ExitDone, 1},
		{"rm -y snap-8 snap-2", "", "snap-2\n", "", ExitFailed, 1},
		{"rm -y snap-8", "", "", "", ExitFailed, 0},
		{"rm", "", "", "", ExitUsage, 0},
		{"", "", "", "", ExitUsage, 0},
	} {
		asked = asked[:0]
		args := strings.Fields("snapshot " + c.args)
		if c.args != "" {
			args = append(args, "--socket", socket)
		}
		r := runTyped(t, c.typed, args...)
		deletes := 0
		for _, verb := range asked {
			if verb == driver.AdminPath("RemoveSnapshot") {
				deletes++
			}
		}
		if r.code != c.code || r.out != c.out || deletes != c.deletes || !strings.Contains(r.errout, c.says) {
			t.Errorf("%s: %+v after %v", c.args, r, asked)
		}
	}
}

func TestSnapshotsAreListedFromAnyMachineWithCredentials(t *testing.T) {
	world := cloudOf{{ID: "vol-1", Name: "pgdata"}, {ID: "vol-2", Name: "wal"}}
	cfg := Config{Version: "1", sockets: t.TempDir(), Cloud: func(string) (Lister, error) { return world, nil }}
	for args, want := range map[string]string{
		"":       "snap-of-vol-1 pgdata completed\nsnap-of-vol-2 wal completed\n",
		" wal":   "snap-of-vol-2 wal completed\n",
		" vol-1": "snap-of-vol-1 pgdata completed\n",
		" gone":  "",
	} {
		r := runWith(t, cfg, append(strings.Fields("snapshot ls --cluster prod"+args), "--format", "{{.ID}} {{.Volume}} {{.Status}}")...)
		if r.code != ExitDone || r.out != want || !strings.Contains(r.errout, "the snapshots of the cluster prod") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestASnapshotThatIsMadeIsToldByItsID(t *testing.T) {
	socket := answers(t, map[string]any{"CreateSnapshot": kept().Snapshots[1]})
	if r := runWith(t, Config{Version: "1"}, "snapshot", "create", "--socket", socket, "pgdata", "--tag", "a=b", "--wait"); r.code != ExitDone || r.out != "snap-2\n" {
		t.Errorf("%+v", r)
	}
	if r := runWith(t, Config{Version: "1"}, "snapshot", "create", "--socket", socket, "pgdata", "--format", "json"); r.code != ExitDone || !strings.Contains(r.out, `"volumeID": "vol-2"`) {
		t.Errorf("%+v", r)
	}
	for _, args := range []string{"create", "create a b", "create pgdata --tag x", "create pgdata --tag x=1 --tag x=2", "create pgdata --format yaml"} {
		if r := runWith(t, Config{Version: "1"}, append(strings.Fields("snapshot "+args), "--socket", socket)...); r.code != ExitUsage {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestAVolumeThatIsMadeOfAnotherIsToldByItsID(t *testing.T) {
	socket := answers(t, map[string]any{"Copy": driver.VolumeRow{Name: "copy", ID: "vol-7"}})
	for _, args := range []string{"snapshot restore snap-1 copy", "snapshot restore latest:pgdata copy -o size=200", "clone pgdata copy -o type=io2 -o iops=5000"} {
		if r := runWith(t, Config{Version: "1"}, append(strings.Fields(args), "--socket", socket)...); r.code != ExitDone || r.out != "vol-7 is the volume copy\n" {
			t.Errorf("%s: %+v", args, r)
		}
	}
	for _, args := range []string{"snapshot restore snap-1", "clone pgdata", "clone pgdata copy more", "clone pgdata copy -o size", "clone pgdata copy -o size=1 -o size=2", "clone pgdata copy --format yaml"} {
		if r := runWith(t, Config{Version: "1"}, append(strings.Fields(args), "--socket", socket)...); r.code != ExitUsage {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

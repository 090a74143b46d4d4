package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver"
)

func TestAPruneShowsWhatItWouldDoAndAsks(t *testing.T) {
	plan := driver.PruneRows{Cluster: "prod", Rows: []driver.PruneRow{
		{Kind: driver.PruneSnapshot, ID: "snap-1", Name: "pgdata", SizeGiB: 100, Since: time.Now().Add(-3*time.Hour - time.Minute), Delete: true, Why: "its volume is gone"},
		{Kind: driver.PruneVolume, ID: "vol-1", Name: "kept", SizeGiB: 8, Why: "it is kept"},
	}, Notes: []string{"snapshots of others were not looked at"}}
	done := driver.Pruned{Deleted: plan.Rows[:1], Left: []driver.PruneRow{{Kind: driver.PruneVolume, ID: "vol-2", Why: "EC2 said no"}}}
	planned := answers(t, map[string]any{"Prunable": plan}) // anything else is an error
	want := `PLAN    KIND      ID      VOLUME  SIZE    AGE  WHY
delete  snapshot  snap-1  pgdata  100GiB  3h   its volume is gone
keep    volume    vol-1   kept    8GiB    -    it is kept
`
	r := runWith(t, Config{Version: "1"}, "prune", "--dry-run", "--socket", planned)
	if r.code != ExitDone || r.out != want || !strings.Contains(r.errout, "not looked at") {
		t.Errorf("%+v, want\n%s", r, want)
	}
	r = runWith(t, Config{Version: "1"}, "prune", "--dry-run", "--format", "json", "--socket", planned)
	var got driver.PruneRows
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got.Rows) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	// The end of the input is a no.
	if r := runWith(t, Config{Version: "1"}, "prune", "--socket", planned); r.code != ExitFailed || r.out != "" || !strings.Contains(r.errout, want) || !strings.Contains(r.errout, "1 thing") {
		t.Errorf("%+v", r)
	}
	socket := answers(t, map[string]any{"Prunable": plan, "Prune": done})
	if r := runWith(t, Config{Version: "1"}, "prune", "-y", "--filter", "until=7d", "--socket", socket); r.code != ExitFailed || r.out != "snap-1\n" {
		t.Errorf("%+v", r)
	}
	empty := answers(t, map[string]any{"Prunable": driver.PruneRows{}})
	if r := runWith(t, Config{Version: "1"}, "prune", "--socket", empty); r.code != ExitDone || r.out != "" || !strings.Contains(r.errout, "nothing is left behind") {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"--filter", "until=soon"}, {"--filter", "until=-1h"}, {"--filter", "age=1h"}, {"--filter", "until=1h", "--filter", "until=2h"}, {"all"}, {"--everything"}, {"--filter", "until=0d"}} {
		if r := runWith(t, Config{Version: "1"}, append(append([]string{"prune"}, args...), "--socket", planned)...); r.code != ExitUsage {
			t.Errorf("prune %v: %+v", args, r)
		}
	}
}

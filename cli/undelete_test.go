package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver"
)

func TestWhatCanBeBroughtBackIsListedWithTheTimeThatIsLeft(t *testing.T) {
	day := 24 * time.Hour
	ago, until, bin := time.Now().Add(-3*time.Hour-time.Minute), time.Now().Add(21*time.Hour), time.Now().Add(6*day)
	rows := driver.GivenUpRows{Cluster: "prod", Volumes: []driver.GivenUpRow{
		{Name: "pgdata", ID: "vol-1", End: driver.EndRemoved, Since: &ago, Until: &until, Left: 21 * 3600, SizeGiB: 100, Type: "gp3", Zone: "eu-1a"},
		{Name: "late", ID: "vol-2", End: driver.EndRemoved, Since: &ago, Until: &ago, Left: -60, SizeGiB: 1, Type: "gp3", Zone: "eu-1a"},
		{Name: "kept", ID: "vol-3", End: driver.EndKept, SizeGiB: 1, Type: "io2", Zone: "eu-1b", Problem: "made by a newer blockvol"},
		{ID: "vol-4", End: driver.EndRecycled, Since: &ago, Until: &bin, SizeGiB: 8, Type: "gp2", Zone: "eu-1a"},
	}}
	socket := answers(t, map[string]any{"GivenUp": rows})
	r := runWith(t, Config{Version: "1"}, "undelete", "--ls", "--socket", socket)
	want := `NAME    ID     SIZE    TYPE  ZONE   END          REMOVED  GONE
pgdata  vol-1  100GiB  gp3   eu-1a  removed      3h       in 21h
late    vol-2  1GiB    gp3   eu-1a  removed      3h       now
kept    vol-3  1GiB    io2   eu-1b  kept         -        never
-       vol-4  8GiB    gp2   eu-1a  recycle-bin  3h       in 5d
`
	if r.code != ExitDone || r.out != want || !strings.Contains(r.errout, "vol-3: made by a newer") {
		t.Errorf("%+v, want\n%s", r, want)
	}
	if r := runWith(t, Config{Version: "1"}, "undelete", "--ls", "-q", "--recycle-bin", "--socket", socket); r.out != "vol-1\nvol-2\nvol-3\nvol-4\n" {
		t.Errorf("%+v", r)
	}
	if r := runWith(t, Config{Version: "1"}, "undelete", "--ls", "--format", "{{.Name}} {{.Gone}} {{.SizeGiB}}", "--socket", socket); !strings.HasPrefix(r.out, "pgdata in 21h 100\n") {
		t.Errorf("%+v", r)
	}
}

func TestAVolumeIsBroughtBackByItsNameOrID(t *testing.T) {
	socket := answers(t, map[string]any{"Undelete": driver.AdoptedVolume{Name: "pgdata", ID: "vol-1", Instance: "i-1"}})
	if r := runWith(t, Config{Version: "1"}, "undelete", "vol-1", "pgdata", "--socket", socket); r.code != ExitDone || r.out != "vol-1 is the volume pgdata\n" {
		t.Errorf("%+v", r)
	}
	r := runWith(t, Config{Version: "1"}, "undelete", "pgdata", "--format", "json", "--socket", socket)
	var got driver.AdoptedVolume
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.ID != "vol-1" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, args := range [][]string{{}, {"a", "b", "c"}, {"--ls", "a"}, {"-q", "a"}, {"--recycle-bin", "a"}, {"--format", "{{.Nothing}}", "a"}, {"--undo", "a"}} {
		if r := runWith(t, Config{Version: "1"}, append(append([]string{"undelete"}, args...), "--socket", socket)...); r.code != ExitUsage {
			t.Errorf("undelete %v: %+v", args, r)
		}
	}
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// result is how a command has ended.
type result struct {
	code        int
	out, errout string
}

// runWith runs `blockvol ARGS` made of cfg.
func runWith(t *testing.T, cfg Config, args ...string) result {
	t.Helper()
	root := &cobra.Command{Use: "blockvol", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(Commands(cfg)...)
	var out, errout bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errout)
	root.SetIn(strings.NewReader(""))
	root.SetArgs(args)
	code := Execute(t.Context(), root)
	return result{code, out.String(), errout.String()}
}

// answers serves the answer of one verb, whatever it is asked.
func answers(t *testing.T, verbs map[string]any) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s.sock")
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		for verb, answer := range verbs {
			if r.URL.Path == driver.AdminPath(verb) {
				result, err := json.Marshal(answer)
				if err != nil {
					t.Error(err)
				}
				_ = json.NewEncoder(w).Encode(driver.AdminLine{Result: result})
				return
			}
		}
		_ = json.NewEncoder(w).Encode(driver.AdminLine{Error: r.URL.Path + " was not expected"})
	})
	return socket
}

func bytesOf(n int64) *int64 { return &n }

// fleet are volumes as a plugin tells of them.
func fleet() driver.VolumeRows {
	return driver.VolumeRows{Cluster: "prod", Instance: "i-1", Volumes: []driver.VolumeRow{
		{Name: "cache", ID: "vol-1", Status: "available", State: "available", SizeGiB: 8, Type: "gp2", IOPS: 100, Zone: "eu-1a", Created: time.Now().Add(-49 * time.Hour), Reclaim: "delete", AccessMode: "rwo"},
		{Name: "pgdata", ID: "vol-2", Status: "mounted", State: "in-use", SizeGiB: 100, Type: "gp3", IOPS: 3000, Throughput: 125, Zone: "eu-1a", Host: "i-1", Profile: "gold", Reclaim: "retain", AccessMode: "rwo", Created: time.Now().Add(-5*time.Hour - time.Minute),
			Here: &driver.VolumeHere{State: "mounted", Device: "/dev/nvme1n1", Uses: 1, UsedBytes: bytesOf(3 << 30), FreeBytes: bytesOf(90 << 30)}, Tags: map[string]string{"team": "db", "tier": "gold"}},
		{Name: "twins", Status: "ambiguous", Problem: "two have the name: vol-3 and vol-4"},
		{Name: "wal", ID: "vol-5", Status: "attached", State: "in-use", SizeGiB: 4, Type: "io2", IOPS: 2000, Zone: "eu-1b", Host: "i-2", Reclaim: "delete", AccessMode: "rwo", Tags: map[string]string{"team": "db"}},
	}}
}

func TestTheListLinesUpAndTellsProblemsBesideTheTable(t *testing.T) {
	socket := answers(t, map[string]any{"List": fleet()})
	r := runWith(t, Config{Version: "1"}, "ls", "--socket", socket)
	want := `NAME    ID     SIZE    USED  TYPE  ZONE   HOST  STATUS     RECLAIM  ACCESS  PROFILE  AGE
cache   vol-1  8GiB    -     gp2   eu-1a  -     available  delete   rwo     -        2d
pgdata  vol-2  100GiB  3GiB  gp3   eu-1a  i-1   mounted    retain   rwo     gold     5h
twins   -      -       -     -     -      -     ambiguous  -        -       -        -
wal     vol-5  4GiB    -     io2   eu-1b  i-2   attached   delete   rwo     -        -
`
	if r.code != ExitDone || r.out != want {
		t.Errorf("exit status %d, %s\nwant\n%s", r.code, r.out, want)
	}
	if !strings.Contains(r.errout, "vol-3 and vol-4") {
		t.Errorf("the problem is not told: %q", r.errout)
	}
	r = runWith(t, Config{Version: "1"}, "ls", "--socket", socket, "--filter", "zone=eu-1b")
	if want := "NAME  ID     SIZE  USED  TYPE  ZONE   HOST  STATUS    RECLAIM  ACCESS  AGE\nwal   vol-5  4GiB  -     io2   eu-1b  i-2   attached  delete   rwo     -\n"; r.out != want {
		t.Errorf("where no volume has a profile: %s", r.out)
	}
	for d, want := range map[time.Duration]string{-time.Second: "0s", 119 * time.Second: "119s", 3 * time.Minute: "3m", 47 * time.Hour: "47h", 50 * 24 * time.Hour: "50d", 800 * 24 * time.Hour: "2y"} {
		if got := short(d); got != want {
			t.Errorf("%s is shown as %s, not %s", d, got, want)
		}
	}
}

func TestTheListIsShownAsAskedFor(t *testing.T) {
	socket := answers(t, map[string]any{"List": fleet()})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-q"}, "cache\npgdata\ntwins\nwal\n"},
		{[]string{"--format", `{{.Name}}\t{{upper .Type}} {{.Size}} {{with .Here}}{{.Device}}{{end}}`, "-f", "name=pg"}, "pgdata\tGP3 100GiB /dev/nvme1n1\n"},
		{[]string{"--format", `table {{.Name}}\t{{.SizeGiB}}\t{{json .Tags}}`, "-f", "host=i-1"}, "NAME    SIZEGIB  TAGS\npgdata  100      {\"team\":\"db\",\"tier\":\"gold\"}\n"},
		{[]string{"-q", "--filter", "name=a"}, "cache\npgdata\nwal\n"},
		{[]string{"-q", "--filter", "name=cache", "--filter", "name=wal"}, "cache\nwal\n"},
		{[]string{"-q", "--filter", "tag=team"}, "pgdata\nwal\n"},
		{[]string{"-q", "--filter", "tag=team=db", "--filter", "tag=tier=gold"}, "pgdata\n"},
		{[]string{"-q", "--filter", "tag=team=web"}, ""},
		{[]string{"-q", "--filter", "status=available", "--filter", "status=mounted"}, "cache\npgdata\n"},
		{[]string{"-q", "--filter", "type=GP3", "--filter", "zone=eu-1b"}, ""},
		{[]string{"-q", "--filter", "zone=eu-1b"}, "wal\n"},
		{[]string{"-q", "--filter", "id=vol-1"}, "cache\n"},
		{[]string{"-q", "--filter", "reclaim=retain"}, "pgdata\n"},
		{[]string{"-q", "--filter", "profile=gold", "--filter", "reclaim=delete"}, ""},
	} {
		r := runWith(t, Config{Version: "1"}, append([]string{"ls", "--socket", socket}, c.args...)...)
		if r.code != ExitDone || r.out != c.want {
			t.Errorf("ls %q: exit status %d, %q, want %q; %s", c.args, r.code, r.out, c.want, r.errout)
		}
	}
	r := runWith(t, Config{Version: "1"}, "ls", "--socket", socket, "--format", "json")
	lines := json.NewDecoder(strings.NewReader(r.out))
	for n := 0; ; n++ {
		var v driver.VolumeRow
		if err := lines.Decode(&v); errors.Is(err, io.EOF) && n == 4 {
			break
		} else if err != nil || v.Name != fleet().Volumes[n].Name || v.SizeGiB != fleet().Volumes[n].SizeGiB {
			t.Fatalf("line %d: %+v, %v in %s", n, v, err, r.out)
		}
	}
}

func TestAWrongFormatOrFilterIsToldBeforeAnythingIsAsked(t *testing.T) {
	for _, args := range [][]string{
		{"ls", "--format", "{{.Nmae}}"}, {"ls", "--format", "{{"}, {"ls", "--format", "table {{.Here.Wheels}}"}, {"ls", "--filter", "name"}, {"ls", "--filter", "name="},
		{"ls", "--filter", "wheels=4"}, {"ls", "--cluster", "prod"}, {"df", "--format", "{{.Wheels}}"}, {"df", "--filter", "tag"}, {"inspect", "v", "--format", "{{.Wheels}}"}, {"inspect"},
	} {
		r := runWith(t, Config{Version: "1"}, append(args, "--socket", "/does/not/exist.sock")...)
		if r.code != ExitUsage || r.out != "" {
			t.Errorf("%q: exit status %d, %q", args, r.code, r.out)
		}
	}
}

func TestATableIsCutToTheTerminalWidestColumnFirst(t *testing.T) {
	lines := []string{"NAME\tID\tHOST", "a-very-long-name-of-a-volume\tvol-0123456789\ti-0", "ü\tv\ti"}
	for width, want := range map[int]string{
		0:  "NAME                          ID              HOST\na-very-long-name-of-a-volume  vol-0123456789  i-0\nü                             v               i\n",
		38: "NAME              ID              HOST\na-very-long-nam…  vol-0123456789  i-0\nü                 v               i\n",
		1:  "NAME    ID      HOST\na-ver…  vol-0…  i-0\nü       v       i\n",
	} {
		var b bytes.Buffer
		if err := printTable(&b, lines, width); err != nil || b.String() != want {
			t.Errorf("%d columns: %v\n%swant\n%s", width, err, b.String(), want)
		}
	}
}

func TestInspectShowsWhatThereIsAndFailsForTheRest(t *testing.T) {
	socket := answers(t, map[string]any{"List": fleet()})
	r := runWith(t, Config{Version: "1"}, "inspect", "--socket", socket, "wal", "nobody", "vol-2")
	var got []driver.VolumeRow
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 2 || got[0].Name != "wal" || got[1].Name != "pgdata" || got[1].Here.Device != "/dev/nvme1n1" {
		t.Errorf("%v, %s", err, r.out)
	}
	if r.code != ExitFailed {
		t.Errorf("a volume that does not exist: exit status %d", r.code)
	}
	if r = runWith(t, Config{Version: "1"}, "inspect", "--socket", socket, "nobody"); r.code != ExitFailed || r.out != "[]\n" {
		t.Errorf("exit status %d, %q", r.code, r.out)
	}
	if r = runWith(t, Config{Version: "1"}, "inspect", "--socket", socket, "--format", "{{.Zone}}/{{.IOPS}}", "wal"); r.code != ExitDone || r.out != "eu-1b/2000\n" {
		t.Errorf("exit status %d, %q", r.code, r.out)
	}
}

func TestDfAddsUp(t *testing.T) {
	rows := fleet()
	rows.Volumes = slices.Delete(rows.Volumes, 2, 3)
	socket := answers(t, map[string]any{"List": rows})
	r := runWith(t, Config{Version: "1"}, "df", "--socket", socket)
	want := `NAME            SIZE    USED  IOPS  MIB/S  TYPE  HOST  IDLE
cache           8GiB    -     100   -      gp2   -     <3d
pgdata          100GiB  3GiB  3000  125    gp3   i-1   -
wal             4GiB    -     2000  -      io2   i-2   -
all (3)         112GiB  3GiB  5100  125    -     -     -
unattached (1)  8GiB    -     100   -      -     -     -
`
	if r.code != ExitDone || r.out != want {
		t.Errorf("exit status %d, %s\nwant\n%s", r.code, r.out, want)
	}
	r = runWith(t, Config{Version: "1"}, "df", "--socket", socket, "--format", "json", "--filter", "tag=team")
	if r.code != ExitDone || strings.Count(r.out, "\n") != 2 || !strings.Contains(r.out, `"iops":2000`) {
		t.Errorf("exit status %d, %s", r.code, r.out)
	}
}

// cloudOf is a cloud that anybody can ask.
type cloudOf []cloud.Volume

func (c cloudOf) List(context.Context) ([]cloud.Volume, error) {
	if c == nil {
		return nil, cloud.Errorf(cloud.ErrCredentials, "no AWS credentials were found")
	}
	return c, nil
}

// Snapshots has one of each volume.
func (c cloudOf) Snapshots(context.Context, string) (all []cloud.Snapshot, err error) {
	for _, v := range c {
		all = append(all, cloud.Snapshot{ID: "snap-of-" + v.ID, VolumeID: v.ID, Volume: v.Name, State: cloud.SnapshotCompleted})
	}
	return all, nil
}

func TestWithoutAPluginTheCloudIsAskedAndThatIsSaid(t *testing.T) {
	asked := ""
	world := cloudOf{
		{ID: "vol-1", Name: "db", SizeGiB: 10, Type: "gp3", IOPS: 3000, Zone: "eu-1a", State: cloud.InUse, Attachments: []cloud.Attachment{{Host: "i-9", State: cloud.Attached}}},
		{ID: "vol-2", Name: "twin", State: cloud.Available}, {ID: "vol-3", Name: "twin", State: cloud.Available}, {ID: "vol-4", Name: "gone", State: cloud.Deleting},
	}
	cfg := Config{Version: "1", sockets: t.TempDir(), Cloud: func(cluster string) (Lister, error) { asked = cluster; return world, nil }}
	look := func(env string, args ...string) result {
		t.Helper()
		asked = ""
		t.Setenv(clusterEnv, env)
		return runWith(t, cfg, args...)
	}
	const one = "db i-9 attached\ntwin  ambiguous\n"
	format := []string{"ls", "--format", "{{.Name}} {{.Host}} {{.Status}}"}
	if r := look("", append(format, "--cluster", "prod")...); r.code != ExitDone || r.out != one || asked != "prod" || !strings.Contains(r.errout, "EC2 itself") {
		t.Errorf("--cluster: asked for %q: %+v", asked, r)
	}
	if r := look("staging", format...); r.code != ExitDone || r.out != one || asked != "staging" || !strings.Contains(r.errout, "staging") {
		t.Errorf("%s: asked for %q: %+v", clusterEnv, asked, r)
	}
	if r := look("staging", "inspect", "vol-1", "--format", "{{.Name}}"); r.code != ExitDone || r.out != "db\n" || asked != "staging" {
		t.Errorf("inspect: asked for %q: %+v", asked, r)
	}
	if r := look("staging", "df", "--format", "{{.Name}} {{.SizeGiB}}"); r.code != ExitDone || !strings.HasPrefix(r.out, "db 10\n") {
		t.Errorf("df: %+v", r)
	}
	if r := look("", format...); r.code != ExitFailed || asked != "" {
		t.Errorf("nothing says which cluster, and %q is asked: %+v", asked, r)
	}
	world = nil
	if r := look("", append(format, "--cluster", "prod")...); r.code != ExitFailed || r.out != "" {
		t.Errorf("without credentials: %+v", r)
	}
	// One that does not answer is no reason to go past it, unless somebody wants that.
	dead := filepath.Join(cfg.sockets, "dead.sock")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	world = cloudOf{}
	if r := look("staging", format...); asked != "" || r.code != ExitFailed {
		t.Errorf("with a plugin that does not answer, EC2 is asked for %q: %+v", asked, r)
	}
	// Where a plugin runs, it is asked.
	managed := filepath.Join(cfg.sockets, "s.sock")
	plugin(t, managed, "prod", "1")
	if r := look("staging", format...); asked != "" || r.code != ExitFailed {
		t.Errorf("with a plugin here, EC2 is asked for %q: %+v", asked, r)
	}
	world = cloudOf{}
	if r := look("", append(format, "--cluster", "other")...); asked != "other" || r.code != ExitDone {
		t.Errorf("--cluster: asked for %q: %+v", asked, r)
	}
}

func TestTheShellCompletesNamesOfVolumes(t *testing.T) {
	socket := answers(t, map[string]any{"List": fleet()})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"inspect", "cache", ""}, "pgdata\ntwins\nwal\n:4\n"},
		{[]string{"detach", "w"}, "wal\n:4\n"},
		{[]string{"detach", "wal", ""}, ":4\n"},
	} {
		args := append([]string{"__complete", c.args[0], "--socket", socket}, c.args[1:]...)
		if r := runWith(t, Config{Version: "1"}, args...); r.code != ExitDone || r.out != c.want {
			t.Errorf("%q: %+v", c.args, r)
		}
	}
}

func TestExplainShowsTheSourcesSideBySideAndTheWayOut(t *testing.T) {
	e := driver.Explanation{Volume: "db", ID: "vol-1", Host: "i-1", Facts: []driver.Fact{{Source: "kernel", What: "device", Says: "none"}, {Source: "cloud", What: "attachment", Says: "attached to i-2"}},
		Refused: &driver.Refused{Call: "mount", At: time.Now().Add(-time.Minute), Text: "i-2 has it"}, Follows: []string{"this host cannot have it"}, WaysOut: []string{"wait"}}
	socket := answers(t, map[string]any{"Explain": e})
	r := runWith(t, Config{Version: "1"}, "explain", "--socket", socket, "db")
	for _, w := range []string{"volume db (vol-1), seen from i-1\n", "SOURCE  WHAT        SAYS\nkernel  device      none\ncloud   attachment  attached to i-2\n", "last refusal: mount, About a minute ago", "  i-2 has it\n",
		"what follows:\n  - this host cannot have it\n", "the way out:\n  - wait\n"} {
		if r.code != ExitDone || !strings.Contains(r.out, w) {
			t.Errorf("exit status %d, without %q:\n%s", r.code, w, r.out)
		}
	}
	var got driver.Explanation
	r = runWith(t, Config{Version: "1"}, "explain", "--socket", socket, "db", "--format", "json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.Refused.Text != "i-2 has it" {
		t.Errorf("%v, %s", err, r.out)
	}
}

func TestATerminalThatIsNarrowSeesWhatMattersMost(t *testing.T) {
	lines := []string{
		"NAME\tID\tSIZE\tUSED\tTYPE\tZONE\tHOST\tSTATUS\tRECLAIM\tACCESS\tPROFILE\tAGE",
		"pgdata\tvol-0123456789abcdef0\t100GiB\t3.1GiB\tgp3\teu-central-1a\ti-0123456789abcdef0\tmounted\tdelete\trwo\t-\t5h",
	}
	for width, want := range map[int]string{
		0: "NAME    ID                     SIZE    USED    TYPE  ZONE           HOST                 STATUS   RECLAIM  ACCESS  AGE\n" +
			"pgdata  vol-0123456789abcdef0  100GiB  3.1GiB  gp3   eu-central-1a  i-0123456789abcdef0  mounted  delete   rwo     5h\n",
		120: "NAME    ID                     SIZE    USED    TYPE  ZONE           HOST                 STATUS   RECLAIM  ACCESS  AGE\n" +
			"pgdata  vol-0123456789abcdef0  100GiB  3.1GiB  gp3   eu-central-1a  i-0123456789abcdef0  mounted  delete   rwo     5h\n",
		112: "NAME    ID                     SIZE    USED    TYPE  ZONE           HOST                 STATUS   RECLAIM  AGE\n" +
			"pgdata  vol-0123456789abcdef0  100GiB  3.1GiB  gp3   eu-central-1a  i-0123456789abcdef0  mounted  delete   5h\n",
		80: "NAME    ID          SIZE    USED    TYPE  ZONE         HOST         STATUS   AGE\n" +
			"pgdata  vol-01234…  100GiB  3.1GiB  gp3   eu-central…  i-01234567…  mounted  5h\n",
	} {
		l := listing{columns: lsColumns, spare: lsSpare, usual: true}
		var b strings.Builder
		if err := l.printIn(&b, slices.Clone(lines), width); err != nil || b.String() != want {
			t.Errorf("%d columns: %v\n%swant\n%s", width, err, b.String(), want)
		}
	}
}

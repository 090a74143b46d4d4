package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAVolumeGrowsUnderItsContainerAndIsChangedByItsOptions(t *testing.T) {
	t.Parallel()
	e := shared
	e.Plugin.Sim().Delays(t, map[string]string{"optimize": "1h"}) // no other test here modifies a volume
	v := e.NewVolume(t, "size=1GiB", "fstype=xfs")
	// The writer numbers its rows, and says what it has synced.
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")},
		`n=0; while [ ! -e /stop ]; do n=$((n+1)); echo $n >>/data/rows; sync; echo $n >/synced; done; sync; touch /stopped; exec sleep 1000`)
	synced := func() int {
		t.Helper()
		n, _ := strconv.Atoi(strings.TrimSpace(e.Try("exec", c, "cat", "/synced").Stdout))
		return n
	}
	kib := func() int {
		t.Helper()
		n, err := strconv.Atoi(e.Docker(t, "exec", c, "sh", "-c", "df -Pk /data | tail -1 | awk '{print $2}'"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	Eventually(t, 60*time.Second, func() error { return e.Try("exec", c, "test", "-e", "/synced").Err() })
	if n := kib(); n > 1<<20 {
		t.Errorf("it begins with %d KiB", n)
	}
	before := synced()
	e.verb(t, verbDone, []string{"dry run", "size: 1 GiB -> 3 GiB"}, "", "update", v, "size=+2GiB", "--dry-run")
	e.verb(t, verbFailed, []string{v, "cannot be made smaller again", "not confirmed"}, "", "update", v, "size=3")
	e.verb(t, verbDone, []string{"size: 1 GiB -> 3 GiB", "the filesystem has its new size", "optimizes"}, "y\n", "update", v, "size=+2GiB")
	if n := kib(); n < 5<<19 {
		t.Errorf("df in the container shows %d KiB", n)
	}
	if st := e.Inspect(t, v).Status; st["size"] != "3 GiB" {
		t.Errorf("docker volume inspect shows %v", st)
	}
	e.verb(t, verbFailed, []string{v, "cannot be modified yet", "optimizing"}, "", "update", v, "size=4", "-y")
	e.verb(t, verbFailed, []string{v, "size is 3 GiB", "can only grow"}, "", "update", v, "size=2", "-y")
	e.verb(t, verbFailed, []string{"fstype cannot be changed", "copy the files"}, "", "update", v, "fstype=ext4")
	e.verb(t, verbFailed, []string{"there is no volume"}, "", "update", v+"-not", "size=9")
	e.verb(t, verbDone, []string{"nothing to change"}, "", "update", v, "size=3GiB", "reclaim=delete")
	e.verb(t, verbDone, []string{`tag.Team: not set -> "db"`, "mount-options: not set -> noatime", "next mount"}, "", "update", v, "tag.Team=db", "mount-options=noatime")
	e.verb(t, verbDone, []string{`tag.Team: "db" -> not set`}, "", "update", v, "tag.Team-")

	Eventually(t, 60*time.Second, func() error {
		return e.Try("exec", c, "sh", "-c", "test $(cat /synced) -gt "+strconv.Itoa(before+3)).Err()
	})
	e.Docker(t, "exec", c, "touch", "/stop")
	Eventually(t, 60*time.Second, func() error { return e.Try("exec", c, "test", "-e", "/stopped").Err() })
	want := synced()
	e.Docker(t, "rm", "-f", c)
	got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "wc -l </data/rows; tail -1 /data/rows; grep -c noatime /proc/self/mounts")
	lines := strings.Fields(got)
	if len(lines) != 3 || lines[0] != strconv.Itoa(want) || lines[1] != strconv.Itoa(want) || lines[2] == "0" {
		t.Errorf("the container has written %d rows; there are %q", want, got)
	}
}

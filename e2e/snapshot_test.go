package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A PostgreSQL that pgbench works on all the time: a snapshot is made under it, and a second one starts on the volume that is made of that, beside the
// first and on the same host.
func TestASnapshotOfADatabaseHoldsEveryTransactionThatWasCommitted(t *testing.T) {
	t.Parallel()
	e := shared
	e.Image(t, postgres)
	database := func(volume string, noted int) bank {
		b := bank{&writer{e: e, volume: volume, container: e.Container(t), notes: filepath.Join(e.Dir, "notes", volume)}}
		if err := os.MkdirAll(b.notes, 0o755); err != nil {
			t.Fatal(err)
		}
		if noted > 0 {
			if err := os.WriteFile(filepath.Join(b.notes, "row"), []byte(strconv.Itoa(noted)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		e.Docker(t, "run", "-d", "--name", b.container, "--network", "none", "--shm-size", "128m", "--mount", e.on(volume, "/var/lib/postgresql/data"), "-v", b.notes+":/notes", postgres)
		b.answers(t)
		return b
	}
	v, restored := e.NewVolume(t, "size=2GiB", "mount-options=noatime", "tag.team=shop"), e.VolumeName(t)
	e.verb(t, verbFailed, []string{v, "no filesystem yet"}, "", "snapshot", "create", v)
	b := database(v, 0)
	e.Docker(t, "exec", b.container, "createdb", "shop")
	e.Docker(t, "exec", b.container, "pgbench", "-i", "-q", "shop")
	b.query(t, "create table noted (n int primary key)")
	b.clients(t)

	var id string
	var noted int
	Eventually(t, 3*time.Minute, func() error { // on a busy machine the simulator may take longer than a filesystem may stand still
		noted = b.noted()
		r := e.Verb("", "snapshot", "create", "--description", "under pgbench", "--wait", v)
		id = r.Stdout
		return r.Err()
	})
	b.writes(t)
	if got := e.verb(t, verbDone, nil, "", "snapshot", "ls", v, "--format", "{{.ID}} {{.Volume}} {{.State}} {{.Consistency}} {{.Description}}"); got != fmt.Sprintf("%s %s completed frozen under pgbench", id, v) {
		t.Errorf("the list of snapshots: %q", got)
	}
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "snapshot-id=latest:"+v, restored)
	second := database(restored, noted)
	if log := e.Try("logs", second.container); strings.Contains(log.Stdout+log.Stderr, "PANIC") || strings.Contains(log.Stdout+log.Stderr, "FATAL:  could not") {
		t.Errorf("the recovery was not clean:\n%s\n%s", log.Stdout, log.Stderr)
	}
	second.balanced(t)
	e.Docker(t, "exec", second.container, "sh", "-c", "pg_dump shop >/dev/null")
	if now := b.noted(); now <= noted {
		t.Errorf("the first database has committed %d transactions, and %d before the snapshot", now, noted)
	}
	b.balanced(t)

	for want, opts := range map[string][]string{
		"there is no snapshot snap-0123456789abcdef0": {"snapshot-id=snap-0123456789abcdef0"},
		"no snapshot of a volume \"none\"":            {"snapshot-id=latest:none"},
		"cannot have less":                            {"snapshot-id=" + id, "size=1GiB"},
		"is not formatted again with xfs":             {"snapshot-id=" + id, "fstype=xfs"},
		"never formatted; leave it out":               {"from=" + v, "mkfs-options=-m 0"},
		"there is no volume \"none\"":                 {"from=none"},
	} {
		args := []string{"volume", "create", "-d", e.driver()}
		for _, o := range opts {
			args = append(args, "-o", o)
		}
		e.DockerFails(t, []string{want}, append(args, e.VolumeName(t))...)
	}
	e.verb(t, verbFailed, []string{id, "under pgbench", "Delete 1 snapshot for good?"}, "n\n", "snapshot", "rm", id)
	e.verb(t, verbDone, []string{id}, "y\n", "snapshot", "rm", id)
	if got := e.verb(t, verbDone, nil, "", "snapshot", "ls", "-q", v); got != "" {
		t.Errorf("left are the snapshots %q", got)
	}
	for _, c := range []bank{b, second} {
		e.Docker(t, "rm", "-f", c.container)
	}
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", v, restored).Err() })
}

// With the plugin the kernel kills all its processes, also the one that would thaw: dockerd starts it again, and then the container's writes go on.
func (p *Plugin) dieFrozen(t *testing.T, s *AloneSim) {
	e := p.e
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "exec sleep 1000")
	file := filepath.Join(p.StateDir(), "crash-at")
	if err := os.WriteFile(file, []byte("frozen"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := e.Verb("", "snapshot", "create", v); r.Code == 0 {
		t.Errorf("a plugin that died made the snapshot %s", r.Stdout)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the plugin did not die: %v", err)
	}
	e.Docker(t, "exec", c, "sh", "-c", "echo row >/data/row && sync")
	Eventually(t, settled, func() error { return e.Verb("", "snapshot", "create", v).Err() })
	e.Docker(t, "exec", c, "grep", "-qx", "row", "/data/row")
	e.Docker(t, "rm", "-f", c)
	Eventually(t, letGo, func() error {
		if vs := s.Volumes(t, v); len(vs) != 1 || len(vs[0].Attachments) > 0 {
			return fmt.Errorf("the account has %+v", vs)
		}
		return nil
	})
}

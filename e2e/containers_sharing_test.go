package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTwoContainersShareAVolumeAndTheEndOfOneDoesNotDisturbTheOther(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	first := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, counter("/data/first"))
	second := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, counter("/data/second"))
	e.grows(t, first, "/data/second")
	e.grows(t, second, "/data/first")
	e.Docker(t, "stop", first)
	e.grows(t, second, "/data/second")
	if err := e.isAttached(t, v); err != nil {
		t.Fatal(err)
	}
	e.staysAttached(t, v)
	e.grows(t, second, "/data/second")
	id := e.cloudVolume(t, v).ID
	if got := e.callsFor(t, id); got != "AttachVolume 1, CreateTags 2" {
		t.Errorf("two containers on one volume took these calls: %s", got)
	}
	e.Docker(t, "stop", second)
	e.Detached(t, v)
	if got := e.callsFor(t, id); got != "AttachVolume 1, CreateTags 2, DetachVolume 1" {
		t.Errorf("two containers on one volume and the detachment took these calls: %s", got)
	}
	// Both wrote whole lines, from 1 without a gap.
	check := "for f in first second; do awk '$1 != NR { exit 1 }' /data/$f || echo $f is damaged; done"
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, check); got != "" {
		t.Error(got)
	}
}

func TestAContainerCanHaveAVolumeTwice(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"-v", v + ":/a", "-v", v + ":/b"}, counter("/a/lines"))
	e.grows(t, c, "/b/lines")
	e.Docker(t, "exec", c, "sh", "-c", "echo here >/b/file")
	if got := e.Docker(t, "exec", c, "cat", "/a/file"); got != "here" {
		t.Errorf("what was written in /b reads in /a as %q", got)
	}
	if err := e.isAttached(t, v); err != nil {
		t.Error(err)
	}
	e.Docker(t, "rm", "-f", c)
	e.Detached(t, v)
}

func TestAReadOnlyUseCannotWriteAndTheNextUseCan(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file")
	for _, flags := range [][]string{{"-v", v + ":/data:ro"}, {"--mount", e.on(v, "/data", "readonly")}} {
		got := e.Busybox(t, flags, "cat /data/file; if echo changed >/data/file || touch /data/new; then echo it could write; fi 2>&1")
		if strings.Contains(got, "it could write") || !strings.HasPrefix(got, "kept") {
			t.Errorf("a container with %v says:\n%s", flags, got)
		}
	}
	// A reader beside a writer: the writer goes on writing.
	reader := e.RunDetached(t, []string{"-v", v + ":/data:ro"}, "sleep 1000")
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo more >>/data/file")
	if got := e.Docker(t, "exec", reader, "cat", "/data/file"); got != "kept\nmore" {
		t.Errorf("the reader sees %q", got)
	}
	e.DockerFails(t, []string{"Read-only file system"}, "exec", reader, "touch", "/data/new")
	e.Docker(t, "rm", "-f", reader)
	e.Detached(t, v)
}

func TestVolumesFromGivesAnotherContainerTheSameVolume(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB")
	first := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, counter("/data/first"))
	second := e.RunDetached(t, []string{"--volumes-from", first}, counter("/data/second"))
	third := e.RunDetached(t, []string{"--volumes-from", first + ":ro"}, "sleep 1000")
	e.grows(t, third, "/data/first")
	e.grows(t, third, "/data/second")
	e.DockerFails(t, []string{"Read-only file system"}, "exec", third, "touch", "/data/new")
	e.Docker(t, "rm", "-f", first)
	e.grows(t, third, "/data/second")
	e.Docker(t, "rm", "-f", third)
	e.staysAttached(t, v)
	e.grows(t, second, "/data/second")
	e.Docker(t, "rm", "-f", second)
	e.Detached(t, v)
}

// One container writes a page every second, another serves it: what many people run first.
func TestAReaderServesWhatAWriterWrites(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB", "fstype=xfs")
	writer := e.RunDetached(t, []string{"--mount", e.on(v, "/www")},
		"n=0; while n=$((n+1)); do echo \"<p>page $n</p>\" >/www/new && mv /www/new /www/index.html && sleep 1; done")
	reader := e.RunDetached(t, []string{"--network", "none", "--mount", e.on(v, "/www", "readonly")}, "exec httpd -f -p 127.0.0.1:80 -h /www")
	page := func() int {
		var n int
		Eventually(t, 20*time.Second, func() error {
			r := e.Try("exec", reader, "wget", "-q", "-O", "-", "http://127.0.0.1/")
			if err := r.Err(); err != nil {
				return err
			}
			_, err := fmt.Sscanf(r.Stdout, "<p>page %d</p>", &n)
			return err
		})
		return n
	}
	fresh := func(than int) {
		Eventually(t, 20*time.Second, func() error {
			if n := page(); n == than {
				return fmt.Errorf("the reader still serves page %d", n)
			}
			return nil
		})
	}
	fresh(page())
	// The writer is replaced under the reader, and the reader under the writer.
	e.Docker(t, "restart", "-t", "1", writer)
	fresh(page())
	e.Docker(t, "restart", "-t", "1", reader)
	fresh(page())
	e.Docker(t, "rm", "-f", writer, reader)
	e.Detached(t, v)
}

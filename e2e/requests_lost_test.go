package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// wire is an engine whose requests to the plugin can get lost, and a simulated EC2 that outlives the plugin.
type wire struct {
	e   *Engine
	s   *AloneSim
	tap *Tap
}

// patience is how long anything may take here. After a Mount that nobody waits for, or a use that nobody will end, the plugin keeps a volume for
// 30 s, and the machine may be slow.
const patience = 2 * time.Minute

// letGo waits until nothing of the volume is on the host.
func (e *Engine) letGo(t testing.TB, v string) {
	t.Helper()
	Eventually(t, patience, func() error {
		if vol := e.cloudVolume(t, v); len(vol.Attachments) > 0 { // the whole look costs more, and many wait at the same time
			time.Sleep(400 * time.Millisecond)
			return fmt.Errorf("volume %s is attached: %+v", v, vol.Attachments)
		}
		return e.isDetached(t, v)
	})
}

// dockerd loses requests and answers, repeats them without their content, uses mount IDs twice, forgets them, and forgets who uses a volume.
// Nothing of it may take a volume from a container, delete one, make a second one, or leave one attached.
func TestLostAndRepeatedRequestsLoseAndLeakNothing(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	s := e.aloneSim(t, "--instance", "", "--delay-create", "200ms", "--delay-attach", "300ms", "--delay-detach", "300ms")
	p := s.install(t, e, "CLUSTER=wire", "LOG_LEVEL=debug", "DETACH_GRACE=500ms")
	w := &wire{e, s, p.Tap(t)}
	// They wait most of the time, so they do it side by side. The longest come first.
	w.rows(t,
		row{"a Mount that comes after dockerd has given up", w.mountLate},
		row{"a Mount that takes too long", w.mountSlow},
		row{"users that dockerd has forgotten, and a Remove", w.usersForgotten},
		row{"a Mount that is cut and repeated", w.mountCutAndRepeated},
		row{"a Mount that is cut and forgotten", w.mountCutAndForgotten},
		row{"an Unmount that is lost, and an ID that is used again", w.unmountLost},
		row{"an Unmount whose answer is lost", w.unmountAnswerLost},
		row{"an Unmount that nobody asked for", w.unmountUnknown},
		row{"a Create whose answer is lost", w.createAnswerLost},
		row{"a Remove whose answer is lost", w.removeAnswerLost},
		row{"docker cp whose Mount is refused", w.copyRefused},
		row{"docker cp while EC2 refuses everything", w.copyWithoutEC2},
		row{"docker cp of a stopped container while EC2 refuses to attach", w.copyOfStopped},
		row{"a mount that is lost before the container has it", w.mountGone},
		row{"--mount with --volume-driver", w.mountWithoutDriver},
	)
	t.Run("the plugin is killed in the middle of requests", w.killed)
}

// row is one way for requests to go wrong.
type row struct {
	name string
	test func(t *testing.T)
}

// rowsAtOnce is how many rows go on at a time.
const rowsAtOnce = 6

func (w *wire) rows(t *testing.T, rows ...row) {
	todo := make(chan row)
	var workers sync.WaitGroup
	for range rowsAtOnce {
		workers.Go(func() {
			for r := range todo {
				t.Run(r.name, r.test)
			}
		})
	}
	for _, r := range rows {
		todo <- r
	}
	close(todo)
	workers.Wait()
}

// attachments counts how often EC2 was asked to attach a volume.
func (w *wire) attachments(t testing.TB, v string) (n int) {
	t.Helper()
	fmt.Sscanf(w.e.callsFor(t, w.e.cloudVolume(t, v).ID), "AttachVolume %d", &n)
	return n
}

// told fails the test unless dockerd has asked exactly that for a volume.
func (w *wire) told(t testing.TB, v, want string) {
	t.Helper()
	if got := w.tap.story(v); got != want {
		t.Errorf("dockerd asked for %s, not %s", got, want)
	}
}

func (w *wire) unmountLost(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
	starts(t, e, c, 1)
	w.tap.Next("Unmount", v, lost)
	e.Docker(t, "stop", c)
	e.Docker(t, "start", c)
	starts(t, e, c, 2)
	if err := e.isAttached(t, v); err != nil {
		t.Error(err)
	}
	// The ID is counted twice by now, and given back once.
	e.Docker(t, "stop", c)
	w.told(t, v, "Create, Mount 1, Unmount 1, Mount 1, Unmount 1")
	e.letGo(t, v)
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, wholeLines); got != "2" {
		t.Errorf("the volume holds after two starts: %s", got)
	}
	e.letGo(t, v)
}

func (w *wire) unmountAnswerLost(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, startAndCount)
	starts(t, e, c, 1)
	w.tap.Next("Unmount", v, answerLost)
	e.Docker(t, "stop", c)
	e.letGo(t, v)
	e.Docker(t, "start", c)
	starts(t, e, c, 2)
	e.Docker(t, "stop", c)
	w.told(t, v, "Create, Mount 1, Unmount 1, Mount 1, Unmount 1")
	e.letGo(t, v)
	if w.tap.retries("Unmount") == 0 {
		t.Error("dockerd has not repeated an Unmount without its content: nothing was tried")
	}
}

func (w *wire) unmountUnknown(t *testing.T) {
	e := w.e
	v, idle := e.NewVolume(t, "size=1GiB"), e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, counter("/data/lines"))
	e.grows(t, c, "/data/lines")
	plugin := e.Plugin.Socket(t)
	for _, in := range []map[string]string{{"Name": v, "ID": "nobody"}, {"Name": v, "ID": ""}, {"Name": idle, "ID": "nobody"}, {"Name": "no-such-volume", "ID": "nobody"}} {
		if err := plugin.Do("Unmount", in); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(e.isAttached(t, v), e.isDetached(t, idle)); err != nil {
		t.Error(err)
	}
	e.staysAttached(t, v)
	e.grows(t, c, "/data/lines")
	e.Docker(t, "stop", c)
	e.letGo(t, v)
}

func (w *wire) createAnswerLost(t *testing.T) {
	e := w.e
	v := e.VolumeName(t)
	create := []string{"volume", "create", "-d", e.driver(), "-o", "size=1GiB", "--label", "team=db", v}
	w.tap.Next("Create", v, answerLost)
	readable(t, e.DockerFails(t, nil, create...), "connection to blockvol broke", "try again")
	id := e.cloudVolume(t, v).ID
	e.Docker(t, create...)
	if got := e.cloudVolume(t, v); got.ID != id {
		t.Errorf("the repeated create made %s beside %s", got.ID, id)
	}
	if got := e.Inspect(t, v); got.Labels["team"] != "db" {
		t.Errorf("the labels are %v", got.Labels)
	}
	created := 0
	for _, c := range w.s.Calls(t) {
		if c.Action == "CreateVolume" && slices.Contains(values(c.Params), v) {
			created++
		}
	}
	if created != 1 || w.tap.retries("Create") == 0 {
		t.Errorf("%d calls of CreateVolume, %d requests without content", created, w.tap.retries("Create"))
	}
}

func (w *wire) removeAnswerLost(t *testing.T) {
	e := w.e
	v, other := e.NewVolume(t, "size=1GiB"), e.NewVolume(t, "size=1GiB")
	id := e.cloudVolume(t, v).ID
	w.tap.Next("Remove", v, answerLost)
	readable(t, e.DockerFails(t, nil, "volume", "rm", v), "connection to blockvol broke", "try again")
	if r := e.Try("volume", "rm", v); r.Code != 0 && !strings.Contains(r.Stderr, "o such volume") {
		t.Errorf("the volume is gone, and %v", r.Err())
	}
	if ls := e.Docker(t, "volume", "ls", "-q", "--filter", "name="+v); ls != "" {
		t.Errorf("docker volume ls still shows %s", ls)
	}
	if got := e.callsFor(t, id); got != "DeleteVolume 1" {
		t.Errorf("the volume was deleted by %s", got)
	}
	if e.cloudVolume(t, other).State != "available" || w.tap.retries("Remove") == 0 {
		t.Errorf("the other volume is %+v, and there were %d requests without content", e.cloudVolume(t, other), w.tap.retries("Remove"))
	}
}

// slowAttach makes the attachment take so long that a connection can be cut while it goes on.
func (w *wire) slowAttach(t testing.TB, v string) {
	t.Helper()
	w.s.InjectFor(t, Fault{Kind: "delay", Action: "AttachVolume", Volume: w.e.cloudVolume(t, v).ID, Duration: "4s"})
}

func (w *wire) mountCutAndRepeated(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	w.slowAttach(t, v)
	w.tap.Next("Mount", v, cutAfter(500*time.Millisecond))
	c := e.Container(t)
	e.Docker(t, "create", "--name", c, "--stop-timeout", "1", "--mount", e.on(v, "/data"), busybox, "sh", "-c", startAndCount)
	readable(t, e.DockerFails(t, nil, "start", c), "connection to blockvol broke", "try again")
	e.Docker(t, "start", c)
	starts(t, e, c, 1)
	w.told(t, v, "Create, Mount 1, Mount 2") // nothing gives the first ID back
	if n := w.attachments(t, v); n != 1 {
		t.Errorf("EC2 was asked %d times to attach the volume", n)
	}
	e.Docker(t, "stop", c)
	e.letGo(t, v)
}

func (w *wire) mountCutAndForgotten(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	w.slowAttach(t, v)
	w.tap.Next("Mount", v, cutAfter(500*time.Millisecond))
	e.DockerFails(t, []string{"try again"}, "run", "--rm", "--name", e.Container(t), "--mount", e.on(v, "/data"), busybox, "true")
	Eventually(t, patience, func() error {
		if n := w.attachments(t, v); n != 1 {
			return fmt.Errorf("EC2 was asked %d times to attach the volume: nothing was tried", n)
		}
		return nil
	})
	e.letGo(t, v)
	w.told(t, v, "Create, Mount 1")
}

// After docker plugin enable dockerd waits for 30 s, whatever its own documents say.
func (w *wire) mountLate(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	waited := make(chan time.Duration, 1)
	w.tap.Next("Mount", v, late(waited))
	c := e.Container(t)
	e.Docker(t, "create", "--name", c, "--stop-timeout", "1", "--mount", e.on(v, "/data"), busybox, "sh", "-c", startAndCount)
	e.DockerFails(t, nil, "start", c)
	d := <-waited
	t.Logf("dockerd waited for %.1f s", d.Seconds())
	if d < 26*time.Second {
		t.Errorf("dockerd waited for %.1f s; the plugin must answer before that, and takes up to 24 s", d.Seconds())
	}
	Eventually(t, patience, func() error {
		if n := w.attachments(t, v); n != 1 {
			return fmt.Errorf("EC2 was asked %d times to attach the volume: the request that came late was not carried out", n)
		}
		return nil
	})
	e.letGo(t, v)
	w.told(t, v, "Create, Mount 1") // dockerd never takes back what timed out
	e.Docker(t, "start", c)
	starts(t, e, c, 1)
	e.Docker(t, "stop", c)
	e.letGo(t, v)
}

func (w *wire) mountSlow(t *testing.T) {
	e := w.e
	v := e.NewVolume(t, "size=1GiB")
	// EC2 takes its time for the attachment, and for both tags.
	w.s.InjectFor(t, Fault{Kind: "delay", Action: "AttachVolume", Volume: e.cloudVolume(t, v).ID, Duration: "8500ms"})
	w.s.InjectFor(t, Fault{Kind: "delay", Action: "CreateTags", Volume: e.cloudVolume(t, v).ID, Duration: "8500ms", Times: 2})
	c := e.Container(t)
	e.Docker(t, "create", "--name", c, "--stop-timeout", "1", "--mount", e.on(v, "/data"), busybox, "sh", "-c", startAndCount)
	began := time.Now()
	said := e.DockerFails(t, nil, "start", c)
	t.Logf("the plugin answered after %.1f s", time.Since(began).Seconds())
	readable(t, said, v, "still making the filesystem", "the work goes on", "try again") // and not that dockerd has lost patience
	// It goes on, without anybody who wants it any more.
	Eventually(t, patience, func() error { return e.isAttached(t, v) })
	e.letGo(t, v)
	w.told(t, v, "Create, Mount 1")
	e.Docker(t, "start", c)
	starts(t, e, c, 1)
	e.Docker(t, "stop", c)
	e.letGo(t, v)
}

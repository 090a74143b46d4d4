package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// volumesOf returns the names of a container's volumes by where they are mounted.
func (e *Engine) volumesOf(t testing.TB, c string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, line := range strings.Fields(e.Docker(t, "inspect", "-f", "{{range .Mounts}}{{.Destination}}={{.Name}} {{end}}", c)) {
		at, v, _ := strings.Cut(line, "=")
		found[at] = v
	}
	return found
}

func TestOnlyAnonymousVolumesEndWithTheirContainer(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name string
		run  []string
		end  []string
	}{
		{"rm -v", nil, []string{"rm", "-f", "-v"}},
		{"run --rm", []string{"--rm"}, []string{"stop"}},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			e := shared
			named := e.NewVolume(t, "size=1GiB")
			c := e.RunDetached(t, append(how.run, "-v", "/anonymous", "-v", named+":/named", "--volume-driver", e.driver()),
				"echo kept >/named/file; echo lost >/anonymous/file; sync; trap 'exit 0' TERM; sleep 1000 & wait")
			anonymous := e.volumesOf(t, c)["/anonymous"]
			t.Cleanup(func() { e.Try("volume", "rm", "-f", anonymous) })
			if err := e.isAttached(t, anonymous); err != nil {
				t.Fatal(err)
			}
			id := e.cloudVolume(t, anonymous).ID
			Eventually(t, 20*time.Second, func() error { return e.Try("exec", c, "cat", "/anonymous/file").Err() })
			e.Docker(t, append(how.end, c)...)
			Eventually(t, settled, func() error {
				if vs := e.Plugin.Sim().Volumes(t, anonymous); len(vs) != 0 {
					return fmt.Errorf("the anonymous volume is still there: %+v", vs)
				}
				if ls := e.Docker(t, "volume", "ls", "-q"); strings.Contains(ls, anonymous) {
					return fmt.Errorf("docker volume ls still shows %s", anonymous)
				}
				return nil
			})
			if got := e.callsFor(t, id); got != "AttachVolume 1, CreateTags 2, DeleteVolume 1, DetachVolume 1" {
				t.Errorf("the anonymous volume took these calls: %s", got)
			}
			if d := deviceFiles(id); len(d) != 0 {
				t.Errorf("devices of the deleted volume: %v", d)
			}
			e.Detached(t, named)
			if got := e.Busybox(t, []string{"-v", named + ":/named"}, "cat /named/file"); got != "kept" {
				t.Errorf("the named volume holds %q", got)
			}
		})
	}
}

func TestAnAnonymousVolumeIsKeptWhereNobodyAsksForItsEnd(t *testing.T) {
	t.Parallel()
	e := shared
	c := e.RunDetached(t, []string{"-v", "/data", "--volume-driver", e.driver()}, "echo kept >/data/file")
	v := e.volumesOf(t, c)["/data"]
	t.Cleanup(func() { e.Try("volume", "rm", "-f", v) })
	e.Docker(t, "wait", c)
	e.Docker(t, "rm", c)
	e.Detached(t, v)
	if got := e.Busybox(t, []string{"-v", v + ":/data"}, "cat /data/file"); got != "kept" {
		t.Errorf("the volume holds %q", got)
	}
	e.Docker(t, "volume", "rm", v)
}

func TestWhenOneOfSeveralVolumesFailsTheOthersAreLetGo(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name  string
		spoil func(t *testing.T, e *Engine, bad SimVolume)
		said  []string
		mend  func(t *testing.T, e *Engine, bad SimVolume)
	}{
		{"AttachVolume is denied",
			func(t *testing.T, e *Engine, bad SimVolume) {
				e.Plugin.Sim().control(t, "POST", "faults", Fault{ID: bad.ID, Kind: "error", Action: "AttachVolume", Volume: bad.ID, Times: -1,
					Code: "UnauthorizedOperation", Status: 403, Message: "You are not authorized to perform this operation."}, nil)
			},
			[]string{"not allowed", "iam-policy.json"},
			func(t *testing.T, e *Engine, bad SimVolume) {
				e.Plugin.Sim().control(t, "DELETE", "faults?id="+bad.ID, nil, nil) // this fault only: other tests run side by side
			},
		},
		{"foreign data",
			func(t *testing.T, e *Engine, bad SimVolume) {
				if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-L", "photos", bad.hostFile(e)).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			},
			[]string{"photos"},
			func(t *testing.T, e *Engine, bad SimVolume) {
				if err := os.Truncate(bad.hostFile(e), 0); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(bad.hostFile(e), bad.Size<<30); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			e := shared
			volumes := []string{e.NewVolume(t, "size=1GiB"), e.NewVolume(t, "size=1GiB"), e.NewVolume(t, "size=1GiB")}
			bad := e.cloudVolume(t, volumes[1])
			how.spoil(t, e, bad)
			before := digest(t, bad.hostFile(e))
			run := []string{"--network", "none"}
			for i, v := range volumes {
				run = append(run, "--mount", e.on(v, fmt.Sprintf("/data%d", i)))
			}
			// dockerd takes a container's volumes in a random order: once at least a good one must come before the bad one.
			for attempt, others := 0, 0; others == 0; attempt++ {
				if attempt == 50 {
					t.Fatal("in 50 attempts the bad volume always came first")
				}
				c := e.Container(t)
				e.DockerFails(t, append(how.said, volumes[1], bad.ID), append(append([]string{"run", "--name", c}, run...), busybox, "true")...)
				e.Docker(t, "rm", c)
				for _, v := range []string{volumes[0], volumes[2]} {
					if strings.Contains(e.callsFor(t, e.cloudVolume(t, v).ID), "AttachVolume") {
						others++
					}
				}
			}
			for _, v := range volumes {
				e.Detached(t, v)
			}
			if digest(t, bad.hostFile(e)) != before {
				t.Error("the bytes of the bad volume have changed")
			}
			how.mend(t, e, bad)
			if got := e.Busybox(t, run, "for d in /data0 /data1 /data2; do echo here >$d/file && cat $d/file; done"); got != "here\nhere\nhere" {
				t.Errorf("after the cause has gone the container says %q", got)
			}
			for _, v := range volumes {
				e.Detached(t, v)
			}
		})
	}
}

// hostFile is the file with the volume's data, as the host sees it.
func (v SimVolume) hostFile(e *Engine) string { return e.Plugin.Sim().dir + "/volumes/" + v.ID }

// digest is a checksum of a sparse file's content.
func digest(t testing.TB, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := f.WriteTo(h); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestTenCreatesAtOnceMakeOneVolume(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.VolumeName(t)
	all := func(n int, args ...string) {
		results := make([]Result, n)
		var wg sync.WaitGroup
		for i := range results {
			wg.Add(1)
			go func() {
				defer wg.Done()
				results[i] = e.Try(args...)
			}()
		}
		wg.Wait()
		for _, r := range results {
			if err := r.Err(); err != nil {
				t.Error(err)
			}
		}
	}
	all(10, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", v)
	id := e.cloudVolume(t, v).ID
	creates := slices.DeleteFunc(e.Plugin.Sim().Calls(t), func(c Call) bool {
		return c.Action != "CreateVolume" || !slices.Contains(values(c.Params), v)
	})
	if len(creates) != 1 {
		t.Errorf("%d CreateVolume calls for one volume: %+v", len(creates), creates)
	}
	// And containers that start on it at once attach and format it once.
	all(5, "run", "--rm", "--network", "none", "--mount", e.on(v, "/data"), busybox, "sh", "-c", "echo here >>/data/lines && sleep 1")
	if got := e.callsFor(t, id); !strings.HasPrefix(got, "AttachVolume 1, CreateTags 2") {
		t.Errorf("five containers at once took these calls: %s", got)
	}
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "wc -l </data/lines"); got != "5" {
		t.Errorf("five containers wrote %s lines", got)
	}
	e.Detached(t, v)
}

func values(m map[string]string) (vs []string) {
	for _, v := range m {
		vs = append(vs, v)
	}
	return vs
}

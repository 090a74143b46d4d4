package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"golang.org/x/sys/unix"
)

// look asks the socket as a monitor does.
func (r *rig) look(path string) (int, string) {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	res, err := client.Get("http://plugin" + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// soon is eventually with the patience of a busy machine.
func (r *rig) soon(what string, cond func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if cond() {
			return
		}
	}
	_, now := r.look("/readyz")
	r.t.Fatalf("within a minute not true: %s; now: %s", what, now)
}

// shows waits until readiness tells of a problem, in both formats, with all these words in its line.
func (r *rig) shows(kind, volume string, words ...string) {
	r.t.Helper()
	since := time.Now()
	r.soon(kind+" is told", func() bool {
		status, body := r.look("/readyz?format=json")
		var h Health
		if err := json.Unmarshal([]byte(body), &h); err != nil {
			r.t.Fatalf("%q: %v", body, err)
		}
		for _, p := range h.Problems {
			if p.Kind != kind || p.Volume != volume {
				continue
			}
			if status != http.StatusServiceUnavailable || h.Ready {
				r.t.Errorf("status %d, ready %v, with the problem %v", status, h.Ready, p)
			}
			if p.Since.After(time.Now()) || p.Since.Before(since.Add(-time.Minute)) || p.Text == "" || p.WayOut == "" {
				r.t.Errorf("%+v", p)
			}
			line := p.String()
			for _, w := range append(words, kind+": ", p.Since.UTC().Format(time.RFC3339), p.WayOut) {
				if !strings.Contains(line, w) || strings.Contains(line, "\n") {
					r.t.Errorf("the line %q does not say %q", line, w)
				}
			}
			return true
		}
		return false
	})
	if status, body := r.look("/healthz"); status != http.StatusOK || body != "ok\n" {
		r.t.Errorf("not live: %d %q", status, body)
	}
}

// free waits until a volume is detached.
func (r *rig) free(name string) {
	r.t.Helper()
	r.soon(name+" is free", func() bool { return r.status(name)["state"] == "free" })
}

func (r *rig) heals() {
	r.t.Helper()
	r.soon("ready", func() bool { status, body := r.look("/readyz"); return status == http.StatusOK && body == "ok\n" })
}

// startWith is start with something else in the Manager's Config.
func (r *rig) startWith(change func(*Config)) {
	r.t.Helper()
	manager, err := r.plan().manager(r.log, change)
	if err != nil {
		r.t.Fatal(err)
	}
	r.manager = manager
	r.t.Cleanup(r.unmountAll)
	r.serve()
}

// part is a part of a test on the same rig.
func (r *rig) part(name string, f func(t *testing.T, r *rig)) {
	r.t.Run(name, func(t *testing.T) {
		two := *r
		two.t = t
		f(t, &two)
		two.t = r.t
		*r = two
	})
}

func TestReadinessTellsEachProblemOfAVolumeUntilItEnds(t *testing.T) {
	t.Parallel()
	r := newMachine(t, func(t *Timing) {
		t.Stuck, t.Drain, t.Silence, t.HealthWait = 500*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond, 300*time.Millisecond
		t.Request, t.Detach, t.AskCloud = 10*time.Second, 5*time.Second, 500*time.Millisecond
	})
	var grab atomic.Pointer[func()] // called once, when DetachVolume was accepted
	r.startWith(func(c *Config) {
		c.Step = func(s Step, _ int) {
			if s == StepDetachSent {
				if f := grab.Swap(nil); f != nil {
					(*f)()
				}
			}
		}
	})
	r.heals()
	inject := func(f ec2sim.Fault) {
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	usual := r.sim.Delays()

	r.part("attaching", func(t *testing.T, r *rig) {
		r.create("slow")
		d := usual
		d.Attach = 2 * time.Second
		r.sim.SetDelays(d)
		mounted := make(chan error, 1)
		go func() { _, err := r.try("Mount", m{"Name": "slow", "ID": "c1"}); mounted <- err }()
		r.shows(ProblemAttaching, "slow", `"slow" (vol-`, "attaching the volume to "+r.host.ID)
		if err := <-mounted; err != nil {
			t.Error(err)
		}
		r.heals()
		r.sim.SetDelays(usual)
		r.unmount("slow", "c1")
		r.free("slow")
	})
	r.part("draining", func(t *testing.T, r *rig) {
		r.create("kept")
		release := r.hold(r.mount("kept", "c1"))
		r.unmount("kept", "c1")
		r.shows(ProblemDraining, "kept", "still has it", "docker ps --filter volume=kept")
		release()
		r.heals()
		r.free("kept")
	})
	r.part("detaching", func(t *testing.T, r *rig) {
		r.create("stuck")
		r.mount("stuck", "c1")
		inject(ec2sim.Fault{Kind: "stuck-detaching", Volume: r.status("stuck")["id"].(string)})
		r.unmount("stuck", "c1")
		r.shows(ProblemDetaching, "stuck", `"stuck" (vol-`)
		r.forceDetach("stuck")
		r.heals()
	})
	r.part("busy", func(t *testing.T, r *rig) {
		r.create("used")
		d := usual
		d.Detach = 3 * time.Second // a busy machine has to open the device meanwhile
		r.sim.SetDelays(d)
		r.mount("used", "c1")
		device := r.status("used")["device"].(string)
		held := -1
		take := func() {
			// A process that another test starts has a copy of the plugin's hold until it becomes its program.
			for try := 0; held < 0 && try < 200; try++ {
				if held, _ = unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0); held < 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}
		}
		grab.Store(&take)
		r.unmount("used", "c1")
		r.shows(ProblemBusy, "used", "busy")
		if held < 0 {
			t.Fatal("the device could not be held")
		}
		unix.Close(held)
		r.sim.SetDelays(usual)
		r.heals()
	})
	r.part("letting go", func(t *testing.T, r *rig) {
		r.create("denied")
		r.mount("denied", "c1")
		inject(ec2sim.Fault{Kind: "error", Action: "DetachVolume", Code: "InvalidParameterValue", Times: -1})
		r.unmount("denied", "c1")
		r.shows(ProblemLettingGo, "denied", "InvalidParameterValue")
		r.sim.ClearFaults()
		r.heals()
	})
	r.part("ambiguous", func(t *testing.T, r *rig) {
		var ids []string
		for range 2 {
			id, err := r.sim.Import(ec2sim.ImportSpec{SizeGiB: 1, Zone: r.host.Zone, Tags: r.ours("twins", "ext4")})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		r.must("List", m{})
		r.shows(ProblemAmbiguous, "twins", ids...)
		if _, err := r.person().DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &ids[0]}); err != nil {
			t.Fatal(err)
		}
		r.heals() // nobody but the monitor asks
	})
	r.part("read-only", func(t *testing.T, r *rig) {
		r.create("ill")
		target := filepath.Dir(r.mount("ill", "c1"))
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		r.shows(ProblemReadOnly, "ill", "read-only")
		if err := unix.Mount("", target, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		r.heals()
		r.unmount("ill", "c1")
		r.free("ill")
	})
	r.part("device gone", func(t *testing.T, r *rig) {
		r.create("pulled")
		r.mount("pulled", "c1")
		r.forceDetach("pulled")
		r.shows(ProblemDeviceGone, "pulled", "I/O errors")
		r.unmount("pulled", "c1")
		r.heals()
	})
	r.part("cloud", func(t *testing.T, r *rig) {
		inject(ec2sim.Fault{Kind: "error", Code: "Unavailable", Times: -1})
		r.shows(ProblemCloud, "", "containers that run keep their volumes")
		r.soon("the cause is told", func() bool {
			_, body := r.look("/readyz")
			return strings.Contains(body, "cloud: cannot look up volume")
		})
		r.sim.ClearFaults()
		r.heals()
	})
	r.part("denied", func(t *testing.T, r *rig) {
		r.create("refused")
		inject(ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "UnauthorizedOperation"})
		r.refused("Mount", m{"Name": "refused", "ID": "c1"}, "refused")
		r.shows(ProblemDenied, "", "attach volumes", "docs/iam-policy.json")
		r.mount("refused", "c1")
		r.heals()
		r.unmount("refused", "c1")
		r.free("refused")
	})
}

// hostless is a cloud that does not know this host until it is told.
type hostless struct {
	cloud.Cloud
	known atomic.Bool
}

func (h *hostless) Host(ctx context.Context) (cloud.Host, error) {
	if !h.known.Load() {
		return cloud.Host{}, cloud.Errorf(cloud.ErrConfig, "the instance metadata service gave no answer")
	}
	return h.Cloud.Host(ctx)
}

func TestReadinessTellsWhyAPluginServesNothing(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	r.heals()
	r.part("second plugin", func(t *testing.T, r *rig) {
		two := *r
		two.state = filepath.Join(t.TempDir(), "state")
		two.start()
		two.shows(ProblemSecond, "", "another blockvol serves", "docker plugin ls")
		r.stop()
		two.heals()
		two.stop()
	})
	r.part("settings", func(t *testing.T, r *rig) {
		r.startWith(func(c *Config) {
			c.Cloud, c.SettingsErr = nil, cloud.Errorf(cloud.ErrConfig, "blockvol's settings are wrong: CLUSTER is not set\nLOG_LEVEL=loud is not known")
		})
		r.shows(ProblemSettings, "", "CLUSTER is not set LOG_LEVEL=loud")
		r.stop()
	})
	r.part("other cluster", func(t *testing.T, r *rig) {
		right := r.settings.Cluster
		r.settings.Cluster += "-2"
		r.start()
		r.shows(ProblemOtherCluster, "", right, r.settings.Cluster)
		r.stop()
		r.settings.Cluster = right
	})
	r.part("host unknown", func(t *testing.T, r *rig) {
		var h *hostless
		r.startWith(func(c *Config) { h = &hostless{Cloud: c.Cloud}; c.Cloud = h })
		r.shows(ProblemHost, "", "metadata")
		h.known.Store(true)
		r.heals()

		r.manager.set(func() { r.manager.draining = time.Now() })
		r.shows(ProblemDrained, "", "blockvol drain --undo")
		r.manager.set(func() { r.manager.draining = time.Time{} })
		r.heals()

		r.manager.set(func() { r.manager.closing = true })
		r.shows(ProblemClosing, "", "shutting down")
		r.manager.set(func() { r.manager.closing = false })
		r.heals()
	})
}

func (m *Manager) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// However many monitors ask, and however often.
func TestReadinessAsksEC2NothingUnlessItWasSilentForLong(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Silence = time.Hour })
	r.create("pgdata")
	r.heals()
	ask := func() {
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				if status, body := r.look("/readyz"); status != http.StatusOK {
					t.Errorf("%d %s", status, body)
				}
			})
		}
		all.Wait()
	}
	r.calls()
	ask()
	if n := r.calls(); len(n) != 0 {
		t.Errorf("EC2 was asked: %v", n)
	}
	h := r.manager.heard
	h.mu.Lock()
	h.at = h.at.Add(-2 * time.Hour)
	h.mu.Unlock()
	ask()
	if n := r.calls(); len(n) != 1 || n["DescribeVolumes"] != 1 {
		t.Errorf("EC2 was asked: %v", n)
	}
}

// A refusal that nobody has tried again for long says nothing of the rules as they are now.
func TestADenialIsForgottenAfterAWhile(t *testing.T) {
	h := listen(nil)
	h.note(t.Context(), "attach volumes", fmt.Errorf("no: %w", cloud.ErrDenied))
	if p := h.problems(time.Second); len(p) != 1 || p[0].Kind != ProblemDenied {
		t.Fatalf("%v", p)
	}
	d := h.refused["attach volumes"]
	d.last = d.last.Add(-deniedFor)
	h.refused["attach volumes"] = d
	if p := h.problems(time.Second); len(p) != 0 {
		t.Errorf("%v", p)
	}
}

func TestWhatTheCallerGaveUpSaysNothingOfTheCloud(t *testing.T) {
	h := listen(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.note(ctx, "attach volumes", errors.Join(cloud.ErrUnavailable, ctx.Err()))
	if p := h.problems(time.Second); len(p) != 0 {
		t.Errorf("%v", p)
	}
}

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/moby/sys/mountinfo"
)

// The kinds of problems, for alerts: their names do not change.
const (
	ProblemSettings     = "settings"      // a setting is missing or wrong; no request is served
	ProblemSecond       = "second-plugin" // another blockvol serves this cluster on this instance; no request is served
	ProblemOtherCluster = "other-cluster" // the volumes known here belong to other settings; no request is served
	ProblemHost         = "host-unknown"  // it is not known which instance this is; no request is served
	ProblemClosing      = "shutting-down"
	ProblemDrained      = "drained"     // a person or a hook has told this host to take no volumes
	ProblemCloud        = "cloud"       // EC2 gives no usable answer
	ProblemDenied       = "denied"      // EC2 does not permit something that blockvol needs
	ProblemAmbiguous    = "ambiguous"   // several volumes have one name
	ProblemAttaching    = "attaching"   // an attach takes too long
	ProblemDetaching    = "detaching"   // a detach takes too long
	ProblemBusy         = "busy"        // EC2 waits for this host to let go of a device
	ProblemDraining     = "draining"    // Docker gave a volume back long ago, and something still has it
	ProblemLettingGo    = "letting-go"  // unmounting or detaching fails again and again
	ProblemReadOnly     = "read-only"   // the kernel has made a filesystem read-only, after errors
	ProblemDeviceGone   = "device-gone" // what is mounted has lost its device
	ProblemNotGrown     = "not-grown"   // a filesystem cannot be made as large as its volume
	ProblemSnapshot     = "snapshot"    // a schedule's snapshots are not made, or old ones are not deleted
)

// deniedFor is how long a refusal counts that nobody has tried again: the rules may have been changed since.
const deniedFor = 10 * time.Minute

// Problem is one thing that a person has to look at.
type Problem struct {
	Kind   string    `json:"kind"`
	Volume string    `json:"volume,omitempty"`
	ID     string    `json:"id,omitempty"`
	Since  time.Time `json:"since"`
	Text   string    `json:"text"`
	WayOut string    `json:"wayOut"`
}

// String is the problem in one line.
func (p Problem) String() string {
	line := p.Kind + ": "
	if p.Volume != "" {
		line += fmt.Sprintf("volume %q", p.Volume)
		if p.ID != "" {
			line += " (" + p.ID + ")"
		}
		line += ": "
	}
	line += fmt.Sprintf("%s; since %s (%s); %s", p.Text, p.Since.UTC().Format(time.RFC3339), time.Since(p.Since).Round(time.Second), p.WayOut)
	return strings.Join(strings.Fields(line), " ")
}

// Health is whether blockvol can do its work on this host.
type Health struct {
	Ready    bool      `json:"ready"`
	Cluster  string    `json:"cluster"`
	Instance string    `json:"instance,omitempty"`
	Heard    time.Time `json:"heard,omitzero"` // when EC2 was last asked something, whatever became of it
	Problems []Problem `json:"problems"`
}

// Health looks at everything that keeps this host from serving volumes. It asks the kernel, but not EC2, unless nothing was asked there for a
// minute: then one question, however often it is called.
func (m *Manager) Health(ctx context.Context) Health {
	h := Health{Cluster: m.cfg.Settings.Cluster, Problems: []Problem{}}
	quick, cancel := context.WithTimeout(ctx, m.timing.HealthWait)
	defer cancel()
	if err := m.ready(quick); err != nil {
		h.Problems = append(h.Problems, m.unready(err))
		return h
	}
	h.Instance = m.self().ID
	m.probe(quick)
	if since := m.drainingSince(); !since.IsZero() {
		h.Problems = append(h.Problems, Problem{Kind: ProblemDrained, Since: since, Text: "this host is being drained and takes no volumes", WayOut: "when that was not meant: blockvol drain --undo"})
	}
	h.Problems = append(h.Problems, m.heard.problems(m.timing.HealthWait)...)
	h.Problems = append(h.Problems, m.mountProblems()...)
	h.Problems = append(h.Problems, m.slots.problems()...)
	for _, v := range m.all() {
		if p, ok := m.problemOf(v); ok {
			h.Problems = append(h.Problems, p)
		}
	}
	sort.SliceStable(h.Problems, func(a, b int) bool { return h.Problems[a].Volume < h.Problems[b].Volume })
	m.heard.mu.Lock()
	h.Heard = m.heard.at
	m.heard.mu.Unlock()
	h.Ready = len(h.Problems) == 0
	return h
}

// unready tells why no request is served. All of it has been so since the start.
func (m *Manager) unready(err error) Problem {
	p := Problem{Kind: ProblemHost, Since: m.started, Text: err.Error(), WayOut: "see whether instance metadata answers on this host, or set INSTANCE_ID, AVAILABILITY_ZONE and AWS_REGION"}
	switch {
	case errors.Is(err, errClosing):
		p.Kind, p.WayOut = ProblemClosing, "nothing has to be done: wait for the next start"
	case errors.Is(err, errSecond):
		p.Kind, p.WayOut = ProblemSecond, "find the other one with docker plugin ls and systemctl status blockvol"
	case errors.Is(err, errStrangers):
		p.Kind, p.WayOut = ProblemOtherCluster, "compare the settings with docker plugin inspect on a host that works"
	case m.cfg.SettingsErr != nil:
		p.Kind, p.WayOut = ProblemSettings, "change them (docker plugin disable, set, enable; or /etc/blockvol/blockvol.env and a restart)"
	}
	return p
}

// probe puts one question to the cloud, if it has said nothing for a while, or if the answer may show that a name is not ambiguous any more.
func (m *Manager) probe(ctx context.Context) {
	var twin *record
	for _, v := range m.all() {
		v.mu.Lock()
		if v.ambiguous != nil {
			twin = v
		}
		v.mu.Unlock()
	}
	m.mu.Lock()
	due := time.Since(m.probed) >= m.timing.Silence && (twin != nil || m.heard.quiet() >= m.timing.Silence)
	if due {
		m.probed = time.Now()
	}
	m.mu.Unlock()
	if !due {
		return
	}
	answered := make(chan struct{})
	m.heard.mu.Lock()
	m.heard.asking = time.Now()
	m.heard.mu.Unlock()
	began := m.goOn("health", func(base context.Context) {
		defer close(answered)
		base, cancel := context.WithTimeout(as(base, OpHealth), m.timing.Request)
		defer cancel()
		if twin != nil {
			_, _ = m.lookup(base, twin, 0) // what it says is noted in the record
		} else {
			_, _ = m.cloud.ByName(base, noName) // that it answers is all that counts, and is noted there
		}
		m.heard.mu.Lock()
		m.heard.asking = time.Time{}
		m.heard.mu.Unlock()
	})
	if !began {
		return // it is shutting down, which is told apart from this
	}
	select {
	case <-answered:
	case <-ctx.Done():
	}
}

// noName is a name that no volume can have.
const noName = "-"

// problems tells what the cloud's last answers leave to be desired. patience is how long an answer may take.
func (h *heard) problems(patience time.Duration) []Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Problem
	switch {
	case h.bad != nil:
		list = append(list, Problem{Kind: ProblemCloud, Since: h.bad.since, Text: h.bad.err.Error(),
			WayOut: "containers that run keep their volumes; nothing can be attached or detached until EC2 answers"})
	case !h.asking.IsZero() && time.Since(h.asking) >= patience:
		list = append(list, Problem{Kind: ProblemCloud, Since: h.asking, Text: "EC2 has not answered a question",
			WayOut: "containers that run keep their volumes; nothing can be attached or detached until EC2 answers"})
	}
	actions := make([]string, 0, len(h.refused))
	for action := range h.refused {
		actions = append(actions, action)
	}
	sort.Strings(actions)
	for _, action := range actions {
		if d := h.refused[action]; time.Since(d.last) < deniedFor {
			list = append(list, Problem{Kind: ProblemDenied, Since: d.since, Text: "EC2 does not permit blockvol to " + action + ": " + d.err.Error(),
				WayOut: "compare the role's policy with docs/iam-policy.json"})
		}
	}
	return list
}

// problemOf tells what is wrong with one volume.
func (m *Manager) problemOf(v *record) (Problem, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := Problem{Volume: v.name, ID: v.id, Since: v.doingSince}
	lasts := time.Since(v.doingSince)
	switch {
	case v.ambiguous != nil:
		p.Kind, p.ID, p.Since, p.Text = ProblemAmbiguous, "", v.twinsAt, v.ambiguous.Error()
		p.WayOut = "see docs/runbooks.md, two volumes of one name"
	case v.failing.times > 1 || v.failing.times == 1 && time.Since(v.failing.since) > m.timing.Stuck:
		p.Kind, p.Since, p.Text = ProblemLettingGo, v.failing.since, v.failing.err.Error()
		p.WayOut = "it is tried again by itself; see docs/runbooks.md, a volume that does not detach"
		switch {
		case errors.Is(v.failing.err, cloud.ErrBusy):
			p.Kind = ProblemBusy
		case v.phase == phaseDetaching:
			p.Kind = ProblemDetaching
		}
	case (v.phase == phaseAttaching || v.phase == phaseDetaching) && v.doing != "" && lasts > m.timing.Stuck:
		p.Kind, p.Text = string(v.phase), v.doing
		p.WayOut = "this takes a few seconds as a rule: look at the volume and the instance in the EC2 console; see docs/runbooks.md, a volume that does not detach"
	case v.phase == phaseDraining && (lasts > m.timing.Drain || v.leaving && lasts > m.timing.Stuck):
		p.Kind, p.Text = ProblemDraining, "Docker has given it back, but a container or another process on this host still has it"
		if v.leaving {
			p.Kind, p.Text = ProblemBusy, "EC2 was asked to detach it, but a container or another process on this host still has it"
		}
		p.WayOut = fmt.Sprintf("find it with docker ps --filter volume=%s, or grep -l %s /proc/*/mountinfo", v.name, v.id)
	default:
		return Problem{}, false
	}
	return p, true
}

// mountProblems looks at what is mounted. A filesystem of ours is never mounted read-only, so one that is has met errors.
func (m *Manager) mountProblems() []Problem {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(m.mounts))
	if err != nil {
		return []Problem{{Kind: ProblemReadOnly, Since: time.Now(), Text: "the mounts of this host cannot be read: " + err.Error(), WayOut: "look at /proc/self/mountinfo"}}
	}
	byID := map[string]*record{}
	for _, v := range m.all() {
		if id, seen := v.known(); seen != nil {
			byID[id] = v
		}
	}
	var list []Problem
	for _, i := range infos {
		id := filepath.Base(i.Mountpoint)
		v := byID[id]
		if v == nil {
			continue
		}
		_, seen := v.known()
		gone := errors.Is(second(m.disk.Find(seen.Serial)), disk.ErrNoDevice)
		broken := ""
		switch {
		case gone:
			broken = ProblemDeviceGone
		case hasOption(i.VFSOptions, "ro"):
			broken = ProblemReadOnly
		}
		v.mu.Lock()
		notGrown := v.notGrown
		v.mu.Unlock()
		if broken == "" && notGrown.times > 0 {
			broken = ProblemNotGrown
		}
		since := v.breaks(broken)
		p := Problem{Kind: broken, Volume: v.name, ID: id, Since: since}
		switch broken {
		case ProblemDeviceGone:
			p.Text = "its filesystem is mounted, but its device is not on this host any more: the containers that use it get I/O errors"
			p.WayOut = "restart them; see docs/runbooks.md, a device that was taken away"
		case ProblemReadOnly:
			p.Text = "its filesystem is read-only: the kernel has met errors on it"
			p.WayOut = "read the kernel's log (dmesg), stop the containers that use it and start them again: the filesystem is checked before the mount"
		case ProblemNotGrown:
			p.Since, p.Text = notGrown.since, "the volume has become larger, and its filesystem has not: "+notGrown.err.Error()
			p.WayOut = "it can be used as it is, and growing it is tried again once a minute; see docs/growing.md"
		default:
			continue
		}
		list = append(list, p)
	}
	return list
}

// breaks remembers since when a mount is broken in that way; "" for not at all.
func (v *record) breaks(how string) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken != how {
		v.broken, v.brokenAt = how, time.Now()
	}
	return v.brokenAt
}

func second[A any](_ A, err error) error { return err }

func hasOption(options, want string) bool {
	for _, o := range strings.Split(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}

// healthCalls are what monitors ask, beside the calls of Docker and on the same socket: GET, and the status tells.
func (s *Server) healthCalls() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/healthz": func(w http.ResponseWriter, r *http.Request) {
			s.Manager.all() // a Manager that is locked up for good does not answer
			fmt.Fprintln(w, "ok")
		},
		"/readyz": func(w http.ResponseWriter, r *http.Request) {
			h := s.Manager.Health(r.Context())
			status := http.StatusOK
			if !h.Ready {
				status = http.StatusServiceUnavailable
			}
			if r.URL.Query().Get("format") == "json" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_ = json.NewEncoder(w).Encode(h)
				return
			}
			w.WriteHeader(status)
			if h.Ready {
				fmt.Fprintln(w, "ok")
			}
			for _, p := range h.Problems {
				fmt.Fprintln(w, p)
			}
		},
	}
}

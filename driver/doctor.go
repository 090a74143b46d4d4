package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
)

// Findings is the answer to `blockvol doctor`, as far as the plugin can tell.
type Findings struct {
	Findings []cloud.Finding `json:"findings"`
	Volumes  []string        `json:"volumes"` // the names of the cluster's volumes, to compare with what else is on the host
}

func (f *Findings) add(check, subject string, verdict cloud.Verdict, fix, format string, args ...any) {
	f.Findings = append(f.Findings, cloud.Finding{Check: check, Subject: subject, Verdict: verdict, Text: fmt.Sprintf(format, args...), Fix: fix})
}

// doctor looks at everything that blockvol needs on this host, and at what may have been left behind. It changes nothing.
func (m *Manager) doctor(ctx context.Context, _ NoRequest, say Say) (Findings, error) {
	f := Findings{Findings: []cloud.Finding{}, Volumes: []string{}}
	if m.cfg.SettingsErr != nil {
		f.add("settings", "", cloud.Bad, "change them: docker plugin disable, set, enable; or /etc/blockvol/blockvol.env and a restart", "%v", m.cfg.SettingsErr)
		return f, nil
	}
	f.add("settings", "", cloud.OK, "", "CLUSTER=%s, BACKEND=%s", m.cfg.Settings.Cluster, m.cfg.Settings.Backend)
	ctx, cancel := context.WithTimeout(ctx, 4*m.timing.Request)
	defer cancel()
	say("asking EC2 for the volumes of the cluster")
	var vols []cloud.Volume
	unready := m.ready(ctx)
	if unready == nil {
		var err error
		if vols, err = m.cfg.Cloud.List(ctx); err != nil {
			f.add("volumes", "", cloud.Unknown, "", "%v", err)
		}
	}
	if e, ok := m.cfg.Cloud.(cloud.Examiner); ok {
		say("trying the permissions, by dry runs")
		f.Findings = append(f.Findings, e.Examine(ctx, vols)...)
	}
	if unready != nil {
		p := m.unready(unready)
		f.add("plugin", p.Kind, cloud.Bad, p.WayOut, "it serves no request: %s", p.Text)
		return f, nil
	}
	say("looking at devices and mounts")
	for _, row := range CloudRows(vols) {
		f.Volumes = append(f.Volumes, row.Name)
	}
	m.doctorDevices(&f, vols)
	m.doctorLeftovers(&f)
	m.doctorLedger(&f)
	m.doctorMetrics(&f)
	health := m.Health(ctx)
	for _, p := range health.Problems {
		f.add("health", p.Kind, cloud.Bad, p.WayOut, "%s", strings.TrimSuffix(strings.TrimPrefix(p.String(), p.Kind+": "), "; "+p.WayOut))
	}
	if health.Ready {
		f.add("health", "", cloud.OK, "", "ready")
	}
	return f, nil
}

// doctorDevices compares what EC2 says is attached here with what the kernel shows.
func (m *Manager) doctorDevices(f *Findings, vols []cloud.Volume) {
	seen, self := 0, m.self().ID
	for _, vol := range vols {
		a, here := vol.On(self)
		if !here || a.State != cloud.Attached {
			continue
		}
		switch _, err := m.disk.Find(vol.Serial); {
		case err == nil:
			seen++
		case errors.Is(err, disk.ErrNoDevice):
			f.add("devices", vol.Name, cloud.Bad, "look at the kernel's log (dmesg) for nvme; is /dev the host's own in the plugin (docker plugin inspect)?",
				"EC2 has attached %s here, and no device shows its serial", vol.ID)
		default:
			f.add("devices", vol.Name, cloud.Bad, "look at the device in /sys/block", "%v", err)
		}
	}
	f.add("devices", "", cloud.OK, "", "%d attached volumes of the cluster are seen by the kernel", seen)
}

// doctorLeftovers looks for what is here and not used. What has just ended, or is on its way, is none.
func (m *Manager) doctorLeftovers(f *Findings) {
	none := true
	left := func(subject, fix, format string, args ...any) {
		none = false
		f.add("leftovers", subject, cloud.Warning, fix, format, args...)
	}
	known := map[string]bool{}
	for _, v := range m.all() {
		_, mounted := m.mountedAt(v)
		v.mu.Lock()
		known[v.id] = true
		find := fmt.Sprintf("docker ps -a --filter volume=%s, or any process with: grep -l %s /proc/*/mountinfo", v.name, v.id)
		idle := len(v.users) == 0 && v.holdUntil.Before(time.Now())
		switch since := time.Since(v.freeSince); {
		case v.phase == phaseDraining:
			left(v.name, find, "Docker gave it back %s ago, and something on this host still has it", time.Since(v.doingSince).Round(time.Second))
		case mounted && idle && v.doing == "":
			left(v.name, "if it stays so: blockvol detach "+v.name, "it is mounted, and Docker counts no use of it")
		case v.attached && idle && !v.freeSince.IsZero() && since > m.timing.Grace+m.timing.Stuck:
			left(v.name, "blockvol detach "+v.name, "it is attached and unused for %s", since.Round(time.Second))
		}
		v.mu.Unlock()
	}
	entries, err := os.ReadDir(m.mounts)
	if err != nil {
		f.add("leftovers", hostPath(m.mounts), cloud.Unknown, "", "%v", err)
		return
	}
	points, err := m.disk.MountsUnder(m.mounts)
	if err != nil {
		f.add("leftovers", hostPath(m.mounts), cloud.Unknown, "", "%v", err)
		return
	}
	for _, e := range entries {
		path := filepath.Join(m.mounts, e.Name())
		if known[e.Name()] {
			continue
		}
		at := func(p disk.MountPoint) bool { return p.Target == path }
		if slices.ContainsFunc(points, at) {
			left(hostPath(path), "look what it is with findmnt, and unmount it if nobody uses it", "something is mounted there that is no volume of the cluster")
		}
	}
	if none {
		f.add("leftovers", "", cloud.OK, "", "nothing is attached or mounted without a use")
	}
}

func (m *Manager) doctorLedger(f *Findings) {
	if err := m.ledger.doubted(); err != nil {
		f.add("ledger", "", cloud.Bad, "see docs/runbooks.md", "%v", err)
		return
	}
	m.ledger.mu.Lock()
	failed, n := m.ledger.failed, len(m.ledger.file.Volumes)
	m.ledger.mu.Unlock()
	if failed {
		f.add("ledger", "", cloud.Warning, "is the disk full, or read-only? (df "+hostPath(filepath.Dir(m.ledger.path))+")", "%s cannot be written", hostPath(m.ledger.path))
		return
	}
	f.add("ledger", "", cloud.OK, "", "%d volumes are known to Docker from here", n)
}

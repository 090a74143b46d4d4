package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
)

// Refused is the last error that Docker was told about a volume.
type Refused struct {
	Call string    `json:"call"` // create, mount, ...
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// noteRefused remembers what Docker is told, as evidence for those who ask later. Of names that no volume has, nothing is kept.
func (m *Manager) noteRefused(name, call string, err error) {
	m.mu.Lock()
	v := m.records[name]
	m.mu.Unlock()
	if v == nil || errors.Is(err, errQuiet) {
		return
	}
	v.set(func() { v.refused = &Refused{Call: call, At: time.Now(), Text: err.Error()} })
}

// The three that know something of a volume, in the order in which they are believed, and what this process remembers.
const (
	SaysKernel = "kernel"
	SaysCloud  = "cloud"
	SaysLedger = "ledger"
	SaysMemory = "memory"
)

// Fact is one thing that one of the sources says of a volume.
type Fact struct {
	Source string `json:"source"`
	What   string `json:"what"`
	Says   string `json:"says"`
}

// Explanation is what `blockvol explain` tells of a volume: what each source says, what follows from that, and what a person can do.
type Explanation struct {
	Volume  string   `json:"volume"`
	ID      string   `json:"id,omitempty"`
	Host    string   `json:"host"` // that was asked
	Facts   []Fact   `json:"facts"`
	Refused *Refused `json:"refused,omitempty"`
	Follows []string `json:"follows"`           // never empty
	WaysOut []string `json:"waysOut,omitempty"` // empty: nothing has to be done
}

func (e *Explanation) fact(source, what, format string, args ...any) {
	e.Facts = append(e.Facts, Fact{source, what, fmt.Sprintf(format, args...)})
}

func (e *Explanation) follows(text string, waysOut ...string) {
	e.Follows = append(e.Follows, text)
	for _, w := range waysOut {
		if !slices.Contains(e.WaysOut, w) {
			e.WaysOut = append(e.WaysOut, w)
		}
	}
}

// explain tells all that is known of a volume. It changes nothing, and probes nothing: a probe could be in the way of a mount.
func (m *Manager) explain(ctx context.Context, req HolderRequest, _ Say) (Explanation, error) {
	if err := checkName(req.Volume); err != nil {
		return Explanation{}, err
	}
	if err := m.ready(ctx); err != nil {
		return Explanation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.timing.Request)
	defer cancel()
	v, vol, err := m.byNameOrID(ctx, req.Volume)
	if v == nil || errors.Is(err, cloud.ErrNotFound) {
		return Explanation{}, err
	}
	e := Explanation{Volume: v.name, Host: m.self().ID, Facts: []Fact{}}
	v.set(func() { e.ID, e.Refused = v.id, v.refused })
	onHere := m.kernelSays(&e, v)
	if err != nil {
		e.fact(SaysCloud, "volume", "no answer: %v", err)
	} else {
		m.cloudSays(&e, vol)
	}
	uses := m.ledgerSays(&e, v)
	m.memorySays(&e, v)
	m.conclude(ctx, &e, v, vol, err, onHere, uses)
	return e, nil
}

// presence is what the kernel shows of a volume.
type presence struct{ device, mounted bool }

func (m *Manager) kernelSays(e *Explanation, v *record) presence {
	id, seen := v.known()
	if seen == nil {
		e.fact(SaysKernel, "device", "cannot be looked for before EC2 has told of the volume once")
		return presence{}
	}
	dev, err := m.disk.Find(seen.Serial)
	switch {
	case errors.Is(err, disk.ErrNoDevice):
		e.fact(SaysKernel, "device", "none with the serial %s on this host", seen.Serial)
		return presence{}
	case err != nil:
		e.fact(SaysKernel, "device", "cannot be told: %v", err)
		return presence{}
	}
	e.fact(SaysKernel, "device", "%s, %d GiB, serial %s", dev.Path, dev.Size>>30, dev.Serial)
	targets, err := m.disk.Mounts(dev)
	switch {
	case err != nil:
		e.fact(SaysKernel, "mounted", "cannot be told: %v", err)
	case len(targets) == 0:
		e.fact(SaysKernel, "mounted", "not by blockvol; what others have shows only when it is let go of")
	}
	for _, t := range targets {
		e.fact(SaysKernel, "mounted", "%s", hostPath(t))
	}
	here := presence{device: true, mounted: slices.Contains(targets, m.target(id))}
	if !here.mounted {
		return here
	}
	if u, err := m.disk.Usage(m.target(id)); err == nil && u.Total > 0 {
		e.fact(SaysKernel, "used", "%d %% of %.1f GiB, %d %% of the inodes", 100*u.Used/u.Total, float64(u.Total)/(1<<30), 100*u.InodesUsed/max(u.Inodes, 1))
	}
	return here
}

func (m *Manager) cloudSays(e *Explanation, vol cloud.Volume) {
	e.fact(SaysCloud, "volume", "%s, %s, %d GiB %s in %s", vol.ID, vol.State, vol.SizeGiB, vol.Type, vol.Zone)
	for _, a := range vol.Attachments {
		here := ""
		if a.Host == e.Host {
			here = ", this host"
		}
		e.fact(SaysCloud, "attachment", "%s to %s%s since %s", a.State, a.Host, here, a.Since.UTC().Format(time.RFC3339))
	}
	if len(vol.Attachments) == 0 {
		e.fact(SaysCloud, "attachment", "none")
	}
	format := vol.Attrs[attrFS]
	switch {
	case format == disk.TagNone:
		format += ": it is formatted by its first mount, if it is blank"
	case strings.HasPrefix(format, disk.TagFormatting):
		format += ": formatting it was not completed; it is done again at the next mount"
	case format == "":
		format = "no tag: it is never formatted"
	}
	e.fact(SaysCloud, "filesystem", "%s", format)
}

func (m *Manager) ledgerSays(e *Explanation, v *record) (uses int) {
	entry, known := m.ledger.entries()[v.name]
	if !known {
		e.fact(SaysLedger, "volume", "Docker has not been told of it from here")
		return 0
	}
	e.fact(SaysLedger, "volume", "%s is known to Docker from here", dashed(entry.ID))
	ids := v.userIDs()
	slices.Sort(ids)
	for n := range ids {
		ids[n] = short(ids[n])
	}
	if len(ids) == 0 {
		e.fact(SaysLedger, "uses", "none")
	} else {
		e.fact(SaysLedger, "uses", "%d that Docker has not ended: %s", len(ids), strings.Join(ids, ", "))
	}
	return len(ids)
}

func (m *Manager) memorySays(e *Explanation, v *record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	hold := time.Until(v.holdUntil)
	e.fact(SaysMemory, "state", "%s", v.phase)
	if v.doing != "" {
		e.fact(SaysMemory, "doing", "%s since %s", v.doing, v.doingSince.UTC().Format(time.RFC3339))
	}
	if hold > 0 {
		e.fact(SaysMemory, "kept", "for %s more: it was handed to a container that may still be starting", hold.Round(time.Second))
	}
	if v.lastErr != nil {
		e.fact(SaysMemory, "letting go", "%v", v.lastErr)
	}
	if row := m.slots.row(v.id); row != nil {
		e.fact(SaysMemory, "snapshots", "by schedule %s; the latest that this host knows of is for %s, the next for %s", row.Schedule, timeText(row.Last), timeText(row.Next))
	}
}

// conclude tells what follows from the facts: the kernel is believed before the cloud, and the cloud before the ledger.
func (m *Manager) conclude(ctx context.Context, e *Explanation, v *record, vol cloud.Volume, lookErr error, here presence, uses int) {
	if p, bad := m.problemOf(v); bad {
		e.follows(p.Kind+": "+p.Text, p.WayOut)
	}
	for _, p := range append(m.mountProblems(), m.slots.problems()...) {
		if p.Volume == v.name {
			e.follows(p.Kind+": "+p.Text, p.WayOut)
		}
	}
	if since := m.drainingSince(); !since.IsZero() {
		e.follows("this host is being drained and mounts no volume that is not mounted already", "blockvol drain --undo")
	}
	if lookErr != nil {
		if len(e.Follows) == 0 {
			e.follows("what EC2 knows of it cannot be told now; a container that runs keeps its volume", "see blockvol health")
		}
		return
	}
	find := fmt.Sprintf("docker ps -a --filter volume=%s, or any process with: grep -l %s /proc/*/mountinfo", v.name, vol.ID)
	other, elsewhere := vol.Elsewhere(e.Host)
	a, attached := vol.On(e.Host)
	var draining bool
	v.set(func() { draining = v.phase == phaseDraining })
	switch {
	case vol.Newer != nil:
		e.follows(vol.Newer.Error())
	case elsewhere:
		h := m.describeHolder(ctx, v, vol)
		e.fact(SaysCloud, "instance", "%s is %s; %s", other.Host, dashed(h.Power), h.Proves)
		e.follows(fmt.Sprintf("%s has it, so this host cannot", other.Host), h.WaysOut...)
		if h.Dead {
			e.follows("that instance is dead: the next container here takes the volume, if fencing is not never", "to take it without waiting for that: blockvol detach "+v.name)
		}
	case here.device && draining:
		e.follows("Docker has given it back, and something on this host still has it: it is looked at again until that ends", find)
	case here.mounted && uses > 0:
		e.follows("it is in use here: kernel, cloud and ledger agree")
	case here.mounted:
		e.follows("it is mounted here without a use that Docker counts: it is let go of when the kernel says that nobody has it")
	case here.device && uses > 0:
		e.follows("Docker counts a use, but it is not mounted here: the use was lost, or the container is being started", find)
	case here.device:
		e.follows("it is attached here and nobody uses it: it is detached after its grace, if the kernel agrees")
	case attached && a.State == cloud.Attaching:
		e.follows("it is being attached: the device is not here yet")
	case attached && a.State != cloud.Attached:
		e.follows("its detachment from this host is not complete yet")
	case attached:
		e.follows("EC2 says that it is attached here, and the kernel shows no device with its serial", "look at the kernel's log (dmesg) for nvme; see docs/runbooks.md, a device that was taken away")
	case uses > 0:
		e.follows("Docker counts a use, but it is not attached here any more: restart the container", find)
	case vol.Zone != m.self().Zone:
		e.follows(fmt.Sprintf("nobody has it, but it lies in %s and this host in %s: only hosts of its zone can use it", vol.Zone, m.self().Zone),
			"run the container on a host in "+vol.Zone+", or make a snapshot of the volume and a new one from it here")
	default:
		e.follows("nobody has it: the next container that asks for it gets it")
	}
}

func dashed(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

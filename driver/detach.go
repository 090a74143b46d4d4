package driver

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// HolderRequest names a volume.
type HolderRequest struct {
	Volume string `json:"volume"` // its name, or its ID (vol-...)
}

// Holder is what is known of the instance that has a volume, and what that proves. It is the first thing `blockvol detach` shows.
type Holder struct {
	Volume     string     `json:"volume"`
	ID         string     `json:"id"`
	Zone       string     `json:"zone"`
	Instance   string     `json:"instance,omitempty"` // that has the volume; empty: none has
	Here       bool       `json:"here,omitempty"`     // it is this host
	Attachment string     `json:"attachment,omitempty"`
	Since      *time.Time `json:"since,omitempty"`

	Power         string     `json:"power,omitempty"`  // running, stopped, ...
	Reason        string     `json:"reason,omitempty"` // of its last change, in EC2's words
	Hibernated    bool       `json:"hibernated,omitempty"`
	SystemCheck   string     `json:"systemCheck,omitempty"`
	SystemSince   *time.Time `json:"systemSince,omitempty"`
	InstanceCheck string     `json:"instanceCheck,omitempty"`
	InstanceSince *time.Time `json:"instanceSince,omitempty"`
	Unknown       string     `json:"unknown,omitempty"` // why some of it cannot be told
	Dead          bool       `json:"dead"`              // nothing on it can write any more, as of one look; the detach looks twice
	NoStop        string     `json:"noStop,omitempty"`  // why it must not be stopped
	Proves        string     `json:"proves"`
	WaysOut       []string   `json:"waysOut,omitempty"` // if it is not proven that the volume may be detached
	Users         int        `json:"users,omitempty"`   // on this host, as Docker said
}

// holder tells who has a volume.
func (m *Manager) holder(ctx context.Context, req HolderRequest, _ Say) (Holder, error) {
	if err := checkName(req.Volume); err != nil {
		return Holder{}, err
	}
	if err := m.ready(ctx); err != nil {
		return Holder{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.timing.Request)
	defer cancel()
	v, vol, err := m.byNameOrID(ctx, req.Volume)
	if err != nil {
		return Holder{}, err
	}
	return m.describeHolder(ctx, v, vol), nil
}

// byNameOrID looks up what a person means. The record is there also where the cloud could not tell of a name.
func (m *Manager) byNameOrID(ctx context.Context, nameOrID string) (*record, cloud.Volume, error) {
	v := m.record(nameOrID)
	vol, err := m.exists(ctx, v, 0)
	if errors.Is(err, cloud.ErrNotFound) && volumeID.MatchString(nameOrID) {
		return m.byID(ctx, nameOrID)
	}
	return v, vol, err
}

// volumeID is what EC2's IDs of volumes look like. A volume may be named like one: its name goes first.
var volumeID = regexp.MustCompile(`^vol-[0-9a-f]{8,17}$`)

// byID looks up a volume of the cluster by its ID. It must be the one that its name means, for everything else here goes by the name.
func (m *Manager) byID(ctx context.Context, id string) (*record, cloud.Volume, error) {
	found, err := m.cloud.ByID(ctx, id)
	if errors.Is(err, cloud.ErrNotFound) || err == nil && (m.gone(found) || checkName(found.Name) != nil) {
		return nil, cloud.Volume{}, &cloud.Error{Kind: cloud.ErrNotFound, Text: fmt.Sprintf("there is no volume %s in this cluster, by name or by ID", id), Cause: errQuiet}
	}
	if err != nil {
		return nil, cloud.Volume{}, err
	}
	v := m.record(found.Name)
	vol, err := m.exists(ctx, v, 0)
	if err == nil && vol.ID != id {
		err = fmt.Errorf("%s has the name %q, but volume %q is %s now: look again", id, v.name, v.name, vol.ID)
	}
	return v, vol, err
}

func (m *Manager) describeHolder(ctx context.Context, v *record, vol cloud.Volume) Holder {
	self := m.self().ID
	h := Holder{Volume: v.name, ID: vol.ID, Zone: vol.Zone}
	a, held := vol.Elsewhere(self)
	if !held {
		a, h.Here = vol.On(self)
	}
	if !held && !h.Here {
		h.Proves = "no instance has the volume: nothing is to be done"
		return h
	}
	h.Instance, h.Attachment, h.Since = a.Host, string(a.State), &a.Since
	if h.Here {
		v.set(func() { h.Users = len(v.users) })
		h.Power, h.Proves = string(cloud.Running), "this host has it: the kernel tells whether anything here uses it, and it is detached only if nothing does"
		return h
	}
	health, err := m.cloud.HostHealth(ctx, a.Host)
	if err != nil { // the checks need a permission that the state does not
		h.Unknown = err.Error()
		if health.HostState, err = m.cloud.HostState(ctx, a.Host); err != nil {
			h.Proves = "nothing: what became of the instance cannot be told"
			h.WaysOut = m.waysOut(v.name, "")
			return h
		}
	}
	h.Power, h.Reason, h.Hibernated, h.Dead, h.NoStop = string(health.Power), health.Reason, health.Hibernated, health.Dead(), health.NoStop
	h.SystemCheck, h.InstanceCheck = health.System.Status, health.Instance.Status
	h.SystemSince, h.InstanceSince = since(health.System), since(health.Instance)
	switch {
	case h.Dead:
		h.Proves = "the instance is " + h.Power + ": nothing on it can write to the volume any more"
	case h.Hibernated:
		h.Proves = "the instance is stopped, but hibernated or possibly so: it would resume with the filesystem mounted"
		h.WaysOut = []string{"start it and stop it without hibernation, or terminate it, and try again"}
	case health.Power == cloud.Running && health.ImpairedFor() > 0:
		h.Proves = "nothing: EC2's status checks of the instance fail, but it is running and may write to the volume"
		h.WaysOut = m.waysOut(v.name, h.NoStop)
	case health.Power == cloud.Running:
		h.Proves = "nothing: the instance is running and may write to the volume"
		h.WaysOut = m.waysOut(v.name, h.NoStop)
	default:
		h.Proves = "nothing yet: the instance is " + h.Power
		h.WaysOut = append([]string{"wait until that has ended and try again, or wait with: blockvol detach " + v.name + " --stop-instance"}, m.waysOut(v.name, "")[2:]...)
	}
	return h
}

func since(c cloud.Check) *time.Time {
	if c.Since.IsZero() {
		return nil
	}
	return &c.Since
}

// waysOut are what a person can do about a volume whose holder is not proven dead.
func (m *Manager) waysOut(volume, noStop string) []string {
	stop := "stop the instance, which ends everything on it, and detach then: blockvol detach " + volume + " --stop-instance"
	if noStop != "" {
		stop = "it cannot be stopped from here: " + noStop
	}
	return []string{
		"stop the containers that use the volume there: it is released when the last one has ended",
		stop,
		"if you know that the instance cannot write any more, and only then, by force: blockvol detach " + volume + " --force",
	}
}

// DetachRequest is what a person has decided about a volume, after having seen its Holder. ID and Instance are what was seen: if they are not
// true any more, nothing is done.
type DetachRequest struct {
	Volume   string `json:"volume"`
	ID       string `json:"id"`
	Instance string `json:"instance"`
	Stop     bool   `json:"stop,omitempty"`  // the instance first
	Force    bool   `json:"force,omitempty"` // without proof
}

// Detached is how a detach has ended well.
type Detached struct {
	Volume   string `json:"volume"`
	ID       string `json:"id"`
	Instance string `json:"instance,omitempty"` // from which it was detached
	Done     string `json:"done"`
}

// detachFor detaches a volume from the instance that has it, for a person: this host through its own release, a dead one with an ordinary
// DetachVolume, one that runs only after it was stopped for that, or by force.
func (m *Manager) detachFor(ctx context.Context, req DetachRequest, say Say) (Detached, error) {
	if err := checkName(req.Volume); err != nil {
		return Detached{}, err
	}
	if err := m.ready(ctx); err != nil {
		return Detached{}, err
	}
	v := m.record(req.Volume)
	out := Detached{Volume: v.name, ID: req.ID, Instance: req.Instance, Done: "detached"} // what it says if err is nil
	err := m.work(ctx, v, func(base context.Context) error {
		defer v.set(func() { v.doing, v.seenAt = "", time.Time{} })
		vol, err := m.exists(base, v, 0)
		if err != nil {
			return err
		}
		self := m.self().ID
		a, held := vol.Elsewhere(self)
		here := false
		if !held {
			a, here = vol.On(self)
		}
		switch {
		case vol.ID != req.ID:
			return refuse("volume %q is %s now, not %s: look again", v.name, vol.ID, req.ID)
		case !held && !here:
			out.Instance, out.Done = "", "no instance has the volume any more"
			return nil
		case a.Host != req.Instance:
			return refuse("volume %q (%s) is %s to %s now, not to %s: look again", v.name, vol.ID, a.State, a.Host, req.Instance)
		case req.Force:
			return m.detachByForce(base, v, vol, a.Host, say)
		case here:
			return m.detachHere(base, v, vol, say)
		}
		return m.detachElsewhere(base, v, vol, a.Host, req.Stop, say)
	})
	if err != nil {
		return Detached{}, err // the work may go on, and write to out
	}
	return out, nil
}

// detachHere lets go of a volume that this host has, if nothing here uses it.
func (m *Manager) detachHere(ctx context.Context, v *record, vol cloud.Volume, say Say) error {
	find := fmt.Sprintf("find the container with `docker ps -a --filter volume=%s`, or any process with `grep -l %s /proc/*/mountinfo`", v.name, vol.ID)
	switch used := m.usedFor(v); {
	case used > 0:
		return refuse("volume %q (%s) was handed to a container of this host moments ago, which may still be starting: %s; try again in %s", v.name, vol.ID, find, used.Round(time.Second))
	case used < 0:
		return refuse("volume %q (%s) is in use on this host: %s, and stop it. If there is none, its end was missed: disable the plugin with -f and enable it "+
			"(containers keep their volumes meanwhile); half a minute later it lets go of what the kernel says is unused", v.name, vol.ID, find)
	}
	say("detaching %s from this host", vol.ID)
	again, err := m.releaseNow(ctx, v)
	for end := time.Now().Add(m.timing.Detach); errors.Is(err, cloud.ErrBusy) && time.Now().Before(end); again, err = m.releaseNow(ctx, v) {
		say("EC2 says that something still has the device, which may be on its way out: waiting")
		if err := m.pause(ctx, again); err != nil {
			return err
		}
	}
	if errors.Is(err, errHeld) {
		return refuse("%v", err)
	}
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.phase != phaseFree {
		return fmt.Errorf("volume %q (%s) is still %s on this host; try again in a moment", v.name, vol.ID, v.phase)
	}
	return nil
}

// detachElsewhere detaches a volume from another host that is proven dead, which stop may bring about.
func (m *Manager) detachElsewhere(ctx context.Context, v *record, vol cloud.Volume, host string, stop bool, say Say) error {
	state, err := m.cloud.HostState(ctx, host)
	if err != nil {
		return fmt.Errorf("volume %q (%s) stays with %s: %w", v.name, vol.ID, host, err)
	}
	if stop && !state.Dead() {
		free, err := m.stopFor(ctx, v, vol, host, say)
		if err != nil || free {
			return err
		}
	}
	say("making sure that %s is dead: looking twice, %s apart", host, m.timing.Absent)
	state, err = m.lookTwice(ctx, host)
	if err != nil {
		return fmt.Errorf("volume %q (%s) stays with %s; whether that instance is dead cannot be told: %w", v.name, vol.ID, host, err)
	}
	if !state.Dead() {
		return refuse("volume %q (%s) stays with %s; %s", v.name, vol.ID, host, alive(state, v.name))
	}
	say("%s is %s: detaching %s from it", host, state.Power, vol.ID)
	_, err = m.takeFromDead(ctx, v, vol, host)
	return err
}

// stopFor stops a host because a person says so, and waits until it is stopped.
func (m *Manager) stopFor(ctx context.Context, v *record, vol cloud.Volume, host string, say Say) (free bool, err error) {
	health, err := m.cloud.HostHealth(ctx, host)
	switch {
	case err != nil:
		return false, fmt.Errorf("volume %q (%s) stays with %s; whether that instance can be stopped cannot be told: %w", v.name, vol.ID, host, err)
	case health.Power == cloud.Stopping:
		say("%s is stopping already: waiting for that", host)
		_, free, err = m.awaitStopped(ctx, v, vol.ID, host, say)
		return free, err
	case health.Power != cloud.Running:
		return false, refuse("volume %q (%s) stays with %s; %s", v.name, vol.ID, host, alive(health.HostState, v.name))
	case health.NoStop != "":
		return false, refuse("volume %q (%s) stays with %s, which is not stopped: %s", v.name, vol.ID, host, health.NoStop)
	}
	say("stopping %s; this may take minutes", host)
	_, free, err = m.stopHost(ctx, v, vol.ID, host, say)
	return free, err
}

// detachByForce detaches a volume without proof. What the holder has not written yet is lost.
func (m *Manager) detachByForce(ctx context.Context, v *record, vol cloud.Volume, host string, say Say) error {
	m.log.WithField("volume", v.name).Warnf("detaching %s from %s by force, because a person says so", vol.ID, host)
	say("detaching %s from %s by force", vol.ID, host)
	v.set(func() { v.doing, v.doingSince = "detaching the volume from "+host+" by force", time.Now() })
	if err := m.cloud.ForceDetach(ctx, vol.ID, host); err != nil {
		return err
	}
	defer m.wake(v, 0)
	ctx, cancel := context.WithTimeout(ctx, m.timing.Detach)
	defer cancel()
	for pause := m.timing.Absent / 5; ; pause = min(2*pause, m.timing.Absent) {
		now, err := m.cloud.ByID(ctx, vol.ID)
		if err == nil {
			v.saw(now, m.self().ID)
			if _, still := now.On(host); !still {
				return nil
			}
		}
		if err := m.pause(ctx, pause); err != nil {
			return fmt.Errorf("volume %q (%s) is still being detached from %s, by force: %w", v.name, vol.ID, host, err)
		}
	}
}

package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// The rules by which a volume may be taken from another host; see options.Fencings.
const (
	fenceStopped  = "stopped"
	fenceImpaired = "impaired"
)

// takeOver frees a volume that another host holds, if the fencing rule allows it and the provider proves that host dead: terminated, or
// stopped and not hibernated, read twice with time between, with the volume still held by it. Then an ordinary DetachVolume ends the hold. A
// host that runs is never taken from, however ill it looks: it may write. The rule impaired lets it be stopped first.
func (m *Manager) takeOver(ctx context.Context, v *record, vol cloud.Volume, held *cloud.HolderError) (cloud.Volume, error) {
	rule := vol.Attrs[attrFencing]
	if rule == "" {
		rule = m.cfg.Settings.Fencing
	}
	if rule != fenceStopped && rule != fenceImpaired {
		return vol, fmt.Errorf("%w (fencing=%s)", held, rule)
	}
	v.begin(phaseFree, "finding out whether "+held.Host+", which has the volume, is dead")
	if rule == fenceImpaired {
		now, free, err := m.stopImpaired(ctx, v, vol, held)
		if err != nil || free {
			return now, err
		}
	}
	state, err := m.lookTwice(ctx, held.Host)
	if err != nil {
		return vol, fmt.Errorf("%w; whether that host is dead cannot be told: %w", held, err)
	}
	if !state.Dead() {
		return vol, fmt.Errorf("%w; %s", held, alive(state, v.name))
	}
	return m.takeFromDead(ctx, v, vol, held.Host)
}

// lookTwice asks for the state of a host, and if that is dead, once more after a while. What it returns is dead only if both answers were.
func (m *Manager) lookTwice(ctx context.Context, host string) (cloud.HostState, error) {
	state, err := m.cloud.HostState(ctx, host)
	if err != nil || !state.Dead() {
		return state, err
	}
	if err := m.pause(ctx, m.timing.Absent); err != nil {
		return cloud.HostState{}, fmt.Errorf("it is not certain yet: %w", err)
	}
	return m.cloud.HostState(ctx, host)
}

// takeFromDead detaches the volume from a host that was proven dead, if that still has it, and waits until it is free.
func (m *Manager) takeFromDead(ctx context.Context, v *record, vol cloud.Volume, host string) (cloud.Volume, error) {
	now, still, err := m.stillHeld(ctx, v, vol.ID, host)
	if err != nil || !still {
		return now, err
	}
	m.log.WithField("volume", v.name).Warnf("taking %s from %s, which EC2 has twice said to be dead", vol.ID, host)
	v.begin(phaseFree, "detaching the volume from "+host+", which is dead")
	m.step(StepTake)
	if err := m.cloud.DetachFrom(ctx, vol.ID, host); err != nil {
		return now, fmt.Errorf("volume %q (%s): detaching it from %s, which is dead: %w", v.name, vol.ID, host, err)
	}
	m.step(StepTakeSent)
	return m.awaitRelease(ctx, v, vol.ID, host)
}

// stillHeld looks again who has the volume: still that host (true), nobody else but perhaps this host (false), or a third one (an error).
func (m *Manager) stillHeld(ctx context.Context, v *record, id, host string) (cloud.Volume, bool, error) {
	self := m.self().ID
	now, err := m.cloud.ByID(ctx, id)
	if err != nil {
		return cloud.Volume{}, false, fmt.Errorf("volume %q (%s): looking again whether %s still has it: %w", v.name, id, host, err)
	}
	v.saw(now, self)
	other, still := now.Elsewhere(self)
	switch {
	case !still:
		return now, false, nil
	case other.Host != host:
		return now, false, &cloud.HolderError{Volume: v.name, ID: id, Host: other.Host, State: other.State}
	}
	return now, true, nil
}

// awaitRelease waits until the volume is attached to no other host.
func (m *Manager) awaitRelease(ctx context.Context, v *record, id, host string) (cloud.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timing.Detach)
	defer cancel()
	for pause := m.timing.Absent / 5; ; pause = min(2*pause, m.timing.Absent) {
		vol, err := m.cloud.ByID(ctx, id)
		if err == nil {
			v.saw(vol, m.self().ID)
			other, still := vol.Elsewhere(m.self().ID)
			if !still {
				return vol, nil
			}
			if other.Host != host {
				return vol, &cloud.HolderError{Volume: v.name, ID: id, Host: other.Host, State: other.State}
			}
		}
		if err := m.pause(ctx, pause); err != nil {
			return cloud.Volume{}, fmt.Errorf("volume %q (%s) is still being detached from %s: %w", v.name, id, host, err)
		}
	}
}

func (m *Manager) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// alive tells why a holder is not taken for dead, and the way out.
func alive(h cloud.HostState, volume string) string {
	switch {
	case h.Power == cloud.Stopped:
		return fmt.Sprintf("EC2 says that %s is stopped, but hibernated or possibly so (%s): it would resume with the filesystem mounted; "+
			"start it and stop it without hibernation, or terminate it", h.ID, h.Reason)
	case h.Power == cloud.Running:
		return fmt.Sprintf("EC2 says that %s is running: while it runs, nothing proves that it does not write; if it hangs, stop it, and the volume is taken then: "+
			"blockvol detach %s --stop-instance", h.ID, volume)
	}
	return fmt.Sprintf("EC2 says that %s is %s: try again when that has ended", h.ID, h.Power)
}

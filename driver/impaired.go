package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// stopImpaired stops the host that has the volume, if EC2's status checks of it have failed for as long as the rule impaired wants, in two
// answers with time between, and waits until it is stopped. One that is stopping already is waited for. free says that the volume was
// released meanwhile. Whether the host is dead in the end is not decided here.
func (m *Manager) stopImpaired(ctx context.Context, v *record, vol cloud.Volume, held *cloud.HolderError) (now cloud.Volume, free bool, err error) {
	for look := 0; look < 2; look++ {
		if look > 0 {
			if err := m.pause(ctx, m.timing.Absent); err != nil {
				return vol, false, fmt.Errorf("%w; whether that host is ill is not certain yet: %w", held, err)
			}
		}
		health, err := m.cloud.HostHealth(ctx, held.Host)
		switch {
		case err != nil:
			return vol, false, fmt.Errorf("%w; what EC2's status checks say of that host cannot be told: %w", held, err)
		case health.Power == cloud.Stopping:
			return m.awaitStopped(ctx, v, vol.ID, held.Host, nil)
		case health.Power != cloud.Running:
			return vol, false, nil
		case health.ImpairedFor() < m.cfg.Settings.ImpairedAfter || health.ImpairedFor() == 0:
			return vol, false, fmt.Errorf("%w; %s; it is stopped by itself only after they have failed for %s (%s)", held, alive(health.HostState, v.name),
				m.cfg.Settings.ImpairedAfter, checksText(health))
		case health.NoStop != "":
			return vol, false, fmt.Errorf("%w; its status checks fail (%s), but %s is not stopped: %s", held, checksText(health), held.Host, health.NoStop)
		}
	}
	return m.stopHost(ctx, v, vol.ID, held.Host, nil)
}

// stopHost stops a host for the sake of a volume that it has, and waits until it is stopped. free says that it does not have the volume any more.
func (m *Manager) stopHost(ctx context.Context, v *record, id, host string, say Say) (now cloud.Volume, free bool, err error) {
	// An instance that must be stopped is not stopped for nothing, and never this one.
	now, still, err := m.stillHeld(ctx, v, id, host)
	if err != nil || !still {
		return now, err == nil, err
	}
	m.log.WithField("volume", v.name).Warnf("stopping the instance %s, which has %s", host, id)
	v.begin(phaseFree, "stopping "+host+", which has the volume")
	m.step(StepStop)
	if err := m.cloud.StopHost(ctx, host); err != nil {
		return now, false, fmt.Errorf("volume %q (%s) stays with %s: %w", v.name, id, host, err)
	}
	m.step(StepStopSent)
	return m.awaitStopped(ctx, v, id, host, say)
}

// awaitStopped waits until a host that is stopping is not any more, or has released the volume.
func (m *Manager) awaitStopped(ctx context.Context, v *record, id, host string, say Say) (now cloud.Volume, free bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.timing.Stop)
	defer cancel()
	began, told := time.Now(), time.Now()
	doing := "stopping " + host + ", which has the volume"
	v.begin(phaseFree, doing)
	force := fmt.Sprintf("a stop that hangs is ended by: aws ec2 stop-instances --force --instance-ids %s", host)
	last := cloud.Stopping // as far as EC2 has answered
	for pause := m.timing.Absent / 5; ; pause = min(2*pause, m.timing.Absent) {
		state, lookErr := m.cloud.HostState(ctx, host)
		if lookErr == nil {
			last = state.Power
		}
		now, still, heldErr := m.stillHeld(ctx, v, id, host)
		switch {
		case heldErr == nil && !still:
			return now, true, nil
		case errors.Is(heldErr, cloud.ErrInUse): // a third host
			return now, false, heldErr
		case lookErr == nil && heldErr == nil && state.Power != cloud.Stopping && state.Power != cloud.Running:
			return now, false, nil
		}
		if time.Since(began) > m.timing.Stop/2 {
			v.set(func() { v.doing = doing + "; that takes unusually long (" + force + ")" })
		}
		if say != nil && time.Since(told) > 10*time.Second {
			told = time.Now()
			say("%s is still %s, for %s", host, last, time.Since(began).Round(time.Second))
		}
		if m.pause(ctx, pause) != nil {
			v.set(func() { v.doing = "" })
			return now, false, fmt.Errorf("volume %q (%s) stays with %s: EC2 has not stopped that instance within %s (it is %s); %s; then try again", v.name, id, host,
				time.Since(began).Round(time.Second), last, force)
		}
	}
}

// checksText shows both status checks as "system check ok, instance check impaired since 2006-01-02T15:04:05Z".
func checksText(h cloud.HostHealth) string {
	return "system check " + checkText(h.System) + ", instance check " + checkText(h.Instance)
}

func checkText(c cloud.Check) string {
	switch {
	case c.Status == "":
		return "unknown"
	case c.Since.IsZero():
		return c.Status
	}
	return c.Status + " since " + c.Since.UTC().Format(time.RFC3339)
}

package driver

import (
	"time"

	"github.com/sirupsen/logrus"
)

// The states of a volume beside its phases on a host: they begin and end its life in the cluster.
const (
	phaseNone     phase = "none"     // there is no volume of that name
	phaseRemoved  phase = "removed"  // removed, and not deleted yet: it can be brought back
	phaseDeleted  phase = "deleted"  // its end
	phaseReleased phase = "released" // given up and kept
)

// change is one change of a volume's state.
type change struct {
	volume, id string
	from, to   phase
	cause      string        // the operation, or empty
	lasted     time.Duration // how long it was in from; 0 if that began before this process
	moving     time.Duration // since AttachVolume or DetachVolume was sent, for the changes that end them
}

// enter changes the phase, and tells of it. The caller holds mu.
func (v *record) enter(p phase) {
	if v.phase == p {
		return
	}
	if p == phaseAttaching || p == phaseDetaching && v.phase != phaseBusy {
		v.movingSince = time.Now()
	}
	v.tell(v.phase, p)
	v.phase, v.phaseSince = p, time.Now()
}

// tell tells of a change of the volume's state. The caller holds mu.
func (v *record) tell(from, to phase) {
	if v.changed == nil {
		return
	}
	c := change{volume: v.name, id: v.id, from: from, to: to, cause: v.cause}
	if from == v.phase && !v.phaseSince.IsZero() {
		c.lasted = time.Since(v.phaseSince)
	}
	if !v.movingSince.IsZero() {
		c.moving = time.Since(v.movingSince)
	}
	v.changed(c)
}

// changed counts a change of a volume's state, and writes the one line that it has in the log. It is called with the record locked, and must wait for
// nothing: the log never does.
func (m *Manager) changed(c change) {
	fields := logrus.Fields{"volume": c.volume, "id": c.id, "host": m.self().ID, "from": string(c.from), "to": string(c.to), "cause": c.cause}
	if c.lasted > 0 {
		fields["duration"] = c.lasted.Round(time.Millisecond).String()
	}
	m.log.WithFields(fields).Info("state")
	m.count(c)
}

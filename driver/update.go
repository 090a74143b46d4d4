package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// UpdateRequest asks for a volume that exists to be changed.
type UpdateRequest struct {
	Volume    string            `json:"volume"`              // its name, or its ID (vol-...)
	ID        string            `json:"id,omitempty"`        // what was seen: if it is not true any more nothing is done; empty: whatever has the name
	Set       map[string]string `json:"set,omitempty"`       // options as docker volume create has them; a size may be +SIZE
	Unset     []string          `json:"unset,omitempty"`     // options and tags (tag.KEY) that are not to be set any more
	DryRun    bool              `json:"dryRun,omitempty"`    // tell what would be changed, and change nothing
	NoWait    bool              `json:"noWait,omitempty"`    // end as soon as EC2 has accepted
	Completed bool              `json:"completed,omitempty"` // wait until EC2 has ended everything, not only until the volume has its new form
}

// Updated is what a volume was changed to.
type Updated struct {
	Volume  string            `json:"volume"`
	ID      string            `json:"id"`
	Changes []options.Changed `json:"changes"`           // empty: the volume has all that already
	SizeGiB int64             `json:"sizeGiB,omitempty"` // the new size, if it grows
	Lasting bool              `json:"lasting,omitempty"` // size or type change, which cannot be taken back at once or at all
	DryRun  bool              `json:"dryRun,omitempty"`
	State   string            `json:"state,omitempty"`   // of EC2's modification: modifying, optimizing or completed
	Percent int               `json:"percent,omitempty"` // of it
	Grown   bool              `json:"grown,omitempty"`   // the filesystem here has its new size
	Notes   []string          `json:"notes,omitempty"`   // what is still to happen, and when
}

// update changes a volume that exists. Size, type and performance go to EC2 in one step, without v's turn: that may take long, and containers
// come and go meanwhile. If the process dies on the way, or the caller goes, the next sweep or mount grows the filesystem.
func (m *Manager) update(ctx context.Context, req UpdateRequest, say Say) (Updated, error) {
	if err := checkName(req.Volume); err != nil {
		return Updated{}, err
	}
	if err := m.ready(ctx); err != nil {
		return Updated{}, err
	}
	v, vol, change, err := m.planUpdate(ctx, req)
	if err != nil {
		return Updated{}, err
	}
	out := Updated{Volume: v.name, ID: vol.ID, Changes: change.List, SizeGiB: change.Form.SizeGiB, DryRun: req.DryRun,
		Lasting: change.Form.SizeGiB != 0 || change.Form.Type != ""}
	out.Notes = m.updateNotes(ctx, v, vol, change, req)
	if len(change.List) == 0 || req.DryRun {
		return out, nil
	}
	if change.Form != (cloud.Form{}) {
		m.step(StepModify)
		say("asking EC2 to modify %s", vol.ID)
		accepted, err := m.cloud.Modify(ctx, vol.ID, change.Form)
		if err != nil {
			return Updated{}, err
		}
		m.step(StepModifySent)
		m.log.WithField("volume", v.name).Infof("modifying %s: %s", vol.ID, formText(change.Form))
		out.State, out.Percent = string(accepted.State), accepted.Progress
		if err := m.retag(ctx, v, vol.ID, change); err != nil {
			return Updated{}, fmt.Errorf("EC2 modifies the volume, but its options were not changed; repeat the command: %w", err)
		}
		if req.NoWait {
			return out, nil
		}
		last, err := m.awaitModified(ctx, v, vol.ID, accepted, req.Completed, say)
		if err != nil {
			return Updated{}, err
		}
		out.State, out.Percent = string(last.State), last.Progress
		if out.SizeGiB != 0 {
			out.Grown, err = m.growHere(ctx, v, vol.ID, out.SizeGiB, say)
		}
		return out, err
	}
	return out, m.retag(ctx, v, vol.ID, change)
}

// planUpdate looks the volume up and finds out what is to be changed.
func (m *Manager) planUpdate(ctx context.Context, req UpdateRequest) (*record, cloud.Volume, options.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*m.timing.Request)
	defer cancel()
	v, vol, err := m.byNameOrID(ctx, req.Volume)
	var change options.Change
	switch {
	case err != nil:
		return v, vol, change, err
	case req.ID != "" && req.ID != vol.ID:
		return v, vol, change, refuse("volume %q is %s now, not %s: look again", v.name, vol.ID, req.ID)
	case vol.Newer != nil:
		return v, vol, change, vol.Newer
	case vol.State != cloud.Available && vol.State != cloud.InUse:
		return v, vol, change, cloud.Errorf(cloud.ErrState, "volume %q (%s) is not changed: it is in state %s", v.name, vol.ID, vol.State)
	}
	if change, err = options.ParseChange(vol, req.Set, req.Unset); err != nil {
		return v, vol, change, fmt.Errorf("volume %q (%s) is not changed: %w", v.name, vol.ID, err)
	}
	if most := m.cfg.Settings.MaxSizeGiB; most > 0 && change.Form.SizeGiB > most {
		return v, vol, change, fmt.Errorf("volume %q (%s) is not changed: it would have %d GiB, and the setting MAX_SIZE of this host allows %d GiB at most; "+
			"ask for less, or change the setting", v.name, vol.ID, change.Form.SizeGiB, most)
	}
	return v, vol, change, nil
}

// updateNotes are the things that a person should know of a change.
func (m *Manager) updateNotes(ctx context.Context, v *record, vol cloud.Volume, change options.Change, req UpdateRequest) (notes []string) {
	self := m.self().ID
	_, mounted := m.mountedAt(v)
	other, elsewhere := vol.Elsewhere(self)
	if req.DryRun && change.Form != (cloud.Form{}) {
		last, err := m.cloud.LastModification(ctx, vol.ID)
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("whether EC2 would accept it now cannot be told: %v", err))
		case last.State == cloud.ModifyModifying || last.State == cloud.ModifyOptimizing:
			notes = append(notes, fmt.Sprintf("EC2 would not accept it now: the modification of %s is still %s (%d %%)", last.Started.UTC().Format(time.RFC3339), last.State, last.Progress))
		}
	}
	if change.Form.SizeGiB != 0 {
		switch {
		case mounted:
		case elsewhere:
			notes = append(notes, fmt.Sprintf("%s has the volume: blockvol there grows the filesystem by itself, within about a minute after EC2 has grown the volume", other.Host))
		default:
			notes = append(notes, "the filesystem grows when the volume is mounted the next time")
		}
	}
	_, set := change.Attrs["mount-options"]
	if set || slices.Contains(change.DropAttrs, "mount-options") {
		note := "the mount options count from the next mount on"
		if mounted || elsewhere {
			note += ": when the last container that uses the volume has ended and another one starts"
		}
		notes = append(notes, note)
	}
	if change.Form != (cloud.Form{}) && !req.Completed {
		notes = append(notes, "EC2 optimizes the volume for minutes to hours after it has its new form; until that is completed it may be slower, and cannot be modified again")
	}
	return notes
}

// retag changes what is written on a volume, with v's turn taken, so that no removal or mount here decides by what is being changed.
func (m *Manager) retag(ctx context.Context, v *record, id string, change options.Change) error {
	todo := cloud.Retag{Attrs: change.Attrs, Tags: change.Tags, DropAttrs: change.DropAttrs, DropTags: change.DropTags}
	if len(todo.Attrs)+len(todo.Tags)+len(todo.DropAttrs)+len(todo.DropTags) == 0 {
		return nil
	}
	return m.work(ctx, v, func(base context.Context) error {
		base, cancel := context.WithTimeout(base, time.Minute)
		defer cancel()
		v.set(func() { v.doing, v.doingSince = "changing its tags", time.Now() })
		defer v.set(func() { v.doing = "" })
		err := m.cloud.Retag(base, id, todo)
		v.set(func() {
			if v.seen == nil || v.seen.ID != id {
				return
			}
			if err != nil { // some of it may be done
				v.seenAt = time.Time{}
				return
			}
			changed := *v.seen
			changed.Attrs, changed.Tags = edited(v.seen.Attrs, todo.Attrs, todo.DropAttrs), edited(v.seen.Tags, todo.Tags, todo.DropTags)
			v.seen = &changed
		})
		return err
	})
}

// edited is a copy of a map with some keys set and others gone.
func edited(old, set map[string]string, drop []string) map[string]string {
	out := maps.Clone(old)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, set)
	for _, key := range drop {
		delete(out, key)
	}
	return out
}

// awaitModified waits until a modification that EC2 has accepted is in effect, or is completed, and notes what the volume is then.
func (m *Manager) awaitModified(ctx context.Context, v *record, id string, accepted cloud.Modification, completed bool, say Say) (cloud.Modification, error) {
	if accepted.State == cloud.ModifyNone {
		return accepted, nil // the volume had it already
	}
	for pause := m.timing.Absent / 20; ; pause = min(2*pause, m.timing.Absent) {
		last, err := m.cloud.LastModification(ctx, id)
		switch {
		case err != nil && (ctx.Err() != nil || !mayPass(err)):
			return last, fmt.Errorf("EC2 modifies volume %q (%s), but how far it is cannot be told (the filesystem grows by itself all the same): %w", v.name, id, err)
		case err != nil, before(last, accepted):
		case last.State == cloud.ModifyFailed:
			return last, cloud.Errorf(cloud.ErrState, "volume %q (%s) was not modified: EC2 could not do it (%s); it is as it was, and can be modified again", v.name, id, last.Message)
		case last.State == cloud.ModifyCompleted, !completed && last.InEffect():
			m.tookForm(v, id, last.To)
			return last, nil
		case last.State == cloud.ModifyOptimizing:
			m.tookForm(v, id, last.To)
			say("EC2 is optimizing %s: %d %%", id, last.Progress)
		default:
			say("EC2 is modifying %s: %d %%", id, last.Progress)
		}
		if err := m.pause(ctx, pause); err != nil {
			return last, err
		}
	}
}

// before tells whether an answer about the latest modification is older than the one that was accepted.
func before(last, accepted cloud.Modification) bool {
	return last.Started.Before(accepted.Started) && (last.To != accepted.To || last.State == cloud.ModifyFailed)
}

// mayPass tells whether a question that failed is worth another try.
func mayPass(err error) bool {
	return errors.Is(err, cloud.ErrUnavailable) || errors.Is(err, cloud.ErrThrottled)
}

// tookForm notes what a volume is since a modification.
func (m *Manager) tookForm(v *record, id string, f cloud.Form) {
	v.set(func() {
		if v.seen == nil || v.seen.ID != id {
			return
		}
		now := *v.seen
		now.SizeGiB, now.Type, now.IOPS, now.Throughput = f.SizeGiB, f.Type, f.IOPS, f.Throughput
		v.seen = &now
	})
}

func formText(f cloud.Form) string {
	text := ""
	for _, part := range []struct {
		name  string
		value any
		there bool
	}{{"size", fmt.Sprintf("%dGiB", f.SizeGiB), f.SizeGiB != 0}, {"type", f.Type, f.Type != ""}, {"iops", f.IOPS, f.IOPS != 0}, {"throughput", f.Throughput, f.Throughput != 0}} {
		if part.there {
			text += fmt.Sprintf(" %s=%v", part.name, part.value)
		}
	}
	return text[1:]
}

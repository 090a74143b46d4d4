package ec2sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Fault is something that shall go wrong. It hits the next calls that it matches.
type Fault struct {
	ID       string        `json:"id,omitempty"`       // set by Inject if empty
	Kind     string        `json:"kind"`               // see FaultKinds
	Action   string        `json:"action,omitempty"`   // which calls; empty: those that the kind is made for, or any
	Volume   string        `json:"volume,omitempty"`   // only calls that name this volume or snapshot; empty: any
	Instance string        `json:"instance,omitempty"` // only calls that name this instance or are signed by its role; empty: any
	Skip     int           `json:"skip,omitempty"`     // let so many matching calls pass first
	Times    int           `json:"times,omitempty"`    // how many calls it hits; 0 is once, -1 until it is removed
	Code     string        `json:"code,omitempty"`     // of the error, for kind error
	Message  string        `json:"message,omitempty"`  // of the error
	Status   int           `json:"status,omitempty"`   // of the error; 0 is what EC2 gives with the code, as a rule 400
	Duration time.Duration `json:"-"`                  // for the kinds that last; in JSON a text such as "400ms"
	Count    int           `json:"count,omitempty"`    // for page-size
	Serial   string        `json:"serial,omitempty"`   // for wrong-serial
}

// faultKind is one way of going wrong. Each hook is for one stage of a call; unused ones are nil.
type faultKind struct {
	about    string
	action   string                                                   // hit when Fault.Action is empty
	check    func(f Fault, hits action) error                         // refuses a fault that lacks something
	before   func(f Fault, ctx context.Context) (cut bool, err error) // before the call is carried out
	onCreate func(f Fault, v *volume)                                 // a volume is being made
	onAttach func(f Fault, q *quirks)                                 // an attachment is being made
	onDetach func(f Fault, q *quirks)                                 // an attachment is being ended
	onPower  func(f Fault, i *Instance)                               // an instance is being stopped or ended
	onSnap   func(f Fault, n *snapshot)                               // a snapshot is being made
	onModify func(f Fault, m *modification)                           // a volume is being modified
}

var faultKinds = map[string]faultKind{
	"error": {about: "the call fails with code, message and status, and nothing has been done",
		check: func(f Fault, _ action) error {
			if f.Code == "" {
				return fmt.Errorf("needs a code")
			}
			return nil
		},
		before: func(f Fault, _ context.Context) (bool, error) { return false, f.asError() }},
	"hang": {about: "the call gets no answer and nothing has been done; the connection is cut after duration, or stays until the client leaves",
		before: func(f Fault, ctx context.Context) (bool, error) {
			if f.Duration > 0 {
				wait(ctx, f.Duration)
			} else {
				<-ctx.Done()
			}
			return true, nil
		}},
	"lost-answer": {about: "the call is carried out and the connection is cut instead of an answer"},
	"delay": {about: "the call waits for duration before it is carried out", check: needsDuration,
		before: func(f Fault, ctx context.Context) (bool, error) { wait(ctx, f.Duration); return false, nil }},
	"page-size": {about: "a Describe gives at most count results per page",
		check: func(f Fault, _ action) error {
			if f.Count < 1 {
				return fmt.Errorf("needs a count of at least 1")
			}
			return nil
		}},
	"invisible": {about: "what the call changes stays unseen by every Describe for duration; given for a Describe: the volume or snapshot, or all, are missing in it",
		action: "CreateVolume",
		check: func(f Fault, hits action) error {
			if hits.mutating {
				return needsDuration(f, hits)
			}
			return nil
		}},
	"create-failed": {about: "the new volume ends in the state error", action: "CreateVolume",
		onCreate: func(_ Fault, v *volume) { v.CreateFails = true }},
	"kms-failed": {about: "the new volume vanishes instead of becoming available, as with a key that cannot be used", action: "CreateVolume",
		onCreate: func(_ Fault, v *volume) { v.KMSBad = true }},
	"snapshot-failed": {about: "the new snapshot ends in the state error", action: "CreateSnapshot",
		onSnap: func(_ Fault, n *snapshot) { n.Fails = true }},
	"modify-failed": {about: "the modification ends in the state failed, and the volume is as it was", action: "ModifyVolume",
		onModify: func(f Fault, m *modification) { m.Fails, m.Message = true, f.Message }},
	"stuck-attaching": {about: "the attachment stays attaching until it is detached", action: "AttachVolume",
		onAttach: func(_ Fault, q *quirks) { q.NeverAttached = true }},
	"stuck-detaching": {about: "the attachment stays detaching until it is detached by force", action: "DetachVolume",
		onDetach: func(_ Fault, q *quirks) { q.NeverDetached = true }},
	"stuck-stopping": {about: "the instance stays stopping, with its devices, until it is stopped by force", action: "StopInstances",
		onPower: func(_ Fault, i *Instance) { i.NeverStops = i.State == StateStopping }},
	"keeps-volumes": {about: "the volumes of the terminated instance stay attached to it until they are detached", action: "TerminateInstances",
		onPower: func(_ Fault, i *Instance) { i.KeepsVolumes = true }},
	"no-device": {about: "attached, but the host never sees the device", action: "AttachVolume",
		onAttach: func(_ Fault, q *quirks) { q.NoDevice = true }},
	"late-device": {about: "attached, but the host sees the device duration later", action: "AttachVolume", check: needsDuration,
		onAttach: func(f Fault, q *quirks) { q.DeviceDelay = f.Duration }},
	"wrong-serial": {about: "the device shows serial, or another volume's ID", action: "AttachVolume",
		onAttach: func(f Fault, q *quirks) {
			other := f.Serial
			if other == "" {
				other = serial(newID("vol"))
			}
			q.Serial = &other
		}},
	"empty-serial": {about: "the device shows no serial", action: "AttachVolume",
		onAttach: func(_ Fault, q *quirks) { q.Serial = new(string) }},
}

func needsDuration(f Fault, _ action) error {
	if f.Duration <= 0 {
		return fmt.Errorf("needs a duration")
	}
	return nil
}

// FaultKinds returns the kinds of faults and what each does.
func FaultKinds() map[string]string {
	out := map[string]string{}
	for name, k := range faultKinds {
		out[name] = k.about
	}
	return out
}

// Inject arms a fault.
func (s *Sim) Inject(f Fault) error {
	kind, ok := faultKinds[f.Kind]
	if !ok {
		return fmt.Errorf("ec2sim: fault kind %q is not known; there are %s", f.Kind, strings.Join(slices.Sorted(maps.Keys(faultKinds)), ", "))
	}
	if f.Action == "" {
		f.Action = kind.action
	}
	hits, ok := actions[f.Action]
	if f.Action != "" && !ok {
		return fmt.Errorf("ec2sim: fault %s for an action that is not known: %q", f.Kind, f.Action)
	}
	if kind.check != nil {
		if err := kind.check(f, hits); err != nil {
			return fmt.Errorf("ec2sim: fault %s %w", f.Kind, err)
		}
	}
	if f.Times == 0 {
		f.Times = 1
	}
	if f.ID == "" {
		f.ID = newID("fault")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
	return nil
}

// Faults returns the faults that can still hit.
func (s *Sim) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, f := range s.faults {
		out = append(out, *f)
	}
	return out
}

// RemoveFault removes one fault; false when there is none with that ID.
func (s *Sim) RemoveFault(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.faults)
	s.faults = slices.DeleteFunc(s.faults, func(f *Fault) bool { return f.ID == id })
	return len(s.faults) < before
}

// ClearFaults removes all faults. What they have done to volumes and attachments stays.
func (s *Sim) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFaults returns the faults that hit a call, and counts them down. Callers hold s.mu.
func (s *Sim) takeFaults(c *call) []Fault {
	var hit []Fault
	var kinds []string
	kept := s.faults[:0]
	for _, f := range s.faults {
		switch {
		case !f.matches(c):
		case f.Skip > 0:
			f.Skip--
		default:
			hit = append(hit, *f)
			kinds = append(kinds, f.Kind)
			if f.Times > 0 {
				f.Times--
			}
		}
		if f.Times != 0 {
			kept = append(kept, f)
		}
	}
	s.faults = kept
	c.log.Fault = strings.Join(kinds, ",")
	return hit
}

func (f Fault) matches(c *call) bool {
	if f.Action != "" && f.Action != c.action {
		return false
	}
	named := slices.Concat([]string{c.params["VolumeId"], c.params["SourceVolumeId"], c.params["SnapshotId"], c.params["InstanceId"]}, c.params.list("VolumeId"), c.params.list("SnapshotId"), c.params.list("InstanceId"), c.params.list("ResourceId"))
	// A Describe without IDs may show the volume: it matches.
	open := len(slices.DeleteFunc(slices.Clone(named), func(s string) bool { return s == "" })) == 0
	if f.Volume != "" && !slices.Contains(named, f.Volume) && (!open || actions[c.action].mutating) {
		return false
	}
	return f.Instance == "" || slices.Contains(named, f.Instance) || c.log.Instance == f.Instance
}

// statuses are the HTTP statuses of codes that are not 400.
var statuses = map[string]int{
	"RequestLimitExceeded": 503, "Unavailable": 503, "ServiceUnavailable": 503, "InternalError": 500, "InternalFailure": 500,
	"InsufficientVolumeCapacity": 500, "UnauthorizedOperation": 403, "AuthFailure": 401, "DryRunOperation": 412,
}

func (f Fault) asError() error {
	status := f.Status
	if status == 0 {
		status = statuses[f.Code]
	}
	if status == 0 {
		status = 400
	}
	message := f.Message
	if message == "" {
		message = "The simulator was told to answer so."
	}
	return errorf(status, f.Code, "%s", message)
}

// before passes a call through a fault's first stage. The context ends with the client's connection.
func (f Fault) before(s *Sim, ctx context.Context) (cut bool, err error) {
	hook := faultKinds[f.Kind].before
	if hook == nil {
		return false, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	return hook(f, ctx)
}

func (f Fault) onCreate(v *volume) {
	if hook := faultKinds[f.Kind].onCreate; hook != nil {
		hook(f, v)
	}
}

func (f Fault) onAttach(a *attachment) {
	if hook := faultKinds[f.Kind].onAttach; hook != nil {
		hook(f, &a.Quirks)
	}
}

func (f Fault) onDetach(a *attachment) {
	if hook := faultKinds[f.Kind].onDetach; hook != nil {
		hook(f, &a.Quirks)
	}
}

func (f Fault) onSnapshot(n *snapshot) {
	if hook := faultKinds[f.Kind].onSnap; hook != nil {
		hook(f, n)
	}
}

func (f Fault) onModify(m *modification) {
	if hook := faultKinds[f.Kind].onModify; hook != nil {
		hook(f, m)
	}
}

func (f Fault) onInstance(i *Instance) {
	if hook := faultKinds[f.Kind].onPower; hook != nil {
		hook(f, i)
	}
}

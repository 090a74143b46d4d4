package ec2sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// stateFormat is the version of state.json. A simulator refuses to read a newer one.
const stateFormat = 1

// state is everything that survives a restart of the simulator. It is guarded by Sim.mu.
type state struct {
	Format    int                     `json:"format"`
	Region    string                  `json:"region"`
	Account   string                  `json:"account"`
	Secret    string                  `json:"secret"` // signs pagination tokens
	Instances map[string]*Instance    `json:"instances"`
	Volumes   map[string]*volume      `json:"volumes"`
	Tokens    map[string]*clientToken `json:"clientTokens"`
	Events    []*event                `json:"events"`
	Limits    Limits                  `json:"limits"`
}

// volume is a simulated EBS volume. Its data is the sparse file of its name.
type volume struct {
	ID          string            `json:"id"`
	Type        string            `json:"type"`
	Zone        string            `json:"zone"`
	State       string            `json:"state"` // creating, available, in-use, deleting, error
	SizeGiB     int64             `json:"size"`
	IOPS        int64             `json:"iops,omitempty"`
	Throughput  int64             `json:"throughput,omitempty"` // MiB/s
	SnapshotID  string            `json:"snapshot,omitempty"`
	Encrypted   bool              `json:"encrypted,omitempty"`
	KMSKeyID    string            `json:"kmsKey,omitempty"`
	KMSBad      bool              `json:"kmsBad,omitempty"` // the key cannot be used: the volume vanishes instead of becoming available
	CreateFails bool              `json:"createFails,omitempty"`
	MultiAttach bool              `json:"multiAttach,omitempty"`
	Created     time.Time         `json:"created"`
	Tags        map[string]string `json:"tags,omitempty"`
	Attachments []*attachment     `json:"attachments,omitempty"`

	history     []version // for reads that lag behind; not kept on disk
	frozenAt    time.Time // until frozenUntil, reads see the volume as it was then
	frozenUntil time.Time
}

// attachment is one instance's hold on a volume.
type attachment struct {
	Instance            string    `json:"instance"`
	Device              string    `json:"device"` // the name that was asked for
	State               string    `json:"state"`  // attaching, attached, detaching, busy
	Since               time.Time `json:"since"`
	DeleteOnTermination bool      `json:"deleteOnTermination,omitempty"`
	Force               bool      `json:"force,omitempty"`
	Plug                plug      `json:"plug"`
	Quirks              quirks    `json:"quirks"`
}

// quirks are what faults have done to one attachment.
type quirks struct {
	NeverAttached bool          `json:"neverAttached,omitempty"` // stays attaching
	NeverDetached bool          `json:"neverDetached,omitempty"` // stays detaching
	NoDevice      bool          `json:"noDevice,omitempty"`      // attached, but the host never sees a device
	DeviceDelay   time.Duration `json:"deviceDelay,omitempty"`   // attached, but the host sees the device later
	Serial        *string       `json:"serial,omitempty"`        // another serial than the volume's
}

// version is what a volume was from a moment on; volume is nil after its end.
type version struct {
	from   time.Time
	volume *volume
}

// clientToken remembers which request used a ClientToken.
type clientToken struct {
	Params string    `json:"params"` // a hash
	Volume string    `json:"volume"`
	Used   time.Time `json:"used"`
}

// tokenLife is how long EC2 remembers a ClientToken.
const tokenLife = 12 * time.Hour

// historyLife is how long the past of a volume is kept for reads that lag behind.
const historyLife = 10 * time.Minute

func (v *volume) clone() *volume {
	c := *v
	c.history = nil
	c.Tags = maps.Clone(v.Tags)
	c.Attachments = make([]*attachment, 0, len(v.Attachments))
	for _, a := range v.Attachments {
		copied := *a
		c.Attachments = append(c.Attachments, &copied)
	}
	return &c
}

// on returns the volume's attachment to an instance, or nil.
func (v *volume) on(instance string) *attachment {
	for _, a := range v.Attachments {
		if a.Instance == instance {
			return a
		}
	}
	return nil
}

// drop removes an attachment; a volume without any becomes available again.
func (v *volume) drop(instance string) {
	kept := v.Attachments[:0]
	for _, a := range v.Attachments {
		if a.Instance != instance {
			kept = append(kept, a)
		}
	}
	v.Attachments = kept
	if len(kept) == 0 && v.State == "in-use" {
		v.State = "available"
	}
}

// touch records that a volume has changed, for reads that lag behind, and that the state must be saved. Callers hold s.mu.
func (s *Sim) touch(v *volume) {
	s.remember(v, v.clone())
}

// forget removes a volume for good. Reads that lag behind may still see it. Callers hold s.mu.
func (s *Sim) forget(v *volume) {
	delete(s.state.Volumes, v.ID)
	s.gone[v.ID] = v
	s.remember(v, nil)
	for id, g := range s.gone {
		if s.now().Sub(g.history[len(g.history)-1].from) > historyLife {
			delete(s.gone, id)
		}
	}
}

func (s *Sim) remember(v *volume, now *volume) {
	s.dirty = true
	at := s.now()
	first := 0
	for i, h := range v.history {
		if at.Sub(h.from) > historyLife {
			first = i
		}
	}
	v.history = append(v.history[first:], version{from: at, volume: now})
}

// seen returns a volume as a Describe sees it now, or nil. Callers hold s.mu and do not change the result.
func (s *Sim) seen(v *volume) *volume {
	now := s.now()
	until := now.Add(-s.delays.Visible)
	if now.Before(v.frozenUntil) {
		until = v.frozenAt
	}
	for i := len(v.history) - 1; i >= 0; i-- {
		if !v.history[i].from.After(until) {
			return v.history[i].volume
		}
	}
	return nil
}

// seenVolumes returns all volumes as a Describe sees them now. Callers hold s.mu.
func (s *Sim) seenVolumes() map[string]*volume {
	out := make(map[string]*volume, len(s.state.Volumes))
	for _, all := range []map[string]*volume{s.state.Volumes, s.gone} {
		for id, v := range all {
			if view := s.seen(v); view != nil {
				out[id] = view
			}
		}
	}
	return out
}

// load reads state.json, or makes the first state.
func (s *Sim) load() error {
	s.state = state{
		Format: stateFormat, Region: s.cfg.Region, Account: s.cfg.Account, Secret: randomHex(32),
		Instances: map[string]*Instance{}, Volumes: map[string]*volume{}, Tokens: map[string]*clientToken{}, Limits: DefaultLimits(),
	}
	raw, err := os.ReadFile(s.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		s.dirty = true
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &s.state); err != nil {
		return fmt.Errorf("read %s: %w", s.stateFile(), err)
	}
	if s.state.Format != stateFormat {
		return fmt.Errorf("%s has format %d, this program knows %d", s.stateFile(), s.state.Format, stateFormat)
	}
	if s.state.Region != s.cfg.Region || s.state.Account != s.cfg.Account {
		return fmt.Errorf("%s belongs to region %s, account %s; asked for are %s, %s", s.stateFile(), s.state.Region, s.state.Account, s.cfg.Region, s.cfg.Account)
	}
	for _, i := range s.state.Instances {
		if i.Root == "" { // written by an older version
			i.Root = RootEBS
		}
	}
	for _, v := range s.state.Volumes {
		v.history = []version{{volume: v.clone()}}
	}
	return nil
}

func (s *Sim) stateFile() string { return filepath.Join(s.cfg.Dir, "state.json") }

// save writes the state if it has changed. Callers hold s.mu. A failure is logged, not returned: what EC2 has answered has happened.
func (s *Sim) save() {
	if !s.dirty {
		return
	}
	raw, err := json.MarshalIndent(&s.state, "", " ")
	if err == nil {
		err = writeAtomically(s.stateFile(), raw)
	}
	if err != nil {
		s.log.WithError(err).Error("ec2sim: cannot save the state; a restart will see an older one")
		return
	}
	s.dirty = false
}

// writeAtomically replaces a file so that a reader, or a crash, finds the old or the new content and nothing between.
func writeAtomically(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err == nil {
		err = f.Sync()
	} else {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

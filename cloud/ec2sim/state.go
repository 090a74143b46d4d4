package ec2sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	Snapshots map[string]*snapshot    `json:"snapshots"`
	Bin       recycleBin              `json:"recycleBin"`
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
	SourceID    string            `json:"source,omitempty"` // the volume that it is a copy of
	Encrypted   bool              `json:"encrypted,omitempty"`
	KMSKeyID    string            `json:"kmsKey,omitempty"`
	KMSBad      bool              `json:"kmsBad,omitempty"` // the key cannot be used: the volume vanishes instead of becoming available
	CreateFails bool              `json:"createFails,omitempty"`
	MultiAttach bool              `json:"multiAttach,omitempty"`
	Created     time.Time         `json:"created"`
	Tags        map[string]string `json:"tags,omitempty"`
	Attachments []*attachment     `json:"attachments,omitempty"`

	Initialized  time.Time     `json:"initialized,omitzero"` // when all data of a snapshot or a source will have come in
	Status       string        `json:"status,omitempty"`     // what DescribeVolumeStatus says instead of ok
	Modification *modification `json:"modification,omitempty"`
	Modified     []time.Time   `json:"modified,omitempty"`   // the starts of its last modifications
	Snapshotted  time.Time     `json:"snapshotted,omitzero"` // the last CreateSnapshot
	Recycled     *stay         `json:"recycled,omitempty"`   // in the Recycle Bin

	past past[volume]
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

// clientToken remembers which request used a ClientToken.
type clientToken struct {
	Params string    `json:"params"` // a hash
	Volume string    `json:"volume"`
	Used   time.Time `json:"used"`
}

// tokenLife is how long EC2 remembers a ClientToken.
const tokenLife = 12 * time.Hour

func (v *volume) clone() *volume {
	c := *v
	c.past = past[volume]{}
	c.Tags = maps.Clone(v.Tags)
	c.Modified = slices.Clone(v.Modified)
	if v.Modification != nil {
		m := *v.Modification
		c.Modification = &m
	}
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
	s.dirty = true
	v.past.remember(s.now(), v.clone())
}

// forget removes a volume from what EC2 shows. Reads that lag behind may still see it. Callers hold s.mu.
func (s *Sim) forget(v *volume) {
	delete(s.state.Volumes, v.ID)
	s.gone[v.ID] = v
	s.dirty = true
	v.past.remember(s.now(), nil)
	for id, g := range s.gone {
		if g.past.ended(s.now()) {
			delete(s.gone, id)
		}
	}
}

// seenVolumes returns all volumes as a Describe sees them now. Callers hold s.mu and do not change them.
func (s *Sim) seenVolumes() map[string]*volume {
	out := make(map[string]*volume, len(s.state.Volumes))
	for _, all := range []map[string]*volume{s.state.Volumes, s.gone} {
		for id, v := range all {
			if view := v.past.seen(s.now(), s.delays.Visible); view != nil {
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
		Instances: map[string]*Instance{}, Volumes: map[string]*volume{}, Snapshots: map[string]*snapshot{}, Tokens: map[string]*clientToken{}, Limits: DefaultLimits(),
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
		v.past = loaded(v.clone())
	}
	for _, n := range s.state.Snapshots {
		n.past = loaded(n.clone())
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

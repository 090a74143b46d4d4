package ebs

import (
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// memory is what this process saw and did lately, by volume ID. It saves calls and helps to tell a stale answer from a new one; nothing
// depends on it.
type memory struct {
	mu  sync.Mutex
	now func() time.Time
	of  map[string]record

	pruned time.Time
}

// record is what is known of one volume; a zero time is never.
type record struct {
	name     string
	boundBy  string    // what tagBound said then: not empty if the name's client token did not make it
	seen     time.Time // last seen with the tags of our cluster, in a form that this version knows
	attached time.Time // last AttachVolume to this host that EC2 accepted
	device   string    // its device name
	detached time.Time // last DetachVolume from this host that EC2 accepted
	deleted  time.Time // DeleteVolume that EC2 accepted
	released time.Time // the release that EC2 accepted ...
	before   [2]string // ... and what the tags bound and released-at said before it
}

const (
	memoryLimit  = 8192
	memoryLength = time.Hour
	// A volume that we deleted stays deleted for this long, whatever an answer says [a volume may come back from the Recycle Bin].
	deletedLength = 10 * time.Minute
)

func newMemory(now func() time.Time) *memory {
	return &memory{now: now, of: map[string]record{}}
}

func (m *memory) get(id string) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.of[id]
}

func (m *memory) change(id string, f func(r *record, now time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, now := m.of[id], m.now()
	f(&r, now)
	if len(m.of) >= memoryLimit && now.Sub(m.pruned) > time.Minute {
		m.pruned = now
		for other, old := range m.of {
			if now.Sub(old.seen) > memoryLength && now.Sub(old.attached) > memoryLength {
				delete(m.of, other)
			}
		}
	}
	m.of[id] = r
}

// saw takes note of a volume of ours and corrects what the answer cannot know yet.
func (m *memory) saw(v cloud.Volume) cloud.Volume {
	m.change(v.ID, func(r *record, now time.Time) {
		r.name, r.boundBy, r.seen = v.Name, origin(v)[0], now
		if v.Newer != nil {
			r.seen = time.Time{}
		}
		if !r.deleted.IsZero() && now.Sub(r.deleted) < deletedLength && v.State != cloud.Deleted {
			v.State = cloud.Deleting
		}
		// What shows a volume that was given up as it was before is older than that. It may have come back to a name since.
		if !r.released.IsZero() && now.Sub(r.released) < deletedLength && origin(v) == r.before {
			v.State, r.seen = cloud.Deleting, time.Time{}
		}
	})
	return v
}

// foreign forgets that a volume was ours.
func (m *memory) foreign(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.of[id]; ok && !r.released.IsZero() {
		r.seen = time.Time{}
		m.of[id] = r
		return
	}
	delete(m.of, id)
}

// proven reports whether the volume was seen with our tags at most age ago; age 0 is ever.
func (m *memory) proven(id string, age time.Duration) bool {
	r := m.get(id)
	return !r.seen.IsZero() && (age == 0 || m.now().Sub(r.seen) <= age)
}

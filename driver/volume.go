package driver

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
)

// phase is where a volume stands on this host.
type phase string

const (
	phaseFree      phase = "free"      // nothing of it is here
	phaseAttaching phase = "attaching" // AttachVolume was sent
	phaseAttached  phase = "attached"  // the device is here, not mounted by us, not used by anybody
	phaseMounted   phase = "mounted"   // mounted by us
	phaseDraining  phase = "draining"  // unmounted by us, but a container still has it
	phaseDetaching phase = "detaching" // DetachVolume was sent
	phaseBusy      phase = "busy"      // the provider waits for the host to let go
)

// use is one mount ID that Docker has not given back.
type use struct {
	since     time.Time
	inherited bool // from before this process: its Unmount may have been lost while nobody listened
}

// record is what this host knows of one volume. Everything that changes the world (attach, format, mount, unmount, detach, delete)
// happens with turn taken; the fields are guarded by mu, which is never held while waiting for anything.
type record struct {
	name string
	turn turn

	mu          sync.Mutex
	id          string        // empty while no volume of that name is known
	seen        *cloud.Volume // what the cloud last said; kept up to date with our own changes
	seenAt      time.Time
	absentAt    time.Time // when the cloud last said that there is none
	ambiguous   *cloud.AmbiguousError
	twinsAt     time.Time // since when
	phase       phase     // changed by enter alone
	phaseSince  time.Time // zero: since before this process
	movingSince time.Time // when the last attach or detach began
	cause       string    // the operation that has the turn
	changed     func(change)
	doing       string // what is being done, for those who wait
	doingSince  time.Time
	leaving     bool // DetachVolume was accepted while the device was here: it will go, and is not used any more
	attached    bool // an attachment to this host exists, or may
	path        string
	mountedNow  bool // by this process, not by one before it
	users       map[string]use
	holdUntil   time.Time // no unmount before: an answer may be on its way to a container
	freeSince   time.Time
	detachedAt  time.Time // when an attachment to this host was last known to have ended
	snapped     time.Time // when the last snapshot was made from here
	changing    int       // Creates and Removes in flight: left out of List, because dockerd holds the name's lock
	looking     int       // Gets that wait for the cloud, likewise
	timer       *time.Timer
	due         time.Time
	lastErr     error    // of settling, for Status
	refused     *Refused // what Docker was last told instead of an answer
	failing     failing  // settling, again and again
	spans       int64    // size of the device, in bytes, when the filesystem was last made as large as it; 0: not known
	growing     bool     // the sweep has begun to grow it
	notGrown    failing  // growing it, again and again
	broken      string   // what is wrong with the mount, for Health
	brokenAt    time.Time
}

// turn is a lock that can be waited for with a deadline.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }

// set changes fields under mu.
func (v *record) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

// begin says what is being done now, for error texts and Status.
func (v *record) begin(p phase, what string) {
	v.set(func() {
		v.enter(p)
		v.doing, v.doingSince = what, time.Now()
	})
}

// rest says that nothing is being done.
func (v *record) rest(p phase) {
	v.set(func() {
		v.enter(p)
		v.doing = ""
	})
}

// known returns the ID and the last word of the cloud.
func (v *record) known() (id string, seen *cloud.Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.id, v.seen
}

// saw records what the cloud said, and returns it without what is known to be stale in it. An attachment to this host that began before the
// last one is known to have ended is a stale view.
func (v *record) saw(vol cloud.Volume, host string) cloud.Volume {
	v.set(func() {
		if a, here := vol.On(host); here && a.Since.Before(v.detachedAt) {
			vol.Attachments = nil
		}
		if v.seen != nil && v.seen.ID == vol.ID {
			keepTag(&vol, v.seen.Attrs[attrFS])
		}
		v.id, v.seen, v.seenAt, v.absentAt, v.ambiguous = vol.ID, &vol, time.Now(), time.Time{}, nil
		if a, here := vol.On(host); here {
			v.attached = true
			v.leaving = v.leaving || a.State == cloud.Detaching || a.State == cloud.Busy
		}
	})
	return vol
}

// twins records that several volumes have the name.
func (v *record) twins(err *cloud.AmbiguousError) {
	v.set(func() {
		if v.ambiguous == nil {
			v.twinsAt = time.Now()
		}
		v.ambiguous = err
	})
}

// keepTag undoes what a stale answer says of the format tag: it only ever moves on to the name of a filesystem, and stays there.
func keepTag(vol *cloud.Volume, known string) {
	if known == "" || known == disk.TagNone || strings.HasPrefix(known, disk.TagFormatting) || vol.Attrs[attrFS] == known {
		return
	}
	if now := vol.Attrs[attrFS]; now != disk.TagNone && !strings.HasPrefix(now, disk.TagFormatting) {
		return // changed by a person; the format rule judges it
	}
	attrs := maps.Clone(vol.Attrs)
	attrs[attrFS] = known
	vol.Attrs = attrs
}

// userIDs are the mount IDs not given back, for the ledger.
func (v *record) userIDs() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	ids := make([]string, 0, len(v.users))
	for id := range v.users {
		ids = append(ids, id)
	}
	return ids
}

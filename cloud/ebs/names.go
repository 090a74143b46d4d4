package ebs

import (
	"fmt"
	"sync"
	"time"
)

// allocator gives out device names. A Nitro instance uses them for nothing but to tell attachments apart, and EC2 refuses a name that
// is taken; so a name is reserved before AttachVolume, and the allocator goes round, because a name that was just detached may still
// be taken for EC2.
type allocator struct {
	mu     sync.Mutex
	now    func() time.Time
	stale  time.Duration // an answer may be this much older than a change
	names  []string
	cursor int
	enis   int // network interfaces of the instance
	taken  map[string]hold
}

// hold is a name that cannot be used. A name without a volume is taken by something that EC2 does not list [devices of the AMI].
type hold struct {
	volume string
	since  time.Time
	flying bool // AttachVolume has not been answered
}

func newAllocator(now func() time.Time, stale time.Duration) *allocator {
	return &allocator{now: now, stale: stale, names: deviceNames(), taken: map[string]hold{}}
}

// deviceNames lists the names EC2 takes for EBS data volumes on Nitro instances. /dev/xvdc? is left out [broken for some types, by the
// experience of the EBS CSI driver], and so is /dev/sda, the root.
func deviceNames() []string {
	var names []string
	for _, r := range []struct {
		stem        string
		first, last byte
	}{
		{"/dev/xvda", 'a', 'z'},
		{"/dev/xvdb", 'a', 'z'},
		{"/dev/xvdd", 'a', 'x'},
		{"/dev/xvd", 'b', 'z'},
		{"/dev/sd", 'b', 'z'},
	} {
		for c := r.first; c <= r.last; c++ {
			names = append(names, r.stem+string(c))
		}
	}
	return names
}

// reserve takes a free name for a volume. It reports full when the instance can hold no more attachments.
func (a *allocator) reserve(volume string, m machine) (name string, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit := a.limit(m); limit > 0 && a.volumes() >= limit {
		return "", true
	}
	for i := range a.names {
		at := (a.cursor + i) % len(a.names)
		if _, taken := a.taken[a.names[at]]; taken {
			continue
		}
		a.cursor = at + 1
		a.taken[a.names[at]] = hold{volume: volume, since: a.now(), flying: true}
		return a.names[at], false
	}
	return "", true
}

// limit is the number of volumes the instance can hold, 0 if unknown. The type's number allows for one network interface.
func (a *allocator) limit(m machine) int {
	if m.max == 0 || !m.shared {
		return m.max
	}
	return max(1, m.max-max(0, a.enis-1))
}

func (a *allocator) volumes() int {
	n := 0
	for _, h := range a.taken {
		if h.volume != "" {
			n++
		}
	}
	return n
}

// load tells the numbers for the user.
func (a *allocator) load(m machine) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := fmt.Sprintf("%d volumes are attached", a.volumes())
	if limit := a.limit(m); limit > 0 {
		text += fmt.Sprintf(" and %s allows %d", m.kind, limit)
		if m.shared {
			text += fmt.Sprintf(" (%d attachments shared with %d network interfaces)", m.max, a.enis)
		}
	}
	return text
}

// attached says that EC2 accepted the attachment.
func (a *allocator) attached(name, volume string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other, h := range a.taken {
		if h.volume == volume && !h.flying {
			delete(a.taken, other) // of an attachment that has ended
		}
	}
	a.taken[name] = hold{volume: volume, since: a.now()}
}

// release gives back a name whose AttachVolume came to nothing.
func (a *allocator) release(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken[name].flying {
		delete(a.taken, name)
	}
}

// refused says that EC2 has the name in use by something else.
func (a *allocator) refused(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken[name] = hold{since: a.now()}
}

// gone says that the volume is not attached to this host any more.
func (a *allocator) gone(volume string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, h := range a.taken {
		if h.volume == volume && !h.flying {
			delete(a.taken, name)
		}
	}
}

// refusedLength is how long a name that EC2 refused is not tried again.
const refusedLength = 10 * time.Minute

// replace takes over what DescribeInstances, asked at that moment, said. What is in flight or newer than the answer can know stays, and so does,
// for a while, a name that EC2 refused.
func (a *allocator) replace(asked time.Time, mappings map[string]string, enis int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.enis = enis
	for name, h := range a.taken {
		listed, still := mappings[name]
		switch {
		case still && listed == h.volume:
		case h.flying || h.since.After(asked.Add(-a.stale)):
		case h.volume == "" && !still && asked.Sub(h.since) < refusedLength:
		default:
			delete(a.taken, name)
		}
	}
	for name, volume := range mappings {
		if _, known := a.taken[name]; !known {
			a.taken[name] = hold{volume: volume, since: asked}
		}
	}
}

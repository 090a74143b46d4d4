package ec2sim

import "time"

// historyLife is how long the past of a resource is kept for reads that lag behind.
const historyLife = 10 * time.Minute

// version is what a resource was from a moment on; is is nil after its end.
type version[T any] struct {
	from time.Time
	is   *T
}

// past is what a resource was lately, for reads that lag behind. It is not kept on disk.
type past[T any] struct {
	versions    []version[T]
	frozenAt    time.Time // until frozenUntil, reads see the resource as it was then
	frozenUntil time.Time
}

// loaded is the past of a resource that was read from disk: it has always been so.
func loaded[T any](is *T) past[T] { return past[T]{versions: []version[T]{{is: is}}} }

// remember takes note of what the resource is from now on; nil is its end.
func (p *past[T]) remember(at time.Time, is *T) {
	first := 0
	for i, v := range p.versions {
		if at.Sub(v.from) > historyLife {
			first = i
		}
	}
	p.versions = append(p.versions[first:], version[T]{from: at, is: is})
}

// ended tells whether the end of the resource is so long ago that no read can see it any more.
func (p *past[T]) ended(now time.Time) bool {
	return now.Sub(p.versions[len(p.versions)-1].from) > historyLife
}

// seen returns the resource as a Describe sees it that lags behind, or nil. Callers do not change the result.
func (p *past[T]) seen(now time.Time, lag time.Duration) *T {
	until := now.Add(-lag)
	if now.Before(p.frozenUntil) {
		until = p.frozenAt
	}
	for i := len(p.versions) - 1; i >= 0; i-- {
		if !p.versions[i].from.After(until) {
			return p.versions[i].is
		}
	}
	return nil
}

// freeze hides what a call that came at that time has changed, if one of its faults says so.
func (p *past[T]) freeze(c *call, now time.Time) {
	for _, f := range c.faults {
		if f.Kind == "invisible" {
			p.frozenAt, p.frozenUntil = c.log.Time, now.Add(f.Duration)
		}
	}
}

// unhidden takes out of a Describe's resources those that a fault hides.
func unhidden[T any](c *call, all map[string]*T) map[string]*T {
	for _, f := range c.faults {
		if f.Kind == "invisible" {
			for id := range all {
				if f.Volume == "" || f.Volume == id {
					delete(all, id)
				}
			}
		}
	}
	return all
}

package ebs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// poller watches volumes. All waits share its questions: whenever the look of one is due, it asks for all of them at once. Each wait has its
// own rhythm and judges only what was said of its own volume.
type poller struct {
	timing Timing
	now    func() time.Time
	ask    func(ctx context.Context, ids []string) (map[string]cloud.Volume, error)
	wake   chan struct{} // capacity 1: the set of waiters has changed

	mu      sync.Mutex
	waiters map[*waiter]struct{}
	running bool
}

// look is one answer about one volume.
type look struct {
	at      time.Time
	volume  cloud.Volume
	present bool // the volume exists and is ours
}

// waiter is one wait. judge is called for one answer at a time and says whether the wait has ended, and how.
type waiter struct {
	id     string
	judge  func(look) (done bool, err error)
	next   time.Time
	every  time.Duration
	result chan error // capacity 1

	last    look
	lastErr error // why the last question had no answer
}

// wait adds w and returns its result. told makes the error for a context that ended first.
func (p *poller) wait(ctx context.Context, w *waiter, told func(last look, lastErr, cause error) error) error {
	w.result = make(chan error, 1)
	p.mu.Lock()
	p.waiters[w] = struct{}{}
	if !p.running {
		p.running = true
		go p.run(context.WithoutCancel(ctx))
	}
	p.mu.Unlock()
	p.nudge()
	select {
	case err := <-w.result:
		return err
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiters, w)
		last, lastErr := w.last, w.lastErr
		p.mu.Unlock()
		p.nudge()
		select {
		case err := <-w.result:
			return err
		default:
			return told(last, lastErr, ctx.Err())
		}
	}
}

func (p *poller) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run asks until nobody waits.
func (p *poller) run(ctx context.Context) {
	for {
		p.mu.Lock()
		if len(p.waiters) == 0 {
			p.running = false
			p.mu.Unlock()
			return
		}
		var due time.Time
		for w := range p.waiters {
			if due.IsZero() || w.next.Before(due) {
				due = w.next
			}
		}
		p.mu.Unlock()
		if pause := due.Sub(p.now()); pause > 0 {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-p.wake:
				timer.Stop()
				continue
			}
		}
		p.round(ctx)
	}
}

// round asks once for all volumes that are waited for.
func (p *poller) round(ctx context.Context) {
	p.mu.Lock()
	asked := make([]*waiter, 0, len(p.waiters))
	set := map[string]struct{}{}
	ids := make([]string, 0, len(p.waiters))
	for w := range p.waiters {
		asked = append(asked, w)
		if _, twice := set[w.id]; !twice {
			set[w.id] = struct{}{}
			ids = append(ids, w.id)
		}
	}
	p.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.timing.Lookup)
	defer cancel()
	start := p.now()
	found, err := p.ask(ctx, ids)
	end := p.now()

	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range asked {
		if _, waits := p.waiters[w]; !waits {
			continue
		}
		if !w.next.After(start) {
			w.every = p.timing.grow(w.every)
		}
		w.next = end.Add(max(w.every, p.timing.PollMin))
		if err != nil {
			w.lastErr = err
			if !temporary(err) {
				delete(p.waiters, w)
				w.result <- err
			}
			continue
		}
		s, present := found[w.id]
		w.last, w.lastErr = look{at: end, volume: s, present: present}, nil
		if done, err := w.judge(w.last); done {
			delete(p.waiters, w)
			w.result <- err
		}
	}
}

// since measures for how long a condition has held without a break.
type since struct{ first time.Time }

// held notes whether the condition holds now and reports whether it did at least twice, that far apart.
func (s *since) held(holds bool, now time.Time, apart time.Duration) bool {
	if !holds {
		s.first = time.Time{}
		return false
	}
	if s.first.IsZero() {
		s.first = now
		return false
	}
	return now.Sub(s.first) >= apart
}

// WaitAttached waits until EC2 calls the attachment to this instance complete.
func (c *Client) WaitAttached(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	known := c.known.get(id)
	var absent, ended, stuck since
	w := &waiter{id: id, next: c.firstLook(known.attached, c.timing.Attaching)}
	w.judge = func(l look) (bool, error) {
		if !l.present {
			if absent.held(true, l.at, c.timing.Vanish) {
				return true, notFound(c.refer(id))
			}
			return false, nil
		}
		absent.held(false, l.at, 0)
		a, here := l.volume.On(host.ID)
		// The attachment under another name than the one asked for last is one that has ended since.
		stale := here && known.device != "" && a.Device != known.device && l.at.Sub(known.attached) < c.timing.Consistency
		if here && a.State == cloud.Attached && !stale {
			return true, nil
		}
		// An accepted attach is not visible at once; what contradicts it must last.
		patience := c.timing.PollMin
		if l.at.Sub(known.attached) < c.timing.Consistency {
			patience = c.timing.Consistency
		}
		if ended.held(!here, l.at, patience) {
			if other, held := l.volume.Elsewhere(host.ID); held {
				return true, &cloud.HolderError{Volume: l.volume.Name, ID: id, Host: other.Host, State: other.State}
			}
			return true, cloud.Errorf(cloud.ErrState, "volume %q (%s) is not attached to this instance (%s): its attachment has ended or was never made",
				l.volume.Name, id, host.ID)
		}
		leaving := here && !stale && (a.State == cloud.Detaching || a.State == cloud.Busy)
		if stuck.held(leaving, l.at, patience) {
			return true, cloud.Errorf(cloud.ErrState, "volume %q (%s) is %s from this instance (%s)", l.volume.Name, id, a.State, host.ID)
		}
		return false, nil
	}
	return c.explain("wait for the attachment of", c.refer(id), c.poll.wait(ctx, w, c.unfinished(id, host, "attached to")))
}

// WaitDetached waits until EC2 shows no attachment to this instance.
func (c *Client) WaitDetached(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	known := c.known.get(id)
	var absent, free since
	seenHere := false
	w := &waiter{id: id, next: c.firstLook(known.detached, c.timing.Detaching)}
	w.judge = func(l look) (bool, error) {
		if !l.present {
			return absent.held(true, l.at, c.timing.Vanish), nil
		}
		absent.held(false, l.at, 0)
		if a, here := l.volume.On(host.ID); here {
			seenHere = true
			free.held(false, l.at, 0)
			if a.State == cloud.Busy {
				return true, c.busy(ref{name: l.volume.Name, id: id}, a)
			}
			return false, nil
		}
		// In use by nobody is an answer that contradicts itself. An answer that does not know of a recent attach yet looks like a detach.
		if l.volume.State == cloud.InUse && len(l.volume.Attachments) == 0 {
			free.held(false, l.at, 0)
			return false, nil
		}
		usual := known.detached.After(known.attached) && l.at.Sub(known.detached) >= c.timing.Detaching
		if !seenHere && !usual && l.at.Sub(known.attached) < c.timing.Consistency {
			return free.held(true, l.at, c.timing.PollMin), nil
		}
		return true, nil
	}
	err = c.poll.wait(ctx, w, c.unfinished(id, host, "detached from"))
	if err == nil {
		c.names.gone(id)
	}
	return c.explain("wait for the detachment of", c.refer(id), err)
}

// firstLook is now, or somewhat after a change that EC2 accepted just now.
func (c *Client) firstLook(accepted time.Time, usual time.Duration) time.Time {
	now := c.now()
	if soon := accepted.Add(usual); soon.After(now) {
		return soon
	}
	return now
}

// unfinished tells what was seen last when a wait ends before its event.
func (c *Client) unfinished(id string, host cloud.Host, goal string) func(look, error, error) error {
	start := c.now()
	return func(last look, lastErr, cause error) error {
		waited := ago(c.now(), start)
		var state string
		switch {
		case last.at.IsZero() && lastErr != nil:
			return errors.Join(lastErr, cause)
		case last.at.IsZero():
			state = "EC2 has not answered yet"
		case !last.present:
			state = "EC2 does not show the volume"
		default:
			state = fmt.Sprintf("the volume is %s", last.volume.State)
			if a, ok := last.volume.On(host.ID); ok {
				state = fmt.Sprintf("the attachment, begun at %s (%s ago), is %s", a.Since.UTC().Format(time.RFC3339), ago(c.now(), a.Since), a.State)
			}
		}
		return &cloud.Error{Kind: cloud.ErrState, Cause: cause, Text: fmt.Sprintf(
			"%s is not %s this instance (%s) after %s: %s; if it stays so, look at the instance and the volume in the EC2 console (a stuck attachment ends with a detach there)",
			c.refer(id), goal, host.ID, waited, state)}
	}
}

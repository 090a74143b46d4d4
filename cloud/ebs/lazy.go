package ebs

import (
	"context"
	"sync"
	"time"
)

// lazy is a value that is made by the first request that needs it and kept once that succeeded. Requests that arrive meanwhile wait for
// the same attempt; after a failure the next request tries again.
type lazy[T any] struct {
	mu     sync.Mutex
	done   bool
	value  T
	flight *flight[T]
}

type flight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// get returns the value. The attempt outlives a caller that gives up, because others may wait for it, but not limit.
func (l *lazy[T]) get(ctx context.Context, limit time.Duration, load func(context.Context) (T, error)) (T, error) {
	l.mu.Lock()
	if l.done {
		defer l.mu.Unlock()
		return l.value, nil
	}
	f := l.flight
	if f == nil {
		f = &flight[T]{done: make(chan struct{})}
		l.flight = f
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		go func() {
			defer cancel()
			f.value, f.err = load(detached)
			l.mu.Lock()
			l.flight = nil
			if f.err == nil {
				l.value, l.done = f.value, true
			}
			l.mu.Unlock()
			close(f.done)
		}()
	}
	l.mu.Unlock()
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// peek returns the value if it was made.
func (l *lazy[T]) peek() (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.done
}

// forget makes the next get try again.
func (l *lazy[T]) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = false
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// lookup asks the cloud for the volume of v's name, or answers from what it said within maxAge. ErrNotFound here is what the cloud said;
// whether it is a fact is decided by exists.
func (m *Manager) lookup(ctx context.Context, v *record, maxAge time.Duration) (cloud.Volume, error) {
	v.mu.Lock()
	if v.seen != nil && time.Since(v.seenAt) < maxAge && v.seen.State != cloud.Creating {
		vol := *v.seen
		v.mu.Unlock()
		return vol, nil
	}
	if !v.absentAt.IsZero() && time.Since(v.absentAt) < maxAge {
		v.mu.Unlock()
		return cloud.Volume{}, cloud.ErrNotFound
	}
	v.mu.Unlock()
	ch := m.flight(v.name, func() (any, error) {
		ctx, cancel := context.WithTimeout(cloud.WithOperation(m.base, cloud.Operation(ctx)), m.timing.Request)
		defer cancel()
		vol, err := m.cloud.ByName(ctx, v.name)
		if err == nil && m.gone(vol) {
			err = cloud.ErrNotFound
		}
		var twins *cloud.AmbiguousError
		switch {
		case err == nil:
			vol = v.saw(vol, m.self().ID)
		case errors.As(err, &twins):
			v.twins(twins)
			v.set(func() { v.absentAt = time.Time{} })
		case errors.Is(err, cloud.ErrNotFound):
			v.set(func() { v.absentAt, v.ambiguous = time.Now(), nil })
		}
		return vol, err
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return cloud.Volume{}, r.Err
		}
		return r.Val.(cloud.Volume), nil
	case <-ctx.Done():
		return cloud.Volume{}, &cloud.Error{Kind: cloud.ErrUnavailable, Text: fmt.Sprintf("looking up volume %q: EC2 has given no usable answer in time (it is slow, throttled or cannot be reached; see the plugin's log)", v.name), Cause: ctx.Err()}
	}
}

// gone tells whether a volume that the cloud shows exists no more: it is being deleted, or this host deleted it and the answer is stale.
func (m *Manager) gone(vol cloud.Volume) bool {
	if vol.State == cloud.Deleting || vol.State == cloud.Deleted {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ours := m.deleted[vol.ID]
	return ours
}

// exists looks v up and turns absence into a fact: ErrNotFound from here is one. A volume that was known is gone only when its own ID is
// being deleted, or was absent twice with time between [a Describe may be stale for seconds].
func (m *Manager) exists(ctx context.Context, v *record, maxAge time.Duration) (cloud.Volume, error) {
	vol, err := m.lookup(ctx, v, maxAge)
	if !errors.Is(err, cloud.ErrNotFound) {
		return vol, err
	}
	id, _ := v.known()
	if id == "" {
		if err := m.ledger.doubted(); err != nil {
			return cloud.Volume{}, &cloud.Error{Kind: cloud.ErrUnavailable, Text: fmt.Sprintf("volume %q was not found, which is no proof: %v", v.name, err)}
		}
		return cloud.Volume{}, notFound(v.name)
	}
	for look := 0; ; look++ {
		vol, err := m.cloud.ByID(ctx, id)
		switch {
		case err == nil && m.gone(vol):
			return cloud.Volume{}, m.forget(v, id)
		case err == nil:
			return v.saw(vol, m.self().ID), nil
		case !errors.Is(err, cloud.ErrNotFound):
			return cloud.Volume{}, fmt.Errorf("volume %q: %w", v.name, err) // the provider may know it by its ID alone
		case look == 1:
			return cloud.Volume{}, m.forget(v, id)
		}
		select {
		case <-time.After(m.timing.Absent):
		case <-ctx.Done():
			return cloud.Volume{}, fmt.Errorf("volume %q (%s) was not found once, which is not enough to call it gone: %w", v.name, id, ctx.Err())
		}
	}
}

// forget drops what is known of a volume that is gone for a fact.
func (m *Manager) forget(v *record, id string) error {
	m.log.WithField("volume", v.name).Infof("%s does not exist any more", id)
	v.set(func() { v.id, v.seen, v.absentAt = "", nil, time.Now() })
	m.save(v)
	return notFound(v.name)
}

// errQuiet marks errors that are everyday answers and not worth a warning in the log.
var errQuiet = errors.New("everyday answer")

func notFound(name string) error {
	return &cloud.Error{Kind: cloud.ErrNotFound, Text: fmt.Sprintf("there is no volume %q in this cluster", name), Cause: errQuiet}
}

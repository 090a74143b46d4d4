package driver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// heard is a Cloud that remembers how its last calls ended, so that the question "does EC2 answer?" costs no call.
type heard struct {
	cloud.Cloud

	mu      sync.Mutex
	at      time.Time         // of the last answer, or of the last time that there was none
	bad     *failing          // why the last call got no usable answer; nil if it did
	refused map[string]denial // actions that the account's rules do not allow, until they work
	asking  time.Time         // since when a question put for the sake of health has had no answer
}

// denial is an action that was not permitted.
type denial struct {
	failing
	last time.Time
}

// failing is an error that repeats.
type failing struct {
	since time.Time
	times int
	err   error
}

// again notes one more failure.
func (f *failing) again(err error) {
	if f.times == 0 {
		f.since = time.Now()
	}
	f.times++
	f.err = err
}

func listen(c cloud.Cloud) *heard { return &heard{Cloud: c, refused: map[string]denial{}} }

// note remembers how a call ended. What the caller itself gave up on says nothing.
func (h *heard) note(ctx context.Context, action string, err error) {
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = time.Now()
	for _, useless := range []error{cloud.ErrUnavailable, cloud.ErrThrottled, cloud.ErrCredentials, cloud.ErrConfig} {
		if errors.Is(err, useless) {
			if h.bad == nil {
				h.bad = &failing{}
			}
			h.bad.again(err)
			return
		}
	}
	h.bad = nil
	if !errors.Is(err, cloud.ErrDenied) {
		delete(h.refused, action)
		return
	}
	d := h.refused[action]
	d.again(err)
	d.last = h.at
	h.refused[action] = d
}

func (h *heard) ByName(ctx context.Context, name string) (cloud.Volume, error) {
	v, err := h.Cloud.ByName(ctx, name)
	h.note(ctx, "describe volumes", err)
	return v, err
}

func (h *heard) ByID(ctx context.Context, id string) (cloud.Volume, error) {
	v, err := h.Cloud.ByID(ctx, id)
	h.note(ctx, "describe volumes", err)
	return v, err
}

func (h *heard) List(ctx context.Context) ([]cloud.Volume, error) {
	vols, err := h.Cloud.List(ctx)
	h.note(ctx, "describe volumes", err)
	return vols, err
}

func (h *heard) Create(ctx context.Context, spec cloud.Spec) (cloud.Volume, error) {
	v, err := h.Cloud.Create(ctx, spec)
	h.note(ctx, "create volumes", err)
	return v, err
}

func (h *heard) Delete(ctx context.Context, id string) error {
	err := h.Cloud.Delete(ctx, id)
	h.note(ctx, "delete volumes", err)
	return err
}

func (h *heard) Release(ctx context.Context, id string) error {
	err := h.Cloud.Release(ctx, id)
	h.note(ctx, "tag volumes", err)
	return err
}

func (h *heard) Adopt(ctx context.Context, a cloud.Adoption) (cloud.Volume, error) {
	v, err := h.Cloud.Adopt(ctx, a)
	h.note(ctx, "tag volumes", err)
	return v, err
}

func (h *heard) Adoptable(ctx context.Context, tags map[string]string, minGiB int64) ([]string, error) {
	ids, err := h.Cloud.Adoptable(ctx, tags, minGiB)
	h.note(ctx, "describe volumes", err)
	return ids, err
}

func (h *heard) SetAttrs(ctx context.Context, id string, attrs map[string]string) error {
	err := h.Cloud.SetAttrs(ctx, id, attrs)
	h.note(ctx, "tag volumes", err)
	return err
}

func (h *heard) Retag(ctx context.Context, id string, change cloud.Retag) error {
	err := h.Cloud.Retag(ctx, id, change)
	h.note(ctx, "tag volumes", err)
	return err
}

func (h *heard) Modify(ctx context.Context, id string, change cloud.Form) (cloud.Modification, error) {
	last, err := h.Cloud.Modify(ctx, id, change)
	h.note(ctx, "modify volumes", err)
	return last, err
}

func (h *heard) LastModification(ctx context.Context, id string) (cloud.Modification, error) {
	last, err := h.Cloud.LastModification(ctx, id)
	h.note(ctx, "describe modifications", err)
	return last, err
}

func (h *heard) Attach(ctx context.Context, v cloud.Volume) error {
	err := h.Cloud.Attach(ctx, v)
	h.note(ctx, "attach volumes", err)
	return err
}

func (h *heard) Detach(ctx context.Context, id string) error {
	err := h.Cloud.Detach(ctx, id)
	h.note(ctx, "detach volumes", err)
	return err
}

func (h *heard) HostState(ctx context.Context, host string) (cloud.HostState, error) {
	s, err := h.Cloud.HostState(ctx, host)
	h.note(ctx, "describe instances", err)
	return s, err
}

// quiet tells for how long the cloud has said nothing.
func (h *heard) quiet() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.at)
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
)

// The hosts of the model: a real Manager serves modelHere, a script plays the other one.
const (
	modelHere    = "i-here"
	modelThere   = "i-there"
	modelName    = "pgdata"
	modelCluster = "model"
)

// modelStale is how old an answer of the model's EC2 about volumes may be: as old as the provider (cloud/ebs) takes EC2's answers to be at
// most. One about the other host may be from before its last change, however long ago that was.
const modelStale = 4 * time.Second

// modelIll is how long the status checks of the other host must fail before the rule impaired lets it be stopped.
const modelIll = 30 * time.Second

// errModel is the fault of an EC2 that gives no answer.
var errModel = cloud.Errorf(cloud.ErrUnavailable, "the model's EC2 gives no answer")

// errKilled is what a process that is dead gets: it does nothing any more.
var errKilled = errors.New("this process is dead")

// modelContent is what is on a volume.
type modelContent string

const (
	contentBlank   modelContent = "blank"
	contentPartial modelContent = "partial" // a mkfs that was cut
	contentMade    modelContent = "made"    // a filesystem that was never mounted
	contentUsed    modelContent = "used"    // a filesystem with somebody's data
)

// modelVolume is one volume of the model's EC2.
type modelVolume struct {
	id      string
	state   cloud.State
	attrs   map[string]string
	created time.Time
	content modelContent

	holder string // the host that it is attached to, or ""
	at     cloud.AttachState
	since  time.Time
}

func (v *modelVolume) tag() string { return v.attrs[attrFS] }

// modelRemoved is the state of a volume that was given up, and can be brought back: EC2 has it, and shows it as no volume of the cluster.
const modelRemoved cloud.State = "removed"

// describe is the volume as EC2 shows it.
func (v *modelVolume) describe() cloud.Volume {
	out := cloud.Volume{ID: v.id, Name: modelName, Serial: serialOf(v.id), SizeGiB: 1, Type: "gp3", IOPS: 3000, Throughput: 125, Zone: "z1", State: v.state, Created: v.created, Attrs: maps.Clone(v.attrs)}
	if v.holder != "" {
		out.State = cloud.InUse
		out.Attachments = []cloud.Attachment{{Host: v.holder, Device: "/dev/xvdaa", State: v.at, Since: v.since}}
	}
	return out
}

func serialOf(id string) string { return "serial-" + id }

// modelView is what EC2 shows at one moment.
type modelView struct {
	since   time.Time
	volumes []cloud.Volume
}

// changed takes note that EC2 shows something new from now on. Called with mu held, after every change.
func (w *model) changed() {
	now := modelView{since: time.Now()}
	for _, v := range w.volumes {
		if v.state != modelRemoved {
			now.volumes = append(now.volumes, v.describe())
		}
	}
	if len(w.views) > 0 && w.views[len(w.views)-1].since.Equal(now.since) {
		w.views = w.views[:len(w.views)-1]
	}
	w.views = append(w.views, now)
	if w.calm {
		time.AfterFunc(500*time.Millisecond, w.progress)
	}
}

// look is EC2's answer: how things are, or how they were that long ago.
func (w *model) look(old time.Duration) modelView {
	n := len(w.views) - 1
	for n > 0 && old > 0 && time.Since(w.views[n].since) < old {
		n--
	}
	return w.views[n]
}

// shown is what a look at the volumes shows with a fault.
func (w *model) shown(fault string) []cloud.Volume {
	old, now := w.look(modelStale).volumes, w.look(0).volumes
	if fault == "stale" {
		return old
	}
	mixed := slices.Clone(now)
	for i := range mixed {
		for _, o := range old {
			if fault == "stale tags" && o.ID == mixed[i].ID {
				mixed[i].Attrs = o.Attrs
			}
		}
	}
	return mixed
}

// live is the volume that has the name, if any is there for longer.
func (w *model) live() *modelVolume {
	for _, v := range w.volumes {
		if v.state != cloud.Deleting && v.state != modelRemoved {
			return v
		}
	}
	return nil
}

// forgotten tells whether a volume that was removed can play no part any more: nobody has it, and nobody can be told of it as it was.
func (w *model) forgotten(v *modelVolume) bool {
	return v.state == modelRemoved && v.holder == "" && w.devices[v.id] == 0 && time.Since(v.since) > modelStale+time.Minute
}

func (w *model) volume(id string) *modelVolume {
	for _, v := range w.volumes {
		if v.id == id {
			return v
		}
	}
	return nil
}

// progress is one step of everything that EC2 has accepted and not ended. The kernel sees an attachment and its end before EC2 says so.
func (w *model) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	moved := false
	for i := 0; i < len(w.volumes); i++ {
		v := w.volumes[i]
		was := *v
		switch {
		case v.state == cloud.Creating:
			v.state = cloud.Available
		case v.state == cloud.Deleting, w.forgotten(v):
			w.volumes = append(w.volumes[:i:i], w.volumes[i+1:]...)
			i--
			moved = true
			continue
		case v.holder == modelHere && v.at == cloud.Attaching && w.devices[v.id] == 0:
			w.plug(v.id)
			moved = true
		case v.holder == modelHere && v.at == cloud.Detaching && w.devices[v.id] != 0:
			delete(w.devices, v.id)
			moved = true
		case v.at == cloud.Attaching:
			v.at = cloud.Attached
		case v.at == cloud.Detaching:
			if v.holder == modelThere {
				w.there.gave = time.Now()
			}
			v.holder, v.at = "", ""
		}
		if was.state != v.state || was.at != v.at {
			moved = true
		}
	}
	if w.there.power == cloud.Stopping {
		w.before, w.there = w.there, otherHost{power: cloud.Stopped}
		moved = true
	}
	if moved {
		w.changed()
	}
}

// pending tells whether progress would change anything.
func (w *model) pending() bool {
	for _, v := range w.volumes {
		if v.state == cloud.Creating || v.state == cloud.Deleting || w.forgotten(v) || v.at == cloud.Attaching || v.at == cloud.Detaching {
			return true
		}
	}
	return w.there.power == cloud.Stopping
}

// modelCloud is EC2 as one process sees it, by the contract of cloud.Cloud.
type modelCloud struct {
	cloud.Cloud // what the model does not have
	w           *model
	p           *life
	detached    time.Time // the last detachment that this process was promised
}

// call is one request: it takes its time, has the fault that waits for it, and effect happens in the middle, with mu held. old is the kind
// of answer that may be an old one.
func (c *modelCloud) call(ctx context.Context, slow time.Duration, old string, effect func(fault string) error) error {
	if err := c.p.sleep(ctx, slow); err != nil {
		return err
	}
	c.w.mu.Lock()
	fault := c.w.fault
	if strings.HasPrefix(fault, "stale") && (old == "" || fault != old && fault != old+" tags") {
		fault = "" // it waits for another request
	} else {
		c.w.fault = ""
	}
	if fault == "fail" {
		c.w.mu.Unlock()
		return errModel
	}
	if fault == "die-before" {
		c.w.kill(c.p)
	}
	if c.p.dead {
		c.w.mu.Unlock()
		return errKilled
	}
	err := effect(fault)
	if fault == "die-after" {
		c.w.kill(c.p)
	}
	c.w.mu.Unlock()
	if fault == "lost" {
		return errModel
	}
	if serr := c.p.sleep(ctx, slow); serr != nil {
		return serr
	}
	return err
}

// How long the two halves of a request take: one that looks, and one that changes something.
const (
	callLooks   = 100 * time.Millisecond
	callChanges = 700 * time.Millisecond
)

func (c *modelCloud) Host(ctx context.Context) (cloud.Host, error) {
	return cloud.Host{ID: modelHere, Type: "m5.large", Zone: "z1", Region: "r1", Account: "1"}, c.p.sleep(ctx, callLooks)
}

func (c *modelCloud) Warm(ctx context.Context) error { return nil }

func (c *modelCloud) ByName(ctx context.Context, name string) (found cloud.Volume, err error) {
	err = c.call(ctx, callLooks, "stale", func(fault string) error {
		err := error(notFound(name))
		for _, v := range c.w.shown(fault) {
			if found.ID == "" || found.State == cloud.Deleting {
				found, err = v, nil
			}
		}
		return err
	})
	return found, err
}

func (c *modelCloud) ByID(ctx context.Context, id string) (found cloud.Volume, err error) {
	err = c.call(ctx, callLooks, "stale", func(fault string) error {
		for _, v := range c.w.shown(fault) {
			if v.ID == id {
				found = v
				return nil
			}
		}
		return notFound(id)
	})
	return found, err
}

func (c *modelCloud) List(ctx context.Context) (found []cloud.Volume, err error) {
	err = c.call(ctx, callLooks, "stale", func(fault string) error {
		found = c.w.shown(fault)
		return nil
	})
	return found, err
}

func (c *modelCloud) HostState(ctx context.Context, host string) (state cloud.HostState, err error) {
	err = c.call(ctx, callLooks, "stale host", func(fault string) error {
		state = c.w.otherHost(fault).state()
		return nil
	})
	return state, err
}

func (c *modelCloud) HostHealth(ctx context.Context, host string) (health cloud.HostHealth, err error) {
	err = c.call(ctx, callLooks, "stale host", func(fault string) error {
		health = c.w.otherHost(fault).health()
		return nil
	})
	return health, err
}

// StopHost ends all that the other host does when EC2 goes on, and not earlier.
func (c *modelCloud) StopHost(ctx context.Context, host string) error {
	return c.call(ctx, callChanges, "", func(string) error {
		there := c.w.there
		if there.power != cloud.Running {
			return nil
		}
		if c.w.fencing != fenceImpaired || host != modelThere {
			c.w.violate("StopInstances was sent for %s with fencing=%s", host, c.w.fencing)
		}
		// Between the last look and the stop a host may have recovered or let go: it takes less than two calls.
		if time.Since(there.well) > 4*callChanges && (there.ill.IsZero() || time.Since(there.ill) < modelIll) {
			c.w.violate("StopInstances was sent for a host that is not ill for long")
		}
		if v := c.w.live(); (v == nil || v.holder != modelThere) && time.Since(there.gave) > 4*callChanges {
			c.w.violate("StopInstances was sent for a host that does not have the volume")
		}
		c.w.before, c.w.there.power = there, cloud.Stopping
		c.w.changed()
		return nil
	})
}

func (c *modelCloud) Create(ctx context.Context, spec cloud.Spec) (cloud.Volume, error) {
	id := ""
	err := c.call(ctx, callChanges, "", func(string) error {
		v := c.w.live()
		if v == nil {
			c.w.generation++
			v = &modelVolume{id: fmt.Sprintf("vol-%d", c.w.generation), state: cloud.Creating, attrs: maps.Clone(spec.Attrs), created: time.Now(), content: contentBlank}
			c.w.volumes = append(c.w.volumes, v)
			c.w.changed()
		}
		id = v.id
		return nil
	})
	for err == nil {
		c.w.mu.Lock()
		v := c.w.volume(id)
		switch {
		case v == nil || v.state == cloud.Deleting:
			err = cloud.Errorf(cloud.ErrVanished, "%s vanished", id)
		case v.state == cloud.Available:
			found := v.describe()
			c.w.mu.Unlock()
			return found, nil
		}
		c.w.mu.Unlock()
		if err == nil {
			err = c.p.sleep(ctx, time.Second)
		}
	}
	return cloud.Volume{}, err
}

func (c *modelCloud) Delete(ctx context.Context, id string) error {
	return c.call(ctx, callChanges, "", func(string) error {
		v := c.w.volume(id)
		if v == nil {
			return notFound(id)
		}
		if !c.w.removing {
			c.w.violate("DeleteVolume was sent although nobody has asked for it")
		}
		if who := c.w.usedHere(id); who != "" {
			c.w.violate("DeleteVolume was sent while %s uses the volume", who)
		}
		if v.holder != "" {
			return &cloud.HolderError{Volume: modelName, ID: id, Host: v.holder, State: v.at}
		}
		if v.state != cloud.Deleting {
			v.state = cloud.Deleting
			c.w.changed()
		}
		return nil
	})
}

func (c *modelCloud) Release(context.Context, string) error {
	c.w.violate("Release was called for a volume that is to be deleted")
	return errors.New("not in this model")
}

// Retire is a change of tags: it does not end an attachment that EC2 has accepted meanwhile.
func (c *modelCloud) Retire(ctx context.Context, id string, _ time.Duration) error {
	return c.call(ctx, callChanges, "", func(string) error {
		v := c.w.volume(id)
		if v == nil || v.state == modelRemoved {
			return notFound(id)
		}
		if !c.w.removing {
			c.w.violate("a volume was given up although nobody has asked for it")
		}
		if who := c.w.usedHere(id); who != "" {
			c.w.violate("a volume was given up while %s uses it", who)
		}
		if v.holder != "" {
			return &cloud.HolderError{Volume: modelName, ID: id, Host: v.holder, State: v.at}
		}
		v.state, v.since = modelRemoved, time.Now()
		c.w.changed()
		return nil
	})
}

func (c *modelCloud) GivenUp(context.Context) ([]cloud.GivenUp, error) { return nil, nil }

func (c *modelCloud) Adopt(context.Context, cloud.Adoption) (cloud.Volume, error) {
	return cloud.Volume{}, errors.New("not in this model")
}

func (c *modelCloud) Adoptable(context.Context, map[string]string, int64) ([]string, error) {
	return nil, errors.New("not in this model")
}

func (c *modelCloud) SetAttrs(ctx context.Context, id string, attrs map[string]string) error {
	return c.call(ctx, callChanges, "", func(string) error {
		v := c.w.volume(id)
		if v == nil {
			return notFound(id)
		}
		maps.Copy(v.attrs, attrs)
		if tag := v.tag(); v.content == contentUsed && tag != "ext4" {
			c.w.violate("a volume with data was given the tag %s", tag)
		}
		c.w.changed()
		return nil
	})
}

// Attach trusts what the caller was told of the volume, as the provider does.
func (c *modelCloud) Attach(ctx context.Context, told cloud.Volume) error {
	if a, ok := told.Elsewhere(modelHere); ok {
		return &cloud.HolderError{Volume: modelName, ID: told.ID, Host: a.Host, State: a.State}
	}
	if a, ok := told.On(modelHere); ok && (a.State == cloud.Attached || a.State == cloud.Attaching) && time.Since(c.detached) > modelStale {
		return nil
	}
	return c.call(ctx, callChanges, "", func(string) error {
		v := c.w.volume(told.ID)
		switch {
		case v == nil:
			return notFound(told.ID)
		case v.holder == modelThere:
			return &cloud.HolderError{Volume: modelName, ID: v.id, Host: v.holder, State: v.at}
		case v.holder == modelHere && (v.at == cloud.Attached || v.at == cloud.Attaching):
			return nil
		case v.holder != "" || v.state != cloud.Available && v.state != modelRemoved:
			return cloud.Errorf(cloud.ErrState, "%s is %s %s", v.id, v.state, v.at)
		}
		v.holder, v.at, v.since = modelHere, cloud.Attaching, time.Now()
		c.w.changed()
		return nil
	})
}

func (c *modelCloud) Detach(ctx context.Context, id string) error {
	c.w.mu.Lock()
	before := c.w.devices[id] // one that appears later cannot be claimed, and nobody but this process would use it
	c.w.mu.Unlock()
	return c.call(ctx, callChanges, "", func(string) error {
		v := c.w.volume(id)
		if v == nil || v.holder != modelHere {
			return nil
		}
		if who := c.w.usedHere(id); who != "" {
			c.w.violate("DetachVolume was sent while %s uses the volume", who)
		}
		if dev := c.w.devices[id]; dev != 0 && dev == before && c.w.claims[dev] == 0 {
			c.w.violate("DetachVolume was sent for a device that is not claimed")
		}
		c.detached = time.Now()
		if v.at != cloud.Detaching {
			v.at = cloud.Detaching
			c.w.changed()
		}
		return nil
	})
}

func (c *modelCloud) DetachFrom(ctx context.Context, id, host string) error {
	return c.call(ctx, callChanges, "", func(string) error {
		v := c.w.volume(id)
		if v == nil || v.holder != host {
			return nil
		}
		if c.w.there.mounted {
			c.w.violate("DetachVolume was sent for a host that has the volume mounted")
		}
		if v.at != cloud.Detaching {
			v.at = cloud.Detaching
			c.w.changed()
		}
		return nil
	})
}

func (c *modelCloud) WaitAttached(ctx context.Context, id string) error {
	for missing := 0; missing < 2; {
		if err := c.p.sleep(ctx, time.Second); err != nil {
			return err
		}
		c.w.mu.Lock()
		v := c.w.volume(id)
		here := v != nil && v.holder == modelHere && v.at != cloud.Detaching
		done := here && v.at == cloud.Attached
		c.w.mu.Unlock()
		if done {
			return nil
		}
		if !here {
			missing++
		}
	}
	return cloud.Errorf(cloud.ErrState, "%s is not attached", id)
}

func (c *modelCloud) WaitDetached(ctx context.Context, id string) error {
	for {
		c.w.mu.Lock()
		v := c.w.volume(id)
		gone := v == nil || v.holder != modelHere
		c.w.mu.Unlock()
		if gone && !c.p.isDead() {
			return nil
		}
		if err := c.p.sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// inspect is what probing finds on a volume.
func (c modelContent) inspect() disk.Content {
	switch c {
	case contentBlank:
		return disk.Content{Blank: true, Detail: "all zero"}
	case contentPartial:
		return disk.Content{Kind: disk.KindData, Detail: "some bytes"}
	}
	return disk.Content{Kind: "ext4", Detail: "has ext4", Used: c == contentUsed}
}

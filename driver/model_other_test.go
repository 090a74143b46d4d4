package driver

import (
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
)

// otherHost is the other host: a script that keeps to the rules.
type otherHost struct {
	power      cloud.Power
	hibernated bool
	mounted    bool      // in its kernel, or in the memory that it will resume with
	ill        time.Time // since then its status checks fail
	well       time.Time // then it recovered
	gave       time.Time // then EC2 said that it had let go of the volume
}

func (o otherHost) state() cloud.HostState {
	return cloud.HostState{ID: modelThere, Power: o.power, Hibernated: o.power == cloud.Stopped && o.hibernated}
}

func (o otherHost) health() cloud.HostHealth {
	h := cloud.HostHealth{HostState: o.state(), System: cloud.Check{Status: cloud.CheckOK}, Instance: cloud.Check{Status: cloud.CheckOK}}
	if !o.ill.IsZero() {
		h.Instance = cloud.Check{Status: cloud.CheckImpaired, Since: o.ill, For: time.Since(o.ill)}
	}
	return h
}

// otherHost is EC2's answer about the other host: how it is, or how it was before its last change.
func (w *model) otherHost(fault string) otherHost {
	if fault == "stale host" {
		return w.before
	}
	return w.there
}

// mountThere is what a blockvol on the other host does with a volume that it has: a format takes two seconds.
func (w *model) mountThere(v *modelVolume) {
	if who := w.usedHere(v.id); who != "" {
		w.violate("two kernels: %s uses what the other host has", who)
	}
	if v.tag() != "ext4" {
		if v.content == contentUsed {
			w.violate("a volume with data has the tag %s", v.tag())
		}
		v.attrs[attrFS], v.content = disk.TagFormatting+modelThere, contentPartial
		time.AfterFunc(2*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if v.holder == modelThere && w.there.power == cloud.Running && v.tag() != "ext4" {
				v.attrs[attrFS], v.content, w.there.mounted = "ext4", contentUsed, true
				w.changed()
			}
		})
	} else {
		v.content, w.there.mounted = contentUsed, true
	}
	w.changed()
}

// boot is the other host's way to life: what is attached to it is mounted again.
func (w *model) boot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.there.power != cloud.Pending {
		return
	}
	w.there.power = cloud.Running
	w.changed()
	for _, v := range w.volumes {
		if v.holder == modelThere && v.at == cloud.Attached {
			w.mountThere(v)
		}
	}
}

package driver

import (
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// modelEvent is something that happens to the world from outside.
type modelEvent struct {
	name string
	cost int // of the disturbances that one path may have
	can  func(w *model) bool
	do   func(w *model)
}

func anytime(*model) bool { return true }

// atOnceIn is a change of the world that takes no time.
func atOnceIn(f func(w *model)) func(w *model) {
	return func(w *model) {
		w.mu.Lock()
		defer w.mu.Unlock()
		f(w)
	}
}

// guestIn tells whether a container is in one of the states; "" is that there is none.
func guestIn(w *model, id string, states ...string) bool {
	state := ""
	if c := w.uses[id]; c != nil {
		state = c.state
	}
	return contains(states, state)
}

func heldHere(w *model) bool { v := w.live(); return v != nil && v.holder == modelHere }

func heldThere(w *model) bool { v := w.live(); return v != nil && v.holder == modelThere }

// noneWaits tells whether no request of that kind waits: one more would join it.
func noneWaits(w *model, what string) bool {
	if w.coarse && len(w.requests) >= 2 {
		return false
	}
	for r := range w.requests {
		if r.what == what {
			return false
		}
	}
	return true
}

// possible tells whether an event can happen now. Nothing else goes on, but mu is what orders this look before whatever time brings next:
// synctest.Wait orders only what came before it.
func (w *model) possible(e modelEvent) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return e.can != nil && e.can(w)
}

// modelEvents are all events. can is asked with mu held and nothing else going on.
var modelEvents = append(append([]modelEvent{
	{"create", 0, func(w *model) bool { return noneWaits(w, "create") }, (*model).create},
	{"remove", 0, func(w *model) bool { return noneWaits(w, "remove") && len(w.volumes) > 0 }, (*model).remove},
	{"get", 0, func(w *model) bool { return noneWaits(w, "get") }, (*model).get},
	{"mount, and the answer is lost", 1, func(w *model) bool { return guestIn(w, "cx", "") }, func(w *model) { w.mount("cx", true) }},
	{"docker gives up waiting", 1, func(w *model) bool { return len(w.requests) > 0 }, atOnceIn(func(w *model) {
		for r := range w.requests {
			r.cancel()
		}
	})},
	{"EC2 goes on", 0, (*model).pending, (*model).progress},
	{"a moment passes", 0, anytime, func(w *model) { time.Sleep(time.Second) }},
	{"a while passes", 0, anytime, func(w *model) { time.Sleep(7 * time.Second) }},
	{"a long time passes", 0, anytime, func(w *model) { time.Sleep(40 * time.Second) }},

	{"the other host takes the volume", 0, func(w *model) bool {
		v := w.live()
		return w.there.power == cloud.Running && v != nil && v.holder == "" && v.state == cloud.Available
	}, atOnceIn(func(w *model) {
		v := w.live()
		v.holder, v.at, v.since = modelThere, cloud.Attached, time.Now()
		w.mountThere(v)
	})},
	{"the other host lets go", 0, func(w *model) bool {
		return w.there.power == cloud.Running && w.there.mounted && w.live().at == cloud.Attached
	}, atOnceIn(func(w *model) {
		w.there.mounted = false
		w.live().at = cloud.Detaching
		w.changed()
	})},
	{"the other host falls ill", 0, func(w *model) bool {
		return w.fencing == fenceImpaired && heldThere(w) && w.there.power == cloud.Running && w.there.ill.IsZero()
	}, atOnceIn(func(w *model) {
		w.before = w.there
		w.there.ill = time.Now()
		w.changed()
	})},
	{"the other host recovers", 0, func(w *model) bool { return w.there.power == cloud.Running && !w.there.ill.IsZero() }, atOnceIn(func(w *model) {
		w.before = w.there
		w.there.ill, w.there.well = time.Time{}, time.Now()
		w.changed()
	})},
	{"the other host is stopped", 0, func(w *model) bool { return heldThere(w) && w.there.power == cloud.Running }, atOnceIn(func(w *model) {
		w.before = w.there
		w.there = otherHost{power: cloud.Stopped}
		w.changed()
	})},
	{"the other host is hibernated", 1, func(w *model) bool { return w.there.mounted && w.there.power == cloud.Running }, atOnceIn(func(w *model) {
		w.before = w.there
		w.there.power, w.there.hibernated, w.there.ill = cloud.Stopped, true, time.Time{}
		w.changed()
	})},
	{"the other host is started", 0, func(w *model) bool { return w.there.power == cloud.Stopped }, atOnceIn(func(w *model) {
		w.before = w.there
		w.there.power = cloud.Pending
		if w.there.hibernated {
			w.there.power, w.there.hibernated = cloud.Running, false
		}
		w.changed()
		time.AfterFunc(10*time.Second, w.boot)
	})},
	{"a person force-detaches the volume", 1, heldHere, (*model).forceDetach},

	{"the plugin is killed", 1, anytime, func(w *model) { w.restart(true) }},
	{"the plugin is killed and its ledger lost", 1, anytime, func(w *model) { w.restart(false) }},
	{"the host is reset", 1, anytime, (*model).reboot},
}, faultEvents()...), containerEvents()...)

// faultEvents are what may happen to the next request to EC2.
func faultEvents() (events []modelEvent) {
	for _, f := range []struct{ fault, name string }{
		{"fail", "EC2 will refuse to answer once"},
		{"lost", "EC2 will do what it is asked and its answer will be lost"},
		{"stale", "EC2 will show once how things were"},
		{"stale tags", "EC2 will show old tags once"},
		{"stale host", "EC2 will show once how the other host was"},
		{"die-before", "the plugin will be killed when it sends a request"},
		{"die-after", "the plugin will be killed when EC2 has accepted a request"},
	} {
		events = append(events, modelEvent{f.name, 1, func(w *model) bool { return w.fault == "" && (f.fault != "stale host" || !w.doubted) }, atOnceIn(func(w *model) {
			w.fault = f.fault
			w.doubted = w.doubted || f.fault == "stale host"
		})})
	}
	return events
}

// containerEvents are the lives of two containers. The second begins after the first.
func containerEvents() (events []modelEvent) {
	for _, id := range []string{"c1", "c2"} {
		events = append(events,
			modelEvent{id + " is to be mounted", 0, func(w *model) bool {
				return guestIn(w, id, "") && noneWaits(w, id) && (id == "c1" || !guestIn(w, "c1", "", guestAsked))
			}, func(w *model) { w.mount(id, false) }},
			modelEvent{id + " starts", 0, func(w *model) bool { return guestIn(w, id, guestAnswered) }, func(w *model) { w.bind(id) }},
			modelEvent{id + " ends", 0, func(w *model) bool { return guestIn(w, id, guestRunning) }, func(w *model) { w.end(id) }},
			modelEvent{id + " ends and Docker forgets it", 1, func(w *model) bool { return guestIn(w, id, guestRunning) }, atOnceIn(func(w *model) {
				delete(w.uses, id)
				w.lost = true
			})},
			modelEvent{id + " is unmounted", 0, func(w *model) bool {
				return guestIn(w, id, guestAnswered, guestRunning, guestEnded) && (!w.coarse || noneWaits(w, "unmount"))
			}, func(w *model) { w.unmount(id) }})
	}
	return events
}

package driver

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mountOn starts a container on a host.
func (s *soak) mountOn(h *soakHost, v *soakVolume, id string) bool {
	res, ok := s.insist(h, v, "Mount", m{"Name": v.name, "ID": id}, nil)
	return ok && s.start(h, v, id, res["Mountpoint"].(string))
}

// settleElsewhere gives back, as a careful administrator would, what other hosts than h believe to be in use.
func (s *soak) settleElsewhere(h *soakHost, v *soakVolume) {
	for other, ids := range v.lost {
		if other == h {
			continue
		}
		for _, id := range ids {
			s.unmount(other, v, id)
		}
	}
}

func (s *soak) mount(rnd *rand.Rand, v *soakVolume) bool {
	if v.id == "" || len(v.users) > 0 {
		return false
	}
	h := s.any(rnd)
	s.settleElsewhere(h, v)
	return s.mountOn(h, v, s.newID())
}

func (s *soak) secondMount(_ *rand.Rand, v *soakVolume) bool {
	return len(v.users) > 0 && len(v.users) < 4 && s.mountOn(v.at, v, s.newID())
}

// contend lets two hosts mount a volume at the same moment: at most one gets it.
func (s *soak) contend(rnd *rand.Rand, v *soakVolume) bool {
	a, b := s.any(rnd), s.any(rnd)
	if v.id == "" || len(v.users) > 0 || a == b {
		return false
	}
	var mu sync.Mutex
	winners, started := 0, true
	var both sync.WaitGroup
	for _, h := range []*soakHost{a, b} {
		id := s.newID()
		both.Go(func() {
			res, err := h.now().try("Mount", m{"Name": v.name, "ID": id})
			if err != nil {
				s.judgeError(v, "Mount", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if winners++; winners == 1 {
				started = s.start(h, v, id, res["Mountpoint"].(string)) // at once, as Docker does: the other may take longer than a hand-over
			}
		})
	}
	both.Wait()
	if winners > 1 {
		s.t.Errorf("BROKEN: %s was mounted on two hosts at once", v.name)
	}
	return started
}

// copyFiles is docker cp with a running container: a Mount and an Unmount of the container's own mount ID. The plugin must then take the
// volume for unused, and the container still has it.
func (s *soak) copyFiles(rnd *rand.Rand, v *soakVolume) bool {
	if len(v.users) == 0 {
		return false
	}
	c := v.users[rnd.IntN(len(v.users))]
	if _, ok := s.insist(v.at, v, "Mount", m{"Name": v.name, "ID": c.id}, nil); !ok {
		return false
	}
	s.unmount(v.at, v, c.id)
	return s.use(v, c)
}

func (s *soak) write(rnd *rand.Rand, v *soakVolume) bool {
	return len(v.users) > 0 && s.use(v, v.users[rnd.IntN(len(v.users))])
}

// unmount sends one Unmount, as dockerd does: whatever the answer, there is no second one.
func (s *soak) unmount(h *soakHost, v *soakVolume, id string) {
	if _, err := h.now().try("Unmount", m{"Name": v.name, "ID": id}); err != nil {
		s.judgeError(v, "Unmount", err)
		if !slices.Contains(v.lost[h], id) {
			v.lost[h] = append(v.lost[h], id)
		}
		return
	}
	v.lost[h] = slices.DeleteFunc(v.lost[h], func(lost string) bool { return lost == id })
}

// kill ends one of the volume's containers.
func (s *soak) kill(rnd *rand.Rand, v *soakVolume) (id string) {
	n := rnd.IntN(len(v.users))
	c := v.users[n]
	v.users = slices.Delete(v.users, n, n+1)
	c.end()
	unix.Close(c.tree)
	return c.id
}

func (s *soak) stop(rnd *rand.Rand, v *soakVolume) bool {
	if len(v.users) == 0 {
		return false
	}
	s.unmount(v.at, v, s.kill(rnd, v))
	return true
}

func (s *soak) stopUnheard(rnd *rand.Rand, v *soakVolume) bool {
	if len(v.users) == 0 {
		return false
	}
	v.lost[v.at] = append(v.lost[v.at], s.kill(rnd, v))
	return true
}

func (s *soak) lateUnmount(rnd *rand.Rand, v *soakVolume) bool {
	h := s.any(rnd)
	if len(v.lost[h]) == 0 {
		return false
	}
	s.unmount(h, v, v.lost[h][0])
	return true
}

// handOver ends all containers and starts one on another host at once.
func (s *soak) handOver(rnd *rand.Rand, v *soakVolume) bool {
	h := s.any(rnd)
	if len(v.users) == 0 || h == v.at {
		return false
	}
	for len(v.users) > 0 {
		s.stop(rnd, v)
	}
	s.settleElsewhere(h, v)
	return s.mountOn(h, v, s.newID())
}

func (s *soak) remove(rnd *rand.Rand, v *soakVolume) bool {
	if v.id == "" || len(v.users) > 0 {
		return false
	}
	h := s.any(rnd)
	s.settleElsewhere(h, v)
	s.w.mayRemove(v.id)
	if _, ok := s.insist(h, v, "Remove", m{"Name": v.name}, nil); !ok {
		return false
	}
	if left := s.w.id(v.name); left != "" {
		s.t.Errorf("%s was removed, but EC2 still has %s", v.name, left)
	}
	v.id = ""
	clear(v.lost)
	return true
}

// removeInUse asks for the removal of a volume that a container has, on any host.
func (s *soak) removeInUse(rnd *rand.Rand, v *soakVolume) bool {
	if len(v.users) == 0 {
		return false
	}
	_, err := s.any(rnd).now().try("Remove", m{"Name": v.name})
	if err == nil {
		s.t.Errorf("BROKEN: %s was removed while a container has it", v.name)
		return false
	}
	s.judgeError(v, "Remove", err)
	return s.write(rnd, v)
}

// get must never say that a volume which exists does not: Docker would forget its labels, and go on to delete it.
func (s *soak) get(rnd *rand.Rand, v *soakVolume) bool {
	h := s.any(rnd)
	_, err := h.now().try("Get", m{"Name": v.name})
	if v.id != "" && err != nil && strings.Contains(err.Error(), "there is no volume") {
		// The answer may be as old as one look-up serves; a second one is a fact.
		time.Sleep(h.now().timing.Fresh)
		if _, err = h.now().try("Get", m{"Name": v.name}); err != nil && strings.Contains(err.Error(), "there is no volume") {
			s.t.Errorf("BROKEN: Get of %s (%s) on %s says %v", v.name, v.id, h.id, err)
		}
	}
	return true
}

func (s *soak) list(rnd *rand.Rand, v *soakVolume) bool {
	res, err := s.any(rnd).now().try("List", m{})
	if err != nil {
		return true
	}
	vols, _ := res["Volumes"].([]any)
	for _, one := range vols {
		if name, _ := one.(map[string]any)["Name"].(string); !slices.ContainsFunc(s.volumes, func(v *soakVolume) bool { return v.name == name }) {
			s.t.Errorf("BROKEN: List names %q", name)
		}
	}
	return true
}

// evening ends all containers and heals the cloud: within a minute nothing may be attached or mounted any more. Then every volume is
// looked at once more, and removed.
func (s *soak) evening() {
	rnd := rand.New(rand.NewPCG(1, 1))
	s.sim.ClearFaults()
	for _, v := range s.volumes {
		for len(v.users) > 0 {
			s.stop(rnd, v)
		}
	}
	// Unmounts that were lost while the plugin ran count until it starts again.
	for _, h := range s.hosts {
		s.restart(h, true)
	}
	s.comesToRest()
	var all sync.WaitGroup
	for n, v := range s.volumes {
		clear(v.lost)
		if v.id == "" {
			continue
		}
		all.Go(func() {
			h := s.hosts[n%len(s.hosts)]
			if s.mountOn(h, v, s.newID()) && s.stop(rand.New(rand.NewPCG(1, uint64(n))), v) {
				s.remove(rand.New(rand.NewPCG(2, uint64(n))), v)
			}
		})
	}
	all.Wait()
	s.comesToRest()
	if left := s.w.end(); len(left) > 0 {
		s.t.Errorf("BROKEN: volumes are left: %v", left)
	}
}

func (s *soak) comesToRest() {
	left := ""
	for deadline := time.Now().Add(soakPatient); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if left = s.w.atRest(); left == "" {
			return
		}
	}
	s.t.Errorf("BROKEN: still in use a minute after the last container ended: %s", left)
}

package driver

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

const (
	soakVolumes = 20
	soakHosts   = 3
	soakWorkers = 16
	soakPatient = 8 * time.Minute // every request that is repeated succeeds within this time, whatever went wrong before
)

// soak is a random day of three hosts that share twenty volumes in one simulated cloud.
type soak struct {
	t       *testing.T
	w       *world
	sim     *ec2sim.Sim
	hosts   []*soakHost
	volumes []*soakVolume
	left    atomic.Int64 // operations still to be done
	seq     atomic.Int64
	checked atomic.Int64 // fsync'd numbers that were read again
	done    sync.Map     // operation -> *atomic.Int64
	errors  sync.Map     // what requests that were repeated had said, likewise
}

// soakHost is a host whose plugin is replaced now and then.
type soakHost struct {
	id     string
	mounts string // the folder in which its plugins mount
	mu     sync.RWMutex
	rig    *rig
}

func newSoakHost(r *rig) *soakHost { return &soakHost{id: r.host.ID, mounts: r.manager.mounts, rig: r} }

// now is the plugin of this moment. It may be killed while a request is on its way.
func (h *soakHost) now() *rig {
	h.mu.RLock()
	defer h.mu.RUnlock()
	r := *h.rig
	return &r
}

// soakVolume is what a volume must be. One worker at a time moves it.
type soakVolume struct {
	mu      sync.Mutex
	name    string
	id      string // "" while it does not exist
	uuid    string // of its filesystem; "" until it is made
	counter int    // the last number that was fsync'd to it
	at      *soakHost
	users   []*container
	lost    map[*soakHost][]string // mount IDs whose Unmount was never sent
}

// container has a volume until it ends, whatever Docker and the plugin think.
type container struct {
	id   string
	tree int // its own mount, as runc makes it
	end  func()
}

// The day's operations: how often each is drawn, and what it does with a volume.
var soakOps = []struct {
	name  string
	share int
	do    func(s *soak, rnd *rand.Rand, v *soakVolume) (did bool)
}{
	{"create", 20, (*soak).create},
	{"mount", 22, (*soak).mount},
	{"second mount", 6, (*soak).secondMount},
	{"two hosts mount", 4, (*soak).contend},
	{"docker cp", 8, (*soak).copyFiles},
	{"write", 40, (*soak).write},
	{"stop", 16, (*soak).stop},
	{"stop, unmount lost", 3, (*soak).stopUnheard},
	{"late unmount", 3, (*soak).lateUnmount},
	{"hand over", 8, (*soak).handOver},
	{"remove", 5, (*soak).remove},
	{"remove in use", 3, (*soak).removeInUse},
	{"get", 40, (*soak).get},
	{"list", 20, (*soak).list},
}

// What goes wrong in the cloud.
var soakFaults = []ec2sim.Fault{
	{Kind: "lost-answer", Action: "CreateVolume"}, {Kind: "lost-answer", Action: "AttachVolume"}, {Kind: "lost-answer", Action: "DetachVolume"},
	{Kind: "lost-answer", Action: "CreateTags"}, {Kind: "lost-answer", Action: "DeleteVolume"}, {Kind: "lost-answer", Action: "DescribeVolumes"},
	{Kind: "hang", Action: "AttachVolume", Duration: 200 * time.Millisecond}, {Kind: "hang", Action: "DescribeVolumes"}, {Kind: "hang", Action: "CreateTags"},
	{Kind: "delay", Duration: 300 * time.Millisecond}, {Kind: "delay", Action: "DetachVolume", Duration: 300 * time.Millisecond},
	{Kind: "error", Code: "RequestLimitExceeded", Times: 3}, {Kind: "error", Code: "InternalError"}, {Kind: "error", Code: "Unavailable"}, {Kind: "error", Code: "Strange", Status: 503},
	{Kind: "error", Action: "AttachVolume", Code: "UnauthorizedOperation"}, {Kind: "error", Action: "CreateTags", Code: "UnauthorizedOperation"},
	{Kind: "error", Action: "DetachVolume", Code: "UnauthorizedOperation"}, {Kind: "error", Action: "DescribeVolumes", Code: "AuthFailure"},
	{Kind: "error", Action: "CreateVolume", Code: "VolumeLimitExceeded"}, {Kind: "error", Action: "AttachVolume", Code: "VolumeInUse"},
	{Kind: "error", Action: "DetachVolume", Code: "IncorrectState"}, {Kind: "error", Action: "DeleteVolume", Code: "IncorrectState"},
	{Kind: "error", Action: "AttachVolume", Code: "InvalidVolume.NotFound"}, {Kind: "error", Action: "CreateTags", Code: "InvalidVolume.NotFound"},
	{Kind: "invisible", Action: "CreateVolume", Duration: 200 * time.Millisecond}, {Kind: "invisible", Action: "DescribeVolumes"},
	{Kind: "invisible", Action: "AttachVolume", Duration: 200 * time.Millisecond}, {Kind: "invisible", Action: "DetachVolume", Duration: 200 * time.Millisecond},
	{Kind: "page-size", Action: "DescribeVolumes", Count: 5, Times: 3}, {Kind: "create-failed"}, {Kind: "kms-failed"},
	{Kind: "stuck-attaching"}, {Kind: "no-device"}, {Kind: "late-device", Duration: 500 * time.Millisecond}, {Kind: "wrong-serial"}, {Kind: "empty-serial"},
}

// Three hosts, twenty volumes, and everything that can go wrong at once: no data is lost, and in the end nothing is left behind.
// BLOCKVOL_SEED repeats a day (its operations, not their timing), BLOCKVOL_SOAK sets how many operations it has.
func TestARandomDayLosesNothingAndLeavesNothing(t *testing.T) {
	seed, ops := uint64(time.Now().UnixNano()), int64(2000)
	if text := os.Getenv("BLOCKVOL_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("BLOCKVOL_SEED: %v", err)
		}
		seed = n
	}
	if text := os.Getenv("BLOCKVOL_SOAK"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("BLOCKVOL_SOAK: %v", err)
		}
		ops = n
	}
	s := newSoak(t)
	began := time.Now()
	t.Cleanup(func() {
		t.Logf("%d operations in %s, %d calls of EC2, %d of them with a fault, %d commits checked; to repeat: BLOCKVOL_SEED=%d BLOCKVOL_SOAK=%d",
			ops, time.Since(began).Round(time.Second), s.w.calls, s.w.faulted, s.checked.Load(), seed, ops)
	})
	fmt.Printf("soak: BLOCKVOL_SEED=%d BLOCKVOL_SOAK=%d\n", seed, ops)
	s.left.Store(ops)
	t.Cleanup(s.cleanUp)
	watching, watched := make(chan struct{}), make(chan struct{})
	go func() { defer close(watched); s.w.watch(watching) }()
	var workers sync.WaitGroup
	for n := range soakWorkers {
		workers.Go(func() { s.work(rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	workers.Wait()
	if !t.Failed() {
		s.evening()
	}
	close(watching)
	<-watched
	s.report()
}

func newSoak(t *testing.T) *soak {
	t.Parallel()
	r := newMachine(t, func(t *Timing) {
		t.Request, t.Grace, t.HandOver, t.Absent, t.Sweep = 12*time.Second, 100*time.Millisecond, 6*time.Second, 250*time.Millisecond, time.Second
		t.Fresh, t.AskCloud, t.Attach, t.Detach = 100*time.Millisecond, 600*time.Millisecond, 10*time.Second, 10*time.Second
	})
	r.ebs.Detaching, r.ebs.PollMin, r.ebs.Attempt, r.ebs.MaxBackoff = 100*time.Millisecond, 30*time.Millisecond, 3*time.Second, 500*time.Millisecond
	r.log.SetLevel(logrus.InfoLevel)
	r.sim.SetDelays(ec2sim.Delays{Create: 35 * time.Millisecond, Attach: 80 * time.Millisecond, Detach: 80 * time.Millisecond, Delete: 25 * time.Millisecond, Visible: 20 * time.Millisecond, Call: 500 * time.Microsecond})
	r.start()
	s := &soak{t: t, sim: r.sim, w: newWorld(t, r, image(t, func(p string) { run(t, "mkfs.ext4", "-q", p) }))}
	s.hosts = append(s.hosts, newSoakHost(r))
	for len(s.hosts) < soakHosts {
		two := r.twin()
		s.w.hosts(two)
		s.hosts = append(s.hosts, newSoakHost(two))
	}
	for n := range soakVolumes {
		s.volumes = append(s.volumes, &soakVolume{name: fmt.Sprint("v", n), lost: map[*soakHost][]string{}})
	}
	return s
}

// cleanUp lets go of what a day that went wrong has left.
func (s *soak) cleanUp() {
	for _, v := range s.volumes {
		for _, c := range v.users {
			unix.Close(c.tree)
		}
	}
	for _, h := range s.hosts {
		h.rig.crash()
		left, _ := filepath.Glob(filepath.Join(h.rig.state, "mounts", "*"))
		for _, target := range left {
			_ = unix.Unmount(target, unix.MNT_DETACH) // most are no mounts any more
		}
	}
}

// work does operations until the day is over or something is broken.
func (s *soak) work(rnd *rand.Rand) {
	shares := 0
	for _, op := range soakOps {
		shares += op.share
	}
	for !s.t.Failed() {
		switch x := rnd.IntN(1000); {
		case x < 40:
			f := soakFaults[rnd.IntN(len(soakFaults))]
			if err := s.sim.Inject(f); err != nil {
				s.t.Error(err)
			}
		case x < 46:
			s.restart(s.any(rnd), rnd.IntN(3) > 0)
			s.count("restart of a plugin")
		}
		v := s.volumes[rnd.IntN(len(s.volumes))]
		if !v.mu.TryLock() {
			continue
		}
		x := rnd.IntN(shares)
		for _, op := range soakOps {
			if x -= op.share; x < 0 {
				if op.do(s, rnd, v) {
					s.count(op.name)
					if s.left.Add(-1) <= 0 {
						v.mu.Unlock()
						return
					}
				}
				break
			}
		}
		v.mu.Unlock()
	}
}

func (s *soak) count(what string) { add(&s.done, what) }

func add(m *sync.Map, what string) {
	n, _ := m.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

func (s *soak) report() {
	for name, m := range map[string]*sync.Map{"done": &s.done, "repeated because": &s.errors} {
		m.Range(func(what, n any) bool { s.t.Logf("%s: %6d %s", name, n.(*atomic.Int64).Load(), what); return true })
	}
}

func (s *soak) any(rnd *rand.Rand) *soakHost { return s.hosts[rnd.IntN(len(s.hosts))] }

// restart replaces the plugin of a host, in order or by a crash. Mounts and containers live on.
func (s *soak) restart(h *soakHost, crash bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := *h.rig
	if crash {
		next.crash()
	} else {
		next.stop()
	}
	next.start()
	h.rig = &next
}

// insist repeats a request until it succeeds. handled may take care of an error.
func (s *soak) insist(h *soakHost, v *soakVolume, call string, req m, handled func(err error)) (map[string]any, bool) {
	var err error
	for deadline := time.Now().Add(soakPatient); time.Now().Before(deadline) && !s.t.Failed(); time.Sleep(30 * time.Millisecond) {
		var res map[string]any
		if res, err = h.now().try(call, req); err == nil {
			return res, true
		}
		s.judgeError(v, call, err)
		if handled != nil {
			handled(err)
		}
	}
	if err == nil {
		return nil, false // something else is broken already
	}
	s.t.Errorf("%s of %s on %s never worked: %v", call, v.name, h.id, err)
	return nil, false
}

var resourceID = regexp.MustCompile(`\b(vol|i)-[0-9a-f]+|vol[0-9a-f]{17}|/tmp/\S+`)

// judgeError demands that an error names the volume, unless it is about the plugin as a whole.
func (s *soak) judgeError(v *soakVolume, call string, err error) {
	text := err.Error()
	kind := resourceID.ReplaceAllString(strings.ReplaceAll(text, `"`+v.name+`"`, "NAME"), "ID")
	add(&s.errors, call+": "+kind[:min(len(kind), 100)])
	for _, whole := range []string{"cut: ", "shutting down", "still finding out", "cannot find out which instance this is", "another blockvol serves"} {
		if strings.Contains(text, whole) {
			return
		}
	}
	if !strings.Contains(text, v.name) {
		s.t.Errorf("%s of %s: the error does not name it: %v", call, v.name, err)
	}
}

func (s *soak) create(rnd *rand.Rand, v *soakVolume) bool {
	if v.id != "" {
		return false
	}
	req := m{"Name": v.name, "Opts": m{"size": "1"}}
	var second sync.WaitGroup
	heal := func(h *soakHost) func(error) {
		return func(err error) {
			second.Wait()                                   // its Create must not make anew what this Remove, repeated, would take away
			if strings.Contains(err.Error(), "remove it") { // it is in state error, and Create never deletes
				s.w.mayRemove(s.w.failed(v.name))
				s.insist(h, v, "Remove", m{"Name": v.name}, nil)
			}
		}
	}
	first := s.any(rnd)
	if other := s.any(rnd); other != first { // two hosts at once
		second.Go(func() {
			if _, err := other.now().try("Create", req); err != nil {
				s.judgeError(v, "Create", err)
			}
		})
	}
	for looks := 0; v.id == "" && looks < 3; looks++ {
		// A host that saw the volume a moment before another one removed it may still say that it exists.
		time.Sleep(time.Duration(looks) * first.now().timing.Fresh)
		if _, ok := s.insist(first, v, "Create", req, heal(first)); !ok {
			second.Wait()
			return false
		}
		second.Wait()
		v.id = s.w.id(v.name)
	}
	if v.id == "" {
		s.t.Errorf("%s was created, but EC2 has no such volume", v.name)
	}
	v.uuid, v.counter = "", 0
	return true
}

// start makes a container that has the volume on a host, where a Mount gave path.
func (s *soak) start(h *soakHost, v *soakVolume, id, path string) bool {
	// Nothing here may wait: Docker binds a volume within seconds of its Mount, too.
	if want := filepath.Join(h.mounts, v.id, "data"); path != want {
		s.t.Errorf("%s is mounted on %s, want %s", v.name, path, want)
		return false
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		s.t.Errorf("%s on %s: a container cannot have %s: %v", v.name, h.id, path, err)
		return false
	}
	v.at = h
	v.users = append(v.users, &container{id: id, tree: tree, end: s.w.hold(v.id, h.id)})
	uuid, err := fsUUID(s.sim.BackingFile(v.id))
	if err != nil || v.uuid != "" && v.uuid != uuid {
		s.t.Errorf("BROKEN: the filesystem of %s (%s) was %s and is %s %v", v.name, v.id, v.uuid, uuid, err)
	}
	v.uuid = uuid
	return s.use(v, v.users[len(v.users)-1])
}

// use reads what must be in the volume, and writes the next number, as a container does.
func (s *soak) use(v *soakVolume, c *container) bool {
	path := fmt.Sprintf("/proc/self/fd/%d/counter", c.tree)
	text, err := os.ReadFile(path)
	if want := fmt.Sprint(v.counter); v.counter > 0 && string(text) != want || v.counter == 0 && !os.IsNotExist(err) {
		s.t.Errorf("BROKEN: %s (%s) on %s holds %q (%v), want %s", v.name, v.id, v.at.id, text, err, want)
		return false
	}
	if v.counter > 0 {
		s.checked.Add(1)
	}
	next := fmt.Sprint(v.counter + 1)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteAt([]byte(next), 0)
		if err == nil {
			err = f.Sync()
		}
		f.Close()
	}
	if err != nil {
		s.t.Errorf("BROKEN: %s on %s cannot be written: %v", v.name, v.at.id, err)
		return false
	}
	v.counter++
	return true
}

func (s *soak) newID() string { return fmt.Sprintf("container-%d", s.seq.Add(1)) }

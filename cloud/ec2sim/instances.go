package ec2sim

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"
)

// Instance is a simulated host.
type Instance struct {
	ID       string            `json:"id"`
	Type     string            `json:"type"` // one of the types that DescribeInstanceTypes knows; default m5.large
	Zone     string            `json:"zone"` // default: the region's zone a
	State    string            `json:"state"`
	Launched time.Time         `json:"launched"`
	Tags     map[string]string `json:"tags,omitempty"`

	Root                  string `json:"root,omitempty"`        // type of the root device: ebs (default) or instance-store, which cannot be stopped
	Spot                  string `json:"spot,omitempty"`        // one-time or persistent: a Spot instance; empty: on-demand
	Hibernation           bool   `json:"hibernation,omitempty"` // HibernationOptions.Configured
	DisableAPIStop        bool   `json:"disableApiStop,omitempty"`
	DisableAPITermination bool   `json:"disableApiTermination,omitempty"`

	Image       string `json:"image,omitempty"`
	Reservation string `json:"reservation,omitempty"`
	LaunchIndex int    `json:"launchIndex,omitempty"`
	ClientToken string `json:"clientToken,omitempty"`
	Request     string `json:"request,omitempty"` // a hash of what RunInstances was asked with the ClientToken

	Reason       Reason `json:"reason,omitzero"`
	Checks       Checks `json:"checks,omitzero"`
	Hibernated   bool   `json:"hibernated,omitempty"`   // stopping or stopped with its memory kept
	NeverStops   bool   `json:"neverStops,omitempty"`   // a fault: stopping until it is forced
	KeepsVolumes bool   `json:"keepsVolumes,omitempty"` // a fault: its volumes stay attached after its end
}

// What an instance can be started from and bought as.
const (
	RootEBS           = "ebs"
	RootInstanceStore = "instance-store"
	SpotOneTime       = "one-time"
	SpotPersistent    = "persistent"
)

// The states of an instance.
const (
	StatePending      = "pending"
	StateRunning      = "running"
	StateShuttingDown = "shutting-down"
	StateTerminated   = "terminated"
	StateStopping     = "stopping"
	StateStopped      = "stopped"
)

// stateCodes are the numbers that go with the states. Source: InstanceState in the EC2 API reference.
var stateCodes = map[string]int{
	StatePending: 0, StateRunning: 16, StateShuttingDown: 32, StateTerminated: 48, StateStopping: 64, StateStopped: 80,
}

// AddInstance makes a host. An ID that exists already is returned as it is. An empty ID, type, zone or state gets a default.
func (s *Sim) AddInstance(i Instance) (Instance, error) {
	if i.ID == "" {
		i.ID = newID("i")
	}
	if err := checkInstanceID(i.ID); err != nil {
		return Instance{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.state.Instances[i.ID]; known != nil {
		return known.clone(), nil
	}
	if i.Type == "" {
		i.Type = "m5.large"
	}
	if i.Zone == "" {
		i.Zone = s.cfg.Region + "a"
	}
	if i.State == "" {
		i.State = StateRunning
	}
	if _, ok := instanceTypes[i.Type]; !ok {
		return Instance{}, fmt.Errorf("ec2sim: instance type %q is not known; there are %s", i.Type, strings.Join(slices.Sorted(maps.Keys(instanceTypes)), ", "))
	}
	if !s.hasZone(i.Zone) {
		return Instance{}, fmt.Errorf("ec2sim: zone %q is not one of %s", i.Zone, strings.Join(s.zones(), ", "))
	}
	if _, ok := stateCodes[i.State]; !ok {
		return Instance{}, fmt.Errorf("ec2sim: instance state %q is not one of EC2's", i.State)
	}
	if i.Root == "" {
		i.Root = RootEBS
	}
	if i.Root != RootEBS && i.Root != RootInstanceStore {
		return Instance{}, fmt.Errorf("ec2sim: root device type %q is not %s or %s", i.Root, RootEBS, RootInstanceStore)
	}
	if i.Spot != "" && i.Spot != SpotOneTime && i.Spot != SpotPersistent {
		return Instance{}, fmt.Errorf("ec2sim: a Spot instance is %s or %s, not %q", SpotOneTime, SpotPersistent, i.Spot)
	}
	if i.Launched.IsZero() {
		i.Launched = s.now().UTC().Truncate(time.Second)
	}
	if err := makeDevDir(s.DevDir(i.ID)); err != nil {
		return Instance{}, fmt.Errorf("ec2sim: make the host's folder: %w", err)
	}
	kept := i.clone()
	s.state.Instances[i.ID] = &kept
	s.keys[roleKey(i.ID)] = i.ID
	s.dirty = true
	s.save()
	return i, nil
}

// Instances returns all hosts, by ID.
func (s *Sim) Instances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Instance
	for _, i := range s.state.Instances {
		out = append(out, i.clone())
	}
	sort.Slice(out, func(a, b int) bool { return out[a].ID < out[b].ID })
	return out
}

func (i *Instance) clone() Instance {
	c := *i
	c.Tags = maps.Clone(i.Tags)
	return c
}

func (s *Sim) zones() []string {
	return []string{s.cfg.Region + "a", s.cfg.Region + "b", s.cfg.Region + "c"}
}

func (s *Sim) hasZone(zone string) bool { return slices.Contains(s.zones(), zone) }

// zoneID is the name of a zone that is the same in all accounts, such as us-sim-1-az1.
func zoneID(zone string) string {
	if zone == "" {
		return ""
	}
	last := len(zone) - 1
	return fmt.Sprintf("%s-az%d", zone[:last], zone[last]-'a'+1)
}

func (s *Sim) zoneByID(id string) string {
	for _, z := range s.zones() {
		if zoneID(z) == id {
			return z
		}
	}
	return ""
}

// namedInstance finds the instance of the parameter InstanceId.
func (s *Sim) namedInstance(p params) (*Instance, error) {
	id := p["InstanceId"]
	if err := checkInstanceID(id); err != nil {
		return nil, err
	}
	i := s.state.Instances[id]
	if i == nil {
		return nil, errNoInstance(id)
	}
	return i, nil
}

// attachLimit is how many volumes an instance of a type takes, besides its root disk.
func (s *Sim) attachLimit(typ string) int {
	if n, ok := s.state.Limits.Attachments[typ]; ok {
		return n
	}
	return s.tableLimit(typ)
}

// tableLimit is attachLimit without the account's settings.
func (s *Sim) tableLimit(typ string) int {
	t := instanceTypes[typ]
	if t.shared {
		return t.maxAttachments - 2 // The root disk and one network interface take a place each.
	}
	return t.maxAttachments - 1
}

// address gives every instance a private address of its own, derived from its ID.
func (i *Instance) address() string {
	sum := uint32(2166136261)
	for _, b := range []byte(i.ID) {
		sum = (sum ^ uint32(b)) * 16777619
	}
	return fmt.Sprintf("10.%d.%d.%d", byte(sum>>16), byte(sum>>8), byte(sum)|1)
}

func (i *Instance) hostname() string {
	return "ip-" + strings.ReplaceAll(i.address(), ".", "-") + "." + strings.TrimRight(i.Zone, "abc") + ".compute.internal"
}

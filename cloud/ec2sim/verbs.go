package ec2sim

import (
	"sort"
	"strings"
)

// The actions that change the power of instances. Each first looks at all instances that it names, and changes none if it has to refuse one.

type stateItem struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

func stateXML(state string) stateItem { return stateItem{stateCodes[state], state} }

type changeItem struct {
	InstanceID string    `xml:"instanceId"`
	Current    stateItem `xml:"currentState"`
	Previous   stateItem `xml:"previousState"`
}

type instancesChanged struct {
	Instances set[changeItem] `xml:"instancesSet"`
}

// namedInstances finds the instances of InstanceId.N, each once.
func (s *Sim) namedInstances(p params) ([]*Instance, error) {
	ids := p.list("InstanceId")
	if len(ids) == 0 {
		return nil, errorf(400, "MissingParameter", "The request must contain the parameter instancesSet")
	}
	var out []*Instance
	var missing []string
	seen := map[string]bool{}
	for _, id := range ids {
		if err := checkInstanceID(id); err != nil {
			return nil, err
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		if i := s.state.Instances[id]; i != nil {
			out = append(out, i)
		} else {
			missing = append(missing, id)
		}
	}
	sort.Strings(missing)
	switch len(missing) {
	case 0:
		return out, nil
	case 1:
		return nil, errNoInstance(missing[0])
	}
	return nil, errorf(400, "InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", strings.Join(missing, ", "))
}

// change applies a verb to the named instances: refuse tells why one cannot be changed, do changes it.
func (s *Sim) change(c *call, refuse func(*Instance) error, do func(*Instance)) (any, error) {
	named, err := s.namedInstances(c.params)
	if err != nil {
		return nil, err
	}
	for _, i := range named {
		if err := refuse(i); err != nil {
			return nil, err
		}
	}
	var out instancesChanged
	for _, i := range named {
		was := i.State
		if !c.dryRun {
			do(i)
			s.dirty = true
		}
		out.Instances.Items = append(out.Instances.Items, changeItem{i.ID, stateXML(i.State), stateXML(was)})
	}
	return out, nil
}

func errNotFrom(i *Instance, text string) error {
	return errorf(400, "IncorrectInstanceState", text, i.ID)
}

func (s *Sim) startInstances(c *call) (any, error) {
	return s.change(c, func(i *Instance) error {
		switch i.State {
		case StateRunning, StatePending, StateStopped:
			return nil
		}
		return errNotFrom(i, "The instance '%s' is not in a state from which it can be started.")
	}, func(i *Instance) {
		if i.State == StateStopped {
			s.beginStart(i, s.delays.Start)
		}
	})
}

// stopInstances stops or hibernates. Force ends a stop that is stuck.
func (s *Sim) stopInstances(c *call) (any, error) {
	flags := map[string]bool{}
	for _, name := range []string{"Force", "Hibernate", "SkipOsShutdown"} {
		value, err := c.params.boolean(name)
		if err != nil {
			return nil, err
		}
		flags[name] = value
	}
	return s.change(c, func(i *Instance) error {
		switch {
		case i.State == StatePending:
			return errNotFrom(i, "Instance '%s' cannot be stopped as it has never reached the 'running' state.")
		case i.State == StateShuttingDown || i.State == StateTerminated:
			return errNotFrom(i, "This instance '%s' is not in a state from which it can be stopped.")
		case i.Root == RootInstanceStore:
			return errorf(400, "UnsupportedOperation", "The instance '%s' does not have an 'ebs' root device type and cannot be stopped.", i.ID)
		case i.Spot == SpotOneTime:
			return errorf(400, "UnsupportedOperation", "You can't stop the Spot Instance '%s' because it is associated with a one-time Spot Instance request. "+
				"You can only stop Spot Instances associated with persistent Spot Instance requests.", i.ID)
		case i.DisableAPIStop:
			return errProtected(i, "stopped", "disableApiStop")
		case flags["Hibernate"] && !i.Hibernation:
			return errorf(400, "UnsupportedHibernationConfiguration", "The instance can't be hibernated because it was not configured at launch for hibernation: %s", i.ID)
		}
		return nil
	}, func(i *Instance) {
		switch {
		case i.State == StateRunning:
			s.beginStop(i, flags["Hibernate"], s.delays.Stop)
		case i.State == StateStopping && flags["Force"]:
			i.Hibernated = false
			s.hasten(i, evStopped)
		}
		for _, f := range c.faults {
			f.onInstance(i)
		}
	})
}

// terminateInstances ends instances. Stop protection protects against this, too: "Enable stop protection" in the EC2 user guide.
func (s *Sim) terminateInstances(c *call) (any, error) {
	for _, name := range []string{"Force", "SkipOsShutdown"} {
		if _, err := c.params.boolean(name); err != nil {
			return nil, err
		}
	}
	return s.change(c, func(i *Instance) error {
		switch {
		case i.State == StateShuttingDown || i.State == StateTerminated:
			return nil
		case i.DisableAPITermination:
			return errProtected(i, "terminated", "disableApiTermination")
		case i.DisableAPIStop:
			return errProtected(i, "terminated", "disableApiStop")
		}
		return nil
	}, func(i *Instance) {
		if i.State == StateShuttingDown || i.State == StateTerminated {
			return
		}
		s.beginTerminate(i, s.delays.Terminate)
		for _, f := range c.faults {
			f.onInstance(i)
		}
	})
}

func errProtected(i *Instance, verb, attribute string) error {
	return errorf(400, "OperationNotPermitted", "The instance '%s' may not be %s. Modify its '%s' instance attribute and try again.", i.ID, verb, attribute)
}

// rebootInstances resets running hosts: their devices go at once, whatever holds them, and come back when the host is up again. Requests to
// reboot terminated instances are ignored: RebootInstances in the EC2 API reference.
func (s *Sim) rebootInstances(c *call) (any, error) {
	_, err := s.change(c, func(i *Instance) error {
		if i.State == StateRunning || i.State == StateTerminated {
			return nil
		}
		return errNotFrom(i, "The instance '%s' is not in the 'running' state.")
	}, func(i *Instance) {
		if i.State != StateRunning {
			return
		}
		s.attachmentsOf(i.ID, func(v *volume, _ *attachment) {
			s.schedule(0, event{Kind: evReset, Volume: v.ID, Instance: i.ID})
		})
	})
	return returned{true}, err
}

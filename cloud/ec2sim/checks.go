package ec2sim

import (
	"fmt"
	"strings"
	"time"
)

// The results of a status check. Sources: InstanceStatusSummary, InstanceStatusDetails and EbsStatusSummary in the EC2 API reference.
const (
	CheckOK           = "ok"
	CheckImpaired     = "impaired"
	CheckInitializing = "initializing"
	CheckNoData       = "insufficient-data"
)

// checkDetails is what the detail "reachability" says with each result.
var checkDetails = map[string]string{CheckOK: "passed", CheckImpaired: "failed", CheckInitializing: "initializing", CheckNoData: "insufficient-data"}

// Check is one status check of an instance. The zero value is ok.
type Check struct {
	Status string    `json:"status,omitempty"`
	Since  time.Time `json:"since,omitzero"` // impaired since
}

// Checks are the status checks of a running instance.
type Checks struct {
	System      Check `json:"system,omitzero"`      // the machine below it
	Instance    Check `json:"instance,omitzero"`    // its own system
	AttachedEBS Check `json:"attachedEbs,omitzero"` // whether I/O of its volumes completes
}

func allChecks(status string) Checks {
	return Checks{System: Check{Status: status}, Instance: Check{Status: status}, AttachedEBS: Check{Status: status}}
}

// StatusChange sets status checks of a running instance. An empty result leaves a check as it is.
type StatusChange struct {
	System      string    `json:"system"`
	Instance    string    `json:"instance"`
	AttachedEBS string    `json:"attachedEbs"`
	Since       time.Time `json:"since"` // of what becomes impaired; default: now
}

// SetInstanceStatus changes the results of a running instance's status checks. They stay until the instance is stopped or they are changed.
func (s *Sim) SetInstanceStatus(id string, change StatusChange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[id]
	if i == nil {
		return fmt.Errorf("ec2sim: there is no instance %q", id)
	}
	if i.State != StateRunning {
		return fmt.Errorf("ec2sim: instance %s is %s: only a running one has status checks", id, i.State)
	}
	checks := i.Checks
	for _, c := range []struct {
		to    string
		check *Check
	}{{change.System, &checks.System}, {change.Instance, &checks.Instance}, {change.AttachedEBS, &checks.AttachedEBS}} {
		if c.to == "" {
			continue
		}
		if _, ok := checkDetails[c.to]; !ok {
			return fmt.Errorf("ec2sim: a status check is %s, not %q", strings.Join([]string{CheckOK, CheckImpaired, CheckInitializing, CheckNoData}, ", "), c.to)
		}
		since := change.Since
		if since.IsZero() {
			since = s.now()
			if c.check.Status == CheckImpaired {
				since = c.check.Since
			}
		}
		*c.check = Check{Status: c.to}
		if c.to == CheckImpaired {
			c.check.Since = since.UTC().Truncate(time.Second)
		}
	}
	i.Checks = checks
	s.dirty = true
	s.save()
	return nil
}

// finishChecks ends the first round of checks of an instance that has been started.
func (s *Sim) finishChecks(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[e.Instance]
	if i == nil || i.State != StateRunning {
		return 0
	}
	for _, c := range []*Check{&i.Checks.System, &i.Checks.Instance, &i.Checks.AttachedEBS} {
		if c.Status == CheckInitializing {
			*c = Check{}
		}
	}
	s.dirty = true
	return 0
}

type detailItem struct {
	Name          string `xml:"name"`
	Status        string `xml:"status"`
	ImpairedSince string `xml:"impairedSince,omitempty"`
}

type healthItem struct {
	Status  string           `xml:"status"`
	Details *set[detailItem] `xml:"details"`
}

type statusItem struct {
	InstanceID  string     `xml:"instanceId"`
	Zone        string     `xml:"availabilityZone"`
	ZoneID      string     `xml:"availabilityZoneId"`
	State       stateItem  `xml:"instanceState"`
	System      healthItem `xml:"systemStatus"`
	Instance    healthItem `xml:"instanceStatus"`
	AttachedEBS healthItem `xml:"attachedEbsStatus"`
}

type statusDescribed struct {
	Statuses  set[statusItem] `xml:"instanceStatusSet"`
	NextToken string          `xml:"nextToken,omitempty"`
}

// healthOf shows a check as DescribeInstanceStatus does.
func healthOf(i *Instance, c Check) healthItem {
	if i.State != StateRunning {
		return healthItem{Status: "not-applicable"}
	}
	if c.Status == "" {
		c.Status = CheckOK
	}
	d := detailItem{Name: "reachability", Status: checkDetails[c.Status]}
	if c.Status == CheckImpaired {
		d.ImpairedSince = stamp(c.Since)
	}
	return healthItem{Status: c.Status, Details: &set[detailItem]{[]detailItem{d}}}
}

var statusFilters = func() filterTable[host] {
	t := filterTable[host]{}
	for _, name := range []string{"availability-zone", "availability-zone-id", "instance-state-code", "instance-state-name"} {
		t[name] = instanceFilters[name]
	}
	for name, get := range map[string]func(Checks) Check{
		"system-status":       func(c Checks) Check { return c.System },
		"instance-status":     func(c Checks) Check { return c.Instance },
		"attached-ebs-status": func(c Checks) Check { return c.AttachedEBS },
	} {
		t[name+".status"] = func(h host) []string { return []string{healthOf(h.Instance, get(h.Checks)).Status} }
		t[name+".reachability"] = func(h host) (out []string) {
			if details := healthOf(h.Instance, get(h.Checks)).Details; details != nil {
				out = append(out, details.Items[0].Status)
			}
			return out
		}
	}
	return t
}()

func (s *Sim) describeInstanceStatus(c *call) (any, error) {
	every, err := c.params.boolean("IncludeAllInstances")
	if err != nil {
		return nil, err
	}
	found, next, err := s.hosts(c, statusFilters, func(h host) bool { return every || h.State == StateRunning })
	if err != nil {
		return nil, err
	}
	out := statusDescribed{NextToken: next}
	for _, h := range found {
		out.Statuses.Items = append(out.Statuses.Items, statusItem{
			InstanceID: h.ID, Zone: h.Zone, ZoneID: zoneID(h.Zone), State: stateXML(h.State),
			System: healthOf(h.Instance, h.Checks.System), Instance: healthOf(h.Instance, h.Checks.Instance), AttachedEBS: healthOf(h.Instance, h.Checks.AttachedEBS),
		})
	}
	return out, nil
}

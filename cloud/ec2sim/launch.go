package ec2sim

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

var imagePattern = regexp.MustCompile(`^ami-([0-9a-f]{8}|[0-9a-f]{17})$`)

// maxLaunch is how many instances one RunInstances makes at most.
const maxLaunch = 100

// runInstances makes hosts, each with a folder of its own as its /dev. Every image is as good as any other: nothing boots.
func (s *Sim) runInstances(c *call) (any, error) {
	p := c.params
	if err := p.need("ImageId", "MinCount", "MaxCount"); err != nil {
		return nil, err
	}
	if !imagePattern.MatchString(p["ImageId"]) {
		return nil, errorf(400, "InvalidAMIID.Malformed", "Invalid id: \"%s\" (expecting \"ami-...\")", p["ImageId"])
	}
	least, _, err := p.integer("MinCount")
	if err != nil {
		return nil, err
	}
	most, _, err := p.integer("MaxCount")
	if err != nil {
		return nil, err
	}
	switch {
	case least < 1 || most < least:
		return nil, errorf(400, "InvalidParameterValue", "Invalid value for minCount (%d) or maxCount (%d): expecting 1 <= minCount <= maxCount", least, most)
	case most > maxLaunch:
		return nil, errorf(400, "InstanceLimitExceeded", "You have requested more instances (%d) than your current instance limit of %d allows.", most, maxLaunch)
	}
	model, err := s.parseLaunch(p)
	if err != nil {
		return nil, err
	}
	if model.ClientToken != "" {
		if made, err := s.launchedBefore(model); made != nil || err != nil {
			return s.launchXML(made), err
		}
	}
	if c.dryRun {
		return nil, nil
	}
	var made []*Instance
	for n := range int(most) {
		i := model.clone()
		i.ID, i.LaunchIndex = newID("i"), n
		if err := makeDevDir(s.DevDir(i.ID)); err != nil {
			return nil, err
		}
		made = append(made, &i)
	}
	for _, i := range made {
		s.state.Instances[i.ID] = i
		s.keys[roleKey(i.ID)] = i.ID
		s.schedule(s.delays.Start, event{Kind: evStarted, Instance: i.ID})
	}
	return s.launchXML(made), nil
}

// parseLaunch makes the pattern of the instances that RunInstances asks for.
func (s *Sim) parseLaunch(p params) (*Instance, error) {
	i := &Instance{
		Image: p["ImageId"], Type: p["InstanceType"], Zone: p["Placement.AvailabilityZone"], State: StatePending, Root: RootEBS,
		Launched: s.now().UTC().Truncate(time.Second), Reservation: newID("r"), Reason: Reason{Code: "pending", Message: "pending"},
		ClientToken: p["ClientToken"], Request: hashParams(p),
	}
	if len(i.ClientToken) > 64 {
		return nil, errorf(400, "InvalidParameterValue", "Client token must be less than or equal to 64 characters")
	}
	if i.Type == "" {
		i.Type = "m5.large"
	}
	if _, ok := instanceTypes[i.Type]; !ok {
		return nil, errorf(400, "InvalidParameterValue", "Invalid value '%s' for InstanceType.", i.Type)
	}
	if id := p["Placement.AvailabilityZoneId"]; id != "" && i.Zone == "" {
		i.Zone = s.zoneByID(id)
	}
	if i.Zone == "" {
		i.Zone = s.cfg.Region + "a"
	}
	if !s.hasZone(i.Zone) {
		return nil, errorf(400, "InvalidParameterValue", "Invalid availability zone: [%s]", i.Zone)
	}
	var err error
	for name, field := range map[string]*bool{
		"DisableApiStop": &i.DisableAPIStop, "DisableApiTermination": &i.DisableAPITermination, "HibernationOptions.Configured": &i.Hibernation,
	} {
		if *field, err = p.boolean(name); err != nil {
			return nil, err
		}
	}
	switch market := p["InstanceMarketOptions.MarketType"]; market {
	case "":
	case "spot":
		i.Spot = p["InstanceMarketOptions.SpotOptions.SpotInstanceType"]
		if i.Spot == "" {
			i.Spot = SpotOneTime
		}
		if i.Spot != SpotOneTime && i.Spot != SpotPersistent {
			return nil, errorf(400, "InvalidParameterValue", "Invalid value '%s' for SpotInstanceType.", i.Spot)
		}
		if i.DisableAPIStop || i.DisableAPITermination {
			return nil, errorf(400, "UnsupportedOperation", "Protection from being stopped or terminated is not supported for spot instances.")
		}
	default:
		return nil, errorf(400, "InvalidParameterValue", "The simulator knows the market type spot only, not '%s'.", market)
	}
	i.Tags, err = tagSpecification(p, "instance")
	return i, err
}

// launchedBefore finds the instances that the same ClientToken has made; nil if there are none.
func (s *Sim) launchedBefore(model *Instance) (made []*Instance, err error) {
	for _, id := range slices.Sorted(maps.Keys(s.state.Instances)) {
		i := s.state.Instances[id]
		if i.ClientToken != model.ClientToken {
			continue
		}
		if i.Request != model.Request {
			return nil, errorf(400, "IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
		}
		made = append(made, i)
	}
	return made, nil
}

// launched is a reservation without a list around it.
type launched struct{ reservationItem }

func (s *Sim) launchXML(made []*Instance) any {
	if len(made) == 0 {
		return nil
	}
	out := launched{s.reservationXML(made[0])}
	for _, i := range made {
		out.Instances.Items = append(out.Instances.Items, hostXML(host{Instance: i}))
	}
	return out
}

func (s *Sim) reservationXML(i *Instance) reservationItem {
	return reservationItem{ReservationID: i.reservation(), OwnerID: s.cfg.Account}
}

// reservation is the ID of the launch that an instance belongs to.
func (i *Instance) reservation() string {
	if i.Reservation != "" {
		return i.Reservation
	}
	return "r-" + strings.TrimPrefix(i.ID, "i-")
}

// image is what an instance was started from.
func (i *Instance) image() string {
	if i.Image != "" {
		return i.Image
	}
	return imageID
}

// lifecycle is how an instance was bought: spot, or nothing for on-demand.
func (i *Instance) lifecycle() string {
	if i.Spot != "" {
		return "spot"
	}
	return ""
}

// spotRequest is the ID of the Spot request of an instance.
func (i *Instance) spotRequest() string {
	if i.Spot == "" {
		return ""
	}
	return "sir-" + strings.TrimPrefix(i.ID, "i-")[:8]
}

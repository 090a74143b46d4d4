package ec2sim

import "strconv"

// Attributes of instances that are switches, with the name that EC2 gives each.
var switches = map[string]func(*Instance) *bool{
	"disableApiStop":        func(i *Instance) *bool { return &i.DisableAPIStop },
	"disableApiTermination": func(i *Instance) *bool { return &i.DisableAPITermination },
}

// modifyInstanceAttribute sets one attribute: a switch, or DeleteOnTermination of attached volumes.
func (s *Sim) modifyInstanceAttribute(c *call) (any, error) {
	if err := c.params.need("InstanceId"); err != nil {
		return nil, err
	}
	i, err := s.namedInstance(c.params)
	if err != nil {
		return nil, err
	}
	if i.State == StateShuttingDown || i.State == StateTerminated {
		return nil, errorf(400, "IncorrectInstanceState", "The instance '%s' is in the '%s' state.", i.ID, i.State)
	}
	given := map[string]bool{} // by attribute
	if name := c.params["Attribute"]; name != "" && switches[name] == nil && name != "blockDeviceMapping" {
		return nil, errorf(400, "InvalidParameterValue", "The simulator cannot modify the attribute '%s'.", name)
	} else if switches[name] != nil && c.params.has("Value") {
		if given[name], err = c.params.boolean("Value"); err != nil {
			return nil, err
		}
	}
	for param, name := range map[string]string{"DisableApiStop.Value": "disableApiStop", "DisableApiTermination.Value": "disableApiTermination"} {
		if c.params.has(param) {
			if given[name], err = c.params.boolean(param); err != nil {
				return nil, err
			}
		}
	}
	mappings := c.params.structs("BlockDeviceMapping")
	switch {
	case len(given) > 1 || (len(given) == 1 && len(mappings) > 0):
		return nil, errorf(400, "InvalidParameterCombination", "Fields for multiple attribute types specified")
	case len(given)+len(mappings) == 0:
		return nil, errorf(400, "InvalidParameterCombination", "No attributes specified.")
	}
	for name, on := range given {
		if on && i.Spot != "" {
			return nil, errorf(400, "UnsupportedOperation", "Modifying '%s' is not supported for spot instances.", name)
		}
		if on && name == "disableApiStop" && i.Root == RootInstanceStore {
			return nil, errorf(400, "UnsupportedOperation", "Modifying '%s' is not supported for instance store-backed instances.", name)
		}
		if !c.dryRun {
			*switches[name](i) = on
		}
	}
	if err := s.mapDevices(c, i, mappings); err != nil {
		return nil, err
	}
	s.dirty = true
	return returned{true}, nil
}

// mapDevices sets whether attached volumes are deleted when the instance is terminated.
func (s *Sim) mapDevices(c *call, i *Instance, mappings []params) error {
	changes := map[*attachment]bool{}
	touched := map[*attachment]*volume{}
	for _, m := range mappings {
		on, err := m.boolean("Ebs.DeleteOnTermination")
		if err != nil {
			return err
		}
		found := false
		s.attachmentsOf(i.ID, func(v *volume, a *attachment) {
			if a.Device == m["DeviceName"] {
				changes[a], touched[a], found = on, v, true
			}
		})
		if !found {
			return errorf(400, "InvalidInstanceAttributeValue", "No device is currently mapped at %s", m["DeviceName"])
		}
	}
	if c.dryRun {
		return nil
	}
	for a, on := range changes {
		a.DeleteOnTermination = on
		s.touch(touched[a])
	}
	return nil
}

type valueItem struct {
	Value string `xml:"value"`
}

// attributeDescribed has one field besides the ID.
type attributeDescribed struct {
	InstanceID            string            `xml:"instanceId"`
	DisableAPIStop        *valueItem        `xml:"disableApiStop"`
	DisableAPITermination *valueItem        `xml:"disableApiTermination"`
	Type                  *valueItem        `xml:"instanceType"`
	RootDevice            *valueItem        `xml:"rootDeviceName"`
	Mappings              *set[mappingItem] `xml:"blockDeviceMapping"`
}

func (s *Sim) describeInstanceAttribute(c *call) (any, error) {
	if err := c.params.need("InstanceId", "Attribute"); err != nil {
		return nil, err
	}
	i, err := s.namedInstance(c.params)
	if err != nil {
		return nil, err
	}
	out := attributeDescribed{InstanceID: i.ID}
	switch name := c.params["Attribute"]; name {
	case "disableApiStop":
		out.DisableAPIStop = &valueItem{strconv.FormatBool(i.DisableAPIStop)}
	case "disableApiTermination":
		out.DisableAPITermination = &valueItem{strconv.FormatBool(i.DisableAPITermination)}
	case "instanceType":
		out.Type = &valueItem{i.Type}
	case "rootDeviceName":
		out.RootDevice = &valueItem{rootDeviceName}
	case "blockDeviceMapping":
		h := host{Instance: i}
		s.attachmentsOf(i.ID, func(v *volume, _ *attachment) { h.volumes = append(h.volumes, v) })
		mapped := set[mappingItem]{mappingsXML(h)}
		out.Mappings = &mapped
	default:
		return nil, errorf(400, "InvalidParameterValue", "The simulator does not know the attribute '%s'.", name)
	}
	return out, nil
}

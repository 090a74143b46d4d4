package ec2sim

import (
	"slices"
	"strconv"
	"strings"
)

// The Describe actions for everything that is not a volume.

type mappingItem struct {
	Device string `xml:"deviceName"`
	EBS    struct {
		VolumeID            string `xml:"volumeId"`
		Status              string `xml:"status"`
		AttachTime          string `xml:"attachTime"`
		DeleteOnTermination bool   `xml:"deleteOnTermination"`
	} `xml:"ebs"`
}

type instanceItem struct {
	InstanceID     string           `xml:"instanceId"`
	ImageID        string           `xml:"imageId"`
	State          stateItem        `xml:"instanceState"`
	PrivateDNSName string           `xml:"privateDnsName"`
	DNSName        string           `xml:"dnsName"`
	Reason         string           `xml:"reason"`
	LaunchIndex    int              `xml:"amiLaunchIndex"`
	Type           string           `xml:"instanceType"`
	LaunchTime     string           `xml:"launchTime"`
	Zone           string           `xml:"placement>availabilityZone"`
	ZoneID         string           `xml:"placement>availabilityZoneId"`
	Tenancy        string           `xml:"placement>tenancy"`
	Monitoring     string           `xml:"monitoring>state"`
	Address        string           `xml:"privateIpAddress"`
	Architecture   string           `xml:"architecture"`
	RootDeviceType string           `xml:"rootDeviceType"`
	RootDeviceName string           `xml:"rootDeviceName"`
	Mappings       set[mappingItem] `xml:"blockDeviceMapping"`
	Virtualization string           `xml:"virtualizationType"`
	Hypervisor     string           `xml:"hypervisor"` // xen for all, also Nitro: see Instance in the EC2 API reference
	EBSOptimized   bool             `xml:"ebsOptimized"`
	Lifecycle      string           `xml:"instanceLifecycle,omitempty"`
	SpotRequest    string           `xml:"spotInstanceRequestId,omitempty"`
	ClientToken    string           `xml:"clientToken"`
	StateReason    *reasonItem      `xml:"stateReason"`
	Tags           *set[tagItem]    `xml:"tagSet"`
	HTTPTokens     string           `xml:"metadataOptions>httpTokens"`
	HTTPEndpoint   string           `xml:"metadataOptions>httpEndpoint"`
	Hibernation    bool             `xml:"hibernationOptions>configured"`
}

type reasonItem struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

type reservationItem struct {
	ReservationID string            `xml:"reservationId"`
	OwnerID       string            `xml:"ownerId"`
	Groups        set[string]       `xml:"groupSet"`
	Instances     set[instanceItem] `xml:"instancesSet"`
}

type instancesDescribed struct {
	Reservations set[reservationItem] `xml:"reservationSet"`
	NextToken    string               `xml:"nextToken,omitempty"`
}

const (
	imageID        = "ami-0000000000000e51a"
	rootDeviceName = "/dev/xvda"
)

// host is an instance together with the volumes that a Describe sees on it.
type host struct {
	*Instance
	volumes []*volume
}

var instanceFilters = func() filterTable[host] {
	mapped := func(get func(*volume, *attachment) string) func(host) []string {
		return func(h host) (out []string) {
			for _, v := range h.volumes {
				out = append(out, get(v, v.on(h.ID)))
			}
			return out
		}
	}
	some := func(get func(host) string) func(host) []string {
		return func(h host) []string {
			if value := get(h); value != "" {
				return []string{value}
			}
			return nil
		}
	}
	return filterTable[host]{
		"availability-zone-id":                       func(h host) []string { return []string{zoneID(h.Zone)} },
		"block-device-mapping.delete-on-termination": mapped(func(_ *volume, a *attachment) string { return strconv.FormatBool(a.DeleteOnTermination) }),
		"client-token":                               some(func(h host) string { return h.ClientToken }),
		"hibernation-options.configured":             func(h host) []string { return []string{strconv.FormatBool(h.Hibernation)} },
		"image-id":                                   func(h host) []string { return []string{h.image()} },
		"instance-lifecycle":                         some(func(h host) string { return h.lifecycle() }),
		"launch-time":                                func(h host) []string { return []string{stamp(h.Launched)} },
		"reason":                                     some(func(h host) string { return h.Reason.Text }),
		"reservation-id":                             func(h host) []string { return []string{h.reservation()} },
		"root-device-name":                           func(host) []string { return []string{rootDeviceName} },
		"root-device-type":                           func(h host) []string { return []string{h.Root} },
		"spot-instance-request-id":                   some(func(h host) string { return h.spotRequest() }),
		"state-reason-code":                          some(func(h host) string { return h.Reason.Code }),
		"state-reason-message":                       some(func(h host) string { return h.Reason.Message }),
		"architecture":                               func(h host) []string { return []string{instanceTypes[h.Type].arch} },
		"availability-zone":                          func(h host) []string { return []string{h.Zone} },
		"block-device-mapping.attach-time":           mapped(func(_ *volume, a *attachment) string { return stamp(a.Since) }),
		"block-device-mapping.device-name":           mapped(func(_ *volume, a *attachment) string { return a.Device }),
		"block-device-mapping.status":                mapped(func(_ *volume, a *attachment) string { return mappingStatus(a) }),
		"block-device-mapping.volume-id":             mapped(func(v *volume, _ *attachment) string { return v.ID }),
		"instance-id":                                func(h host) []string { return []string{h.ID} },
		"instance-state-code":                        func(h host) []string { return []string{strconv.Itoa(stateCodes[h.State])} },
		"instance-state-name":                        func(h host) []string { return []string{h.State} },
		"instance-type":                              func(h host) []string { return []string{h.Type} },
		"private-ip-address":                         func(h host) []string { return []string{h.address()} },
		"private-dns-name":                           func(h host) []string { return []string{h.hostname()} },
	}
}()

// mappingStatus is an attachment's state as DescribeInstances shows it, which does not know busy.
func mappingStatus(a *attachment) string {
	if a.State == "busy" {
		return "detaching"
	}
	return a.State
}

// hosts returns the instances of a Describe after IDs and filters, those that it shows at all.
func (s *Sim) hosts(c *call, table filterTable[host], shows func(host) bool) ([]host, string, error) {
	ids := c.params.list("InstanceId")
	for _, id := range ids {
		if err := checkInstanceID(id); err != nil {
			return nil, "", err
		}
	}
	match, err := compileFilters(c.params, table, func(h host) map[string]string { return h.Tags })
	if err != nil {
		return nil, "", err
	}
	all := map[string]host{}
	for id, i := range s.state.Instances {
		all[id] = host{Instance: i}
	}
	for _, v := range unhidden(c, s.seenVolumes()) {
		for _, a := range v.Attachments {
			if h, ok := all[a.Instance]; ok {
				h.volumes = append(h.volumes, v)
				all[a.Instance] = h
			}
		}
	}
	found, err := choose(all, ids, func(h host) bool { return shows(h) && match(h) }, "InvalidInstanceID.NotFound", "instance ID")
	if err != nil {
		return nil, "", err
	}
	return page(s, c, found, func(h host) string { return h.ID }, ids)
}

func (s *Sim) describeInstances(c *call) (any, error) {
	found, next, err := s.hosts(c, instanceFilters, func(host) bool { return true })
	if err != nil {
		return nil, err
	}
	out := instancesDescribed{NextToken: next}
	at := map[string]int{} // of a reservation in the answer
	for _, h := range found {
		n, ok := at[h.reservation()]
		if !ok {
			n = len(out.Reservations.Items)
			at[h.reservation()] = n
			out.Reservations.Items = append(out.Reservations.Items, s.reservationXML(h.Instance))
		}
		r := &out.Reservations.Items[n].Instances
		r.Items = append(r.Items, hostXML(h))
	}
	return out, nil
}

// hostXML shows an instance as DescribeInstances does.
func hostXML(h host) instanceItem {
	item := instanceItem{
		InstanceID: h.ID, ImageID: h.image(), State: stateXML(h.State), PrivateDNSName: h.hostname(), Reason: h.Reason.Text, LaunchIndex: h.LaunchIndex, Type: h.Type,
		LaunchTime: stamp(h.Launched), Zone: h.Zone, ZoneID: zoneID(h.Zone), Tenancy: "default", Monitoring: "disabled", Address: h.address(),
		Architecture: instanceTypes[h.Type].arch, RootDeviceType: h.Root, RootDeviceName: rootDeviceName, Mappings: set[mappingItem]{mappingsXML(h)},
		Virtualization: "hvm", Hypervisor: "xen", EBSOptimized: true, Lifecycle: h.lifecycle(), SpotRequest: h.spotRequest(), ClientToken: h.ClientToken,
		HTTPTokens: "required", HTTPEndpoint: "enabled", Hibernation: h.Hibernation,
	}
	if h.State == StateTerminated {
		item.PrivateDNSName, item.Address = "", ""
	}
	if h.Reason.Code != "" {
		item.StateReason = &reasonItem{h.Reason.Code, h.Reason.Message}
	}
	if len(h.Tags) > 0 {
		item.Tags = &set[tagItem]{tagItems(h.Tags)}
	}
	return item
}

func mappingsXML(h host) (items []mappingItem) {
	for _, v := range h.volumes {
		a := v.on(h.ID)
		m := mappingItem{Device: a.Device}
		m.EBS.VolumeID, m.EBS.Status, m.EBS.AttachTime, m.EBS.DeleteOnTermination = v.ID, mappingStatus(a), stamp(a.Since), a.DeleteOnTermination
		items = append(items, m)
	}
	return items
}

type typeItem struct {
	Type           string      `xml:"instanceType"`
	Current        bool        `xml:"currentGeneration"`
	BareMetal      bool        `xml:"bareMetal"`
	Hypervisor     string      `xml:"hypervisor,omitempty"`
	Architectures  set[string] `xml:"processorInfo>supportedArchitectures"`
	VCPUs          int         `xml:"vCpuInfo>defaultVCpus"`
	MemoryMiB      int         `xml:"memoryInfo>sizeInMiB"`
	EBSOptimized   string      `xml:"ebsInfo>ebsOptimizedSupport"`
	EBSEncryption  string      `xml:"ebsInfo>encryptionSupport"`
	NVMe           string      `xml:"ebsInfo>nvmeSupport"`
	MaxAttachments int         `xml:"ebsInfo>maximumEbsAttachments"`
	LimitType      string      `xml:"ebsInfo>attachmentLimitType"`
	MaxInterfaces  int         `xml:"networkInfo>maximumNetworkInterfaces"`
	Burstable      bool        `xml:"burstablePerformanceSupported"`
}

type typesDescribed struct {
	Types     set[typeItem] `xml:"instanceTypeSet"`
	NextToken string        `xml:"nextToken,omitempty"`
}

var typeFilters = filterTable[typeItem]{
	"bare-metal":                            func(t typeItem) []string { return []string{strconv.FormatBool(t.BareMetal)} },
	"burstable-performance-supported":       func(t typeItem) []string { return []string{strconv.FormatBool(t.Burstable)} },
	"current-generation":                    func(t typeItem) []string { return []string{strconv.FormatBool(t.Current)} },
	"ebs-info.attachment-limit-type":        func(t typeItem) []string { return []string{t.LimitType} },
	"ebs-info.maximum-ebs-attachments":      func(t typeItem) []string { return []string{strconv.Itoa(t.MaxAttachments)} },
	"ebs-info.nvme-support":                 func(t typeItem) []string { return []string{t.NVMe} },
	"hypervisor":                            func(t typeItem) []string { return []string{t.Hypervisor} },
	"instance-type":                         func(t typeItem) []string { return []string{t.Type} },
	"processor-info.supported-architecture": func(t typeItem) []string { return t.Architectures.Items },
}

func (s *Sim) describeInstanceTypes(c *call) (any, error) {
	match, err := compileFilters(c.params, typeFilters, nil)
	if err != nil {
		return nil, err
	}
	all := map[string]typeItem{}
	for name, t := range instanceTypes {
		item := typeItem{
			Type: name, Current: true, BareMetal: strings.HasSuffix(name, ".metal"), Hypervisor: t.hypervisor, Architectures: set[string]{[]string{t.arch}},
			VCPUs: t.vcpus, MemoryMiB: t.memoryMiB, EBSOptimized: "default", EBSEncryption: "supported", NVMe: "required",
			MaxAttachments: t.maxAttachments, LimitType: t.limitType(), MaxInterfaces: 3, Burstable: t.burstable,
		}
		if n, ok := s.state.Limits.Attachments[name]; ok {
			item.MaxAttachments = n + t.maxAttachments - s.tableLimit(name)
		}
		if item.BareMetal {
			item.Hypervisor = ""
		}
		if t.hypervisor == "xen" {
			item.EBSOptimized, item.NVMe = "unsupported", "unsupported"
		}
		all[name] = item
	}
	names := c.params.list("InstanceType")
	found, err := choose(all, names, match, "InvalidInstanceType", "instance type")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(t typeItem) string { return t.Type }, names)
	if err != nil {
		return nil, err
	}
	return typesDescribed{set[typeItem]{found}, next}, nil
}

type zoneItem struct {
	Name     string      `xml:"zoneName"`
	State    string      `xml:"zoneState"`
	Region   string      `xml:"regionName"`
	Messages set[string] `xml:"messageSet"`
	ID       string      `xml:"zoneId"`
	Group    string      `xml:"groupName"`
	Border   string      `xml:"networkBorderGroup"`
	Type     string      `xml:"zoneType"`
	OptIn    string      `xml:"optInStatus"`
}

type zonesDescribed struct {
	Zones set[zoneItem] `xml:"availabilityZoneInfo"`
}

var zoneFilters = filterTable[zoneItem]{
	"group-name":    func(z zoneItem) []string { return []string{z.Group} },
	"opt-in-status": func(z zoneItem) []string { return []string{z.OptIn} },
	"region-name":   func(z zoneItem) []string { return []string{z.Region} },
	"state":         func(z zoneItem) []string { return []string{z.State} },
	"zone-id":       func(z zoneItem) []string { return []string{z.ID} },
	"zone-name":     func(z zoneItem) []string { return []string{z.Name} },
	"zone-type":     func(z zoneItem) []string { return []string{z.Type} },
}

func (s *Sim) describeZones(c *call) (any, error) {
	match, err := compileFilters(c.params, zoneFilters, nil)
	if err != nil {
		return nil, err
	}
	wanted := slices.Concat(c.params.list("ZoneName"), c.params.list("ZoneId"))
	for _, w := range wanted {
		if !s.hasZone(w) && s.zoneByID(w) == "" {
			return nil, errorf(400, "InvalidParameterValue", "Invalid availability zone: [%s]", w)
		}
	}
	var out zonesDescribed
	for _, z := range s.zones() {
		item := zoneItem{Name: z, State: "available", Region: s.cfg.Region, ID: zoneID(z), Group: s.cfg.Region, Border: s.cfg.Region, Type: "availability-zone", OptIn: "opt-in-not-required"}
		if (len(wanted) == 0 || slices.Contains(wanted, z) || slices.Contains(wanted, item.ID)) && match(item) {
			out.Zones.Items = append(out.Zones.Items, item)
		}
	}
	return out, nil
}

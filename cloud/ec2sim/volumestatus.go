package ec2sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// volumeChecks is what DescribeVolumeStatus says with each status of a volume: whether its I/O is enabled, and how it performs.
// Source: the page of EBS volume status checks.
var volumeChecks = map[string]struct{ enabled, performance string }{
	CheckOK:       {"passed", "normal"},
	"warning":     {"passed", "degraded"},
	CheckImpaired: {"failed", "stalled"},
	CheckNoData:   {"insufficient-data", "insufficient-data"},
}

// SetVolumeStatus changes what DescribeVolumeStatus says of a volume: ok, warning, impaired or insufficient-data. Its I/O goes on as before.
func (s *Sim) SetVolumeStatus(id, status string) error {
	if _, ok := volumeChecks[status]; !ok {
		return fmt.Errorf("ec2sim: the status of a volume is %s, not %q", strings.Join(slices.Sorted(maps.Keys(volumeChecks)), ", "), status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.state.Volumes[id]
	if v == nil {
		return fmt.Errorf("ec2sim: there is no volume %q", id)
	}
	v.Status = status
	s.touch(v)
	s.save()
	return nil
}

// health is the status of a volume and the data that it is still to get.
func (v *volume) health(now time.Time) (status, initialization string, progress int64) {
	status = v.Status
	if status == "" {
		status = CheckOK
	}
	if v.State == "creating" {
		status = CheckNoData
	}
	if v.SnapshotID == "" && v.SourceID == "" {
		return status, "", 0
	}
	if now.Before(v.Initialized) || v.State == "creating" {
		return status, "initializing", min(99, share(v.Created, v.Initialized, now))
	}
	return status, "completed", 100
}

type volumeEventItem struct {
	EventID     string `xml:"eventId"`
	EventType   string `xml:"eventType"`
	Description string `xml:"description"`
	NotBefore   string `xml:"notBefore"`
}

type volumeActionItem struct {
	EventID     string `xml:"eventId"`
	EventType   string `xml:"eventType"`
	Code        string `xml:"code"`
	Description string `xml:"description"`
}

type initializationItem struct {
	Type     string `xml:"initializationType"`
	Progress int64  `xml:"progress"`
}

type volumeStatusItem struct {
	VolumeID       string                `xml:"volumeId"`
	Zone           string                `xml:"availabilityZone"`
	ZoneID         string                `xml:"availabilityZoneId"`
	Status         string                `xml:"volumeStatus>status"`
	Details        set[detailItem]       `xml:"volumeStatus>details"`
	Events         set[volumeEventItem]  `xml:"eventsSet"`
	Actions        set[volumeActionItem] `xml:"actionsSet"`
	Initialization *initializationItem   `xml:"initializationStatusDetails"`
}

type volumeStatusDescribed struct {
	Statuses  set[volumeStatusItem] `xml:"volumeStatusSet"`
	NextToken string                `xml:"nextToken,omitempty"`
}

func volumeStatusXML(v *volume, now time.Time) volumeStatusItem {
	status, initialization, progress := v.health(now)
	checks := volumeChecks[status]
	item := volumeStatusItem{VolumeID: v.ID, Zone: v.Zone, ZoneID: zoneID(v.Zone), Status: status}
	performance := checks.performance
	if !volumeTypes[v.Type].needsIOPS && performance == "normal" {
		performance = "not-applicable"
	}
	item.Details.Items = []detailItem{{Name: "io-enabled", Status: checks.enabled}, {Name: "io-performance", Status: performance}}
	if initialization != "" {
		item.Details.Items = append(item.Details.Items, detailItem{Name: "initialization-state", Status: initialization})
		item.Initialization = &initializationItem{Type: "default", Progress: progress}
		if v.SourceID != "" {
			item.Initialization.Type = "volume-copy"
		}
	}
	e := volumeEventItem{EventID: "evol-" + strings.TrimPrefix(v.ID, "vol-"), NotBefore: stamp(v.Created)}
	switch status {
	case CheckImpaired:
		e.EventType, e.Description = "potential-data-inconsistency", "The volume's data may be inconsistent; its I/O is disabled."
		item.Actions.Items = []volumeActionItem{{e.EventID, e.EventType, "enable-volume-io", "Enable the volume's I/O"}}
	case "warning":
		e.EventType, e.Description = "io-performance:degraded", "The volume is slower than it should be."
	default:
		return item
	}
	item.Events.Items = []volumeEventItem{e}
	return item
}

var volumeStatusFilters = func() filterTable[volumeStatusItem] {
	return filterTable[volumeStatusItem]{
		"availability-zone":    func(i volumeStatusItem) []string { return []string{i.Zone} },
		"availability-zone-id": func(i volumeStatusItem) []string { return []string{i.ZoneID} },
		"volume-status.status": func(i volumeStatusItem) []string { return []string{i.Status} },
		"volume-status.details-name": func(i volumeStatusItem) (out []string) {
			for _, d := range i.Details.Items {
				out = append(out, d.Name)
			}
			return out
		},
		"volume-status.details-status": func(i volumeStatusItem) (out []string) {
			for _, d := range i.Details.Items {
				out = append(out, d.Status)
			}
			return out
		},
		"event.event-type": func(i volumeStatusItem) (out []string) {
			for _, e := range i.Events.Items {
				out = append(out, e.EventType)
			}
			return out
		},
		"action.code": func(i volumeStatusItem) (out []string) {
			for _, a := range i.Actions.Items {
				out = append(out, a.Code)
			}
			return out
		},
	}
}()

func (s *Sim) describeVolumeStatus(c *call) (any, error) {
	ids := c.params.list("VolumeId")
	for _, id := range ids {
		if err := checkVolumeID(id); err != nil {
			return nil, err
		}
	}
	match, err := compileFilters(c.params, volumeStatusFilters, nil)
	if err != nil {
		return nil, err
	}
	items := map[string]volumeStatusItem{}
	for id, v := range unhidden(c, s.seenVolumes()) {
		items[id] = volumeStatusXML(v, s.now())
	}
	found, err := choose(items, ids, match, "InvalidVolume.NotFound", "volume")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(i volumeStatusItem) string { return i.VolumeID }, ids)
	if err != nil {
		return nil, err
	}
	return volumeStatusDescribed{set[volumeStatusItem]{found}, next}, nil
}

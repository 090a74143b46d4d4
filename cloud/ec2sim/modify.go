package ec2sim

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// modification is the latest change of a volume's size, type or performance.
type modification struct {
	State    string    `json:"state"` // modifying, optimizing, completed, failed
	Fails    bool      `json:"fails,omitempty"`
	Message  string    `json:"message,omitempty"`
	Started  time.Time `json:"started"`
	Due      time.Time `json:"due"` // when it is completed
	Ended    time.Time `json:"ended,omitzero"`
	Original form      `json:"original"`
	Target   form      `json:"target"`
}

// form is what ModifyVolume can change.
type form struct {
	Type        string `json:"type"`
	SizeGiB     int64  `json:"size"`
	IOPS        int64  `json:"iops,omitempty"`
	Throughput  int64  `json:"throughput,omitempty"`
	MultiAttach bool   `json:"multiAttach,omitempty"`
}

func (v *volume) form() form { return form{v.Type, v.SizeGiB, v.IOPS, v.Throughput, v.MultiAttach} }

func (v *volume) take(f form) {
	v.Type, v.SizeGiB, v.IOPS, v.Throughput, v.MultiAttach = f.Type, f.SizeGiB, f.IOPS, f.Throughput, f.MultiAttach
}

const (
	// modificationWindow is the time in which only so many modifications of one volume begin. Source: the documentation of ModifyVolume in the EC2
	// API reference (2026); before, EC2 asked for 6 hours between two.
	modificationWindow = 24 * time.Hour
	// defaultModifiedIOPS is what a volume gets that becomes io1, io2 or gp3.
	defaultModifiedIOPS = 3000
)

func (s *Sim) modifyVolume(c *call) (any, error) {
	v, err := s.namedVolume(c.params)
	if err != nil {
		return nil, err
	}
	target, err := s.parseModification(v, c.params)
	if err != nil {
		return nil, err
	}
	if v.State != "available" && v.State != "in-use" {
		return nil, errState(v.ID, v.State)
	}
	if m := v.Modification; m != nil && (m.State == "modifying" || m.State == "optimizing") {
		return nil, errorf(400, "IncorrectModificationState", "Volume %s cannot be modified in modification state %s", v.ID, strings.ToUpper(m.State))
	}
	if err := s.checkModifications(v, target); err != nil {
		return nil, err
	}
	if c.dryRun {
		return nil, nil
	}
	now := s.now()
	v.Modified = append(v.Modified, now)
	v.Modification = &modification{
		State: "modifying", Started: now.UTC().Truncate(time.Millisecond), Due: now.Add(s.delays.Modify + s.delays.Optimize), Original: v.form(), Target: target,
	}
	for _, f := range c.faults {
		f.onModify(v.Modification)
	}
	s.touch(v)
	v.past.freeze(c, s.now())
	s.schedule(s.delays.Modify, event{Kind: evModified, Volume: v.ID})
	return modifiedAnswer{modificationXML(v, now)}, nil
}

// parseModification makes the form that a volume is to get.
func (s *Sim) parseModification(v *volume, p params) (form, error) {
	to := v.clone()
	if v.Type == "standard" {
		return form{}, errorf(400, "UnsupportedOperation", "Volumes of type standard cannot be modified.")
	}
	size, sized, err := p.integer("Size")
	if err != nil {
		return form{}, err
	}
	iops, iopsSent, err := p.integer("Iops")
	if err != nil {
		return form{}, err
	}
	throughput, throughputSent, err := p.integer("Throughput")
	if err != nil {
		return form{}, err
	}
	multi, err := p.boolean("MultiAttachEnabled")
	if err != nil {
		return form{}, err
	}
	if !sized && !iopsSent && !throughputSent && !p.has("VolumeType") && !p.has("MultiAttachEnabled") {
		return form{}, errorf(400, "InvalidParameterCombination", "No attributes specified.")
	}
	if sized {
		if size < v.SizeGiB {
			return form{}, errorf(400, "InvalidParameterValue", "New size cannot be smaller than existing size")
		}
		to.SizeGiB = size
	}
	other := p.has("VolumeType") && p["VolumeType"] != v.Type
	if other {
		to.Type = p["VolumeType"]
		to.IOPS, to.Throughput = 0, 0
		if t, ok := volumeTypes[to.Type]; ok && t.maxIOPS > 0 {
			to.IOPS = defaultModifiedIOPS
		}
	} else if volumeTypes[v.Type].maxIOPS == 0 {
		to.IOPS = 0 // It goes with the size.
	}
	if to.Type == "standard" {
		return form{}, errorf(400, "InvalidParameterValue", "A volume cannot be changed to the type standard.")
	}
	if iopsSent {
		to.IOPS = iops
	}
	if throughputSent {
		to.Throughput = throughput
	}
	if p.has("MultiAttachEnabled") {
		if v.Type != "io2" || len(v.Attachments) > 0 {
			return form{}, errorf(400, "UnsupportedOperation", "Multi-Attach can be changed only of io2 volumes that are not attached.")
		}
		to.MultiAttach = multi
	}
	if other && v.MultiAttach {
		return form{}, errorf(400, "UnsupportedOperation", "The type of a Multi-Attach enabled volume cannot be changed.")
	}
	err = to.fit()
	return to.form(), err
}

// checkModifications refuses a modification that exceeds one of EC2's limits.
func (s *Sim) checkModifications(v *volume, target form) error {
	recent := v.Modified[:0]
	for _, at := range v.Modified {
		if s.now().Sub(at) < modificationWindow {
			recent = append(recent, at)
		}
	}
	v.Modified = recent
	if limit := s.state.Limits.Modifications; limit > 0 && len(recent) >= limit {
		return errorf(400, "VolumeModificationRateExceeded",
			"You've reached the maximum modification rate per volume limit. Wait until %s before you can issue the next modification request for this volume.",
			recent[len(recent)-limit].Add(modificationWindow).UTC().Format(time.RFC3339))
	}
	after := v.clone()
	after.take(target)
	gib, iops := s.provisioned(v.ID)
	l := s.state.Limits
	if gib += after.SizeGiB; l.ProvisionedGiB > 0 && gib > l.ProvisionedGiB {
		return errorf(400, "VolumeModificationSizeLimitExceeded", "You have exceeded your maximum storage for volume modifications of %d GiB in region %s.", l.ProvisionedGiB, s.cfg.Region)
	}
	if volumeTypes[after.Type].needsIOPS {
		iops += after.IOPS
	}
	if l.IOPS > 0 && iops > l.IOPS {
		return errMaxIOPS(l.IOPS, s.cfg.Region)
	}
	return nil
}

// finishModify gives the volume its new form: the file grows, then the devices, then EC2 says so.
func (s *Sim) finishModify(e *event) time.Duration {
	s.mu.Lock()
	v := s.state.Volumes[e.Volume]
	if v == nil || v.Modification == nil || v.Modification.State != "modifying" {
		s.mu.Unlock()
		return 0
	}
	m := *v.Modification
	type device struct {
		dir  string
		plug plug
	}
	var devices []device
	for _, a := range v.Attachments {
		devices = append(devices, device{s.DevDir(a.Instance), a.Plug})
	}
	s.mu.Unlock()

	failed := m.Message
	if m.Fails && failed == "" {
		failed = "The modification failed. The volume is as it was."
	}
	if failed == "" && m.Target.SizeGiB > m.Original.SizeGiB {
		if err := os.Truncate(s.BackingFile(e.Volume), m.Target.SizeGiB<<30); err != nil {
			failed = fmt.Sprintf("The simulator cannot keep a volume of %d GiB: %s", m.Target.SizeGiB, err)
		}
	}
	if failed == "" {
		for _, d := range devices { // Only events of the volume plug and unplug, and this is one.
			if err := s.disk.grow(d.dir, d.plug, m.Target.SizeGiB); err != nil {
				s.log.WithError(err).WithField("volume", e.Volume).Error("ec2sim: cannot grow the device")
				return plugRetry
			}
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if failed != "" {
		v.Modification.State, v.Modification.Message, v.Modification.Ended = "failed", failed, s.now().UTC()
		s.touch(v)
		return 0
	}
	v.take(m.Target)
	v.Modification.State = "optimizing"
	s.touch(v)
	s.schedule(s.delays.Optimize, event{Kind: evOptimized, Volume: v.ID})
	return 0
}

func (s *Sim) finishOptimize(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.state.Volumes[e.Volume]; v != nil && v.Modification != nil && v.Modification.State == "optimizing" {
		v.Modification.State, v.Modification.Ended = "completed", s.now().UTC()
		s.touch(v)
	}
	return 0
}

type modificationItem struct {
	VolumeID            string `xml:"volumeId"`
	State               string `xml:"modificationState"`
	Message             string `xml:"statusMessage,omitempty"`
	TargetSize          int64  `xml:"targetSize"`
	TargetIOPS          *int64 `xml:"targetIops"`
	TargetType          string `xml:"targetVolumeType"`
	TargetThroughput    *int64 `xml:"targetThroughput"`
	TargetMultiAttach   bool   `xml:"targetMultiAttachEnabled"`
	OriginalSize        int64  `xml:"originalSize"`
	OriginalIOPS        *int64 `xml:"originalIops"`
	OriginalType        string `xml:"originalVolumeType"`
	OriginalThroughput  *int64 `xml:"originalThroughput"`
	OriginalMultiAttach bool   `xml:"originalMultiAttachEnabled"`
	Progress            int64  `xml:"progress"`
	StartTime           string `xml:"startTime"`
	EndTime             string `xml:"endTime,omitempty"`
}

type modifiedAnswer struct {
	Modification modificationItem `xml:"volumeModification"`
}

type modificationsDescribed struct {
	Modifications set[modificationItem] `xml:"volumeModificationSet"`
	NextToken     string                `xml:"nextToken,omitempty"`
}

func modificationXML(v *volume, now time.Time) modificationItem {
	m := v.Modification
	some := func(n int64) *int64 {
		if n == 0 {
			return nil
		}
		return &n
	}
	item := modificationItem{
		VolumeID: v.ID, State: m.State, Message: m.Message, StartTime: stamp(m.Started),
		TargetSize: m.Target.SizeGiB, TargetIOPS: some(m.Target.IOPS), TargetType: m.Target.Type, TargetThroughput: some(m.Target.Throughput), TargetMultiAttach: m.Target.MultiAttach,
		OriginalSize: m.Original.SizeGiB, OriginalIOPS: some(m.Original.IOPS), OriginalType: m.Original.Type, OriginalThroughput: some(m.Original.Throughput),
		OriginalMultiAttach: m.Original.MultiAttach,
	}
	switch m.State {
	case "optimizing":
		item.Progress = min(99, share(m.Started, m.Due, now))
	case "completed":
		item.Progress = 100
	}
	if !m.Ended.IsZero() {
		item.EndTime = stamp(m.Ended)
	}
	return item
}

var modificationFilters = func() filterTable[*volume] {
	one := func(get func(*modification) string) func(*volume) []string {
		return func(v *volume) []string { return []string{get(v.Modification)} }
	}
	t := filterTable[*volume]{
		"modification-state": one(func(m *modification) string { return m.State }),
		"start-time":         one(func(m *modification) string { return stamp(m.Started) }),
		"volume-id":          func(v *volume) []string { return []string{v.ID} },
	}
	for side, get := range map[string]func(*modification) form{
		"original": func(m *modification) form { return m.Original }, "target": func(m *modification) form { return m.Target },
	} {
		t[side+"-iops"] = one(func(m *modification) string { return itoa(get(m).IOPS) })
		t[side+"-size"] = one(func(m *modification) string { return itoa(get(m).SizeGiB) })
		t[side+"-volume-type"] = one(func(m *modification) string { return get(m).Type })
		t[side+"MultiAttachEnabled"] = one(func(m *modification) string { return strconv.FormatBool(get(m).MultiAttach) })
	}
	return t
}()

// maxModificationsPage is the limit of MaxResults of DescribeVolumesModifications.
const maxModificationsPage = 500

// describeModifications shows the latest modification of each volume that had one.
func (s *Sim) describeModifications(c *call) (any, error) {
	ids := c.params.list("VolumeId")
	for _, id := range ids {
		if err := checkVolumeID(id); err != nil {
			return nil, err
		}
	}
	match, err := compileFilters(c.params, modificationFilters, nil)
	if err != nil {
		return nil, err
	}
	if size, sent, err := c.params.integer("MaxResults"); err != nil {
		return nil, err
	} else if sent && size > maxModificationsPage {
		return nil, errorf(400, "InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value of at most %d.", size, maxModificationsPage)
	}
	seen := unhidden(c, s.seenVolumes())
	if _, err := choose(seen, ids, func(*volume) bool { return true }, "InvalidVolume.NotFound", "volume"); err != nil {
		return nil, err
	}
	for id, v := range seen {
		if v.Modification == nil {
			delete(seen, id)
		}
	}
	found, err := choose(seen, ids, match, "InvalidVolumeModification.NotFound", "modification for volume")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(v *volume) string { return v.ID }, ids)
	if err != nil {
		return nil, err
	}
	out := modificationsDescribed{NextToken: next}
	for _, v := range found {
		out.Modifications.Items = append(out.Modifications.Items, modificationXML(v, s.now()))
	}
	return out, nil
}

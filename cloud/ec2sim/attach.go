package ec2sim

import (
	"errors"
	"regexp"
	"time"

	"github.com/sirupsen/logrus"
)

// deviceName is what AttachVolume takes as a name: sda..sdz with an optional number, xvda..xvddz.
var deviceName = regexp.MustCompile(`^(/dev/)?(sd[a-z]([1-9]|1[0-5])?|xvd[a-d]?[a-z])$`)

// Names of the root disk, which is there but not simulated as a volume.
var rootDevices = map[string]bool{"/dev/xvda": true, "/dev/sda1": true}

// busyRetry is how often a detach that the host holds up is tried again.
const busyRetry = 100 * time.Millisecond

// maxMultiAttach is how many instances can share a volume.
const maxMultiAttach = 16

// attachmentAnswer is an attachment without a list around it.
type attachmentAnswer struct{ attachmentItem }

func (s *Sim) attachVolume(c *call) (any, error) {
	if err := c.params.need("VolumeId", "InstanceId", "Device"); err != nil {
		return nil, err
	}
	v, err := s.namedVolume(c.params)
	if err != nil {
		return nil, err
	}
	i, err := s.namedInstance(c.params)
	if err != nil {
		return nil, err
	}
	device := c.params["Device"]
	if !deviceName.MatchString(device) {
		return nil, errorf(400, "InvalidParameterValue", "Value (%s) for parameter device is invalid. %s is not a valid EBS device name.", device, device)
	}
	if i.State != StateRunning && i.State != StateStopped {
		return nil, errorf(400, "IncorrectState", "Instance '%s' is not 'running'.", i.ID)
	}
	if v.Zone != i.Zone {
		return nil, errorf(400, "InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.ID, i.ID)
	}
	if v.State != "available" && v.State != "in-use" {
		return nil, errorf(400, "IncorrectState", "%s is not 'available'.", v.ID)
	}
	if len(v.Attachments) > 0 && (!v.MultiAttach || v.on(i.ID) != nil || len(v.Attachments) >= maxMultiAttach) {
		return nil, errorf(400, "VolumeInUse", "%s is already attached to an instance", v.ID)
	}
	used := 0
	for _, other := range s.state.Volumes {
		if a := other.on(i.ID); a != nil {
			used++
			if a.Device == device {
				return nil, errDeviceInUse(device)
			}
		}
	}
	if rootDevices[device] {
		return nil, errDeviceInUse(device)
	}
	if limit := s.attachLimit(i.Type); used >= limit {
		return nil, errorf(400, "AttachmentLimitExceeded", "The maximum number of volume attachments for instance type %s is %d, and instance %s has them all.", i.Type, limit, i.ID)
	}
	a := &attachment{Instance: i.ID, Device: device, State: "attaching", Since: s.now().UTC().Truncate(time.Millisecond)}
	if c.dryRun {
		return nil, nil
	}
	for _, f := range c.faults {
		f.onAttach(a)
	}
	v.State = "in-use"
	v.Attachments = append(v.Attachments, a)
	s.touch(v)
	v.past.freeze(c, s.now())
	if !a.Quirks.NeverAttached {
		s.schedule(s.delays.Attach, event{Kind: evAttached, Volume: v.ID, Instance: i.ID})
	}
	return attachmentAnswer{attachmentXML(v, a)}, nil
}

func errDeviceInUse(device string) *apiError {
	return errorf(400, "InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
}

// plugRetry is how often a device is tried again that the simulator failed to make.
const plugRetry = time.Second

// finishAttach makes the device, and says attached once the host can see it.
func (s *Sim) finishAttach(e *event) time.Duration {
	v, a, was := s.attachmentOf(e)
	if a == nil || was.State != "attaching" {
		return 0
	}
	if !was.Quirks.NoDevice && was.Quirks.DeviceDelay == 0 && !s.plugIn(v, a) {
		return plugRetry
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.State != "attaching" {
		return 0 // A detach has come in between, and will take the device away.
	}
	a.State = "attached"
	if was.Quirks.DeviceDelay > 0 {
		s.schedule(was.Quirks.DeviceDelay, event{Kind: evPlugged, Volume: v.ID, Instance: a.Instance})
	}
	s.touch(v)
	return 0
}

// finishPlug makes a device that was to come later than its attachment.
func (s *Sim) finishPlug(e *event) time.Duration {
	v, a, was := s.attachmentOf(e)
	if a != nil && was.State == "attached" && !was.Quirks.NoDevice && !s.plugIn(v, a) {
		return plugRetry
	}
	return 0
}

// finishUnplug takes the device of an instance that has ended away from it; the attachment stays.
func (s *Sim) finishUnplug(e *event) time.Duration {
	_, a, was := s.attachmentOf(e)
	if a == nil {
		return 0
	}
	left, err := s.disk.unplug(s.DevDir(a.Instance), was.Plug, true)
	if err != nil {
		s.log.WithError(err).WithField("volume", e.Volume).Warn("ec2sim: cannot take the device away")
		return plugRetry
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if left {
		s.schedule(busyRetry, event{Kind: evReaped, Loop: was.Plug.Loop})
	}
	a.Plug = plug{}
	s.dirty = true
	return 0
}

// finishReset takes the device of a host that reboots away, and gives it back when the host is up again.
func (s *Sim) finishReset(e *event) time.Duration {
	if again := s.finishUnplug(e); again > 0 {
		return again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule(s.delays.Start, event{Kind: evPlugged, Volume: e.Volume, Instance: e.Instance})
	return 0
}

// attachmentOf finds the attachment an event is about, and what it is at this moment. Only events of the volume end an attachment or
// change its Plug, and those run one by one; requests change State, Force and Quirks at any time, under s.mu.
func (s *Sim) attachmentOf(e *event) (v *volume, a *attachment, was attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v = s.state.Volumes[e.Volume]; v != nil {
		a = v.on(e.Instance)
	}
	if a != nil {
		was = *a
	}
	return v, a, was
}

// plugIn makes the device of an attachment, if it has none and its instance runs; false when that failed. It is called without s.mu.
func (s *Sim) plugIn(v *volume, a *attachment) bool {
	s.mu.Lock()
	look, shuffle := appearanceOf(v, a), s.state.Limits.ShuffleDevices
	i := s.state.Instances[a.Instance]
	wanted := a.Plug.Node == 0 && i != nil && i.State == StateRunning
	s.mu.Unlock()
	if !wanted {
		return true
	}
	p, err := s.disk.plugIn(s.DevDir(a.Instance), s.BackingFile(v.ID), look, shuffle)
	if err != nil {
		s.log.WithError(err).WithFields(logrus.Fields{"volume": v.ID, "instance": a.Instance}).Error("ec2sim: cannot make the device")
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Plug = p
	s.dirty = true
	s.save()
	return true
}

func appearanceOf(v *volume, a *attachment) appearance {
	look := appearance{serial: serial(v.ID), sizeGiB: v.SizeGiB}
	if a.Quirks.Serial != nil {
		look.serial = *a.Quirks.Serial
	}
	return look
}

func (s *Sim) detachVolume(c *call) (any, error) {
	v, err := s.namedVolume(c.params)
	if err != nil {
		return nil, err
	}
	force, err := c.params.boolean("Force")
	if err != nil {
		return nil, err
	}
	if c.params.has("InstanceId") {
		if _, err := s.namedInstance(c.params); err != nil {
			return nil, err
		}
	}
	if len(v.Attachments) == 0 {
		return nil, errState(v.ID, v.State)
	}
	if len(v.Attachments) > 1 && !c.params.has("InstanceId") {
		return nil, errorf(400, "InvalidParameterCombination", "The volume '%s' is attached to several instances: the parameter instanceId is required", v.ID)
	}
	a := v.Attachments[0]
	if id := c.params["InstanceId"]; id != "" {
		a = v.on(id)
	}
	if device := c.params["Device"]; a == nil || (device != "" && device != a.Device) {
		return nil, errorf(400, "InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'.", v.ID, c.params["InstanceId"], c.params["Device"])
	}
	if c.dryRun {
		return nil, nil
	}
	for _, f := range c.faults {
		f.onDetach(a)
	}
	again := a.State == "detaching" || a.State == "busy"
	if !again {
		a.State = "detaching"
		s.cancel(evAttached, v.ID, a.Instance)
		s.cancel(evPlugged, v.ID, a.Instance)
		s.schedule(s.detachDelay(a), event{Kind: evDetached, Volume: v.ID, Instance: a.Instance})
	}
	if force && !a.Force {
		a.Force, a.Quirks.NeverDetached = true, false
		if again {
			s.cancel(evDetached, v.ID, a.Instance)
			s.schedule(s.detachDelay(a), event{Kind: evDetached, Volume: v.ID, Instance: a.Instance})
		}
	}
	s.touch(v)
	v.past.freeze(c, s.now())
	return attachmentAnswer{attachmentXML(v, a)}, nil
}

// detachDelay is how long a detach takes: a host without power has nothing to let go of. Callers hold s.mu.
func (s *Sim) detachDelay(a *attachment) time.Duration {
	if s.off(a.Instance) {
		return 0
	}
	return s.delays.Detach
}

// finishDetach takes the device away, or finds the host holding it: then the attachment is busy until the host lets go. A host without
// power cannot hold it.
func (s *Sim) finishDetach(e *event) time.Duration {
	v, a, was := s.attachmentOf(e)
	if a == nil {
		return 0
	}
	if was.Quirks.NeverDetached {
		return busyRetry
	}
	s.mu.Lock()
	force := was.Force || s.off(a.Instance)
	s.mu.Unlock()
	left, err := s.disk.unplug(s.DevDir(a.Instance), was.Plug, force)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if !errors.Is(err, ErrHeld) {
			s.log.WithError(err).WithField("volume", v.ID).Warn("ec2sim: cannot take the device away")
		}
		if a.State != "busy" {
			a.State = "busy"
			s.touch(v)
		}
		return busyRetry
	}
	if left {
		s.schedule(busyRetry, event{Kind: evReaped, Loop: was.Plug.Loop})
	}
	v.drop(a.Instance)
	if i := s.state.Instances[a.Instance]; a.DeleteOnTermination && i != nil && i.State == StateTerminated && len(v.Attachments) == 0 {
		v.State = "deleting"
		s.schedule(s.delays.Delete, event{Kind: evDeleted, Volume: v.ID})
	}
	s.touch(v)
	return 0
}

// finishReap removes the number of a dead device once nobody has it open.
func (s *Sim) finishReap(e *event) time.Duration {
	if s.disk.reap(e.Loop) {
		return 0
	}
	return busyRetry
}

// restore brings devices and state together after a start: devices that are still there are adopted, others made anew. Events that
// are due will do the rest.
func (s *Sim) restore() {
	kept := map[string]map[string]bool{} // by instance: names of nodes
	for _, v := range s.sortedVolumes() {
		for _, a := range v.Attachments {
			devDir, look := s.DevDir(a.Instance), appearanceOf(v, a)
			if a.Plug.Node != 0 && !s.disk.adopt(devDir, s.BackingFile(v.ID), a.Plug, look) {
				s.disk.forget(devDir, a.Plug)
				a.Plug = plug{}
				s.dirty = true
				if a.State == "attached" && !s.plugIn(v, a) {
					s.schedule(plugRetry, event{Kind: evPlugged, Volume: v.ID, Instance: a.Instance})
				}
			}
			if a.Plug.Node != 0 {
				if kept[a.Instance] == nil {
					kept[a.Instance] = map[string]bool{}
				}
				kept[a.Instance][a.Plug.name()] = true
			}
		}
	}
	for id := range s.state.Instances {
		s.disk.sweep(s.DevDir(id), kept[id])
	}
}

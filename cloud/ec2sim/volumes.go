package ec2sim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func (s *Sim) createVolume(c *call) (any, error) {
	v, err := s.parseVolume(c.params)
	if err != nil {
		return nil, err
	}
	if err := s.checkQuota(v); err != nil {
		return nil, err
	}
	token, hash := c.params["ClientToken"], hashParams(c.params)
	if len(token) > 64 {
		return nil, errorf(400, "InvalidParameterValue", "Client token must be less than or equal to 64 characters")
	}
	if token != "" {
		s.expireTokens()
		if used := s.state.Tokens[token]; used != nil {
			known := s.state.Volumes[used.Volume]
			if known == nil || known.State == "deleting" {
				return nil, errorf(400, "IdempotentParameterMismatch",
					"The client token you have provided is associated with a resource that is already deleted. Please use a different client token.")
			}
			if used.Params != hash {
				return nil, errorf(400, "IdempotentParameterMismatch",
					"The client token provided is inconsistent with parameters used in previous request(s). Please use a different client token.")
			}
			return createdXML(known), nil
		}
	}
	if c.dryRun {
		return nil, nil
	}
	if err := makeSparse(s.BackingFile(v.ID), v.SizeGiB<<30); err != nil {
		return nil, errorf(400, "UnsupportedOperation", "The simulator cannot keep a volume of %d GiB: %s", v.SizeGiB, err)
	}
	if token != "" {
		s.state.Tokens[token] = &clientToken{Params: hash, Volume: v.ID, Used: s.now()}
	}
	s.state.Volumes[v.ID] = v
	for _, f := range c.faults {
		f.onCreate(v)
	}
	s.touch(v)
	s.freeze(c, v)
	s.schedule(s.delays.Create, event{Kind: evCreated, Volume: v.ID})
	return createdXML(v), nil
}

// parseVolume makes a new volume out of the parameters of CreateVolume.
func (s *Sim) parseVolume(p params) (*volume, error) {
	v := &volume{
		ID: newID("vol"), Type: p["VolumeType"], Zone: p["AvailabilityZone"], State: "creating",
		SnapshotID: p["SnapshotId"], KMSKeyID: p["KmsKeyId"], Created: s.now().UTC().Truncate(time.Millisecond),
	}
	if v.Type == "" {
		v.Type = "gp2"
	}
	switch id := p["AvailabilityZoneId"]; {
	case v.Zone != "" && id != "":
		return nil, errorf(400, "InvalidParameterCombination", "Only one of availabilityZone and availabilityZoneId can be specified")
	case v.Zone == "" && id == "":
		return nil, errorf(400, "MissingParameter", "The request must contain the parameter availabilityZone")
	case id != "":
		if v.Zone = s.zoneByID(id); v.Zone == "" {
			return nil, errorf(400, "InvalidZone.NotFound", "The zone '%s' does not exist.", id)
		}
	}
	if !s.hasZone(v.Zone) {
		return nil, errorf(400, "InvalidZone.NotFound", "The zone '%s' does not exist.", v.Zone)
	}
	var err error
	var sized bool
	if v.SizeGiB, sized, err = p.integer("Size"); err != nil {
		return nil, err
	}
	if !sized && v.SnapshotID == "" {
		return nil, errorf(400, "MissingParameter", "The request must contain the parameter size/snapshot")
	}
	if v.SnapshotID != "" {
		return nil, errorf(400, "InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", v.SnapshotID)
	}
	var sent bool
	if v.IOPS, sent, err = p.integer("Iops"); err != nil {
		return nil, err
	} else if sent && v.IOPS <= 0 {
		return nil, errorf(400, "InvalidParameterValue", "Volume iops of %d is too low.", v.IOPS)
	}
	if v.Throughput, sent, err = p.integer("Throughput"); err != nil {
		return nil, err
	} else if sent && v.Throughput <= 0 {
		return nil, errorf(400, "InvalidParameterValue", "Throughput of %d MiBps is too low.", v.Throughput)
	}
	if v.Encrypted, err = p.boolean("Encrypted"); err != nil {
		return nil, err
	}
	if v.MultiAttach, err = p.boolean("MultiAttachEnabled"); err != nil {
		return nil, err
	}
	if v.KMSKeyID != "" && !v.Encrypted {
		return nil, errorf(400, "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	s.setKey(v)
	if err := v.fit(); err != nil {
		return nil, err
	}
	v.Tags, err = tagSpecification(p, "volume")
	return v, err
}

// defaultKMSKey stands for the account's own key for EBS.
const defaultKMSKey = "key/00000000-0000-4000-8000-000000000eb5"

// setKey turns the key of an encrypted volume into an ARN, as EC2 shows it. EC2 finds out later, not at the call, that a key is bad.
func (s *Sim) setKey(v *volume) {
	if !v.Encrypted {
		return
	}
	v.KMSBad = v.KMSKeyID != "" && !s.state.Limits.kmsKeyWorks(v.KMSKeyID)
	arn := "arn:aws:kms:" + s.cfg.Region + ":" + s.cfg.Account + ":"
	switch key := v.KMSKeyID; {
	case key == "":
		v.KMSKeyID = arn + defaultKMSKey
	case len(key) > 4 && key[:4] == "arn:":
	case len(key) > 6 && key[:6] == "alias/":
		v.KMSKeyID = arn + key
	default:
		v.KMSKeyID = arn + "key/" + key
	}
}

// checkQuota refuses what exceeds the account's limits.
func (s *Sim) checkQuota(v *volume) error {
	l := s.state.Limits
	gib, iops := v.SizeGiB, int64(0)
	if volumeTypes[v.Type].needsIOPS {
		iops = v.IOPS
	}
	for _, other := range s.state.Volumes {
		gib += other.SizeGiB
		if volumeTypes[other.Type].needsIOPS {
			iops += other.IOPS
		}
	}
	if (l.Volumes > 0 && len(s.state.Volumes) >= l.Volumes) || (l.ProvisionedGiB > 0 && gib > l.ProvisionedGiB) {
		return errorf(400, "VolumeLimitExceeded", "You have exceeded your maximum volume limit of %d volumes and %d GiB in region %s.", l.Volumes, l.ProvisionedGiB, s.cfg.Region)
	}
	if l.IOPS > 0 && iops > l.IOPS {
		return errorf(400, "MaxIOPSLimitExceeded", "You have exceeded your maximum IOPS limit of %d in region %s.", l.IOPS, s.cfg.Region)
	}
	return nil
}

// hashParams identifies a request for its ClientToken.
func hashParams(p params) string {
	rest := logged(p)
	delete(rest, "ClientToken")
	delete(rest, "DryRun")
	raw, _ := json.Marshal(rest) // Strings always encode, and keys are sorted.
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func (s *Sim) expireTokens() {
	for token, t := range s.state.Tokens {
		if s.now().Sub(t.Used) > tokenLife {
			delete(s.state.Tokens, token)
		}
	}
}

// makeSparse makes a file of a size that takes no space.
func makeSparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

func (s *Sim) finishCreate(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.state.Volumes[e.Volume]
	switch {
	case v == nil || v.State != "creating":
	case v.KMSBad:
		s.discard(v)
	case v.CreateFails:
		v.State = "error"
		s.touch(v)
	default:
		v.State = "available"
		s.touch(v)
	}
	return 0
}

// discard ends a volume. Callers hold s.mu.
func (s *Sim) discard(v *volume) {
	if err := os.Remove(s.BackingFile(v.ID)); err != nil {
		s.log.WithError(err).Warn("ec2sim: cannot delete the file of " + filepath.Base(v.ID))
	}
	s.forget(v)
}

func (s *Sim) deleteVolume(c *call) (any, error) {
	v, err := s.namedVolume(c.params)
	if err != nil {
		return nil, err
	}
	if len(v.Attachments) > 0 {
		return nil, errorf(400, "VolumeInUse", "Volume %s is currently attached to %s", v.ID, v.Attachments[0].Instance)
	}
	if v.State == "creating" {
		return nil, errState(v.ID, v.State)
	}
	if c.dryRun || v.State == "deleting" {
		return returned{true}, nil
	}
	v.State = "deleting"
	s.touch(v)
	s.freeze(c, v)
	s.schedule(s.delays.Delete, event{Kind: evDeleted, Volume: v.ID})
	return returned{true}, nil
}

func (s *Sim) finishDelete(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.state.Volumes[e.Volume]; v != nil {
		s.discard(v)
	}
	return 0
}

// namedVolume finds the volume of the parameter VolumeId.
func (s *Sim) namedVolume(p params) (*volume, error) {
	if err := p.need("VolumeId"); err != nil {
		return nil, err
	}
	id := p["VolumeId"]
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	v := s.state.Volumes[id]
	if v == nil {
		return nil, errNoVolume(id)
	}
	return v, nil
}

// volumeFilters are the filters of DescribeVolumes.
var volumeFilters = func() filterTable[*volume] {
	attached := func(get func(*attachment) string) func(*volume) []string {
		return func(v *volume) (out []string) {
			for _, a := range v.Attachments {
				out = append(out, get(a))
			}
			return out
		}
	}
	one := func(get func(*volume) string) func(*volume) []string {
		return func(v *volume) []string { return []string{get(v)} }
	}
	return filterTable[*volume]{
		"attachment.attach-time":           attached(func(a *attachment) string { return stamp(a.Since) }),
		"attachment.delete-on-termination": attached(func(a *attachment) string { return strconv.FormatBool(a.DeleteOnTermination) }),
		"attachment.device":                attached(func(a *attachment) string { return a.Device }),
		"attachment.instance-id":           attached(func(a *attachment) string { return a.Instance }),
		"attachment.status":                attached(func(a *attachment) string { return a.State }),
		"availability-zone":                one(func(v *volume) string { return v.Zone }),
		"availability-zone-id":             one(func(v *volume) string { return zoneID(v.Zone) }),
		"fast-restored":                    one(func(*volume) string { return "false" }),
		"operator.managed":                 one(func(*volume) string { return "false" }),
		"create-time":                      one(func(v *volume) string { return stamp(v.Created) }),
		"encrypted":                        one(func(v *volume) string { return strconv.FormatBool(v.Encrypted) }),
		"multi-attach-enabled":             one(func(v *volume) string { return strconv.FormatBool(v.MultiAttach) }),
		"size":                             one(func(v *volume) string { return itoa(v.SizeGiB) }),
		"snapshot-id":                      one(func(v *volume) string { return v.SnapshotID }),
		"status":                           one(func(v *volume) string { return v.State }),
		"volume-id":                        one(func(v *volume) string { return v.ID }),
		"volume-type":                      one(func(v *volume) string { return v.Type }),
	}
}()

func (s *Sim) describeVolumes(c *call) (any, error) {
	ids := c.params.list("VolumeId")
	for _, id := range ids {
		if err := checkVolumeID(id); err != nil {
			return nil, err
		}
	}
	match, err := compileFilters(c.params, volumeFilters, func(v *volume) map[string]string { return v.Tags })
	if err != nil {
		return nil, err
	}
	found, err := choose(s.unhidden(c, s.seenVolumes()), ids, match, "InvalidVolume.NotFound", "volume")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(v *volume) string { return v.ID }, ids)
	if err != nil {
		return nil, err
	}
	var out volumesDescribed
	out.NextToken = next
	for _, v := range found {
		out.Volumes.Items = append(out.Volumes.Items, volumeXML(v))
	}
	return out, nil
}

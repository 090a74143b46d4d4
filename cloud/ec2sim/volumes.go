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
	if known, err := s.createdBefore(c); err != nil {
		return nil, err
	} else if known != nil {
		return createdXML(known), nil
	}
	if c.dryRun {
		return nil, nil
	}
	if err := makeSparse(s.BackingFile(v.ID), v.SizeGiB<<30); err != nil {
		return nil, errKeep(v, err)
	}
	if v.SnapshotID != "" { // The data come in later; until then the snapshot may be deleted, but not its file.
		if err := os.Link(s.SnapshotFile(v.SnapshotID), s.sourceFile(v.ID)); err != nil {
			s.removeFile(s.BackingFile(v.ID))
			return nil, errKeep(v, err)
		}
	}
	s.admitVolume(c, v)
	s.schedule(s.delays.Create, event{Kind: evCreated, Volume: v.ID})
	return createdXML(v), nil
}

func errKeep(v *volume, err error) *apiError {
	return errorf(400, "UnsupportedOperation", "The simulator cannot keep a volume of %d GiB: %s", v.SizeGiB, err)
}

// tokenKey is the name of a call's ClientToken. The same token of another action is another one.
func (c *call) tokenKey() string {
	if c.action == "CreateVolume" {
		return c.params["ClientToken"]
	}
	return c.action + " " + c.params["ClientToken"]
}

// createdBefore finds the volume that the same ClientToken has made; nil if there is none.
func (s *Sim) createdBefore(c *call) (*volume, error) {
	token := c.params["ClientToken"]
	if len(token) > 64 {
		return nil, errorf(400, "InvalidParameterValue", "Client token must be less than or equal to 64 characters")
	}
	if token == "" {
		return nil, nil
	}
	s.expireTokens()
	used := s.state.Tokens[c.tokenKey()]
	if used == nil {
		return nil, nil
	}
	known := s.state.Volumes[used.Volume]
	if known == nil || known.State == "deleting" {
		return nil, errorf(400, "IdempotentParameterMismatch",
			"The client token you have provided is associated with a resource that is already deleted. Please use a different client token.")
	}
	if used.Params != hashParams(c.params) {
		return nil, errorf(400, "IdempotentParameterMismatch",
			"The client token provided is inconsistent with parameters used in previous request(s). Please use a different client token.")
	}
	return known, nil
}

// admitVolume makes a new volume part of the world. Callers hold s.mu.
func (s *Sim) admitVolume(c *call, v *volume) {
	if c.params.has("ClientToken") {
		s.state.Tokens[c.tokenKey()] = &clientToken{Params: hashParams(c.params), Volume: v.ID, Used: s.now()}
	}
	if v.SnapshotID != "" || v.SourceID != "" {
		v.Initialized = s.now().Add(s.delays.Create + s.delays.Initialize)
	}
	s.state.Volumes[v.ID] = v
	for _, f := range c.faults {
		f.onCreate(v)
	}
	s.touch(v)
	v.past.freeze(c, s.now())
}

// sourceFile is another name of the file of the snapshot that a volume is being made of.
func (s *Sim) sourceFile(volumeID string) string {
	return filepath.Join(s.cfg.Dir, "sources", volumeID)
}

// copyVolumes makes a copy of a volume as it is at the call, in the same zone.
func (s *Sim) copyVolumes(c *call) (any, error) {
	if err := c.params.need("SourceVolumeId"); err != nil {
		return nil, err
	}
	id := c.params["SourceVolumeId"]
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	source := s.state.Volumes[id]
	if source == nil {
		return nil, errNoVolume(id)
	}
	v, err := s.parseCopy(c.params, source)
	if err != nil {
		return nil, err
	}
	if source.State != "available" && source.State != "in-use" {
		return nil, errState(id, source.State)
	}
	if err := s.checkQuota(v); err != nil {
		return nil, err
	}
	if known, err := s.createdBefore(c); err != nil {
		return nil, err
	} else if known != nil {
		return copiedXML(known), nil
	}
	if c.dryRun {
		return nil, nil
	}
	s.admitVolume(c, v) // Before the data are copied, so that the same call again finds it.
	if err := s.copyOut(s.BackingFile(v.ID), s.BackingFile(id), source.SizeGiB); err != nil {
		s.forget(v)
		delete(s.state.Tokens, c.tokenKey())
		return nil, errorf(400, "UnsupportedOperation", "The simulator cannot copy %s: %s", id, err)
	}
	if err := os.Truncate(s.BackingFile(v.ID), v.SizeGiB<<30); err != nil {
		s.discard(v)
		delete(s.state.Tokens, c.tokenKey())
		return nil, errKeep(v, err)
	}
	s.schedule(s.delays.Create, event{Kind: evCreated, Volume: v.ID})
	return copiedXML(v), nil
}

func copiedXML(v *volume) volumesDescribed {
	return volumesDescribed{Volumes: set[volumeItem]{[]volumeItem{createdXML(v).volumeItem}}}
}

// parseCopy makes a new volume out of the parameters of CopyVolumes.
func (s *Sim) parseCopy(p params, source *volume) (*volume, error) {
	v := &volume{
		ID: newID("vol"), Type: p["VolumeType"], Zone: source.Zone, State: "creating", SizeGiB: source.SizeGiB, SourceID: source.ID,
		KMSKeyID: p["KmsKeyId"], Created: s.now().UTC().Truncate(time.Millisecond),
	}
	size, sized, err := p.integer("Size")
	if err != nil {
		return nil, err
	}
	if sized {
		if size < source.SizeGiB {
			return nil, errorf(400, "InvalidParameterValue", "Volume of size %dGB is smaller than volume '%s', expect size >= %dGB", size, source.ID, source.SizeGiB)
		}
		v.SizeGiB = size
	}
	if err := s.parsePerformance(p, v); err != nil {
		return nil, err
	}
	s.inherit(v, source.Encrypted, source.KMSKeyID)
	return v, s.finishParsing(p, v)
}

// parseVolume makes a new volume out of the parameters of CreateVolume.
func (s *Sim) parseVolume(p params) (*volume, error) {
	v := &volume{
		ID: newID("vol"), Type: p["VolumeType"], Zone: p["AvailabilityZone"], State: "creating",
		SnapshotID: p["SnapshotId"], KMSKeyID: p["KmsKeyId"], Created: s.now().UTC().Truncate(time.Millisecond),
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
	if err := s.parsePerformance(p, v); err != nil {
		return nil, err
	}
	if v.SnapshotID != "" {
		n, err := s.namedSnapshot(p)
		if err != nil {
			return nil, err
		}
		if n.State != "completed" {
			return nil, errorf(400, "IncorrectState", "Snapshot is in invalid state - %s", n.State)
		}
		if !sized {
			v.SizeGiB = n.SizeGiB
		}
		if v.SizeGiB < n.SizeGiB {
			return nil, errorf(400, "InvalidParameterValue", "Volume of size %dGB is smaller than snapshot '%s', expect size >= %dGB", v.SizeGiB, n.ID, n.SizeGiB)
		}
		s.inherit(v, n.Encrypted, n.KMSKeyID)
	}
	return v, s.finishParsing(p, v)
}

// parsePerformance reads what CreateVolume and CopyVolumes both have, besides size and tags.
func (s *Sim) parsePerformance(p params, v *volume) (err error) {
	if v.Type == "" {
		v.Type = "gp2"
	}
	var sent bool
	if v.IOPS, sent, err = p.integer("Iops"); err != nil {
		return err
	} else if sent && v.IOPS <= 0 {
		return errorf(400, "InvalidParameterValue", "Volume iops of %d is too low.", v.IOPS)
	}
	if v.Throughput, sent, err = p.integer("Throughput"); err != nil {
		return err
	} else if sent && v.Throughput <= 0 {
		return errorf(400, "InvalidParameterValue", "Throughput of %d MiBps is too low.", v.Throughput)
	}
	if v.Encrypted, err = p.boolean("Encrypted"); err != nil {
		return err
	}
	if v.MultiAttach, err = p.boolean("MultiAttachEnabled"); err != nil {
		return err
	}
	if v.KMSKeyID != "" && !v.Encrypted {
		return errorf(400, "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	return nil
}

// inherit encrypts a volume that is made of something encrypted, with its key unless another one was asked for.
func (s *Sim) inherit(v *volume, encrypted bool, key string) {
	if encrypted && v.KMSKeyID == "" {
		v.KMSKeyID = key
	}
	v.Encrypted = v.Encrypted || encrypted
}

// finishParsing checks what the volume has become, and reads its tags.
func (s *Sim) finishParsing(p params, v *volume) (err error) {
	s.setKey(v)
	if err := v.fit(); err != nil {
		return err
	}
	v.Tags, err = tagSpecification(p, "volume")
	return err
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
	gib, iops := s.provisioned("")
	gib += v.SizeGiB
	if volumeTypes[v.Type].needsIOPS {
		iops += v.IOPS
	}
	if (l.Volumes > 0 && len(s.state.Volumes) >= l.Volumes) || (l.ProvisionedGiB > 0 && gib > l.ProvisionedGiB) {
		return errorf(400, "VolumeLimitExceeded", "You have exceeded your maximum volume limit of %d volumes and %d GiB in region %s.", l.Volumes, l.ProvisionedGiB, s.cfg.Region)
	}
	if l.IOPS > 0 && iops > l.IOPS {
		return errMaxIOPS(l.IOPS, s.cfg.Region)
	}
	return nil
}

func errMaxIOPS(limit int64, region string) *apiError {
	return errorf(400, "MaxIOPSLimitExceeded", "You have exceeded your maximum IOPS limit of %d in region %s.", limit, region)
}

// provisioned adds up the volumes but one: all GiB, and the IOPS of the types that need them.
func (s *Sim) provisioned(without string) (gib, iops int64) {
	for _, v := range s.state.Volumes {
		if v.ID == without {
			continue
		}
		gib += v.SizeGiB
		if volumeTypes[v.Type].needsIOPS {
			iops += v.IOPS
		}
	}
	return gib, iops
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

// finishCreate brings in the data of a snapshot and makes the volume available. EC2 brings them in later, and gives those that are asked for first.
func (s *Sim) finishCreate(e *event) time.Duration {
	s.mu.Lock()
	v := s.state.Volumes[e.Volume]
	if v == nil || v.State != "creating" {
		s.mu.Unlock()
		return 0
	}
	restores := v.SnapshotID != "" && !v.KMSBad && !v.CreateFails
	size := v.SizeGiB << 30
	s.mu.Unlock()
	var err error
	if restores {
		if err = copyMoment(s.life, s.BackingFile(v.ID), s.sourceFile(v.ID), size, s.patience); err != nil {
			if s.life.Err() != nil {
				return plugRetry // The next simulator goes on.
			}
			s.log.WithError(err).WithField("volume", v.ID).Error("ec2sim: cannot fill the volume")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.SnapshotID != "" {
		s.removeFile(s.sourceFile(v.ID))
	}
	switch {
	case v.KMSBad:
		s.discard(v)
	case v.CreateFails || err != nil:
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
	s.removeFile(s.BackingFile(v.ID))
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
	v.past.freeze(c, s.now())
	s.schedule(s.delays.Delete, event{Kind: evDeleted, Volume: v.ID})
	return returned{true}, nil
}

func (s *Sim) finishDelete(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.state.Volumes[e.Volume]
	if v == nil {
		return 0
	}
	if kept := s.state.Limits.retain("volume", v.Tags); kept > 0 && !v.CreateFails {
		s.forget(v)
		s.recycleVolume(v, kept)
		return 0
	}
	s.discard(v)
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
	found, err := choose(unhidden(c, s.seenVolumes()), ids, match, "InvalidVolume.NotFound", "volume")
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

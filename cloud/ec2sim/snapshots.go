package ec2sim

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// snapshot is a simulated EBS snapshot. Its data is the sparse file of its name in snapshots.
type snapshot struct {
	ID          string            `json:"id"`
	Volume      string            `json:"volume"` // that it was made of; may be gone
	Description string            `json:"description,omitempty"`
	State       string            `json:"state"` // pending, completed, error
	SizeGiB     int64             `json:"size"`  // of the volume
	Bytes       int64             `json:"bytes"` // of data
	Encrypted   bool              `json:"encrypted,omitempty"`
	KMSKeyID    string            `json:"kmsKey,omitempty"`
	Fails       bool              `json:"fails,omitempty"` // a fault: ends in error
	Started     time.Time         `json:"started"`
	Due         time.Time         `json:"due"` // when it is completed
	Tags        map[string]string `json:"tags,omitempty"`
	Recycled    *stay             `json:"recycled,omitempty"` // in the Recycle Bin

	past past[snapshot]
}

func (n *snapshot) clone() *snapshot {
	c := *n
	c.past = past[snapshot]{}
	c.Tags = maps.Clone(n.Tags)
	return &c
}

// progress is how far it is, such as 80%.
func (n *snapshot) progress(now time.Time) string {
	if n.State == "completed" {
		return "100%"
	}
	return itoa(min(99, share(n.Started, n.Due, now))) + "%"
}

// share is how much of the time between two moments has passed, in percent.
func share(from, to, now time.Time) int64 {
	whole, done := to.Sub(from), now.Sub(from)
	if done >= whole {
		return 100
	}
	return max(0, int64(100*done/whole))
}

// maxDescription is EC2's limit of the description of a snapshot, in characters.
const maxDescription = 255

// concurrentSnapshots is how many snapshots of one volume can be pending. Source: the page of EBS quotas.
func concurrentSnapshots(volumeType string) int {
	if volumeType == "st1" || volumeType == "sc1" {
		return 1
	}
	return 5
}

// SnapshotFile is the sparse file that holds a snapshot's data.
func (s *Sim) SnapshotFile(snapshotID string) string {
	return filepath.Join(s.cfg.Dir, "snapshots", snapshotID)
}

// touchSnapshot is touch for snapshots. Callers hold s.mu.
func (s *Sim) touchSnapshot(n *snapshot) {
	s.dirty = true
	n.past.remember(s.now(), n.clone())
}

// forgetSnapshot is forget for snapshots. Callers hold s.mu.
func (s *Sim) forgetSnapshot(n *snapshot) {
	delete(s.state.Snapshots, n.ID)
	s.goneSnapshots[n.ID] = n
	s.dirty = true
	n.past.remember(s.now(), nil)
	for id, g := range s.goneSnapshots {
		if g.past.ended(s.now()) {
			delete(s.goneSnapshots, id)
		}
	}
}

// seenSnapshots returns all snapshots as a Describe sees them now. Callers hold s.mu and do not change them.
func (s *Sim) seenSnapshots() map[string]*snapshot {
	out := make(map[string]*snapshot, len(s.state.Snapshots))
	for _, all := range []map[string]*snapshot{s.state.Snapshots, s.goneSnapshots} {
		for id, n := range all {
			if view := n.past.seen(s.now(), s.delays.Visible); view != nil {
				out[id] = view
			}
		}
	}
	return out
}

// createSnapshot copies the volume as it is at the call; only the time until it is completed is simulated.
func (s *Sim) createSnapshot(c *call) (any, error) {
	v, err := s.namedVolume(c.params)
	if err != nil {
		return nil, err
	}
	description := c.params["Description"]
	if utf8.RuneCountInString(description) > maxDescription {
		return nil, errorf(400, "InvalidParameterValue", "Description exceeds the maximum length of %d characters", maxDescription)
	}
	tags, err := tagSpecification(c.params, "snapshot")
	if err != nil {
		return nil, err
	}
	if v.State != "available" && v.State != "in-use" {
		return nil, errState(v.ID, v.State)
	}
	if err := s.checkSnapshots(v); err != nil {
		return nil, err
	}
	if c.dryRun {
		return nil, nil
	}
	now := s.now()
	n := &snapshot{
		ID: newID("snap"), Volume: v.ID, Description: description, State: "pending", SizeGiB: v.SizeGiB, Encrypted: v.Encrypted, KMSKeyID: v.KMSKeyID,
		Started: now.UTC().Truncate(time.Millisecond), Tags: tags,
	}
	v.Snapshotted = now
	if err := s.copyOut(s.SnapshotFile(n.ID), s.BackingFile(v.ID), v.SizeGiB); err != nil {
		return nil, errorf(400, "UnsupportedOperation", "The simulator cannot make a snapshot of %s: %s", v.ID, err)
	}
	n.Bytes, n.Due = usedBytes(s.SnapshotFile(n.ID)), s.now().Add(s.delays.Snapshot)
	for _, f := range c.faults {
		f.onSnapshot(n)
	}
	s.state.Snapshots[n.ID] = n
	s.touchSnapshot(n)
	n.past.freeze(c, s.now())
	s.schedule(s.delays.Snapshot, event{Kind: evSnapshotted, Snapshot: n.ID})
	return snapshotAnswer{snapshotXML(s, n)}, nil
}

// checkSnapshots refuses a snapshot that exceeds one of EC2's limits.
func (s *Sim) checkSnapshots(v *volume) error {
	l := s.state.Limits
	if l.Snapshots > 0 && len(s.state.Snapshots) >= l.Snapshots {
		return errorf(400, "SnapshotLimitExceeded", "You have exceeded your maximum snapshot limit of %d in region %s.", l.Snapshots, s.cfg.Region)
	}
	if since := s.now().Sub(v.Snapshotted); since >= 0 && since.Seconds() < l.SnapshotSeconds {
		return errorf(400, "SnapshotCreationPerVolumeRateExceeded",
			"The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable sleep interval between requests.")
	}
	pending := 0
	for _, other := range s.state.Snapshots {
		if other.Volume == v.ID && other.State == "pending" {
			pending++
		}
	}
	if limit := concurrentSnapshots(v.Type); pending >= limit {
		return errorf(400, "ConcurrentSnapshotLimitExceeded", "Maximum of %d pending snapshots per volume allowed.", limit)
	}
	return nil
}

// copyOut makes a file of a size and fills it with what another one holds at this moment. Callers hold s.mu; it is free while the data are
// copied, so that the world goes on.
func (s *Sim) copyOut(to, from string, sizeGiB int64) error {
	if err := makeSparse(to, sizeGiB<<30); err != nil {
		return err
	}
	s.mu.Unlock()
	err := copyMoment(s.life, to, from, sizeGiB<<30, s.patience)
	s.mu.Lock()
	if err == nil && s.closed {
		err = errShutDown()
	}
	if err != nil {
		os.Remove(to)
	}
	return err
}

func (s *Sim) finishSnapshot(e *event) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.state.Snapshots[e.Snapshot]
	if n == nil || n.State != "pending" {
		return 0
	}
	n.State = "completed"
	if n.Fails {
		n.State = "error"
	}
	s.touchSnapshot(n)
	return 0
}

// namedSnapshot finds the snapshot of the parameter SnapshotId.
func (s *Sim) namedSnapshot(p params) (*snapshot, error) {
	if err := p.need("SnapshotId"); err != nil {
		return nil, err
	}
	id := p["SnapshotId"]
	if err := checkSnapshotID(id); err != nil {
		return nil, err
	}
	n := s.state.Snapshots[id]
	if n == nil {
		return nil, errNoSnapshot(id)
	}
	return n, nil
}

// deleteSnapshot works at once, also for a pending one. Volumes that are being made of it keep what they need.
func (s *Sim) deleteSnapshot(c *call) (any, error) {
	n, err := s.namedSnapshot(c.params)
	if err != nil {
		return nil, err
	}
	if c.dryRun {
		return nil, nil
	}
	s.forgetSnapshot(n)
	n.past.freeze(c, s.now())
	if kept := s.state.Limits.retain("snapshot", n.Tags); kept > 0 && n.State == "completed" {
		s.recycleSnapshot(n, kept)
	} else {
		s.removeFile(s.SnapshotFile(n.ID))
	}
	return returned{true}, nil
}

func (s *Sim) removeFile(path string) {
	if err := os.Remove(path); err != nil {
		s.log.WithError(err).Warn("ec2sim: cannot delete the file of " + filepath.Base(path))
	}
}

type snapshotItem struct {
	SnapshotID  string        `xml:"snapshotId"`
	VolumeID    string        `xml:"volumeId"`
	State       string        `xml:"status"`
	StartTime   string        `xml:"startTime"`
	Completion  string        `xml:"completionTime,omitempty"`
	Progress    string        `xml:"progress"`
	OwnerID     string        `xml:"ownerId"`
	VolumeSize  int64         `xml:"volumeSize"`
	FullSize    int64         `xml:"fullSnapshotSizeInBytes,omitempty"`
	Description string        `xml:"description"`
	Encrypted   bool          `xml:"encrypted"`
	KMSKeyID    string        `xml:"kmsKeyId,omitempty"`
	Tier        string        `xml:"storageTier"`
	Tags        *set[tagItem] `xml:"tagSet"`
}

// snapshotAnswer is a snapshot without a list around it.
type snapshotAnswer struct{ snapshotItem }

type snapshotsDescribed struct {
	Snapshots set[snapshotItem] `xml:"snapshotSet"`
	NextToken string            `xml:"nextToken,omitempty"`
}

func snapshotXML(s *Sim, n *snapshot) snapshotItem {
	item := snapshotItem{
		SnapshotID: n.ID, VolumeID: n.Volume, State: n.State, StartTime: stamp(n.Started), Progress: n.progress(s.now()), OwnerID: s.cfg.Account,
		VolumeSize: n.SizeGiB, Description: n.Description, Encrypted: n.Encrypted, KMSKeyID: n.KMSKeyID, Tier: "standard",
	}
	if n.State == "completed" {
		item.Completion, item.FullSize = stamp(n.Due), n.Bytes
	}
	if len(n.Tags) > 0 {
		item.Tags = &set[tagItem]{Items: tagItems(n.Tags)}
	}
	return item
}

// snapshotFilters are the filters of DescribeSnapshots.
func (s *Sim) snapshotFilters() filterTable[*snapshot] {
	one := func(get func(*snapshot) string) func(*snapshot) []string {
		return func(n *snapshot) []string { return []string{get(n)} }
	}
	return filterTable[*snapshot]{
		"description":  one(func(n *snapshot) string { return n.Description }),
		"encrypted":    one(func(n *snapshot) string { return strconv.FormatBool(n.Encrypted) }),
		"owner-alias":  func(*snapshot) []string { return nil },
		"owner-id":     one(func(*snapshot) string { return s.cfg.Account }),
		"progress":     one(func(n *snapshot) string { return n.progress(s.now()) }),
		"snapshot-id":  one(func(n *snapshot) string { return n.ID }),
		"start-time":   one(func(n *snapshot) string { return stamp(n.Started) }),
		"status":       one(func(n *snapshot) string { return n.State }),
		"storage-tier": one(func(*snapshot) string { return "standard" }),
		"volume-id":    one(func(n *snapshot) string { return n.Volume }),
		"volume-size":  one(func(n *snapshot) string { return itoa(n.SizeGiB) }),
	}
}

// describeSnapshots knows the snapshots of this account only: none is public or shared.
func (s *Sim) describeSnapshots(c *call) (any, error) {
	ids := c.params.list("SnapshotId")
	for _, id := range ids {
		if err := checkSnapshotID(id); err != nil {
			return nil, err
		}
	}
	match, err := compileFilters(c.params, s.snapshotFilters(), func(n *snapshot) map[string]string { return n.Tags })
	if err != nil {
		return nil, err
	}
	ours := true
	for _, parameter := range []string{"Owner", "RestorableBy"} {
		asked := c.params.list(parameter)
		mine := len(asked) == 0
		for _, account := range asked {
			if strings.Trim(account, "0123456789") != "" && account != "self" && account != "amazon" && account != "all" {
				return nil, errorf(400, "InvalidUserID.Malformed", "Invalid user id: \"%s\"", account)
			}
			mine = mine || account == "self" || account == s.cfg.Account || account == "all"
		}
		ours = ours && mine
	}
	found, err := choose(unhidden(c, s.seenSnapshots()), ids, func(n *snapshot) bool { return ours && match(n) }, "InvalidSnapshot.NotFound", "snapshot")
	if err != nil {
		return nil, err
	}
	found, next, err := page(s, c, found, func(n *snapshot) string { return n.ID }, ids)
	if err != nil {
		return nil, err
	}
	out := snapshotsDescribed{NextToken: next}
	for _, n := range found {
		out.Snapshots.Items = append(out.Snapshots.Items, snapshotXML(s, n))
	}
	return out, nil
}

// dropHalfMade removes what a simulator was copying when it was killed: snapshots that are in no state, and copies of volumes that nothing would ever
// complete.
func (s *Sim) dropHalfMade() {
	due := map[string]bool{}
	for _, e := range s.state.Events {
		due[e.Kind+e.Volume] = true
	}
	for id, v := range s.state.Volumes {
		if v.State == "creating" && !due[evCreated+id] {
			delete(s.state.Volumes, id)
			os.Remove(s.BackingFile(id)) // It may not have come so far.
			s.dirty = true
		}
	}
	for folder, known := range map[string]func(string) bool{
		"snapshots": func(id string) bool { return s.state.Snapshots[id] != nil || s.state.Bin.Snapshots[id] != nil },
		"sources":   func(id string) bool { return due[evCreated+id] },
	} {
		files, err := os.ReadDir(filepath.Join(s.cfg.Dir, folder))
		if err != nil {
			s.log.WithError(err).Warn("ec2sim: cannot look for files that belong to nothing")
		}
		for _, f := range files {
			if !known(f.Name()) {
				s.removeFile(filepath.Join(s.cfg.Dir, folder, f.Name()))
			}
		}
	}
}

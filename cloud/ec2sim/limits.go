package ec2sim

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Limits are what an account may do. They are part of the state on disk.
type Limits struct {
	Volumes         int               `json:"volumes"`         // how many; then VolumeLimitExceeded. 0: no limit
	ProvisionedGiB  int64             `json:"provisionedGiB"`  // together; then VolumeLimitExceeded. 0: no limit
	IOPS            int64             `json:"iops"`            // of io1 and io2 together; then MaxIOPSLimitExceeded. 0: no limit
	PageSize        int               `json:"pageSize"`        // results per page, asked for or not. 0: no limit
	Attachments     map[string]int    `json:"attachments"`     // volumes per instance, by instance type; overrides the table of types
	Throttle        map[string]Rate   `json:"throttle"`        // by action, or "read" and "write" for all others
	GoodKMSKeys     []string          `json:"goodKmsKeys"`     // if any, only these can be used
	BadKMSKeys      []string          `json:"badKmsKeys"`      // cannot be used; nor can a key whose ID contains "bad" or "disabled"
	AccessKeys      map[string]string `json:"accessKeys"`      // key ID -> secret; if any, only these and instance roles are let in
	DeniedKeys      []string          `json:"deniedKeys"`      // key IDs that get AuthFailure
	DeniedActions   []string          `json:"deniedActions"`   // get UnauthorizedOperation
	Snapshots       int               `json:"snapshots"`       // how many; then SnapshotLimitExceeded. 0: no limit
	SnapshotSeconds float64           `json:"snapshotSeconds"` // between two of one volume; sooner is SnapshotCreationPerVolumeRateExceeded
	Modifications   int               `json:"modifications"`   // of one volume in 24 hours; then VolumeModificationRateExceeded. 0: no limit
	Retention       []Retention       `json:"retention"`       // rules of the Recycle Bin
	ShuffleDevices  bool              `json:"shuffleDevices"`  // a device gets any free number, not the lowest
}

// Rate is the size of a token bucket: Burst calls at once, refilled at PerSecond. A Burst of 0 lets everything through.
type Rate struct {
	Burst     float64 `json:"burst"`
	PerSecond float64 `json:"perSecond"`
}

// DefaultLimits do not get in the way. EC2's true buckets are not published per action.
func DefaultLimits() Limits {
	return Limits{
		Volumes: 10_000, Snapshots: 100_000, SnapshotSeconds: 15, Modifications: 4,
		Throttle: map[string]Rate{bucketRead: {Burst: 2000, PerSecond: 1000}, bucketWrite: {Burst: 2000, PerSecond: 1000}},
	}
}

// Limits returns what the account may do.
func (s *Sim) Limits() Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Limits.clone()
}

// SetLimits changes what the account may do.
func (s *Sim) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Limits = l.clone()
	s.throttle = map[string]*bucket{}
	s.dirty = true
	s.save()
}

func (l Limits) clone() Limits {
	l.Attachments, l.Throttle, l.AccessKeys = maps.Clone(l.Attachments), maps.Clone(l.Throttle), maps.Clone(l.AccessKeys)
	l.GoodKMSKeys, l.BadKMSKeys = slices.Clone(l.GoodKMSKeys), slices.Clone(l.BadKMSKeys)
	l.Retention = slices.Clone(l.Retention)
	l.DeniedKeys, l.DeniedActions = slices.Clone(l.DeniedKeys), slices.Clone(l.DeniedActions)
	return l
}

// kmsKeyWorks tells whether a volume can be encrypted with a key, given as ID, alias or ARN.
func (l Limits) kmsKeyWorks(key string) bool {
	names := func(list []string) bool {
		return slices.ContainsFunc(list, func(k string) bool { return k == key || strings.HasSuffix(key, "/"+k) })
	}
	if strings.Contains(key, "bad") || strings.Contains(key, "disabled") || names(l.BadKMSKeys) {
		return false
	}
	return len(l.GoodKMSKeys) == 0 || names(l.GoodKMSKeys)
}

// bucket is a token bucket.
type bucket struct {
	tokens float64
	filled time.Time
}

// allow takes a token for an action. Callers hold s.mu.
func (s *Sim) allow(action, class string) bool {
	rate, ok := s.state.Limits.Throttle[action]
	if !ok {
		rate = s.state.Limits.Throttle[class]
	}
	if rate.Burst <= 0 {
		return true
	}
	now := s.now()
	b := s.throttle[action]
	if b == nil {
		b = &bucket{tokens: rate.Burst, filled: now}
		s.throttle[action] = b
	}
	b.tokens = min(rate.Burst, b.tokens+now.Sub(b.filled).Seconds()*rate.PerSecond)
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

package ec2sim

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Call is one request that the EC2 API got.
type Call struct {
	Time       time.Time         `json:"time"`
	Action     string            `json:"action"`
	RequestID  string            `json:"requestId"`
	Instance   string            `json:"instance,omitempty"` // whose instance role signed it; empty for other credentials
	AccessKey  string            `json:"accessKey,omitempty"`
	UserAgent  string            `json:"userAgent,omitempty"`
	Params     map[string]string `json:"params,omitempty"` // without Action and Version
	Status     int               `json:"status"`           // of HTTP; 0 when the connection was cut
	Code       string            `json:"code,omitempty"`   // of the error; empty is success
	Fault      string            `json:"fault,omitempty"`  // kinds of the faults that hit it
	DurationMS int64             `json:"durationMs"`
}

// maxCalls is how many calls are kept in memory; calls.log has them all.
const maxCalls = 100_000

// Calls returns the calls since the start or the last ResetCalls, in the order in which they ended.
func (s *Sim) Calls() []Call {
	s.callsMu.Lock()
	defer s.callsMu.Unlock()
	return slices.Clone(s.calls)
}

// ResetCalls empties the list of calls. The file calls.log keeps them.
func (s *Sim) ResetCalls() {
	s.callsMu.Lock()
	defer s.callsMu.Unlock()
	s.calls = nil
}

func (s *Sim) record(c Call) {
	line, err := json.Marshal(c)
	if err != nil {
		s.log.WithError(err).Error("ec2sim: cannot write down a call")
		return
	}
	s.callsMu.Lock()
	defer s.callsMu.Unlock()
	if len(s.calls) >= maxCalls {
		s.calls = slices.Clone(s.calls[maxCalls/2:])
	}
	s.calls = append(s.calls, c)
	if _, err := s.callsLog.Write(append(line, '\n')); err != nil {
		s.log.WithError(err).Warn("ec2sim: cannot write calls.log")
	}
}

// logged is what a call's parameters look like in the log.
func logged(p params) map[string]string {
	out := maps.Clone(map[string]string(p))
	delete(out, "Action")
	delete(out, "Version")
	return out
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

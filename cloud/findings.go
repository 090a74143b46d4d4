package cloud

import "context"

// Verdict is what became of one check.
type Verdict string

// The verdicts. Unknown is for what only the real thing could show.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning" // works, and somebody should look
	Bad     Verdict = "bad"     // something does not work
	Unknown Verdict = "unknown" // cannot be told, and why
)

// Finding is one result of an examination, for a person.
type Finding struct {
	Check   string  `json:"check"`             // what kind of thing was looked at: credentials, permission, metadata, ...
	Subject string  `json:"subject,omitempty"` // which one
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`
	Fix     string  `json:"fix,omitempty"` // what to do about it
}

// Examiner is a Cloud that can look at what it needs itself: credentials, permissions, this host. It changes nothing.
type Examiner interface {
	// Examine looks, with volumes of the cluster to try permissions on without using them. It has no error: what fails is a finding.
	Examine(ctx context.Context, vols []Volume) []Finding
}

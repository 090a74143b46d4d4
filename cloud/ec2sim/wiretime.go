package ec2sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// names gives each delay its name in JSON and on the command line.
func (d *Delays) names() map[string]*time.Duration {
	return map[string]*time.Duration{
		"create": &d.Create, "attach": &d.Attach, "detach": &d.Detach, "delete": &d.Delete, "snapshot": &d.Snapshot, "initialize": &d.Initialize, "modify": &d.Modify, "optimize": &d.Optimize, "visible": &d.Visible, "call": &d.Call,
		"start": &d.Start, "stop": &d.Stop, "terminate": &d.Terminate, "checks": &d.Checks, "terminated": &d.Terminated,
	}
}

// MarshalJSON writes texts such as "1.6s".
func (d Delays) MarshalJSON() ([]byte, error) {
	out := map[string]string{}
	for name, value := range d.names() {
		out[name] = value.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads texts such as "1.6s"; delays that are not named keep their value.
func (d *Delays) UnmarshalJSON(raw []byte) error {
	var in map[string]string
	if err := json.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("delays are texts such as \"400ms\": %w", err)
	}
	fields := d.names()
	for name, text := range in {
		field, ok := fields[name]
		if !ok {
			return fmt.Errorf("delay %q is not known", name)
		}
		parsed, err := time.ParseDuration(text)
		if err != nil || parsed < 0 {
			return fmt.Errorf("delay %s: %q is not a duration such as 400ms", name, text)
		}
		*field = parsed
	}
	return nil
}

// faultFields is Fault without its methods.
type faultFields Fault

type faultJSON struct {
	*faultFields
	Duration string `json:"duration,omitempty"`
}

// MarshalJSON writes the duration as a text.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := faultJSON{faultFields: (*faultFields)(&f)}
	if f.Duration > 0 {
		out.Duration = f.Duration.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads the duration as a text such as "400ms"; fields it does not know are refused.
func (f *Fault) UnmarshalJSON(raw []byte) error {
	in := faultJSON{faultFields: (*faultFields)(f)}
	if err := strictJSON(raw, &in); err != nil {
		return err
	}
	if in.Duration == "" {
		return nil
	}
	parsed, err := time.ParseDuration(in.Duration)
	if err != nil || parsed < 0 {
		return fmt.Errorf("fault: %q is not a duration such as 400ms", in.Duration)
	}
	f.Duration = parsed
	return nil
}

// strictJSON reads JSON and refuses fields that are not known, which are spelling mistakes.
func strictJSON(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// retentionFields is Retention without its methods.
type retentionFields Retention

type retentionJSON struct {
	*retentionFields
	For string `json:"for"`
}

// MarshalJSON writes the time as a text.
func (r Retention) MarshalJSON() ([]byte, error) {
	return json.Marshal(retentionJSON{(*retentionFields)(&r), r.For.String()})
}

// UnmarshalJSON reads the time as a text such as "24h"; a rule that would keep nothing is refused.
func (r *Retention) UnmarshalJSON(raw []byte) error {
	in := retentionJSON{retentionFields: (*retentionFields)(r)}
	if err := strictJSON(raw, &in); err != nil {
		return err
	}
	if r.Resource != "volume" && r.Resource != "snapshot" {
		return fmt.Errorf("retention: the resource is volume or snapshot, not %q", r.Resource)
	}
	parsed, err := time.ParseDuration(in.For)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("retention: %q is not a duration such as 24h", in.For)
	}
	r.For = parsed
	return nil
}

package options

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// settingProfiles is the setting that holds the administrator's profiles.
const settingProfiles = "PROFILES"

// NoProfile is what the option profile says to do without any, also without the default one.
const NoProfile = "none"

// Profile is a named set of options, what Kubernetes calls a storage class.
type Profile struct {
	Name    string
	Default bool              // it is taken when the request names none
	Options map[string]string // by their canonical names, as written
}

// Profiles are profiles by their names, with at most one default.
type Profiles map[string]Profile

// Names returns the names in order.
func (p Profiles) Names() []string { return slices.Sorted(maps.Keys(p)) }

// Default returns the profile of requests that name none.
func (p Profiles) Default() (Profile, bool) {
	for _, one := range p {
		if one.Default {
			return one, true
		}
	}
	return Profile{}, false
}

var profileName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckProfileName refuses what no profile can be called.
func CheckProfileName(name string) error {
	switch {
	case name == NoProfile:
		return fmt.Errorf("a profile cannot be called %s: profile=%s means to use no profile", NoProfile, NoProfile)
	case !profileName.MatchString(name):
		return fmt.Errorf("%s is not the name of a profile: use 1 to 63 lower-case letters, digits, '-', '_' and '.', such as gold", quote(name))
	}
	return nil
}

func setProfile(o *Options, value string) error {
	name := strings.ToLower(value)
	if name == NoProfile {
		o.Profile = ""
		return nil
	}
	o.Profile = name
	return CheckProfileName(name)
}

// choose returns the profile that a request asks for, by name or by naming none. A profile without a name is none.
func (p Profiles) choose(wanted map[string]entry) (Profile, error) {
	e, asked := wanted[nameProfile]
	name := strings.ToLower(strings.TrimSpace(e.value))
	if !asked {
		one, _ := p.Default()
		return one, nil
	}
	if name == NoProfile || CheckProfileName(name) != nil { // fill tells of a value that can be none
		return Profile{}, nil
	}
	if one, ok := p[name]; ok {
		return one, nil
	}
	if len(p) == 0 {
		return Profile{}, fmt.Errorf("profile: there is no profile %s, and no other: the setting %s or `blockvol profile set` makes them", quote(name), settingProfiles)
	}
	text := fmt.Sprintf("profile: there is no profile %s: use one of %s", quote(name), strings.Join(append(p.Names(), NoProfile), ", "))
	if near, ok := nearest(name, p.Names()); ok {
		text += fmt.Sprintf("; did you mean %s?", near)
	}
	return Profile{}, errors.New(text)
}

// NewProfile makes a profile of options as somebody wrote them. Each is checked as far as it can be alone, and together with the defaults but
// for size, type, iops and throughput, which a request may have to complete.
func NewProfile(name string, written, defaults map[string]string) (Profile, error) {
	if err := CheckProfileName(name); err != nil {
		return Profile{}, err
	}
	words := make([]string, 0, len(written))
	for _, key := range slices.Sorted(maps.Keys(written)) {
		words = append(words, key+"="+written[key])
	}
	opts, err := parseEntries(words)
	if err != nil {
		return Profile{}, fmt.Errorf("profile %s: %w", name, err)
	}
	p := Profile{Name: name, Options: opts}
	layer, _, _ := collect(opts, p.origin())
	base, _, _ := collect(defaults, settingDefaults)
	entries := merge(layer, base)
	var o Options
	problems, broken := o.fill(entries)
	for _, open := range []string{"size", "type", "iops", "throughput"} {
		broken[open] = true
	}
	problems = append(problems, o.check(broken, func(names ...string) string { return origins(entries, names) })...)
	if len(problems) > 0 {
		return Profile{}, fmt.Errorf("profile %s: %s", name, strings.Join(problems, "; "))
	}
	return p, nil
}

// origin is how error texts call the profile.
func (p Profile) origin() string { return "profile " + p.Name }

// ParseProfiles reads the setting PROFILES: `gold: type=io2 iops=10000; silver*: type=gp3`, with values that hold spaces or semicolons in
// quotes as in a shell, and a star behind the name of the default. Or the same as a JSON object: {"gold": {"type": "io2", "iops": 10000},
// "silver*": {"type": "gp3"}}. defaults are those of DEFAULT_OPTIONS, which a profile goes on top of.
func ParseProfiles(s string, defaults map[string]string) (Profiles, error) {
	s = strings.TrimSpace(s)
	written, names := map[string]map[string]string{}, []string{}
	add := func(name string, opts map[string]string) error {
		name = strings.TrimSpace(name)
		if _, twice := written[name]; twice {
			return fmt.Errorf("profile %s is there twice: keep one", quote(name))
		}
		written[name], names = opts, append(names, name)
		return nil
	}
	var err error
	if strings.HasPrefix(s, "{") {
		err = readJSONProfiles(s, add)
	} else {
		err = readProfiles(s, add)
	}
	if err != nil {
		return nil, err
	}
	profiles := Profiles{}
	for _, name := range names {
		bare, star := strings.CutSuffix(name, "*")
		bare = strings.TrimSpace(bare)
		p, err := NewProfile(bare, written[name], defaults)
		if err != nil {
			return nil, err
		}
		if before, ok := profiles.Default(); ok && star {
			return nil, fmt.Errorf("profiles %s and %s are both marked as the default by a star: keep one", before.Name, bare)
		}
		if _, twice := profiles[bare]; twice {
			return nil, fmt.Errorf("profile %s is there twice: keep one", quote(bare))
		}
		p.Default = star
		profiles[bare] = p
	}
	return profiles, nil
}

// readProfiles reads the form `NAME: key=value ...; NAME: ...`.
func readProfiles(s string, add func(string, map[string]string) error) error {
	parts, err := splitAt(s, ';')
	if err != nil {
		return err
	}
	for _, part := range parts {
		if strings.TrimSpace(part) == "" {
			continue // behind the last semicolon
		}
		name, rest, ok := strings.Cut(part, ":")
		if !ok || strings.ContainsAny(strings.TrimSpace(name), " =\"'") {
			return fmt.Errorf("%s does not begin with the name of a profile and a colon: write gold: type=io2 iops=10000; silver*: type=gp3", quote(strings.TrimSpace(part)))
		}
		words, err := splitWords(rest)
		if err != nil {
			return fmt.Errorf("profile %s: %w", strings.TrimSpace(name), err)
		}
		opts := map[string]string{}
		for _, word := range words {
			key, value, assigned := strings.Cut(word, "=")
			if opt, _, known := lookup(key); !assigned && !(known && opt.bare) {
				return fmt.Errorf("profile %s: entry %s is not of the form key=value; profiles are separated by semicolons, a value with spaces is put in quotes", strings.TrimSpace(name), quote(word))
			}
			if before, twice := opts[key]; twice && before != value {
				return fmt.Errorf("profile %s: %s is there twice", strings.TrimSpace(name), quote(key))
			}
			opts[key] = value
		}
		if err := add(name, opts); err != nil {
			return err
		}
	}
	return nil
}

// splitAt splits at a separator outside of quotes. The quotes stay.
func splitAt(s string, separator rune) ([]string, error) {
	var parts []string
	begin, quoted, escaped := 0, rune(0), false
	for i, r := range s {
		switch {
		case escaped:
			escaped = false
		case r == '\\' && quoted != '\'':
			escaped = true
		case quoted != 0:
			if r == quoted {
				quoted = 0
			}
		case r == '\'' || r == '"':
			quoted = r
		case r == separator:
			parts = append(parts, s[begin:i])
			begin = i + 1
		}
	}
	if quoted != 0 {
		return nil, fmt.Errorf("a quote (%c) is not closed in %s", quoted, quote(s))
	}
	return append(parts, s[begin:]), nil
}

// readJSONProfiles reads the form of a JSON object. Numbers and booleans count as what they are written like.
func readJSONProfiles(s string, add func(string, map[string]string) error) error {
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	d.UseNumber()
	var all map[string]map[string]any
	err := d.Decode(&all)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = errors.New("something follows the object")
		}
	}
	if err != nil {
		return fmt.Errorf("it is not a JSON object of profiles, {\"gold\": {\"type\": \"io2\", \"iops\": 10000}}: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		opts := map[string]string{}
		for key, value := range all[name] {
			switch v := value.(type) {
			case string:
				opts[key] = v
			case json.Number:
				opts[key] = v.String()
			case bool:
				opts[key] = fmt.Sprint(v)
			default:
				return fmt.Errorf("profile %s: the value of %s is neither a text nor a number, true or false", quote(name), quote(key))
			}
		}
		if err := add(name, opts); err != nil {
			return err
		}
	}
	return nil
}

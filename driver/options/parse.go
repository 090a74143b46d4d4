package options

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// settingDefaults is the setting that holds the administrator's defaults.
const settingDefaults = "DEFAULT_OPTIONS"

// entry is one option as somebody wrote it.
type entry struct {
	opt        *Option
	key, value string
	from       string // DEFAULT_OPTIONS or a profile; empty: the request
}

// Parse is Resolve where there are no profiles.
func Parse(request, defaults map[string]string) (Options, error) {
	return Resolve(request, defaults, nil)
}

// Resolve reads the options of a request over those of its profile over the administrator's defaults over those of the table. All that is
// wrong comes back in one *Error; the option help comes back as ErrHelp whatever else is there. iops, throughput, mkfs-options and
// mount-options are dropped where what goes on top of them chooses another type or filesystem; so is a key below encrypted=false, and
// encrypted=false below a key.
func Resolve(request, defaults map[string]string, profiles Profiles) (Options, error) {
	wanted, problems, unknown := collect(request, "")
	if _, ok := wanted[nameHelp]; ok {
		return Options{}, ErrHelp{}
	}
	base, more, unknownDefault := collect(defaults, settingDefaults)
	problems = append(problems, more...)
	delete(base, nameHelp)
	profile, err := profiles.choose(wanted)
	if err != nil {
		problems = append(problems, err.Error())
	}
	layer, more, unknownInProfile := collect(profile.Options, profile.origin())
	problems = append(problems, more...)

	entries := merge(wanted, merge(layer, base))
	o := Options{given: map[string]bool{}}
	for name := range wanted {
		o.given[name] = true
	}
	more, broken := o.fill(entries)
	o.Profile = profile.Name
	problems = append(problems, more...)
	problems = append(problems, o.forAdoption()...)
	problems = append(problems, o.forSchedule(broken)...)
	problems = append(problems, o.forCopy()...)
	broken["size"] = broken["size"] || o.Adopts() || o.Copies() // the limits are those of new volumes, or depend on what is copied
	broken["mount-options"] = broken["mount-options"] || o.Copies()
	problems = append(problems, o.check(broken, func(names ...string) string { return origins(entries, names) })...)
	if len(problems) > 0 {
		e := &Error{Problems: problems}
		if unknown || unknownDefault || unknownInProfile {
			e.note = "The options are " + strings.Join(names(), ", ") + "; -o help explains them"
		}
		return Options{}, e
	}
	return o, nil
}

// Names tells whether a request names an option, under any of its spellings.
func Names(request map[string]string, name string) bool {
	for key := range request {
		if _, canonical, ok := lookup(key); ok && canonical == name {
			return true
		}
	}
	return false
}

// IsHelp tells whether an error of Parse is the answer to the option help.
func IsHelp(err error) bool {
	var help ErrHelp
	return errors.As(err, &help)
}

// collect brings written options under their canonical names. Its problems come in the order of the keys. unknown tells that some are
// names of which it can only be said that they are not in the table.
func collect(written map[string]string, from string) (entries map[string]entry, problems []string, unknown bool) {
	entries = make(map[string]entry, len(written))
	said := ""
	if from != "" {
		said = " (from " + from + ")"
	}
	for _, key := range slices.Sorted(maps.Keys(written)) {
		value := written[key]
		opt, name, ok := lookup(key)
		if !ok {
			text, explained := refusal(key, value)
			unknown = unknown || !explained
			problems = append(problems, text+said)
			continue
		}
		if before, twice := entries[name]; twice {
			if before.value != value {
				problems = append(problems, fmt.Sprintf("%s and %s are both %s and have different values, %s and %s: keep one%s",
					quote(before.key), quote(key), name, quote(before.value), quote(value), said))
			}
			continue
		}
		entries[name] = entry{opt: opt, key: key, value: value, from: from}
	}
	return entries, problems, unknown
}

// merge lays what is wanted over a base, without what it makes meaningless there.
func merge(wanted, base map[string]entry) map[string]entry {
	merged := maps.Clone(base)
	for name, e := range base {
		if on := e.opt.follows; on != "" {
			if w, ok := wanted[on]; ok && !strings.EqualFold(strings.TrimSpace(w.value), strings.TrimSpace(valueOf(base, on))) {
				delete(merged, name)
			}
		}
	}
	if e, ok := wanted["encrypted"]; ok {
		if yes, err := parseBool(e.value); err == nil && !yes {
			delete(merged, "kms-key-id")
		}
	}
	if _, ok := wanted["kms-key-id"]; ok {
		delete(merged, "encrypted")
	}
	maps.Copy(merged, wanted)
	return merged
}

// valueOf is the value of an option as written, or else the table's default.
func valueOf(entries map[string]entry, name string) string {
	if e, ok := entries[name]; ok {
		return e.value
	}
	if opt, _, ok := lookup(name); ok {
		return opt.Default
	}
	return ""
}

// fill parses every value in the order of the table and returns what is wrong, and which options are.
func (o *Options) fill(entries map[string]entry) (problems []string, broken map[string]bool) {
	broken = map[string]bool{}
	o.Tags = map[string]string{}
	fail := func(name string, e entry, err error) {
		broken[name] = true
		label := strings.Trim(quote(name), `"`) // of a tag it is what the user wrote
		if fold(e.key) != fold(name) {
			label = fmt.Sprintf("%s (%s)", label, strings.Trim(quote(e.key), `"`))
		}
		text := fmt.Sprintf("%s: %v", label, err)
		if e.from != "" {
			text += " (from " + e.from + ")"
		}
		problems = append(problems, text)
	}
	for i := range table {
		opt := &table[i]
		if opt.set == nil {
			continue
		}
		e, ok := entries[opt.Name]
		if !ok {
			if opt.Default == "" {
				continue
			}
			e = entry{opt: opt, key: opt.Name, value: opt.Default}
		}
		if err := e.apply(o); err != nil {
			fail(opt.Name, e, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if key, ok := strings.CutPrefix(name, tagPrefix); ok {
			if err := checkTag(key, entries[name].value); err != nil {
				fail(name, entries[name], err)
			}
			o.Tags[key] = entries[name].value
		}
	}
	if e, ok := entries["kms-key-id"]; ok && !broken["kms-key-id"] {
		if _, said := entries["encrypted"]; said && !broken["encrypted"] && !o.Encrypted {
			fail("kms-key-id", e, fmt.Errorf("a key needs encryption, and encrypted=false is asked for: leave one of the two out"))
		}
		o.Encrypted = true
	}
	return problems, broken
}

func (e entry) apply(o *Options) error {
	value := strings.TrimSpace(e.value)
	if value == "" && !e.opt.bare {
		return fmt.Errorf("it has no value: write %s=VALUE (%s)", e.opt.Name, e.opt.Values)
	}
	return e.opt.set(o, value)
}

// origins tells which of the options were not written by the user, because he cannot see them in his own command.
func origins(entries map[string]entry, names []string) string {
	admin := map[string][]string{}
	var table []string
	for _, name := range names {
		e, ok := entries[name]
		opt, _, _ := lookup(name)
		switch {
		case ok && e.from != "":
			admin[e.from] = append(admin[e.from], name)
		case !ok && opt.Default != "":
			table = append(table, name+"="+opt.Default)
		}
	}
	var parts []string
	for _, from := range slices.Sorted(maps.Keys(admin)) {
		parts = append(parts, "from "+from+": "+strings.Join(admin[from], ", "))
	}
	if len(table) > 0 {
		parts = append(parts, "by default: "+strings.Join(table, ", "))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

func names() []string {
	var all []string
	for _, opt := range table {
		all = append(all, opt.Name)
	}
	return all
}

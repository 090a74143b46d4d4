package options

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/blockvol/blockvol/cloud"
)

// Change is what becomes of a volume that exists. What the volume has already is not in it.
type Change struct {
	Form      cloud.Form        // of the provider's volume; 0 and "": as it is
	Attrs     map[string]string // attributes that get a value
	Tags      map[string]string // tags that do
	DropAttrs []string          // attributes that go
	DropTags  []string          // tags that do
	List      []Changed         // all of it, for people, in the order of the table
}

// Changed is one option that gets another value.
type Changed struct {
	Name string `json:"name"`
	From string `json:"from"` // empty: not set
	To   string `json:"to"`   // likewise
}

// formNames are the options that the provider changes in one step.
var formNames = []string{"size", "type", "iops", "throughput"}

// ParseChange reads what is to be changed of a volume: options as docker volume create has them, with the same units and limits, and those
// that are not to be set any more. A size that begins with + is added to the volume's. All that is wrong comes back in one *Error.
func ParseChange(vol cloud.Volume, set map[string]string, unset []string) (Change, error) {
	wanted, problems, unknown := collect(set, "")
	gone := map[string]bool{}
	for _, key := range unset {
		opt, name, ok := lookup(key)
		switch _, both := wanted[name]; {
		case !ok:
			text, explained := refusal(key, "")
			unknown = unknown || !explained
			problems = append(problems, text)
		case both:
			problems = append(problems, fmt.Sprintf("%s is set and taken away: keep one", name))
		case opt.Changeable && (opt.Default != "" || slices.Contains(formNames, name)):
			problems = append(problems, fmt.Sprintf("%s always has a value and cannot be taken away: write %s=VALUE", name, name))
		case !opt.Changeable:
			problems = append(problems, opt.notChangeable())
		default:
			gone[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if e := wanted[name]; !e.opt.Changeable {
			problems = append(problems, e.opt.notChangeable())
			delete(wanted, name)
		}
	}
	problems = append(problems, resolveGrowth(vol, wanted)...)
	o := Options{SizeGiB: vol.SizeGiB, Type: vol.Type, FSType: vol.Attrs["fstype"], given: map[string]bool{}}
	more, broken := o.fillChange(wanted)
	problems = append(problems, more...)

	c := Change{Attrs: map[string]string{}, Tags: map[string]string{}}
	for _, name := range formNames {
		broken["form"] = broken["form"] || broken[name]
	}
	if !broken["form"] {
		problems = append(problems, c.form(vol, &o)...)
	}
	problems = append(problems, c.attributes(vol, o, wanted, gone, broken)...)
	problems = append(problems, c.tags(vol, o, gone)...)
	if len(problems) > 0 {
		e := &Error{Problems: problems}
		if unknown {
			e.note = "What can be changed is " + strings.Join(changeable(), ", ")
		}
		return Change{}, e
	}
	return c, nil
}

func (opt *Option) notChangeable() string {
	return fmt.Sprintf("%s cannot be changed of a volume that exists: %s", opt.Name, opt.fixed)
}

// changeable names the options that can be changed of a volume that exists.
func changeable() (names []string) {
	for _, opt := range table {
		if opt.Changeable {
			names = append(names, opt.Name)
		}
	}
	return names
}

// resolveGrowth replaces a size to be added by the sum.
func resolveGrowth(vol cloud.Volume, wanted map[string]entry) (problems []string) {
	e, ok := wanted["size"]
	more, relative := strings.CutPrefix(strings.TrimSpace(e.value), "+")
	if !ok || !relative {
		return nil
	}
	gib, err := parseSize(more)
	if err != nil {
		delete(wanted, "size")
		return []string{fmt.Sprintf("size: %v", err)}
	}
	e.value = strconv.FormatInt(vol.SizeGiB+gib, 10)
	wanted["size"] = e
	return nil
}

// fillChange is fill without defaults.
func (o *Options) fillChange(wanted map[string]entry) (problems []string, broken map[string]bool) {
	broken = map[string]bool{}
	o.Tags = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		e := wanted[name]
		o.given[name] = true
		key, isTag := strings.CutPrefix(name, tagPrefix)
		var err error
		if isTag {
			err = checkTag(key, e.value)
			o.Tags[key] = e.value
		} else {
			err = e.apply(o)
		}
		if err != nil {
			broken[name] = true
			problems = append(problems, fmt.Sprintf("%s: %v", name, err))
		}
	}
	return problems, broken
}

// form compares the provider's volume with what is wanted, and finds what EC2 would refuse.
func (c *Change) form(vol cloud.Volume, o *Options) (problems []string) {
	l, _ := limitsOf(o.Type)
	other := o.Type != vol.Type
	change := func(name, unit string, from, to int64) int64 {
		if !o.given[name] || from == to && (!other || name == "size") {
			return 0
		}
		c.add(name, count(from, unit), count(to, unit))
		return to
	}
	c.Form.SizeGiB = change("size", "GiB", vol.SizeGiB, o.SizeGiB)
	if other {
		c.Form.Type = o.Type
		c.add("type", vol.Type, o.Type)
	}
	c.Form.IOPS = change("iops", "", vol.IOPS, o.IOPS)
	c.Form.Throughput = change("throughput", "MiB/s", vol.Throughput, o.Throughput)
	if c.Form == (cloud.Form{}) {
		return nil
	}
	if !other { // what is not said stays
		if !o.given["iops"] && l.maxIOPS > 0 {
			o.IOPS = vol.IOPS
		}
		if !o.given["throughput"] && l.maxMiBs > 0 {
			o.Throughput = vol.Throughput
		}
	} else if !o.given["iops"] && l.baseIOPS > 0 && l.baseIOPS != vol.IOPS {
		c.add("iops", count(vol.IOPS, ""), count(l.baseIOPS, "")) // EC2 gives a volume that changes its type the default of the new one
	}
	switch {
	case vol.Type == "standard":
		problems = append(problems, "EC2 cannot change a volume of type standard; create a new volume and copy the files")
	case o.Type == "standard":
		problems = append(problems, "type: EC2 can make no other volume one of type standard; choose another type")
	}
	if o.SizeGiB < vol.SizeGiB {
		problems = append(problems, fmt.Sprintf("size is %d GiB, and an EBS volume can only grow; for one of %d GiB, create a new volume and copy the files",
			vol.SizeGiB, o.SizeGiB))
	} else if l.name != "" {
		problems = append(problems, l.check(o.SizeGiB, o.IOPS, o.Throughput)...)
	}
	return problems
}

// attributes compares what blockvol keeps with the volume with what is wanted.
func (c *Change) attributes(vol cloud.Volume, o Options, wanted map[string]entry, gone, broken map[string]bool) (problems []string) {
	if o.given["mount-options"] && !broken["mount-options"] {
		if err := checkMount(o.FSType, o.MountOptions); err != nil {
			problems = append(problems, fmt.Sprintf("mount-options: %v", err))
		}
	}
	problems = append(problems, o.keepsNothing(vol, gone)...)
	for i := range table {
		opt := &table[i]
		_, set := wanted[opt.Name]
		if !opt.Changeable || opt.Name == tagName || slices.Contains(formNames, opt.Name) || !set && !gone[opt.Name] || broken[opt.Name] {
			continue
		}
		have, want := vol.Attrs[opt.Name], ""
		if set {
			want = o.Attrs()[opt.Name]
		}
		if len(want) > maxTagValue {
			problems = append(problems, fmt.Sprintf("%s has %d characters: it is kept in a tag of the volume, which holds %d", opt.Name, len(want), maxTagValue))
		}
		from, to := cmp.Or(have, opt.Default), cmp.Or(want, opt.Default)
		switch {
		case from == to:
			continue
		case want == "":
			c.DropAttrs = append(c.DropAttrs, opt.Name)
		default:
			c.Attrs[opt.Name] = want
		}
		c.add(opt.Name, from, to)
	}
	return problems
}

// tags compares the volume's tags with what is wanted.
func (c *Change) tags(vol cloud.Volume, o Options, gone map[string]bool) (problems []string) {
	after := maps.Clone(vol.Tags)
	if after == nil {
		after = map[string]string{}
	}
	for _, key := range sortedTags(o.Tags) {
		have, ok := vol.Tags[key]
		if ok && have == o.Tags[key] {
			continue
		}
		c.Tags[key], after[key] = o.Tags[key], o.Tags[key]
		c.add(tagPrefix+key, quoteIf(have, ok), quote(o.Tags[key]))
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		key, isTag := strings.CutPrefix(name, tagPrefix)
		if !isTag {
			continue
		}
		if err := checkTag(key, ""); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", name, err))
		} else if have, ok := vol.Tags[key]; ok {
			c.DropTags = append(c.DropTags, key)
			delete(after, key)
			c.add(name, quote(have), "")
		}
	}
	if len(after) > maxTags-ownTags && len(after) > len(vol.Tags) {
		problems = append(problems, fmt.Sprintf("%d tags are too many: EC2 allows %d on a volume and blockvol keeps %d of them for itself, so at most %d are possible",
			len(after), maxTags, ownTags, maxTags-ownTags))
	}
	return problems
}

func (c *Change) add(name, from, to string) {
	c.List = append(c.List, Changed{Name: name, From: from, To: to})
}

// count is a number for people; empty if there is none.
func count(n int64, unit string) string {
	if n == 0 {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", n, unit))
}

func quoteIf(s string, yes bool) string {
	if !yes {
		return ""
	}
	return quote(s)
}

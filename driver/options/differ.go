package options

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/blockvol/blockvol/cloud"
)

// Differences tells in which ways an existing volume is not what the request itself names; defaults are not compared, because they
// may have changed since. Numbers must be equal: a larger volume is another one than was asked for. Not compared are encrypted=false,
// which is no more than the account's default, and a key given by its alias, which only KMS can resolve (the volume must be encrypted
// then). Each text is a clause such as "size is 10 GiB, asked for 20 GiB"; none means that the volume is what was asked for.
func (o Options) Differences(v cloud.Volume) []string {
	var all []string
	differ := func(name, have, want string) {
		if have == "" {
			have = "not set"
		}
		all = append(all, fmt.Sprintf("%s is %s, asked for %s", name, have, want))
	}
	text := func(name, have, want string) {
		if o.given[name] && have != want {
			differ(name, have, want)
		}
	}
	if have, want := v.Attrs[nameProfile], o.Profile; o.given[nameProfile] && have != want {
		differ(nameProfile, cmp.Or(have, NoProfile), cmp.Or(want, NoProfile))
	}
	if have, err := ReclaimOf(v.Attrs); err != nil {
		all = append(all, err.Error())
	} else {
		text(nameReclaim, have, o.Reclaim)
	}
	text(nameSchedule, v.Attrs[nameSchedule], o.Schedule.String())
	text(nameKeep, v.Attrs[nameKeep], o.Keep.String())
	if o.VolumeID != "" && v.ID != o.VolumeID {
		differ(nameVolumeID, v.ID, o.VolumeID)
	}
	if have := v.Attrs[nameSelector]; o.Selector != nil && !(o.OrCreate && have == "") {
		text(nameSelector, have, joinSelector(o.Selector))
	}
	if want := o.snapshotText(); want != v.SnapshotID {
		text(nameSnapshot, v.Attrs[nameSnapshot], want)
	}
	if o.From != v.SnapshotID {
		text(nameFrom, v.Attrs[nameFrom], o.From)
	}
	all = append(all, o.unfit(v)...)
	if slices.ContainsFunc(layoutNames, func(n string) bool { return o.given[n] }) {
		have, err := FromAttrs(v.Attrs)
		if err != nil {
			all = append(all, err.Error())
		} else {
			for _, name := range layoutNames {
				text(name, have.attr(name), o.Layout().attr(name))
			}
		}
	}
	text("availability-zone", v.Zone, o.Zone)
	for _, name := range sortedTags(o.Tags) {
		have, ok := v.Tags[name]
		if o.given[tagPrefix+name] && (!ok || have != o.Tags[name]) {
			if ok {
				have = quote(have)
			}
			differ(tagPrefix+name, have, quote(o.Tags[name]))
		}
	}
	return all
}

// SomeChangeable tells whether one of the Differences is about an option that can be changed of a volume that exists.
func SomeChangeable(differences []string) bool {
	return slices.ContainsFunc(differences, func(text string) bool {
		name, _, _ := strings.Cut(text, " is ")
		opt, _, ok := lookup(name)
		return ok && opt.Changeable
	})
}

// unfit is the part of Differences that is about the provider's volume itself. With a selector the size is the least that will do.
func (o Options) unfit(v cloud.Volume) []string {
	var all []string
	differ := func(name, have, want string) {
		all = append(all, fmt.Sprintf("%s is %s, asked for %s", name, have, want))
	}
	count := func(name string, have, want int64, unit string) {
		if o.given[name] && have != want {
			differ(name, strings.TrimSpace(fmt.Sprintf("%d %s", have, unit)), strings.TrimSpace(fmt.Sprintf("%d %s", want, unit)))
		}
	}
	if o.Selector == nil || v.SizeGiB < o.SizeGiB {
		count("size", v.SizeGiB, o.SizeGiB, "GiB")
	}
	if o.given["type"] && v.Type != o.Type {
		differ("type", v.Type, o.Type)
	}
	count("iops", v.IOPS, o.IOPS, "")
	count("throughput", v.Throughput, o.Throughput, "MiB/s")
	switch {
	case o.given["encrypted"] && o.Encrypted && !v.Encrypted:
		differ("encrypted", "false", "true")
	case o.given["kms-key-id"] && !v.Encrypted:
		differ("encrypted", "false", "kms-key-id="+o.KMSKeyID)
	case o.given["kms-key-id"] && !sameKey(v.KMSKeyID, o.KMSKeyID):
		differ("kms-key-id", cmp.Or(v.KMSKeyID, "not set"), o.KMSKeyID)
	}
	return all
}

// sameKey compares the key's ARN that EC2 tells with what a user wrote: the ARN or its last part.
func sameKey(have, want string) bool {
	if strings.Contains(want, "alias/") {
		return true
	}
	id := func(key string) string { return strings.ToLower(key[strings.LastIndex(key, "/")+1:]) }
	if strings.HasPrefix(want, "arn:") && strings.HasPrefix(have, "arn:") {
		return strings.EqualFold(have, want)
	}
	return id(have) == id(want)
}

package options

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/blockvol/blockvol/cloud"
)

// Options is what one docker volume create asks for, with every default filled in and every limit checked.
type Options struct {
	SizeGiB      int64
	Type         string
	IOPS         int64 // 0: the type's default
	Throughput   int64 // MiB/s; 0: the type's default
	Encrypted    bool  // false: the account's default
	KMSKeyID     string
	FSType       string
	MkfsOptions  []string          // words for the command line of mkfs
	MountOptions []string          // one option each, as mount(8) has them between commas
	UID, GID     *int              // owner of the root directory; nil: as it is
	Mode         os.FileMode       // of the root directory; setuid, setgid and sticky are os.ModeSetuid, os.ModeSetgid and os.ModeSticky
	Subdir       string            // a clean relative path, or "/"
	Fencing      string            // one of Fencings; empty: as the plugin is set
	Reclaim      string            // one of Reclaims
	Profile      string            // what the other values come from, where the request says nothing; empty: none
	Schedule     Schedule          // when snapshots are made
	Keep         Keep              // which of those are kept
	VolumeID     string            // of an existing volume to adopt; empty: none
	Selector     map[string]string // tags of an existing volume to claim; nil: none
	OrCreate     bool              // make a volume if the selector finds none
	SnapshotID   string            // to make the volume of; empty: none
	LatestOf     string            // a volume whose latest snapshot to make the volume of; empty: none
	From         string            // a volume to make a copy of, by name or ID; empty: none
	Zone         string            // empty: the host's
	Tags         map[string]string

	given map[string]bool // canonical names in the request itself
}

// Given tells whether the request itself names the option, under this or any other of its spellings; defaults do not count.
func (o Options) Given(name string) bool {
	_, canonical, ok := lookup(name)
	return ok && o.given[canonical]
}

// Spec is the volume to make under that name. It depends on nothing but the options and the arguments, and shares no memory with
// them. zone is the host's; an availability-zone that was asked for wins over it, so that nothing is ever made elsewhere than asked:
// the caller refuses it when it is not the host's. The attribute "fs" is "none": nothing is known to be on the volume.
func (o Options) Spec(name, zone string) cloud.Spec {
	if o.Zone != "" {
		zone = o.Zone
	}
	attrs := o.Attrs()
	attrs[attrFS] = fsNone
	tags := make(map[string]string, len(o.Tags))
	for k, v := range o.Tags {
		tags[k] = v
	}
	return cloud.Spec{
		Name: name, SizeGiB: o.SizeGiB, Type: o.Type, IOPS: o.IOPS, Throughput: o.Throughput,
		Encrypted: o.Encrypted, KMSKeyID: o.KMSKeyID, Zone: zone, Attrs: attrs, Tags: tags,
	}
}

// Adopts tells whether the request is for a volume that exists.
func (o Options) Adopts() bool { return o.VolumeID != "" || o.Selector != nil }

// AtLeast is the size in GiB that a claimed volume must have; 1 if the request itself names none.
func (o Options) AtLeast() int64 {
	if o.given["size"] {
		return o.SizeGiB
	}
	return 1
}

// WithoutSelector is the request for the new volume that is made when a selector finds none.
func WithoutSelector(request map[string]string) map[string]string {
	rest := map[string]string{}
	for key, value := range request {
		if _, name, _ := lookup(key); name != nameSelector && name != nameFallback {
			rest[key] = value
		}
	}
	return rest
}

// Adoption is what is to become of an existing volume. Its filesystem is found at its first mount, and no default says what it is; the
// volume's own root is what containers get, and it is kept when it is removed, unless the request itself says otherwise. A volume that the
// cluster has given up is as it was, but for what the request itself says.
func (o Options) Adoption(id, name string) cloud.Adoption {
	attrs := o.Attrs()
	delete(attrs, "mkfs-options")
	attrs[attrFS], attrs[nameReclaim] = FSAdopted, o.Reclaim
	given := map[string]string{}
	for name := range o.given {
		if value, ok := attrs[name]; ok {
			given[name] = value
		}
	}
	tags := make(map[string]string, len(o.Tags))
	for k, v := range o.Tags {
		tags[k] = v
	}
	return cloud.Adoption{ID: id, Name: name, Attrs: attrs, Given: given, Tags: tags, Check: func(v cloud.Volume) error {
		if unfit := o.unfit(v); len(unfit) > 0 {
			return cloud.Errorf(cloud.ErrState, "volume %s is not what is asked for: %s; leave the options out to take it as it is", id, strings.Join(unfit, "; "))
		}
		return nil
	}}
}

// forAdoption turns the defaults of a new volume into those of one that exists, and finds what contradicts that.
func (o *Options) forAdoption() (problems []string) {
	if !o.Adopts() {
		if o.OrCreate || o.given[nameFallback] {
			problems = append(problems, nameFallback+": it is about a selector, and there is none")
		}
		return problems
	}
	if o.VolumeID != "" && o.Selector != nil {
		problems = append(problems, "volume-id and selector are both given: one names a volume, the other looks for one; keep one")
	}
	if o.given["mkfs-options"] {
		problems = append(problems, "mkfs-options: a volume that exists is never formatted; leave it out")
	}
	o.MkfsOptions = nil
	if !o.given["fstype"] {
		o.FSType = ""
	}
	if !o.given["subdir"] {
		o.Subdir = "/"
	}
	if !o.given[nameReclaim] {
		o.Reclaim = ReclaimRetain
	}
	return problems
}

// Error is everything that is wrong with the options of one request. It is a cloud.ErrInvalid.
type Error struct {
	Problems []string // whole sentences without a full stop, never empty
	note     string   // a last line that helps with several of them
}

func (e *Error) Error() string {
	text := e.Problems[0]
	if len(e.Problems) > 1 {
		text = fmt.Sprintf("%d things are wrong with the options:\n- %s", len(e.Problems), strings.Join(e.Problems, "\n- "))
	}
	if e.note != "" {
		text += "\n" + e.note
	}
	return text
}

// Unwrap makes errors.Is(err, cloud.ErrInvalid) true.
func (e *Error) Unwrap() error { return cloud.ErrInvalid }

// ErrHelp is the answer to the option help. Its text is the table of options.
type ErrHelp struct{}

func (ErrHelp) Error() string { return Help() }

// check finds what is wrong with options that are each well formed. Options in broken are left out of it.
func (o Options) check(broken map[string]bool, origins func(names ...string) string) []string {
	var problems []string
	any := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return broken[n] })
	}
	if l, ok := limitsOf(o.Type); ok && !any("size", "type", "iops", "throughput") {
		for _, p := range l.check(o.SizeGiB, o.IOPS, o.Throughput) {
			problems = append(problems, p+origins("size", "type", "iops", "throughput"))
		}
	}
	if !any("fstype", "mkfs-options") {
		if err := checkMkfs(o.FSType, o.MkfsOptions); err != nil {
			problems = append(problems, fmt.Sprintf("mkfs-options: %v%s", err, origins("mkfs-options", "fstype")))
		}
	}
	if !any("fstype", "mount-options") {
		if err := checkMount(o.FSType, o.MountOptions); err != nil {
			problems = append(problems, fmt.Sprintf("mount-options: %v%s", err, origins("mount-options", "fstype")))
		}
	}
	for _, name := range layoutNames {
		if v := o.Attrs()[name]; !broken[name] && len(v) > maxTagValue {
			problems = append(problems, fmt.Sprintf("%s has %d characters: it is kept in a tag of the volume, which holds %d%s", name, len(v), maxTagValue, origins(name)))
		}
	}
	if len(o.Tags) > maxTags-ownTags {
		problems = append(problems, fmt.Sprintf("%d tags are too many: EC2 allows %d on a volume and blockvol keeps %d of them for itself, so at most %d are possible",
			len(o.Tags), maxTags, ownTags, maxTags-ownTags))
	}
	return problems
}

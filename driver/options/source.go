package options

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/blockvol/blockvol/cloud"
)

// latestPrefix stands before the name of a volume whose latest snapshot is meant.
const latestPrefix = "latest:"

var (
	snapshotID = regexp.MustCompile(`^snap-([0-9a-f]{8}|[0-9a-f]{17})$`)
	volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`)
)

func setSnapshot(o *Options, value string) error {
	name, latest := strings.CutPrefix(value, latestPrefix)
	switch {
	case latest && volumeName.MatchString(name):
		o.LatestOf = name
	case !latest && snapshotID.MatchString(value):
		o.SnapshotID = value
	default:
		return fmt.Errorf("%s is neither the ID of a snapshot, such as snap-0123456789abcdef0, nor latest:NAME with the name of a volume", quote(value))
	}
	return nil
}

func setFrom(o *Options, value string) error {
	if !volumeName.MatchString(value) {
		return fmt.Errorf("%s is not the name or the ID of a volume", quote(value))
	}
	o.From = value
	return nil
}

// snapshotText is the snapshot as a user would write it.
func (o Options) snapshotText() string {
	if o.LatestOf != "" {
		return latestPrefix + o.LatestOf
	}
	return o.SnapshotID
}

// Copies tells whether the request is for a new volume with data that there are.
func (o Options) Copies() bool { return o.snapshotText() != "" || o.From != "" }

// forCopy turns the defaults of an empty volume into those of one with data, and finds what contradicts that.
func (o *Options) forCopy() (problems []string) {
	if !o.Copies() {
		return nil
	}
	if o.snapshotText() != "" && o.From != "" {
		problems = append(problems, "snapshot-id and from are both given: a volume begins with the data of one of them; keep one")
	}
	if o.Adopts() {
		problems = append(problems, "volume-id and selector take a volume that exists, snapshot-id and from make a new one: keep one")
	}
	if o.given["mkfs-options"] {
		problems = append(problems, "mkfs-options: a volume with the data of another one is never formatted; leave it out")
	}
	o.MkfsOptions = nil
	if !o.given["size"] {
		o.SizeGiB = 0
	}
	if !o.given["fstype"] {
		o.FSType = ""
	}
	if !o.given["subdir"] {
		o.Subdir = "/"
	}
	return problems
}

// Source is what a volume is made of: a snapshot or a volume.
type Source struct {
	What       string // for people, such as: snapshot snap-1 of volume "db"
	SnapshotID string
	VolumeID   string // of a volume to copy; then SnapshotID is empty
	SizeGiB    int64
	Attrs      map[string]string // of the volume whose data they are; nil: blockvol did not make it
}

// CopySpec is the volume to make under that name, with the data of src; see Spec. What belongs to the data comes from src, unless the request itself
// says otherwise and the data allow it. The filesystem of data that blockvol knows nothing of is found at the first mount.
func (o Options) CopySpec(name, zone string, src Source) (cloud.Spec, error) {
	spec := o.Spec(name, zone)
	spec.SnapshotID, spec.SourceID = src.SnapshotID, src.VolumeID
	attrs := spec.Attrs
	attrs[attrFS] = FSAdopted
	if src.Attrs != nil {
		for _, name := range layoutNames {
			if !o.given[name] {
				delete(attrs, name)
			}
		}
		for name, value := range Inherited(src.Attrs) {
			if !o.given[name] {
				attrs[name] = value
			}
		}
	}
	if asked := o.snapshotText(); asked != "" {
		attrs[nameSnapshot] = asked
	}
	if o.From != "" {
		attrs[nameFrom] = o.From
	}

	var problems []string
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	size := max(o.SizeGiB, src.SizeGiB)
	if o.SizeGiB != 0 && o.SizeGiB < src.SizeGiB {
		bad("size: %s has %d GiB, and what is made of it cannot have less, such as %d GiB; leave size out, or ask for more", src.What, src.SizeGiB, o.SizeGiB)
	} else if l, ok := limitsOf(o.Type); ok {
		for _, p := range l.check(size, o.IOPS, o.Throughput) {
			bad("%s (size %d GiB, type %s; %s has %d GiB)", p, size, o.Type, src.What, src.SizeGiB)
		}
	}
	fs := attrs[attrFS]
	switch {
	case fs != FSAdopted && !validFS(fs):
		bad("%s has no filesystem: its tag blockvol:fs is %q, so it was never mounted; create an empty volume instead", src.What, fs)
	case fs != FSAdopted && o.given["fstype"] && o.FSType != fs:
		bad("fstype: %s has %s, and is not formatted again with %s; leave fstype out", src.What, fs, o.FSType)
	default:
		if _, err := FromAttrs(attrs); err != nil {
			bad("how a volume made of %s is to be mounted: %v", src.What, err)
		}
	}
	if len(problems) > 0 {
		return cloud.Spec{}, &Error{Problems: problems}
	}
	return spec, nil
}

// validFS tells whether a name is that of a filesystem.
func validFS(name string) bool {
	for _, fs := range fsTypes {
		if fs == name {
			return true
		}
	}
	return false
}

// Inherited is the part of a volume's attributes that belongs to its data: a volume that is made of that data, now or later, needs it in order to be
// mounted in the same way. It is what a snapshot keeps.
func Inherited(attrs map[string]string) map[string]string {
	kept := map[string]string{}
	for _, name := range append([]string{attrFS}, layoutNames...) {
		if value, ok := attrs[name]; ok {
			kept[name] = value
		}
	}
	return kept
}

// CheckTags refuses tags that EC2 or blockvol does not allow. The first that is wrong is told, in the order of the keys.
func CheckTags(tags map[string]string) error {
	for _, key := range sortedTags(tags) {
		if err := checkTag(key, tags[key]); err != nil {
			return fmt.Errorf("tag %s: %w", quote(key), err)
		}
	}
	return nil
}

package options

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// The attributes that blockvol keeps with a volume so that every host mounts it in the same way, see cloud.Volume.Attrs.
const (
	attrFS = "fs" // what is on the device; the disk side moves it on from "none"
	fsNone = "none"

	// FSAdopted is the attribute "fs" of a volume that blockvol did not make, until its filesystem was found at the first mount.
	FSAdopted = "adopted"
)

// layoutNames are the options that are attributes of the same name, in the order of the table.
var layoutNames = []string{"fstype", "mkfs-options", "mount-options", "uid", "gid", "mode", "subdir", "fencing"}

const defaultMode os.FileMode = 0o755

// Layout is how a volume's filesystem is made and mounted, on whichever host, and when it may be taken from a host that is dead.
type Layout struct {
	FSType       string
	MkfsOptions  []string
	MountOptions []string
	UID, GID     *int        // nil: as the filesystem has it
	Mode         os.FileMode // with os.ModeSetuid, os.ModeSetgid and os.ModeSticky
	Subdir       string      // a clean relative path, or "/"
	Fencing      string      // one of Fencings; empty: as the plugin is set
}

// Layout is the part of the options that is about the filesystem.
func (o Options) Layout() Layout {
	return Layout{FSType: o.FSType, MkfsOptions: o.MkfsOptions, MountOptions: o.MountOptions, UID: o.UID, GID: o.GID, Mode: o.Mode, Subdir: o.Subdir, Fencing: o.Fencing}
}

// Attrs is what every host must know of the volume as attributes, made anew at each call. fstype and subdir are always there, others only if they matter.
func (o Options) Attrs() map[string]string {
	attrs := map[string]string{}
	l := o.Layout()
	for _, name := range layoutNames {
		if v := l.attr(name); v != "" && !(name == "mode" && l.Mode == defaultMode) {
			attrs[name] = v
		}
	}
	if o.Reclaim != ReclaimDelete { // without it older versions may use the volume too
		attrs[nameReclaim] = o.Reclaim
	}
	for name, value := range map[string]string{nameSchedule: o.Schedule.String(), nameKeep: o.Keep.String()} {
		if value != "" {
			attrs[name] = value
		}
	}
	if o.Selector != nil {
		attrs[nameSelector] = joinSelector(o.Selector)
	}
	if o.Profile != "" {
		attrs[nameProfile] = o.Profile
	}
	return attrs
}

// attr is the value of one attribute; empty if there is nothing to say.
func (l Layout) attr(name string) string {
	id := func(p *int) string {
		if p == nil {
			return ""
		}
		return strconv.Itoa(*p)
	}
	switch name {
	case "fstype":
		return l.FSType
	case "mkfs-options":
		return joinWords(l.MkfsOptions)
	case "mount-options":
		return strings.Join(l.MountOptions, ",")
	case "uid":
		return id(l.UID)
	case "gid":
		return id(l.GID)
	case "mode":
		return formatMode(l.Mode)
	case "subdir":
		return l.Subdir
	case "fencing":
		return l.Fencing
	}
	return ""
}

// FromAttrs reads the layout from a volume's attributes, and ignores those that are about something else. Attributes are tags, which
// people can change or lose: what cannot be read, or would not be accepted as an option, is an error, because a guess would make the
// data look gone or mount it in another way than on other hosts.
func FromAttrs(attrs map[string]string) (Layout, error) {
	var o Options
	o.Mode = defaultMode
	for _, name := range layoutNames {
		value, ok := attrs[name]
		if !ok {
			if name == "fstype" && attrs[attrFS] == FSAdopted {
				continue // not known yet
			}
			if name == "fstype" || name == "subdir" {
				return Layout{}, fmt.Errorf("the volume's tag blockvol:%s is missing, it says how the volume is to be mounted: set it again", name)
			}
			continue
		}
		opt, _, _ := lookup(name)
		if err := (entry{opt: opt, key: name, value: value}).apply(&o); err != nil {
			return Layout{}, fmt.Errorf("the volume's tag blockvol:%s cannot be used: %w", name, err)
		}
	}
	if err := checkMkfs(o.FSType, o.MkfsOptions); err != nil {
		return Layout{}, fmt.Errorf("the volume's tag blockvol:mkfs-options cannot be used: %w", err)
	}
	if err := checkMount(o.FSType, o.MountOptions); err != nil {
		return Layout{}, fmt.Errorf("the volume's tag blockvol:mount-options cannot be used: %w", err)
	}
	return o.Layout(), nil
}

package disk

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount option of the kernel's generic layer: how it is said to the mount API (attr of fsmount) and to mount(2) (flag).
type genericOption struct {
	setAttr, clearAttr int
	setFlag, clearFlag uintptr
	// super is the name under which the superblock gets it as well, empty if it concerns the mount alone.
	super string
}

// genericOptions are the options that are not for the filesystem (mount(8), mount_setattr(2), mount(2)).
var genericOptions = map[string]genericOption{
	"defaults":      {},
	"ro":            {setAttr: unix.MOUNT_ATTR_RDONLY, setFlag: unix.MS_RDONLY, super: "ro"},
	"rw":            {clearAttr: unix.MOUNT_ATTR_RDONLY, clearFlag: unix.MS_RDONLY, super: "rw"},
	"nosuid":        {setAttr: unix.MOUNT_ATTR_NOSUID, setFlag: unix.MS_NOSUID},
	"suid":          {clearAttr: unix.MOUNT_ATTR_NOSUID, clearFlag: unix.MS_NOSUID},
	"nodev":         {setAttr: unix.MOUNT_ATTR_NODEV, setFlag: unix.MS_NODEV},
	"dev":           {clearAttr: unix.MOUNT_ATTR_NODEV, clearFlag: unix.MS_NODEV},
	"noexec":        {setAttr: unix.MOUNT_ATTR_NOEXEC, setFlag: unix.MS_NOEXEC},
	"exec":          {clearAttr: unix.MOUNT_ATTR_NOEXEC, clearFlag: unix.MS_NOEXEC},
	"nodiratime":    {setAttr: unix.MOUNT_ATTR_NODIRATIME, setFlag: unix.MS_NODIRATIME},
	"diratime":      {clearAttr: unix.MOUNT_ATTR_NODIRATIME, clearFlag: unix.MS_NODIRATIME},
	"nosymfollow":   {setAttr: unix.MOUNT_ATTR_NOSYMFOLLOW, setFlag: unix.MS_NOSYMFOLLOW},
	"noatime":       {setAttr: unix.MOUNT_ATTR_NOATIME, clearAttr: unix.MOUNT_ATTR__ATIME, setFlag: unix.MS_NOATIME, clearFlag: atimeFlags},
	"relatime":      {clearAttr: unix.MOUNT_ATTR__ATIME, setFlag: unix.MS_RELATIME, clearFlag: atimeFlags},
	"strictatime":   {setAttr: unix.MOUNT_ATTR_STRICTATIME, clearAttr: unix.MOUNT_ATTR__ATIME, setFlag: unix.MS_STRICTATIME, clearFlag: atimeFlags},
	"atime":         {clearAttr: unix.MOUNT_ATTR_NOATIME, clearFlag: unix.MS_NOATIME},
	"norelatime":    {setAttr: unix.MOUNT_ATTR_STRICTATIME, clearAttr: unix.MOUNT_ATTR__ATIME, setFlag: unix.MS_STRICTATIME, clearFlag: atimeFlags},
	"nostrictatime": {clearAttr: unix.MOUNT_ATTR__ATIME, clearFlag: atimeFlags},
	"sync":          {setFlag: unix.MS_SYNCHRONOUS, super: "sync"},
	"async":         {clearFlag: unix.MS_SYNCHRONOUS, super: "async"},
	"dirsync":       {setFlag: unix.MS_DIRSYNC, super: "dirsync"},
	"lazytime":      {setFlag: unix.MS_LAZYTIME, super: "lazytime"},
	// The mount API has no word for this; ext4 and xfs keep versions anyway.
	"iversion":   {setFlag: unix.MS_I_VERSION},
	"noiversion": {clearFlag: unix.MS_I_VERSION},
	"nolazytime": {clearFlag: unix.MS_LAZYTIME, super: "nolazytime"},
}

const atimeFlags = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

// refusedOptions are those that make no sense or do harm on a volume of a plugin, by reason.
var refusedOptions = []struct{ why, keys string }{
	{"it changes other mounts", "bind rbind move remount private rprivate shared rshared slave rslave unbindable runbindable"},
	{"it is for mount(8) and /etc/fstab", "user users nouser owner group auto noauto nofail _netdev loop uhelper helper comment silent loud quiet mand nomand"},
	{"the filesystem is the whole device and nothing else", "offset sizelimit encryption source sb journal_dev journal_path logdev rtdev subvol subvolid device fstype"},
	{"it is for the developers of the kernel and does harm", "abort test_dummy_encryption fault_injection"},
}

// whyRefused tells why an option cannot be used; empty if it can.
func whyRefused(key string) string {
	for _, r := range refusedOptions {
		if slices.Contains(strings.Fields(r.keys), key) {
			return r.why
		}
	}
	if strings.HasPrefix(strings.ToLower(key), "x-") {
		return "it is for mount(8) and /etc/fstab"
	}
	return ""
}

// labelOptions may have commas in their value (SELinux categories).
var labelOptions = []string{"context", "fscontext", "defcontext", "rootcontext"}

// ValidateMountOptions tells whether the options, one in each element, can be given to Mount. Options of the filesystem itself are only
// known to the kernel, which refuses a wrong one when it mounts. An error is an ErrOption.
func ValidateMountOptions(options []string) error {
	_, err := planMount(options, nil)
	return err
}

// mountPlan is what options mean to the kernel.
type mountPlan struct {
	attr   int      // for fsmount
	flags  uintptr  // for mount(2)
	super  []string // superblock flags for fsconfig
	params []string // parameters of the filesystem, "key" or "key=value"
}

// planMount translates options; what stands in always is added unless the options have the same key.
func planMount(options, always []string) (mountPlan, error) {
	var p mountPlan
	keys := map[string]bool{}
	for _, o := range options {
		key, value, hasValue := strings.Cut(o, "=")
		if err := validOption(o, key, value, hasValue); err != nil {
			return mountPlan{}, err
		}
		keys[key] = true
		g, generic := genericOptions[key]
		switch {
		case generic && hasValue:
			return mountPlan{}, fmt.Errorf("%w: mount option %q takes no value", ErrOption, key)
		case generic:
			p.attr = p.attr&^g.clearAttr | g.setAttr
			p.flags = p.flags&^g.clearFlag | g.setFlag
			if g.super != "" {
				p.super = append(p.super, g.super)
			}
		case slices.Contains(labelOptions, key):
			p.params = append(p.params, key+"="+strings.Trim(value, `"`))
		default:
			p.params = append(p.params, o)
		}
	}
	for _, o := range always {
		if key, _, _ := strings.Cut(o, "="); !keys[key] {
			p.params = append(p.params, o)
		}
	}
	return p, nil
}

func validOption(o, key, value string, hasValue bool) error {
	if key == "" || strings.ContainsFunc(key, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == ':')
	}) {
		return fmt.Errorf("%w: %q is not a mount option (one name, or name=value, in each)", ErrOption, o)
	}
	if hasValue && value == "" {
		return fmt.Errorf("%w: mount option %q has an empty value", ErrOption, key)
	}
	if len(o) > 256 { // the limit of fsconfig(2)
		return fmt.Errorf("%w: mount option %q is longer than 256 bytes", ErrOption, key)
	}
	comma := slices.Contains(labelOptions, key)
	for _, c := range value {
		if c < ' ' || c == 0x7f || c == '\\' || c == ',' && !comma || c == '"' && !comma {
			return fmt.Errorf("%w: the value of mount option %q contains %q", ErrOption, key, c)
		}
	}
	if why := whyRefused(key); why != "" {
		return fmt.Errorf("%w: mount option %q: %s", ErrOption, key, why)
	}
	return nil
}

// data is the plan's parameters for mount(2).
func (p mountPlan) data() string {
	list := make([]string, len(p.params))
	for i, o := range p.params {
		list[i] = o
		if key, value, _ := strings.Cut(o, "="); strings.Contains(value, ",") {
			list[i] = key + `="` + value + `"`
		}
	}
	return strings.Join(list, ",")
}

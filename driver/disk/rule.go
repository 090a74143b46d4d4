package disk

import (
	"fmt"
	"strings"
)

// Action is what may be done with a device. Its zero value is Refuse.
type Action int

// The actions.
const (
	Refuse      Action = iota
	Format             // make a filesystem: the device is proven blank
	FormatAgain        // make it over what an earlier, cut mkfs has left (FormatOptions.Overwrite)
	Mount              // mount the filesystem that the tag names
)

func (a Action) String() string {
	return [...]string{"refuse", "format", "format again", "mount"}[a]
}

// Decision is what may be done with a device, and why. The reason of a refusal is for the user: what was found, and the way out.
type Decision struct {
	Action Action
	Reason string
}

// The values of a volume's tag that are no filesystem. They change in this order, each step confirmed before the next: TagNone, then
// TagFormatting with the host, then the name of the filesystem, and only then is it mounted.
const (
	TagNone       = "none"
	TagFormatting = "formatting:"
)

// Decide is the rule by which a device is formatted, mounted or refused.
//
// tag is what the volume itself says about its filesystem; self is this host, as it stands in a TagFormatting; snapshot tells that the
// volume was made from another one's data; want is the filesystem asked for at create; c and readErr are the answer of Inspect. The
// caller has proven that no other host holds the volume.
//
// A tag may be read a few seconds too late: what has been mounted is never formatted, whatever the tag says.
//
// From "none" a device is formatted only when it is provably blank. From "formatting" it is formatted again, because nobody can have mounted it,
// unless it holds something that an interrupted mkfs of the wanted type cannot have left. From the name of a filesystem it is mounted if it
// holds exactly that. Everything else, and whatever cannot be read, is refused.
func Decide(tag, self string, snapshot bool, want string, c Content, readErr error) Decision {
	host, formatting := strings.CutPrefix(tag, TagFormatting)
	known := supported(tag)
	switch {
	case tag == "":
		return refuse("the volume has no tag blockvol:fs, so it is neither formatted nor mounted (blockvol sets the tag when it creates a volume; somebody has removed it); %s; %s",
			found(c, readErr), wayOut(c))
	case !known && tag != TagNone && (!formatting || host == ""):
		return refuse("the volume's tag blockvol:fs is %q, which this blockvol does not know (it knows %s; a newer one may know more), so it is neither formatted nor mounted; %s",
			tag, strings.Join(Filesystems(), ", "), found(c, readErr))
	case readErr != nil:
		return refuse("the device cannot be read, so nothing is done with it: %v; look at the kernel's log and at the state of the volume, and try again when it answers", readErr)
	case known:
		return decideKnown(tag, c)
	case !supported(want):
		return refuse("the filesystem asked for, %q, cannot be made; supported: %s", want, strings.Join(Filesystems(), ", "))
	case snapshot:
		return refuse("the volume was made from a snapshot or from another volume, but its tag blockvol:fs is %q: it is not formatted, because it may hold data; %s; %s", tag, found(c, nil), wayOut(c))
	case formatting:
		return decideFormatting(host, self, want, c)
	case !c.Blank:
		return refuse("the volume's tag blockvol:fs says that it was never formatted, but %s: it is not formatted; %s", found(c, nil), wayOut(c))
	}
	return Decision{Format, "never formatted, and " + c.Detail}
}

func decideKnown(tag string, c Content) Decision {
	switch {
	case c.Kind == tag && !c.Blank:
		return Decision{Mount, "tag and device agree: " + c.Detail}
	case c.Blank:
		return refuse("the volume's tag blockvol:fs says %s but the device is blank: it was wiped; it is not formatted; restore the volume from a snapshot, or, if nothing on it is needed, remove it and create it again", tag)
	case c.Kind == KindData:
		repair := "xfs_repair"
		if tag == "ext4" {
			repair = "e2fsck -b 32768"
		}
		return refuse("the volume's tag blockvol:fs says %s but no filesystem is recognised: %s; damaged or wiped; not formatted; try %s on a copy made from a snapshot of it", tag, found(c, nil), repair)
	}
	return refuse("the volume's tag blockvol:fs says %s but %s: it is neither mounted nor formatted; somebody has written to the volume outside blockvol, or has changed the tag; %s", tag, found(c, nil), wayOut(c))
}

func decideFormatting(host, self, want string, c Content) Decision {
	who := "host " + host
	if host == self {
		who = "this host"
	}
	switch {
	case c.Used:
		return refuse("the volume's tag blockvol:fs says that %s began to format it and did not finish, but %s, which has been mounted since: the tag is older than the data, "+
			"and it is not formatted; EC2 may show an old state for some seconds: try again; %s", who, found(c, nil), wayOut(c))
	case c.Blank, c.Kind == KindData, c.Kind == want:
		return Decision{FormatAgain, fmt.Sprintf("%s began to format it and did not finish, so nobody can have used it; now: %s", who, c.Detail)}
	}
	return refuse("%s began to make %s on the volume and did not finish, but %s, which that cannot have left: it is not formatted; %s", who, want, found(c, nil), wayOut(c))
}

// wayOut tells what a person can do about a refusal.
func wayOut(c Content) string {
	switch {
	case c.Blank:
		return "if it is a new volume, set its tag blockvol:fs to none"
	case supported(c.Kind):
		return "if that is the data you want, set the volume's tag blockvol:fs to " + c.Kind + "; if not, remove the volume and create it again"
	case c.Kind == "":
		return "try again when the device can be read"
	}
	return "blockvol cannot use that: save what you need, then remove the volume and create it again"
}

// found tells what is on the device, in words that can follow "but".
func found(c Content, err error) string {
	switch {
	case err != nil:
		return fmt.Sprintf("what is on it is not known: %v", err)
	case c.Blank:
		return "the device is blank"
	case c.Kind == "":
		return "the device was not looked at"
	case c.Kind == KindData:
		return "the device holds " + c.Detail
	case c.Kind == KindSeveral:
		return "on the device " + c.Detail
	}
	return "the device " + c.Detail
}

func supported(fstype string) bool {
	_, err := lookup(fstype)
	return err == nil
}

func refuse(format string, args ...any) Decision {
	return Decision{Refuse, fmt.Sprintf(format, args...)}
}

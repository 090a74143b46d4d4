package options

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of EC2 tags: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html, in characters, not bytes.
const (
	maxTagKey   = 128
	maxTagValue = 256
	maxTags     = 50
	// ownTags is what blockvol keeps for itself: its attributes, the tags of the provider, and room for those of later versions.
	ownTags = 25
)

var fsTypes = []string{"ext4", "xfs"}

func setSize(o *Options, value string) (err error) {
	o.SizeGiB, err = parseSize(value)
	return err
}

func setType(o *Options, value string) error {
	name := strings.ToLower(value)
	if _, ok := limitsOf(name); ok {
		o.Type = name
		return nil
	}
	switch name {
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "ntfs", "vfat":
		return fmt.Errorf("%s is a filesystem and type is the kind of EBS volume: use fstype=%s", quote(value), name)
	case "nfs", "nfs4", "cifs", "smb", "smb3", "tmpfs", "none", "bind", "overlay", "sshfs":
		return fmt.Errorf("type=%s is an option of Docker's local driver: for that, create the volume with -d local", name)
	}
	text := fmt.Sprintf("%s is not an EBS volume type: use one of %s", quote(value), typeNames())
	if near, ok := nearest(name, strings.Split(typeNames(), ", ")); ok {
		text += fmt.Sprintf("; did you mean %s?", near)
	}
	return errors.New(text)
}

func setIOPS(o *Options, value string) (err error) {
	o.IOPS, err = parseCount(value, "IOPS")
	return err
}

func setThroughput(o *Options, value string) (err error) {
	o.Throughput, err = parseThroughput(value)
	return err
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "", "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false: use true, false, yes, no, on, off, 1 or 0", quote(value))
}

func setEncrypted(o *Options, value string) (err error) {
	o.Encrypted, err = parseBool(value)
	return err
}

// kmsKey holds the four forms of https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateVolume.html (KmsKeyId).
var kmsKey = regexp.MustCompile(`^(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:)?(key/)?([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|mrk-[0-9a-fA-F]{32})$|` +
	`^(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:)?alias/[A-Za-z0-9/_-]{1,250}$`)

func setKMSKeyID(o *Options, value string) error {
	m := kmsKey.FindStringSubmatch(value)
	if m == nil || (m[1] == "") != (m[2] == "") {
		// EC2 looks at the key only after it has answered, and the volume then vanishes: better told now.
		return fmt.Errorf("%s is not a KMS key: write a key ID (1234abcd-12ab-34cd-56ef-1234567890ab), alias/NAME, or the ARN of either", quote(value))
	}
	o.KMSKeyID = value
	return nil
}

func setFSType(o *Options, value string) error {
	fs := strings.ToLower(value)
	for _, known := range fsTypes {
		if fs == known {
			o.FSType = fs
			return nil
		}
	}
	return fmt.Errorf("%s is not supported: use %s", quote(value), strings.Join(fsTypes, " or "))
}

// Fencings are the rules by which a volume may be taken from another host: never; when EC2 says that the host is stopped or terminated; or
// besides, when its status checks fail for long, after it was stopped for that.
var Fencings = []string{"never", "stopped", "impaired"}

func setFencing(o *Options, value string) error {
	rule := strings.ToLower(value)
	if !slices.Contains(Fencings, rule) {
		return fmt.Errorf("%s is not a rule for taking a volume from another host: use %s", quote(value), strings.Join(Fencings, " or "))
	}
	o.Fencing = rule
	return nil
}

// What becomes of the provider's volume when the Docker volume is removed.
const (
	ReclaimDelete   = "delete"
	ReclaimRetain   = "retain"
	ReclaimSnapshot = "snapshot"
)

// Reclaims are all of them.
var Reclaims = []string{ReclaimDelete, ReclaimRetain, ReclaimSnapshot}

func setReclaim(o *Options, value string) error {
	rule := strings.ToLower(value)
	if !slices.Contains(Reclaims, rule) {
		return fmt.Errorf("%s is not what can become of a volume that is removed: use %s", quote(value), strings.Join(Reclaims, " or "))
	}
	o.Reclaim = rule
	return nil
}

// ReclaimOf reads from a volume's attributes what becomes of it when it is removed. What this version does not know is an error: such a
// volume must not be removed by it.
func ReclaimOf(attrs map[string]string) (string, error) {
	rule, ok := attrs[nameReclaim]
	switch {
	case !ok:
		return ReclaimDelete, nil
	case slices.Contains(Reclaims, rule):
		return rule, nil
	}
	return "", fmt.Errorf("the volume's tag blockvol:%s is %s, and this version knows %s", nameReclaim, quote(rule), strings.Join(Reclaims, " and "))
}

var volumeID = regexp.MustCompile(`^vol-([0-9a-f]{8}|[0-9a-f]{17})$`)

func setVolumeID(o *Options, value string) error {
	if !volumeID.MatchString(value) {
		return fmt.Errorf("%s is not the ID of an EBS volume, such as vol-0123456789abcdef0", quote(value))
	}
	o.VolumeID = value
	return nil
}

// setSelector reads KEY=VALUE,KEY=VALUE. Tags of blockvol's own would find volumes that are not free.
func setSelector(o *Options, value string) error {
	tags := map[string]string{}
	for _, pair := range strings.Split(value, ",") {
		key, wanted, ok := strings.Cut(strings.TrimSpace(pair), "=")
		key = strings.TrimSpace(key)
		_, twice := tags[key]
		switch {
		case !ok || key == "" || twice:
			return fmt.Errorf("%s is not a list of tags: write KEY=VALUE,KEY=VALUE, each key once", quote(value))
		case key != "Name":
			if err := checkTag(key, wanted); err != nil {
				return fmt.Errorf("tag %s: %w", quote(key), err)
			}
		}
		tags[key] = wanted
	}
	if len(tags) > 20 || len(joinSelector(tags)) > maxTagValue {
		return fmt.Errorf("it has more than 20 tags or %d characters", maxTagValue)
	}
	o.Selector = tags
	return nil
}

// joinSelector is the inverse of setSelector, in the order of the keys.
func joinSelector(tags map[string]string) string {
	var pairs []string
	for _, key := range sortedTags(tags) {
		pairs = append(pairs, key+"="+tags[key])
	}
	return strings.Join(pairs, ",")
}

func setFallback(o *Options, value string) error {
	switch strings.ToLower(value) {
	case "none":
	case "create":
		o.OrCreate = true
	default:
		return fmt.Errorf("%s is not what can be done instead: use none or create", quote(value))
	}
	return nil
}

// accessModes are the names of access modes, each with the reason why it is refused; empty: it is what a volume has.
var accessModes = map[string]string{
	"rwo": "", "readwriteonce": "", "singlenodewriter": "",
	"rwx": refuseRWX, "readwritemany": refuseRWX, "multinodemultiwriter": refuseRWX,
	"rox": refuseROX, "readonlymany": refuseROX, "multinodereaderonly": refuseROX,
	"rwop": refuseRWOP, "readwriteoncepod": refuseRWOP, "singlenodesinglewriter": refuseRWOP,
}

const (
	refuseRWX = "a block volume that two hosts write to loses its filesystem, so one host has it at a time, where any number of containers may write; " +
		"for files that hosts share use Amazon EFS: docker volume create -d local -o type=nfs"
	refuseROX = "a block volume is attached to one host at a time, also for reading: give containers of that host a read-only view with -v NAME:/path:ro; " +
		"for files that many hosts read use Amazon EFS (docker volume create -d local -o type=nfs) or put them into an image"
	refuseRWOP = "Docker does not tell a volume plugin which container asks, so it cannot be kept to one: use rwo, which keeps it to one host"
)

func setAccessMode(o *Options, value string) error {
	why, known := accessModes[fold(value)]
	switch {
	case !known:
		return fmt.Errorf("%s is not an access mode: use rwo (ReadWriteOnce), which every volume has", quote(value))
	case why != "":
		return fmt.Errorf("%s is not possible: %s", quote(value), why)
	}
	return nil
}

func setMkfsOptions(o *Options, value string) (err error) {
	o.MkfsOptions, err = splitWords(value)
	return err
}

func setMountOptions(o *Options, value string) (err error) {
	o.MountOptions, err = splitMount(value)
	return err
}

func setUID(o *Options, value string) (err error) {
	o.UID, err = parseID(value)
	return err
}

func setGID(o *Options, value string) (err error) {
	o.GID, err = parseID(value)
	return err
}

// parseID reads a user or group ID. 4294967295 is -1, which means "leave it" to chown(2).
func parseID(value string) (*int, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n > 4294967294 {
		if digits(value) {
			return nil, fmt.Errorf("%s is too large: IDs are 0 to 4294967294", quote(value))
		}
		return nil, fmt.Errorf("%s is not a number: names mean nothing here, because each image has its own; use 0 to 4294967294", quote(value))
	}
	id := int(n)
	return &id, nil
}

func setMode(o *Options, value string) (err error) {
	o.Mode, err = parseMode(value)
	return err
}

// parseMode reads an octal mode. YAML reads an unquoted 0755 as an octal number and hands on 493: such values are refused when they
// are no octal number, and also when they are one by chance (511 for 0777) unless a leading zero says that it is meant.
func parseMode(value string) (os.FileMode, error) {
	number := strings.TrimPrefix(strings.ToLower(value), "0o")
	n, err := strconv.ParseUint(number, 8, 64)
	if decimal, e := strconv.ParseUint(number, 10, 64); e == nil && len(number) == len(value) && !strings.HasPrefix(value, "0") &&
		decimal <= 0o7777 && decimal&0o700 == 0o700 && (err != nil || n&0o700 != 0o700) {
		text := fmt.Sprintf("%s looks like the octal number %04o after YAML made a decimal number of it: quote it, mode: \"%04o\"", quote(value), decimal, decimal)
		if err == nil {
			text += fmt.Sprintf("; if %04o is really meant, write it with the leading zero", n)
		}
		return 0, errors.New(text)
	}
	if err != nil || number == "" {
		text := fmt.Sprintf("%s is not an octal mode such as 0755", quote(value))
		if digits(value) && strings.ContainsAny(value, "89") {
			text += "; in YAML quote the number, mode: \"0755\", or it becomes a decimal one"
		}
		return 0, errors.New(text)
	}
	if n == 0 {
		return 0, errors.New("0 would let nobody in: write a mode such as 0755")
	}
	if n > 0o7777 {
		return 0, fmt.Errorf("%s is more than 7777, the largest mode", quote(value))
	}
	mode := os.FileMode(n & 0o777)
	for _, b := range modeBits {
		if n&b.unix != 0 {
			mode |= b.mode
		}
	}
	return mode, nil
}

// modeBits are the three bits that os.FileMode has in other places than Unix.
var modeBits = []struct {
	unix uint64
	mode os.FileMode
}{{0o4000, os.ModeSetuid}, {0o2000, os.ModeSetgid}, {0o1000, os.ModeSticky}}

// formatMode is the inverse of parseMode.
func formatMode(mode os.FileMode) string {
	n := uint64(mode.Perm())
	for _, b := range modeBits {
		if mode&b.mode != 0 {
			n |= b.unix
		}
	}
	return fmt.Sprintf("%04o", n)
}

var pathElement = regexp.MustCompile(`^[A-Za-z0-9._@+-]{1,200}$`)

func setSubdir(o *Options, value string) error {
	if value == "/" {
		o.Subdir = value
		return nil
	}
	if strings.HasPrefix(value, "/") {
		return fmt.Errorf("%s begins with a slash: it is a path inside the volume, write %s", quote(value), quote(strings.Trim(value, "/")))
	}
	for i, e := range strings.Split(value, "/") {
		switch {
		case e == "":
			return fmt.Errorf("%s has an empty part: write a path such as data or pg/data", quote(value))
		case e == "." || e == "..":
			return fmt.Errorf("%s contains %s: the path must be inside the volume and say itself where it leads", quote(value), e)
		case !pathElement.MatchString(e):
			return fmt.Errorf("%s contains %s: use letters, digits and . _ - + @ only", quote(value), quote(e))
		case i == 0 && e == "lost+found":
			return fmt.Errorf("%s belongs to the filesystem check: use another name", quote(e))
		}
	}
	o.Subdir = value
	return nil
}

var (
	zoneName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	zoneID   = regexp.MustCompile(`^[a-z]+\d+-az\d+$`)
)

func setZone(o *Options, value string) error {
	zone := strings.ToLower(value)
	if zoneID.MatchString(zone) {
		return fmt.Errorf("%s is the ID of a zone: use its name, such as eu-central-1a", quote(value))
	}
	if len(zone) > 64 || !zoneName.MatchString(zone) {
		return fmt.Errorf("%s is not the name of a zone, such as eu-central-1a", quote(value))
	}
	o.Zone = zone
	return nil
}

func checkTag(key, value string) error {
	lower := strings.ToLower(key)
	switch {
	case key == "":
		return errors.New("the tag has no key: write tag.KEY=VALUE")
	case key == "Name":
		return errors.New("blockvol sets the tag Name to the volume's name: leave it out")
	case strings.HasPrefix(lower, "aws:"):
		return errors.New("tags that begin with aws: are AWS's own: use another key")
	case strings.HasPrefix(lower, "blockvol:"):
		return errors.New("tags that begin with blockvol: are how blockvol knows its volumes: use another key")
	}
	for _, part := range []struct {
		what, text string
		most       int
	}{{"key", key, maxTagKey}, {"value", value, maxTagValue}} {
		if n := utf8.RuneCountInString(part.text); n > part.most {
			return fmt.Errorf("the %s has %d characters: EC2 allows %d", part.what, n, part.most)
		}
		if !utf8.ValidString(part.text) || strings.ContainsFunc(part.text, unicode.IsControl) {
			return fmt.Errorf("the %s %s contains characters that cannot be printed", part.what, quote(part.text))
		}
	}
	return nil
}

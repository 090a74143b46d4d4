package options

import (
	"slices"
	"strings"
)

// Option is one row of the table: one thing that docker volume create understands after -o.
type Option struct {
	Name    string   // the canonical name, in lower case with dashes
	Aliases []string // other spellings, as other plugins and tools have them; letter case, - and _ do not matter
	Default string   // the value when nobody says anything, as a user would write it; empty if there is none
	Values  string   // what may be written, for people
	Unit    string   // the unit of a bare number; empty if there is none
	Doc     string   // what it means, in whole sentences

	// set parses a value and stores it. It sees one value only; what depends on several options is checked by Options.check.
	set func(o *Options, value string) error
	// bare tells that the option may be written without a value.
	bare bool
	// follows names the option on which the meaning of this one depends. A value from DEFAULT_OPTIONS or a profile is dropped when
	// what goes on top of it gives that option another value.
	follows string
	// perVolume tells why the option stands in no DEFAULT_OPTIONS and no profile; empty: it may.
	perVolume string
	// Changeable tells that the option of a volume that exists can be changed. What is not about the provider's volume itself (size, type, iops,
	// throughput) must be an attribute of the same name then.
	Changeable bool
	// fixed tells why it cannot, and the way out. Each row has one of the two.
	fixed string
}

const (
	nameHelp     = "help"
	nameProfile  = "profile"
	nameReclaim  = "reclaim"
	nameVolumeID = "volume-id"
	nameSelector = "selector"
	nameFallback = "selector-fallback"
	nameSnapshot = "snapshot-id"
	nameFrom     = "from"
	tagPrefix    = "tag."
	// tagName is how the row of tags is called in the table.
	tagName = "tag.KEY"
)

// Why something cannot be changed later, and the way out.
const (
	fixedKey    = "EBS encrypts a volume when it is made and never after; make a snapshot, and of that a new volume with the key (snapshot-id=)"
	fixedFormat = "the filesystem is made once, and making it again would lose what is on it; create a new volume and copy the files"
	fixedRoot   = "it was set when the root directory was made, and belongs to the containers since; change it in one of them, with chown or chmod"
	fixedChoice = "it chooses the EBS volume when the Docker volume is created, and that is done"
)

// table is the only list of options. Its order is the order of every text and every error.
var table = []Option{
	{
		Name: "size", Default: "16GiB", Values: "100, 100GiB, 1.5T, 500Mi", Unit: "GiB", set: setSize, Changeable: true,
		Aliases: []string{"sizeInGiB", "size-gb", "volume-size", "disk-size", "capacity", "storage"},
		Doc: "Size of the volume. Units are binary whatever the suffix: 100, 100G, 100GB and 100GiB are all 100 GiB. " +
			"The result is rounded up to whole GiB.",
	},
	{
		Name: "type", Default: "gp3", Values: typeNames(), set: setType, Changeable: true,
		Aliases: []string{"volume-type", "ebs-type"},
		Doc:     "EBS volume type, in any letter case. The limits of each type are listed below. The filesystem is chosen by fstype.",
	},
	{
		Name: "iops", Values: "3000", Unit: "IOPS", set: setIOPS, follows: "type", Changeable: true,
		Aliases: []string{"provisioned-iops"},
		Doc:     "Provisioned I/O operations per second. Required for io1 and io2, possible for gp3 (which has 3000 without it), refused for other types.",
	},
	{
		Name: "throughput", Values: "250, 250MiB/s, 250MB", Unit: "MiB/s", set: setThroughput, follows: "type", Changeable: true,
		Aliases: []string{"throughput-mibps"},
		Doc:     "Provisioned throughput, only for gp3 (which has 125 MiB/s without it). 1 MiB/s needs 4 IOPS, so more than 750 MiB/s also needs iops.",
	},
	{
		Name: "encrypted", Values: "true, false, yes, no, on, off, 1, 0", set: setEncrypted, bare: true,
		fixed:   fixedKey,
		Aliases: []string{"encrypt", "encryption"},
		Doc: "Encrypt the volume with the key of kms-key-id, or else with the account's default key. Without a value it means true. " +
			"false means what the account does by default, which may be to encrypt.",
	},
	{
		Name: "kms-key-id", Values: "key ID, key ARN, alias/NAME, alias ARN", set: setKMSKeyID,
		fixed:   fixedKey,
		Aliases: []string{"kms-key", "encryption-key"},
		Doc:     "KMS key to encrypt the volume with. It implies encrypted=true.",
	},
	{
		Name: "fstype", Default: "ext4", Values: strings.Join(fsTypes, ", "), set: setFSType,
		fixed:   fixedFormat,
		Aliases: []string{"fs", "filesystem", "filesystem-type", "new-fstype", "csi.storage.k8s.io/fstype"},
		Doc:     "Filesystem that is made once, when the volume is mounted for the first time.",
	},
	{
		Name: "mkfs-options", Values: "-O bigalloc -C 65536", set: setMkfsOptions, follows: "fstype",
		fixed:   fixedFormat,
		Aliases: []string{"mkfs", "mkfs-opts", "mkfs-args", "format-options"},
		Doc: "Arguments for mkfs.ext4 or mkfs.xfs, split into words as a shell does. What shapes the filesystem is allowed; refused is " +
			"everything that forces, tries without doing, discards, names a device, file or size, or puts a part of the filesystem elsewhere.",
	},
	{
		Name: "mount-options", Values: "noatime,commit=30", set: setMountOptions, follows: "fstype", Changeable: true,
		Aliases: []string{"mount-opts", "mount-opt", "mount-flags"},
		Doc: "Comma separated options of every mount of the filesystem. Those of mount(8) itself (bind, remount, loop, user, ...), those that " +
			"make it read-only, and unknown ones are refused.",
	},
	{
		Name: "uid", Values: "0-4294967294", set: setUID,
		fixed:   fixedRoot,
		Aliases: []string{"owner-uid"},
		Doc:     "Numeric owner of the volume's root directory, set once when the directory is made.",
	},
	{
		Name: "gid", Values: "0-4294967294", set: setGID,
		fixed:   fixedRoot,
		Aliases: []string{"owner-gid", "fs-group"},
		Doc:     "Numeric group of the volume's root directory, set once when the directory is made.",
	},
	{
		Name: "mode", Default: "0755", Values: "0755, 755, 2770, 1777", Unit: "octal", set: setMode,
		fixed:   fixedRoot,
		Aliases: []string{"file-mode", "dir-mode", "permissions"},
		Doc:     "Permissions of the volume's root directory, set once when the directory is made. Always octal; quote it in YAML.",
	},
	{
		Name: "subdir", Default: "data", Values: "data, pg/data, /", set: setSubdir,
		fixed:   "the containers' files lie in the folder that it names; to have them elsewhere, create a new volume and copy them",
		Aliases: []string{"subdirectory", "sub-path", "root-path"},
		Doc: "Directory of the filesystem that the container sees, made when missing. / is the filesystem's root, where ext4 has " +
			"lost+found, so that Docker does not copy the image's content into a new volume.",
	},
	{
		Name: nameProfile, Values: "gold, none", set: setProfile, perVolume: "the default profile is marked with a star in the setting " + settingProfiles,
		fixed:   "its options were taken over when the volume was created; change those one by one",
		Aliases: []string{"storage-class", "storage-class-name", "class"},
		Doc: "Named set of options to begin with, from the setting " + settingProfiles + " or `blockvol profile set`. Options that are given too go first. " +
			"Without it the default profile counts, if there is one; none means no profile.",
	},
	{
		Name: "access-mode", Default: "rwo", Values: "rwo, ReadWriteOnce", set: setAccessMode,
		fixed:   "rwo is the only one that a volume can have",
		Aliases: []string{"access-modes", "access"},
		Doc: "Who may use the volume at a time: rwo is one host, with any number of containers. rwx (many hosts write) and rox (many hosts read) " +
			"are refused, because an EBS volume with ext4 or xfs cannot do that.",
	},
	{
		Name: nameReclaim, Default: ReclaimDelete, Values: strings.Join(Reclaims, ", "), set: setReclaim, Changeable: true,
		Aliases: []string{"reclaim-policy", "persistent-volume-reclaim-policy"},
		Doc: "What docker volume rm does with the EBS volume: delete deletes it with its data, after DELETE_DELAY; retain keeps it, outside of the cluster's volumes and not " +
			"listed any more, while its name is free at once; snapshot deletes it once an EBS snapshot of it is completed (docs/provisioning.md).",
	},
	{
		Name: nameSchedule, Values: "0 3 * * *, none, @daily, CRON_TZ=Europe/Berlin 0 3 * * *", set: setSchedule, Changeable: true,
		Aliases: []string{"snapshot-cron", "backup-schedule"},
		Doc: "When snapshots of the volume are made by the host that has it attached (docs/schedules.md): minute, hour, day, month and weekday as in cron, or " +
			"@hourly, @daily, @weekly, @monthly, @yearly; in UTC if no time zone goes before them. At least 15 minutes apart. none takes a profile's schedule away.",
	},
	{
		Name: nameKeep, Values: "14, all, 48h, 7d, 4w", set: setKeep, Changeable: true,
		Aliases: []string{"snapshot-retention", "snapshot-retain"},
		Doc: "Which of the snapshots that the schedule has made are kept: so many, or those that are at most so much older than the latest. Without it, all. " +
			"Snapshots that it has not made are never deleted.",
	},
	{
		Name: "fencing", Values: strings.Join(Fencings, ", "), set: setFencing, Changeable: true,
		Aliases: []string{"fence"},
		Doc: "When the volume may be taken from another host that holds it: stopped: when EC2 says that host is stopped (not hibernated) or " +
			"terminated; impaired: also when its status checks fail for long, after it was stopped for that (docs/fencing.md); never: not at all. Without it the plugin's setting FENCING counts.",
	},
	{
		Name: nameVolumeID, Values: "vol-0123456789abcdef0", set: setVolumeID, perVolume: "each volume has an ID of its own",
		fixed:   fixedChoice,
		Aliases: []string{"ebs-volume-id", "adopt", "existing"},
		Doc: "Takes an EBS volume that exists, in this host's zone and attached nowhere, with the filesystem that it has, instead of making one (docs/provisioning.md). " +
			"Without subdir containers get its root, and without reclaim it is kept when it is removed.",
	},
	{
		Name: nameSelector, Values: "team=db,tier=gold", set: setSelector, perVolume: "which volume is claimed is said for each",
		fixed:   fixedChoice,
		Aliases: []string{"match-tags", "match-labels"},
		Doc:     "Takes an EBS volume that exists, as volume-id does: the smallest one of this host's zone that has all these tags, is attached nowhere, belongs to no cluster, and has at least size if that is given.",
	},
	{
		Name: nameFallback, Values: "none, create", set: setFallback, perVolume: "it belongs to a selector",
		fixed:   fixedChoice,
		Aliases: []string{"selector-else"},
		Doc:     "What to do when the selector finds no volume: create makes a new one. Otherwise that is an error.",
	},
	{
		Name: nameSnapshot, Values: "snap-0123456789abcdef0, latest:NAME", set: setSnapshot, perVolume: "which data a volume begins with is said for each",
		fixed:   fixedChoice,
		Aliases: []string{"snapshot", "from-snapshot", "restore-from"},
		Doc: "Makes the volume of a snapshot, with its data: of the one with that ID, or of the latest that blockvol made of the volume NAME, which may be gone. The volume is never formatted, " +
			"and has the snapshot's size unless size asks for more. Filesystem, folder, owner and mount options are those of the volume that the snapshot was made of, unless they are given (docs/snapshots.md).",
	},
	{
		Name: nameFrom, Values: "NAME, vol-0123456789abcdef0", set: setFrom, perVolume: "which data a volume begins with is said for each",
		fixed:   fixedChoice,
		Aliases: []string{"source", "clone", "clone-of", "source-volume"},
		Doc:     "Makes the volume a copy of another one of the cluster, as that is at this moment, with all that is said of snapshot-id. What is mounted on this host stands still for that moment.",
	},
	{
		Name: "availability-zone", Values: "eu-central-1a", set: setZone,
		fixed:   "an EBS volume stays in its zone; make a snapshot, and of that a new volume on a host in the other one (snapshot-id=)",
		Aliases: []string{"zone", "az", "topology.kubernetes.io/zone", "topology.ebs.csi.aws.com/zone"},
		Doc:     "Zone to make the volume in. It can only be the zone of the host that is asked, which is also the default.",
	},
	{
		Name: tagName, Values: "any text up to 256 characters", Changeable: true,
		Aliases: []string{"tags.KEY"},
		Doc: "Tag of the EBS volume, may be given many times; KEY keeps its letter case. Refused are the keys Name (blockvol sets it to " +
			"the volume's name), aws:... (AWS's own) and blockvol:... (by which blockvol knows its volumes).",
	},
	{
		Name: nameHelp, bare: true, perVolume: "use it in docker volume create",
		fixed:   "it is no property of a volume; use it in docker volume create",
		Aliases: []string{"usage"},
		Doc:     "Makes no volume and answers with this table.",
	},
}

// Table returns the options in canonical order. The caller may change what it gets.
func Table() []Option {
	t := slices.Clone(table)
	for i := range t {
		t[i].Aliases = slices.Clone(t[i].Aliases)
	}
	return t
}

// separators are left out where names are compared.
var separators = strings.NewReplacer("-", "", "_", "")

// fold brings an option's name to the form in which names are compared.
func fold(key string) string { return separators.Replace(strings.ToLower(strings.TrimSpace(key))) }

// lookup finds the option that a user means. For a tag, canonical is "tag." and the exact key.
func lookup(key string) (opt *Option, canonical string, ok bool) {
	k := fold(key)
	for i := range table {
		opt := &table[i]
		for _, name := range append([]string{opt.Name}, opt.Aliases...) {
			if prefix, isTag := strings.CutSuffix(name, "KEY"); isTag && opt.Name == tagName {
				if len(key) >= len(prefix) && strings.EqualFold(key[:len(prefix)], prefix) {
					return opt, tagPrefix + key[len(prefix):], true
				}
			} else if fold(name) == k {
				return opt, opt.Name, true
			}
		}
	}
	return nil, "", false
}

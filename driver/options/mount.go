package options

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mountOption is one option of mount(2) that a user may give.
type mountOption struct {
	name  string
	value *regexp.Regexp // nil: it takes none
	bare  bool           // with value: it may also stand alone
}

var (
	decimal   = regexp.MustCompile(`^\d{1,10}$`)
	xfsSize   = regexp.MustCompile(`^\d{1,10}[kKmMgG]?$`)
	selinux   = regexp.MustCompile(`^("[A-Za-z0-9_:.,-]{1,200}"|[A-Za-z0-9_:.-]{1,200})$`)
	dataMode  = regexp.MustCompile(`^(ordered|journal|writeback)$`)
	remountRO = regexp.MustCompile(`^remount-ro$`)
	dataErr   = regexp.MustCompile(`^(ignore|abort)$`)
	bit       = regexp.MustCompile(`^[01]$`)
)

// mountOptions is what may be given, by filesystem and, under "", for all: mount(8), ext4(5), xfs(5). Options that never do good on a
// volume of its own, and those that mean another device, a read-only mount or giving up consistency checks, are left out.
var mountOptions = map[string][]mountOption{
	"": append(flags("atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "lazytime", "nolazytime",
		"suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "nosymfollow", "rw", "defaults",
		"discard", "nodiscard"),
		mountOption{name: "context", value: selinux}, mountOption{name: "fscontext", value: selinux},
		mountOption{name: "defcontext", value: selinux}, mountOption{name: "rootcontext", value: selinux}),
	"ext4": append(flags("delalloc", "nodelalloc", "dioread_lock", "dioread_nolock", "journal_checksum", "nojournal_checksum", "nobarrier",
		"acl", "user_xattr", "noinit_itable", "noauto_da_alloc", "block_validity", "noblock_validity",
		"grpid", "nogrpid", "bsdgroups", "sysvgroups", "quota", "noquota", "usrquota", "grpquota", "prjquota", "i_version", "inlinecrypt",
		"prefetch_block_bitmaps", "no_prefetch_block_bitmaps", "nombcache", "no_mbcache"),
		mountOption{name: "barrier", value: bit, bare: true}, mountOption{name: "auto_da_alloc", value: bit, bare: true},
		mountOption{name: "init_itable", value: decimal, bare: true}, mountOption{name: "commit", value: decimal}, mountOption{name: "stripe", value: decimal},
		mountOption{name: "data", value: dataMode}, mountOption{name: "data_err", value: dataErr}, mountOption{name: "errors", value: remountRO},
		mountOption{name: "max_batch_time", value: decimal}, mountOption{name: "min_batch_time", value: decimal},
		mountOption{name: "journal_ioprio", value: decimal}, mountOption{name: "inode_readahead_blks", value: decimal},
		mountOption{name: "max_dir_size_kb", value: decimal}, mountOption{name: "mb_optimize_scan", value: bit},
		mountOption{name: "resuid", value: decimal}, mountOption{name: "resgid", value: decimal}),
	"xfs": append(flags("nouuid", "inode64", "inode32", "largeio", "nolargeio", "swalloc", "wsync", "filestreams", "noalign",
		"quota", "noquota", "usrquota", "uquota", "uqnoenforce", "grpquota", "gquota", "gqnoenforce", "prjquota", "pquota", "pqnoenforce"),
		mountOption{name: "allocsize", value: xfsSize}, mountOption{name: "logbufs", value: decimal}, mountOption{name: "logbsize", value: xfsSize}),
}

func flags(names ...string) []mountOption {
	all := make([]mountOption, len(names))
	for i, n := range names {
		all[i].name = n
	}
	return all
}

const (
	whyReadOnly = "a new volume must be written to; give the container a read-only view with -v NAME:/path:ro"
	whyMount8   = "it is for mount(8) and /etc/fstab"
	whyOther    = "a volume is one filesystem on one device"
	whyHost     = "an error on this volume must not stop the host"
)

var mountRefused = map[string]string{
	"ro": whyReadOnly, "noload": whyReadOnly, "norecovery": whyReadOnly,
	"bind": whyMount8, "rbind": whyMount8, "move": whyMount8, "remount": whyMount8, "auto": whyMount8, "noauto": whyMount8,
	"user": whyMount8, "users": whyMount8, "nouser": whyMount8, "owner": whyMount8, "group": whyMount8, "nofail": whyMount8, "_netdev": whyMount8, "iversion": whyMount8, "noiversion": whyMount8,
	"shared": whyMount8, "private": whyMount8, "slave": whyMount8, "unbindable": whyMount8,
	"rshared": whyMount8, "rprivate": whyMount8, "rslave": whyMount8, "runbindable": whyMount8,
	"loop": whyOther, "offset": whyOther, "sizelimit": whyOther, "sb": whyOther, "journal_dev": whyOther, "journal_path": whyOther, "logdev": whyOther, "rtdev": whyOther,
	"uid": whyOwner, "gid": whyOwner, "umask": whyOwner, "fmask": whyOwner, "dmask": whyOwner, "mode": whyOwner,
	"errors": whyHost + " and must not be passed over: only errors=remount-ro is possible", "abort": "it stops the filesystem at once",
}

// splitMount splits at commas outside of double quotes, which SELinux contexts need.
func splitMount(value string) ([]string, error) {
	var parts []string
	quoted, from := false, 0
	for i, r := range value {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			parts = append(parts, value[from:i])
			from = i + 1
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed in %s", quote(value))
	}
	parts = append(parts, value[from:])
	var options []string
	for _, p := range parts {
		p = strings.TrimSpace(p)
		if p == "" {
			return nil, fmt.Errorf("%s has an empty option between commas", quote(value))
		}
		if !slices.Contains(options, p) {
			options = append(options, p)
		}
	}
	return options, nil
}

// checkMount finds out whether that filesystem may be mounted with these options.
func checkMount(fs string, options []string) error {
	allowed := slices.Concat(mountOptions[""], mountOptions[fs])
	for _, o := range options {
		name, value, has := strings.Cut(o, "=")
		at := slices.IndexFunc(allowed, func(m mountOption) bool { return m.name == name })
		if at >= 0 {
			m := allowed[at]
			if !has && (m.value == nil || m.bare) || has && m.value != nil && m.value.MatchString(value) {
				continue
			}
			if why, ok := mountRefused[name]; ok {
				return fmt.Errorf("%s is refused: %s", quote(o), why)
			}
			if m.value == nil {
				return fmt.Errorf("%s takes no value, %s has one", name, quote(o))
			}
			return fmt.Errorf("%s is not of the form that %s takes", quote(o), name)
		}
		why, known := mountRefused[name]
		switch {
		case strings.HasPrefix(strings.ToLower(name), "x-"):
			why, known = whyMount8, true
		case known:
		default:
			for other, list := range mountOptions {
				if other != "" && slices.ContainsFunc(list, func(m mountOption) bool { return m.name == name }) {
					why, known = fmt.Sprintf("it is an option of %s, and this volume has %s", other, fs), true
				}
			}
		}
		if known {
			return fmt.Errorf("%s is refused: %s", quote(o), why)
		}
		text := fmt.Sprintf("%s is not a mount option that blockvol knows for %s", quote(o), fs)
		var names []string
		for _, m := range allowed {
			names = append(names, m.name)
		}
		if near, ok := nearest(name, names); ok {
			text += fmt.Sprintf("; did you mean %s?", near)
		}
		return fmt.Errorf("%s", text)
	}
	return nil
}

package options

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mkfsFlag is one flag of mkfs that a user may give. All of them take a value.
type mkfsFlag struct {
	letter byte
	value  *regexp.Regexp // the form of the whole value, or of each part after = when there are parts
	parts  []string       // names of comma separated parts; nil if the value has none
	bare   []string       // parts that may also stand without a value
	not    bool           // parts are features: no value, ^ in front switches off
	once   bool           // mkfs uses only the last one when it is given twice
}

var (
	number  = regexp.MustCompile(`^\d{1,15}[kKmMgGtTsb]?$`)
	percent = regexp.MustCompile(`^\d{1,3}(\.\d{1,6})?$`)
	word    = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)
)

// mkfsFlags is what shapes a filesystem and nothing else, from mke2fs(8) 1.47 and mkfs.xfs(8) 6.1. What is not here is refused: a flag
// that forces or names a place would get around the rule that only a proven blank device is formatted.
var mkfsFlags = map[string][]mkfsFlag{
	"ext4": {
		{letter: 'b', value: number, once: true},
		{letter: 'C', value: number, once: true},
		{letter: 'E', value: word, once: true, bare: []string{"lazy_itable_init", "lazy_journal_init", "packed_meta_blocks"}, parts: []string{"stride", "stripe-width", "stripe_width", "resize", "lazy_itable_init", "lazy_journal_init",
			"packed_meta_blocks", "num_backup_sb", "mmp_update_interval", "quotatype", "encoding", "encoding_flags", "orphan_file_size"}},
		{letter: 'G', value: number, once: true},
		{letter: 'g', value: number, once: true},
		{letter: 'i', value: number, once: true},
		{letter: 'I', value: number, once: true},
		{letter: 'J', value: number, once: true, parts: []string{"size", "fast_commit_size"}},
		{letter: 'm', value: percent, once: true},
		{letter: 'N', value: number, once: true},
		{letter: 'O', not: true, parts: []string{"64bit", "bigalloc", "casefold", "dir_index", "dir_nlink", "ea_inode", "encrypt", "ext_attr", "extent",
			"extents", "extra_isize", "fast_commit", "filetype", "flex_bg", "has_journal", "huge_file", "inline_data", "large_dir", "large_file", "meta_bg",
			"metadata_csum", "metadata_csum_seed", "mmp", "orphan_file", "project", "quota", "resize_inode", "sparse_super", "sparse_super2", "stable_inodes",
			"uninit_bg", "verity"}},
		{letter: 'T', value: regexp.MustCompile(`^[A-Za-z0-9_,]{1,64}$`), once: true},
	},
	"xfs": {
		{letter: 'b', value: number, parts: []string{"size"}},
		{letter: 'd', value: number, bare: []string{"noalign"}, parts: []string{"agcount", "agsize", "su", "sw", "sunit", "swidth", "noalign", "extszinherit", "projinherit"}},
		{letter: 'i', value: number, parts: []string{"size", "perblock", "maxpct", "align", "attr", "projid32bit", "sparse", "nrext64"}},
		{letter: 'l', value: number, parts: []string{"size", "version", "su", "sunit", "lazy-count", "sectsize", "agnum"}},
		{letter: 'm', value: number, parts: []string{"bigtime", "finobt", "inobtcount", "reflink", "rmapbt"}},
		{letter: 'n', value: word, parts: []string{"size", "version", "ftype"}},
		{letter: 's', value: number, once: true, parts: []string{"size"}},
	},
}

// Why a flag or a part of one is refused, where "it is not in the list" says too little.
const (
	whyForce   = "blockvol formats only what it has proven to be blank, and forces nothing"
	whyDry     = "it would not make a filesystem"
	whyPlace   = "the whole filesystem lies on the volume, from its first byte to its last"
	whyDiscard = "blockvol decides about discarding: a new volume is blank, and discarding would take minutes"
	whyType    = "the filesystem is chosen by fstype"
	whyOwner   = "use the options uid, gid and mode"
	whyLabel   = "volumes are told apart by their serial number, a label could only be mistaken for another"
	whyFiles   = "it reads or writes files of the host"
)

var mkfsRefused = map[string]map[string]string{
	"ext4": {
		"F": whyForce, "n": whyDry, "S": whyForce, "t": whyType, "V": whyDry, "K": whyDiscard, "d": whyFiles, "l": whyFiles, "z": whyFiles,
		"L": whyLabel, "U": whyLabel,
		"c": "it reads or writes the whole volume", "j": "ext4 has a journal anyway",
		"discard": whyDiscard, "nodiscard": whyDiscard, "offset": whyPlace, "device": whyPlace, "location": whyPlace, "journal_dev": whyPlace,
		"root_owner": whyOwner, "root_perms": whyOwner, "assume_storage_prezeroed": whyForce, "test_fs": whyForce,
	},
	"xfs": {
		"f": whyForce, "N": whyDry, "V": whyDry, "K": whyDiscard, "p": whyFiles, "c": whyFiles, "r": whyPlace, "L": whyLabel, "uuid": whyLabel,
		"file": whyFiles, "name": whyPlace, "logdev": whyPlace, "internal": whyPlace, "rtdev": whyPlace, "crc": "old XFS without checksums cannot be mounted by newer kernels",
	},
}

// checkMkfs finds out whether mkfs of that filesystem may be called with these words.
func checkMkfs(fs string, words []string) error {
	seen := map[byte]bool{}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if strings.HasPrefix(w, "--") || !strings.HasPrefix(w, "-") || len(w) < 2 {
			return fmt.Errorf("%s is not a flag of mkfs.%s: device, size and long options are not for the user to give", quote(w), fs)
		}
		at := slices.IndexFunc(mkfsFlags[fs], func(f mkfsFlag) bool { return f.letter == w[1] })
		if at < 0 {
			// Not w[:2]: the second byte may be half of a character.
			return refuseMkfs(fs, "-"+string([]rune(w[1:])[:1]), string([]rune(w[1:])[:1]), "")
		}
		flag := mkfsFlags[fs][at]
		name := w[:2]
		if seen[flag.letter] && flag.once {
			return fmt.Errorf("%s is given twice and mkfs.%s uses only one of them: put both into one", name, fs)
		}
		seen[flag.letter] = true
		value := w[2:]
		if value == "" {
			if i++; i == len(words) {
				return fmt.Errorf("%s needs a value", name)
			}
			value = words[i]
		}
		if err := flag.check(fs, name, value); err != nil {
			return err
		}
	}
	return nil
}

func (f mkfsFlag) check(fs, name, value string) error {
	if f.parts == nil {
		if !f.value.MatchString(value) {
			return fmt.Errorf("%s cannot be the value of %s of mkfs.%s", quote(value), name, fs)
		}
		return nil
	}
	for part := range strings.SplitSeq(value, ",") {
		key, val, has := strings.Cut(part, "=")
		if f.not {
			key = strings.TrimPrefix(key, "^")
		}
		if !slices.Contains(f.parts, key) {
			return refuseMkfs(fs, name+" "+part, key, strings.Join(f.parts, ", "))
		}
		alone := f.not || slices.Contains(f.bare, key)
		if !has && !alone || has && (f.not || !f.value.MatchString(val)) {
			return fmt.Errorf("%s is not of the form that %s of mkfs.%s takes", quote(part), name, fs)
		}
	}
	return nil
}

func refuseMkfs(fs, what, key, allowed string) error {
	text := fmt.Sprintf("%s of mkfs.%s is not for the user to give", quote(what), fs)
	if why, ok := mkfsRefused[fs][key]; ok {
		text += ": " + why
	}
	if allowed == "" {
		var letters []string
		for _, f := range mkfsFlags[fs] {
			letters = append(letters, "-"+string(f.letter))
		}
		allowed = strings.Join(letters, " ")
	}
	return errors.New(text + "; possible are " + allowed)
}

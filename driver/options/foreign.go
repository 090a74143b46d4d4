package options

import (
	"fmt"
	"strings"
)

// foreign is what people bring from other plugins and tools and what blockvol does not have, with what to do instead. Names are
// compared as options are.
var foreign = []struct {
	names []string
	text  string
}{
	{[]string{"o", "device", "addr"}, "it is an option of Docker's local driver: for that, create the volume with -d local"},
	{[]string{"snapshot-name", "backup"}, "write snapshot-id=snap-... or snapshot-id=latest:NAME for the data of a snapshot, from=NAME for those of a volume"},
	{[]string{"import"}, "write volume-id=vol-... to use an EBS volume that exists"},
	{[]string{"name", "volume-name", "volume"}, "the name is the last argument of docker volume create"},
	{[]string{"delete-on-remove", "delete-on-termination", "remove-on-delete", "retain", "keep", "termination-policy", "preserve"},
		"write reclaim=retain to keep the EBS volume when the volume is removed; nothing else deletes it, neither the end of a container nor that of an instance"},
	{[]string{"backing"}, "it is an option of Cloudstor: leave it out, every blockvol volume is what Cloudstor calls relocatable " +
		"(an EBS volume that follows its container to other hosts of its zone); local and shared volumes are not supported"},
	{[]string{"perfmode", "performance-mode", "throughput-mode", "efs"}, "it is about Amazon EFS, and blockvol makes EBS volumes"},
	{[]string{"multi-attach", "multi-attach-enabled", "shared", "sharing", "share", "scope"},
		"a volume is attached to one host at a time, where any number of containers may share it"},
	{[]string{"ro", "readonly", "read-only"}, "a volume is made writable; give a container a read-only view with -v NAME:/path:ro"},
	{[]string{"volume-mode", "block", "raw"}, "a volume always has a filesystem; raw block volumes are not supported"},
	{[]string{"iops-per-gb", "iops-per-gib", "allow-auto-iops-per-gb-increase", "allow-auto-iops-increase-on-modify"},
		"it is not supported: write the number itself, iops=N"},
	{[]string{"block-express"}, "it is not supported and not needed: io2 volumes have it by themselves"},
	{[]string{"block-size", "inode-size", "bytes-per-inode", "number-of-inodes", "ext4-bigalloc", "ext4-cluster-size", "ext4-encryption-support"},
		"it is not supported: write mkfs-options, such as mkfs-options=\"-O bigalloc -C 65536\""},
	{[]string{"overwrite-fs", "force", "format", "preempt"}, "blockvol never overwrites what is on a volume and takes none away from a running host"},
	{[]string{"volume-initialization-rate", "block-attach-until-initialized", "fast-snapshot-restore"}, "it is not supported: EBS fetches the data of a snapshot as they are read"},
	{[]string{"outpost-arn"}, "volumes on Outposts are not supported"},
	{[]string{"region"}, "volumes are made in the region of the host; it cannot be chosen for one volume"},
	{[]string{"aws-profile", "access-key", "secret-key", "endpoint", "role-arn"}, "it is a setting of the plugin, not of a volume: see docker plugin set"},
	{[]string{"label", "labels", "tag", "tags", "tag-specifications", "tag-specification"}, "tags are written one by one, as tag.KEY=VALUE"},
	{[]string{"host-path", "mount-point", "mount-path", "path"}, "where the volume is mounted is said in docker run: -v NAME:/path"},
	{[]string{"csi.storage.k8s.io/"}, "it is for Kubernetes"},
}

// refusal is the sentence about an option that is not in the table; explained tells that it says what to do, so that the list of
// options is not needed.
func refusal(key, value string) (text string, explained bool) {
	folded := fold(key)
	if folded == "" {
		return fmt.Sprintf("option %s has no name: write NAME=VALUE", quote(key)), false
	}
	for _, f := range foreign {
		for _, name := range f.names {
			same := fold(name) == folded
			// Numbered ones (tagSpecification_1) and whole families (csi.storage.k8s.io/...).
			family := strings.HasPrefix(folded, fold(name)) && (strings.HasSuffix(name, "/") || digits(folded[len(fold(name)):]))
			if same || family {
				return fmt.Sprintf("option %s is not supported: %s", quote(key), f.text), true
			}
		}
	}
	if strings.HasPrefix(folded, "tag:") {
		return fmt.Sprintf("option %s is unknown: did you mean %s?", quote(key), quote(tagPrefix+strings.TrimSpace(key)[len("tag:"):])), true
	}
	var spellings []string
	canonical := map[string]string{}
	for _, opt := range table {
		for _, name := range append([]string{opt.Name}, opt.Aliases...) {
			if opt.Name != tagName {
				spellings = append(spellings, fold(name))
				canonical[fold(name)] = opt.Name
			}
		}
	}
	if near, ok := nearest(folded, spellings); ok {
		return fmt.Sprintf("option %s is unknown: did you mean %s?", quote(key), canonical[near]), false
	}
	return fmt.Sprintf("option %s is unknown", quote(key)), false
}

// nearest finds the candidate that s is most probably a misspelling of; among equals the first.
func nearest(s string, candidates []string) (string, bool) {
	best, found := 0, ""
	for _, c := range candidates {
		most := min(len(s), len(c)) / 3
		if most > 3 {
			most = 3
		}
		if most == 0 || len(s) > 2*len(c) || len(c) > 2*len(s) {
			continue
		}
		if d := distance(s, c); d <= most && (found == "" || d < best) {
			best, found = d, c
		}
	}
	return found, found != ""
}

// distance counts the insertions, deletions, changes and swaps of neighbours that make b of a.
func distance(a, b string) int {
	two, one, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(b)]
}

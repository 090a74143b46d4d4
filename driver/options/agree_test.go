package options

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
)

// A volume with a mount option that the disk side refuses would be made and could never be used.
func TestWhatIsAcceptedHereTheDiskSideAcceptsToo(t *testing.T) {
	if !slices.Equal(disk.Filesystems(), fsTypes) {
		t.Errorf("filesystems are %v there and %v here", disk.Filesystems(), fsTypes)
	}
	samples := []string{"", "1", "ordered", "ignore", "remount-ro", `"system_u:object_r:container_file_t:s0:c1,c2"`}
	for _, fs := range fsTypes {
		for _, o := range slices.Concat(mountOptions[""], mountOptions[fs]) {
			accepted := 0
			for _, s := range samples {
				option := strings.TrimSuffix(o.name+"="+s, "=")
				if checkMount(fs, []string{option}) != nil {
					continue
				}
				accepted++
				if err := disk.ValidateMountOptions([]string{option}); err != nil {
					t.Errorf("mount %s: %v", option, err)
				}
			}
			if accepted == 0 {
				t.Errorf("no sample for the mount option %s", o.name)
			}
		}
	}
	for _, s := range []string{"data", "/", "pg/data", ".x", "a/lost+found"} {
		if err := disk.ValidateSubdir(s); err != nil || setSubdir(new(Options), s) != nil {
			t.Errorf("subdir %s: %v", s, err)
		}
	}
}

// mkfs itself is asked, without making anything: a flag that it does not know would be told only at the first mount.
func TestTheToolsKnowEveryFlagThatIsAccepted(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<30); err != nil {
		t.Fatal(err)
	}
	dry := map[string]string{"ext4": "-n", "xfs": "-N"}
	// Some parts make sense only with a feature, or with another part.
	with := map[string]string{"-C ": "-O bigalloc", "quotatype": "-O quota", "encoding": "-O casefold", "encoding_flags": "-O casefold -E encoding=utf8,", "orphan_file_size": "-O orphan_file",
		"num_backup_sb": "-O sparse_super2,^resize_inode", "stripe-width": "-E stride=8,", "stripe_width": "-E stride=8,", "sparse_super2": "-O ^resize_inode", "meta_bg": "-O ^resize_inode",
		"sw": "-d su=64k,", "sunit": "-d swidth=64,", "swidth": "-d sunit=8,", "casefold": "-E encoding=utf8", "metadata_csum_seed": "-O metadata_csum"}
	samples := []string{"", "8", "64k", "512", "4096", "1", "0", "2", "12", "9", "16", "65536", "1000", "64m", "512m", "8G", "utf8", "strict", "usrquota", "ci", "largefile4"}
	asked := 0
	for fs, flags := range mkfsFlags {
		for _, f := range flags {
			parts := f.parts
			if parts == nil {
				parts = []string{""}
			}
			for _, part := range parts {
				extra := with[part]
				if part == "" {
					extra = with["-"+string(f.letter)+" "]
				}
				var said string
				understood := slices.ContainsFunc(samples, func(sample string) bool {
					flag := "-" + string(f.letter)
					before := strings.Fields(extra)
					value := strings.Trim(part+"="+sample, "=")
					if strings.HasSuffix(extra, ",") { // more parts of one value
						if before[len(before)-2] == flag {
							value = before[len(before)-1] + value
							before = before[:len(before)-2]
						} else {
							before = nil
						}
					}
					words := append(before, flag, value)
					if checkMkfs(fs, words) != nil {
						return false
					}
					asked++
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					out, err := exec.CommandContext(ctx, "mkfs."+fs, slices.Concat([]string{dry[fs]}, words, []string{image})...).CombinedOutput()
					said = strings.Join(words, " ") + ": " + string(out)
					return err == nil
				})
				if !understood {
					t.Errorf("mkfs.%s does not take -%c %s; the last try was\n%s", fs, f.letter, part, said)
				}
			}
		}
	}
	if asked < 50 {
		t.Errorf("mkfs was asked only %d times", asked)
	}
}

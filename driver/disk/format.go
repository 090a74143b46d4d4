package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// FormatOptions is how a filesystem is made.
type FormatOptions struct {
	Label string
	// Args are more options for mkfs, each "-x", "value" or "-xvalue". Those that would force, or lead elsewhere than to the whole
	// device, are refused here too, whatever was checked before.
	Args []string
	// Overwrite makes it over what an earlier mkfs, cut in the middle, has left.
	Overwrite bool
}

// Format makes a filesystem on a device and returns when it is found there. Whether that is allowed is decided before, by Decide. An
// error carries the tool's own text. When ctx ends the tool is killed, and the device holds parts of a filesystem.
func (h *Host) Format(ctx context.Context, d Device, fstype string, o FormatOptions) error {
	fs, err := lookup(fstype)
	if err != nil {
		return err
	}
	args, err := fs.formatArgs(o)
	if err != nil {
		return fmt.Errorf("format %s: %w", d, err)
	}
	f, err := h.open(d, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	defer f.Close()
	r, err := h.run(ctx, f, tool{fs.mkfs, args})
	if err != nil {
		return fmt.Errorf("format %s: %w", d, err)
	}
	if r.code != 0 {
		return fmt.Errorf("format %s: %s failed (%s): %s", d, fs.mkfs, r.state, r.said())
	}
	known, err := h.blkid(ctx, d)
	if err != nil {
		return fmt.Errorf("format %s: %s succeeded, but the result cannot be looked at: %w", d, fs.mkfs, err)
	}
	if known.kind != fstype {
		return fmt.Errorf("format %s: %s succeeded, but the device then %s", d, fs.mkfs, known)
	}
	return nil
}

func (s signature) String() string {
	if s.kind == "" {
		return "shows no filesystem"
	}
	return s.detail
}

// formatArgs puts a command line together.
func (fs *filesystem) formatArgs(o FormatOptions) ([]string, error) {
	if err := fs.validateArgs(o.Args); err != nil {
		return nil, err
	}
	if len(o.Label) > fs.labelMax || strings.ContainsFunc(o.Label, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return nil, fmt.Errorf("%w: the label %q must have at most %d bytes, without control characters", ErrOption, o.Label, fs.labelMax)
	}
	args := slices.Clone(fs.mkfsArgs)
	if o.Overwrite {
		args = append(args, fs.overwrite...)
	}
	if o.Label != "" {
		args = append(args, fs.labelFlag, o.Label)
	}
	for flag, value := range flags(o.Args) {
		if flag == fs.extended {
			i := slices.Index(args, flag)
			args[i+1] += "," + value
			continue
		}
		args = append(args, flag, value)
	}
	return append(args, toolFD), nil
}

// validateArgs lets through only options that shape the filesystem.
func (fs *filesystem) validateArgs(args []string) error {
	for flag, value := range flags(args) {
		if len(flag) != 2 || flag[0] != '-' || !strings.Contains(fs.mkfsFlags, flag[1:]) {
			return fmt.Errorf("%w: %q is not an option that %s may be given; possible: -%s", ErrOption, flag, fs.mkfs, strings.Join(strings.Split(fs.mkfsFlags, ""), " -"))
		}
		if value == "" || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%w: %s of %s needs a value", ErrOption, flag, fs.mkfs)
		}
		for part := range strings.SplitSeq(value, ",") {
			key, _, _ := strings.Cut(strings.TrimPrefix(part, "^"), "=")
			if slices.Contains(fs.forbidden, strings.TrimSpace(key)) {
				return fmt.Errorf("%w: %s of %s may not contain %q: the filesystem is the whole device and nothing else", ErrOption, flag, fs.mkfs, key)
			}
		}
	}
	return nil
}

// flags goes through options and their values. What is no option comes as one with an empty value, and fits no table.
func flags(args []string) func(yield func(flag, value string) bool) {
	return func(yield func(string, string) bool) {
		for i := 0; i < len(args); i++ {
			a := args[i]
			var value string
			switch {
			case len(a) < 2 || a[0] != '-' || a[1] == '-':
			case len(a) > 2:
				a, value = a[:2], a[2:]
			case i+1 < len(args):
				i++
				value = args[i]
			}
			if !yield(a, value) {
				return
			}
		}
	}
}

// errNotChecked says that a check could not be done, because the device is in use or holds no such filesystem.
var errNotChecked = errors.New("the filesystem could not be checked")

// Check checks a filesystem that is not mounted, and repairs what can be repaired without a decision, after the kernel has replayed its
// journal. More damage than that is ErrDamaged with the tool's text. A check that could not be done is another error. Types that recover by mounting are not checked.
func (h *Host) Check(ctx context.Context, d Device, fstype string) error {
	fs, err := lookup(fstype)
	if err != nil {
		return err
	}
	if fs.check == "" {
		return nil
	}
	f, err := h.open(d, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer f.Close()
	if err := h.replay(ctx, f, d, fs); err != nil {
		return fmt.Errorf("check %s: %w", d, err)
	}
	r, err := h.run(ctx, f, tool{fs.check, append(slices.Clone(fs.checkArgs), toolFD)})
	if err != nil {
		return fmt.Errorf("check %s: %w", d, err)
	}
	if r.code < 0 || r.code > fs.checkGood {
		kind := errNotChecked
		if r.code > 0 && r.code&fs.checkDamage != 0 {
			kind = ErrDamaged
		}
		return fmt.Errorf("check %s: %w: %s %s ended with %s: %s", d, kind, fs.check, strings.Join(fs.checkArgs, " "), r.state, r.said())
	}
	if r.code != 0 {
		h.log().WithField("device", d.Path).Warnf("%s repaired the filesystem: %s", fs.check, r.said())
	}
	return nil
}

package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// states are all kinds of tags, and the actions that each allows, by what Inspect found: an action for a kind, "data", "blank",
// "unreadable"; what is not named is refused.
var states = []struct {
	tag, want string
	snapshot  bool
	allows    map[string]Action
}{
	{tag: "none", want: "ext4", allows: map[string]Action{"blank": Format}},
	{tag: "none", want: "xfs", allows: map[string]Action{"blank": Format}},
	{tag: "none", want: "ext4", snapshot: true},
	{tag: "none", want: "btrfs"},
	{tag: "none", want: ""},
	{tag: "formatting:i-self", want: "ext4", allows: map[string]Action{"blank": FormatAgain, KindData: FormatAgain, "ext4": FormatAgain}},
	{tag: "formatting:i-other", want: "xfs", allows: map[string]Action{"blank": FormatAgain, KindData: FormatAgain, "xfs": FormatAgain}},
	{tag: "formatting:i-self", want: "ext4", snapshot: true},
	{tag: "formatting:i-self", want: "btrfs"},
	{tag: "formatting:", want: "ext4"},
	{tag: "formatting", want: "ext4"},
	{tag: "ext4", want: "ext4", allows: map[string]Action{"ext4": Mount}},
	{tag: "ext4", want: "xfs", snapshot: true, allows: map[string]Action{"ext4": Mount}},
	{tag: "xfs", want: "xfs", allows: map[string]Action{"xfs": Mount}},
	{tag: "", want: "ext4"}, // also a foreign volume
	{tag: "btrfs", want: "ext4"},
	{tag: "EXT4", want: "ext4"},
	{tag: "None", want: "ext4"},
	{tag: " none", want: "ext4"},
}

// The table of the format rule: what may be on a device, in each state of the tag. Whatever the answer is, looking changes no byte.
func TestOnlyWhatTheRuleAllowsIsDoneAndNothingIsChangedByLooking(t *testing.T) {
	for i, img := range images {
		t.Run(img.name, func(t *testing.T) {
			m := newMachine(t)
			d, _, image := m.present(i)
			before := sum(t, image)
			if blank := strings.HasSuffix(before, strings.SplitAfter(sum(t, m.image(imageSize)), ", ")[1]); blank != (img.kind == "blank") && img.cut == 0 {
				t.Fatalf("the image is blank: %v", blank)
			}
			for _, s := range states {
				c, readErr := m.Inspect(soon(t), d)
				kind := c.Kind
				switch {
				case readErr != nil:
					kind = "unreadable"
					if !errors.Is(readErr, ErrUnreadable) {
						t.Fatal(readErr)
					}
				case c.Blank:
					kind = "blank"
				}
				if kind != img.kind || !strings.Contains(c.Detail+fmt.Sprint(readErr), img.says) {
					t.Fatalf("found %+v, %v; want %s with %q", c, readErr, img.kind, img.says)
				}
				got := Decide(s.tag, "i-self", s.snapshot, s.want, c, readErr)
				if got.Action != s.allows[kind] {
					t.Errorf("tag %q, want %q, snapshot %v: %v (%s)", s.tag, s.want, s.snapshot, got.Action, got.Reason)
				}
				if got.Reason == "" || strings.Contains(got.Reason, "%!") {
					t.Errorf("tag %q: reason %q", s.tag, got.Reason)
				}
				if got.Action == Refuse && kind == "unreadable" && !strings.Contains(got.Reason, "byte") {
					t.Errorf("tag %q: where it could not be read is not told: %s", s.tag, got.Reason)
				}
			}
			if sum(t, image) != before {
				t.Error("looking has changed the device")
			}
		})
	}
}

// What Inspect cannot see, said openly: data of less than the distance of the probes that begins at none of the known places.
func TestDataBetweenTheProbesIsNotSeen(t *testing.T) {
	m := newMachine(t)
	size := 4 * gib
	var gap int64 = -1
	list := spans(size)
	for i, s := range list[1:] {
		if s.off-(list[i].off+list[i].len) >= mib {
			gap = list[i].off + list[i].len
			break
		}
	}
	image := m.image(size)
	patch(t, image, gap, []byte("not at any probed place"))
	d, _ := m.over(image)
	c, err := m.Inspect(soon(t), d)
	must(t, err)
	if !c.Blank {
		t.Errorf("seen: %+v", c)
	}
}

func TestADeviceThatLostItsStorageIsUnreadable(t *testing.T) {
	m := newMachine(t)
	d, l := m.disk(64 * mib)
	l.limit(t, 32*mib)
	if c, err := m.Inspect(soon(t), d); !errors.Is(err, ErrUnreadable) || c.Blank {
		t.Errorf("half of it: %+v, %v", c, err)
	}
	l.limit(t, 512) // what stays of a device is one sector of zeroes
	if c, err := m.Inspect(soon(t), d); !errors.Is(err, ErrUnreadable) || c.Blank {
		t.Errorf("found with its size: %+v, %v", c, err)
	}
	d.Size = 512
	if c, err := m.Inspect(soon(t), d); !errors.Is(err, ErrUnreadable) || c.Blank {
		t.Errorf("found with one sector: %+v, %v", c, err)
	}
}

func TestAReadErrorNamesItsPlaceAndCause(t *testing.T) {
	m := newMachine(t)
	d, l := m.disk(64 * mib)
	must(t, os.Truncate(l.image, 40*mib))
	_, err := m.Inspect(soon(t), d)
	var r *ReadError
	if !errors.As(err, &r) || r.Offset < 40*mib || r.Offset > 41*mib || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), d.Path) {
		t.Errorf("%v", err)
	}
}

// Whatever blkid could read.
func TestTheEndsOfAKnownFilesystemMustBeReadable(t *testing.T) {
	for _, cut := range []int64{512, 64 * mib} {
		m := newMachine(t)
		d, l := m.disk(64 * mib)
		m.fakeTool("blkid", "echo TYPE=ext4")
		if c, err := m.Inspect(soon(t), d); err != nil || c.Kind != "ext4" {
			t.Errorf("%+v, %v", c, err)
		}
		must(t, os.Truncate(l.image, 64*mib-cut))
		if c, err := m.Inspect(soon(t), d); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

func TestInspectEndsWithItsContext(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := m.Inspect(ctx, d); !errors.Is(err, context.Canceled) || c.Blank {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestBlkidsAnswersAreReadWithCare(t *testing.T) {
	for _, c := range []struct {
		r    toolResult
		kind string
		err  error
	}{
		{toolResult{code: 2}, "", nil},
		{toolResult{code: 2, stderr: "blkid: error: /dev/x: Input/output error"}, "", ErrUnreadable},
		{toolResult{code: 8, stderr: "blkid: /dev/x: ambivalent result"}, KindSeveral, nil},
		{toolResult{code: 0, stdout: "DEVNAME=/dev/x\nTYPE=ext4\n"}, "ext4", nil},
		{toolResult{code: 0, stdout: "DEVNAME=/dev/x\nPTTYPE=gpt\nPTUUID=1\n"}, "gpt", nil},
		{toolResult{code: 0, stdout: "TYPE=vfat\nPTTYPE=dos\n"}, "vfat", nil},
		{toolResult{code: 0, stdout: "DEVNAME=/dev/x\n"}, KindSeveral, nil},
		{toolResult{code: 0}, KindSeveral, nil},
		{toolResult{code: 4, state: "exit status 4"}, "", errors.New("any")},
		{toolResult{code: -1, state: "signal: killed"}, "", errors.New("any")},
	} {
		got, err := readBlkid(c.r)
		switch {
		case c.err == nil && err != nil, c.err != nil && err == nil, c.err == ErrUnreadable && !errors.Is(err, ErrUnreadable):
			t.Errorf("%+v: %v", c.r, err)
		case got.kind != c.kind:
			t.Errorf("%+v: %+v", c.r, got)
		}
	}
}

// The probes of every size: in order, inside the device, aligned, without overlap, and over the places that must be read.
func TestTheProbesCoverTheKnownPlaces(t *testing.T) {
	for _, size := range []int64{2 * mib, 16 * mib, 16*mib + 512, 64 * mib, gib, 16*gib + 512*7, 100 * gib, 5 * tib, 64 * tib} {
		list := spans(size)
		end := int64(-1)
		var total int64
		for _, s := range list {
			if s.off <= end || s.len <= 0 || s.off%align != 0 || s.len%512 != 0 || s.off+s.len > size {
				t.Fatalf("size %d: span %+v after %d", size, s, end)
			}
			end = s.off + s.len
			total += s.len
		}
		if end != size {
			t.Errorf("size %d: the last probe ends at %d", size, end)
		}
		if n := len(list); n > 700 || total > 24*mib {
			t.Errorf("size %d: %d probes, %d bytes", size, n, total)
		}
		covered := func(off, n int64) bool {
			for _, s := range list {
				if s.off <= off && off+n <= s.off+s.len {
					return true
				}
			}
			return false
		}
		places := map[string]int64{
			"start": 0, "last sector": size - 512, "GPT's second table": size - 33*512, "md 0.90": size/(64*kib)*(64*kib) - 64*kib,
			"md 1.0": (size - 8*kib) / (4 * kib) * (4 * kib), "ZFS label 2": size/(256*kib)*(256*kib) - 512*kib, "ZFS label 3": size/(256*kib)*(256*kib) - 256*kib,
			"ext, block 8193 of 1 KiB": 8193 * kib, "ext, block 16384 of 2 KiB": 32 * mib, "ext, block 32768 of 4 KiB": 128 * mib,
			"ext, group 49": 49 * 128 * mib, "ext, group 81": 81 * 128 * mib, "ext, group 125": 125 * 128 * mib,
			"xfs, second of 4 groups": (size/4096 + 3) / 4 * 4096, "xfs at 1 TiB": tib, "xfs at 3 TiB": 3 * tib, "btrfs": 64 * kib, "btrfs, second": 64 * mib, "btrfs, third": 256 * gib,
			"first partition": mib, "LUKS2, second header": 4 * mib, "the middle": size / 256 * 128,
		}
		for name, off := range places {
			if off+512 <= size && !covered(off, 512) {
				t.Errorf("size %d: %s at %d is not probed", size, name, off)
			}
		}
	}
}

// Whoever reads a refusal learns what was found and what to do.
func TestARefusalNamesWhatWasFoundAndTheWayOut(t *testing.T) {
	data := Content{Kind: KindData, Detail: "bytes that no known format explains, the first seen at byte 5"}
	luks := Content{Kind: "crypto_LUKS", Detail: "is crypto_LUKS"}
	xfs := Content{Kind: "xfs", Detail: "is xfs, UUID 1"}
	blank := Content{Blank: true, Detail: "all probes are zero"}
	unread := &ReadError{"/dev/nvme1n1", 7, unix.EIO}
	for _, c := range []struct {
		tag      string
		snapshot bool
		content  Content
		err      error
		says     []string
	}{
		{"none", false, data, nil, []string{"never formatted", "byte 5", "create it again"}},
		{"none", false, luks, nil, []string{"crypto_LUKS", "cannot use that", "create it again"}},
		{"none", false, xfs, nil, []string{"is xfs", "blockvol:fs to xfs"}},
		{"none", true, blank, nil, []string{"snapshot", "blank", "blockvol:fs to none"}},
		{"none", false, Content{}, unread, []string{"/dev/nvme1n1", "byte 7", "input/output error", "try again"}},
		{"formatting:i-1", false, luks, nil, []string{"this host", "crypto_LUKS", "cannot have left"}},
		{"formatting:i-2", false, xfs, nil, []string{"host i-2", "is xfs", "blockvol:fs to xfs"}},
		{"ext4", false, data, nil, []string{"says ext4", "damaged or wiped; not formatted; try e2fsck -b 32768", "byte 5"}},
		{"xfs", false, data, nil, []string{"says xfs", "xfs_repair"}},
		{"ext4", false, xfs, nil, []string{"says ext4", "is xfs", "blockvol:fs to xfs"}},
		{"ext4", false, blank, nil, []string{"says ext4", "blank", "snapshot"}},
		{"", false, xfs, nil, []string{"no tag", "is xfs", "blockvol:fs to xfs"}},
		{"", false, Content{}, unread, []string{"no tag", "byte 7", "try again"}},
		{"zfs", false, xfs, nil, []string{`"zfs"`, "ext4, xfs", "is xfs"}},
	} {
		got := Decide(c.tag, "i-1", c.snapshot, "ext4", c.content, c.err)
		for _, w := range c.says {
			if got.Action != Refuse || !strings.Contains(got.Reason, w) {
				t.Errorf("tag %q, %+v: %v, %q is missing in: %s", c.tag, c.content, got.Action, w, got.Reason)
			}
		}
	}
}

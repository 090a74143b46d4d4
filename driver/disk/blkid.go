package disk

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// signature is what blkid knows of a device; an empty kind is nothing.
type signature struct {
	kind, uuid, label, detail string
}

// blkid's exit codes when probing (blkid(8)). Two also means that the device cannot be read: only with the probes' own reads is
// it nothing.
const (
	blkidFound   = 0
	blkidNothing = 2
	blkidSeveral = 8
)

// blkid asks blkid -p, which looks at the device and at no cache.
func (h *Host) blkid(ctx context.Context, d Device) (signature, error) {
	f, err := h.open(d, unix.O_RDONLY)
	if err != nil {
		return signature{}, err
	}
	defer f.Close()
	r, err := h.run(ctx, f, tool{"blkid", []string{"-p", "-o", "export", toolFD}})
	if err != nil {
		return signature{}, err
	}
	return readBlkid(r)
}

// readBlkid reads the answer of blkid -p -o export.
func readBlkid(r toolResult) (signature, error) {
	switch r.code {
	case blkidFound:
	case blkidNothing:
		// It says why when it could not open or read; found nothing it says nothing.
		if strings.TrimSpace(r.stdout+r.stderr) != "" {
			return signature{}, fmt.Errorf("%w: blkid: %s", ErrUnreadable, r.said())
		}
		return signature{}, nil
	case blkidSeveral:
		return signature{kind: KindSeveral, detail: "blkid finds marks of more than one format (wipefs -n lists them)"}, nil
	default:
		return signature{}, fmt.Errorf("blkid failed (%s): %s", r.state, r.said())
	}
	v := map[string]string{}
	for line := range strings.Lines(r.stdout) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			v[key] = unescape(value)
		}
	}
	s := signature{kind: v["TYPE"], uuid: v["UUID"], label: v["LABEL"]}
	what := "is " + s.kind
	if table := v["PTTYPE"]; table != "" {
		if s.kind == "" {
			s.kind, s.uuid, what = table, v["PTUUID"], "has a partition table ("+table+")"
		} else {
			what += " and has a partition table (" + table + ")"
		}
	}
	if s.kind == "" {
		return signature{kind: KindSeveral, detail: "blkid finds something without naming its type: " + r.said()}, nil
	}
	s.detail = what
	if s.label != "" {
		s.detail += fmt.Sprintf(", label %q", s.label)
	}
	if s.uuid != "" {
		s.detail += ", UUID " + s.uuid
	}
	return s, nil
}

// unescape undoes the backslashes of -o export.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

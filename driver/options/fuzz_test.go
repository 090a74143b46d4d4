package options

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// request makes a request of lines key=value.
func request(text string) m {
	r := m{}
	for _, line := range strings.Split(text, "\x1e") {
		k, v, _ := strings.Cut(line, "=")
		r[k] = v
	}
	return r
}

func FuzzParse(f *testing.F) {
	for _, opt := range Table() {
		f.Add(opt.Name+"="+opt.Values, opt.Name+"="+opt.Default)
	}
	f.Add("size=1.5T\x1etype=IO2\x1eiops=4000", "size=1 mkfs-options='-O bigalloc -C 65536'")
	f.Add("fs=xfs\x1emkfs-options=-m reflink=0 -d 'agcount=8'\x1emount-options=context=\"a:b:c:s0:c1,c2\",noatime", "")
	f.Add("mode=1777\x1euid=4294967294\x1egid=0\x1esubdir=a/b\x1etag.K=v\x1eTAG.k=", "tag.env=prod encrypted")
	f.Add("mode=493\x1ekms-key-id=alias/x\x1eencrypted=no", "type=st1 size=200")
	f.Add("-\xff=\xff\x1emkfs-options=-\xc3", "\"")
	f.Fuzz(func(t *testing.T, text, setting string) {
		defaults, err := ParseDefaults(setting)
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Fatalf("not UTF-8: %q", err)
			}
			defaults = nil
		}
		r := request(text)
		o, err := Parse(r, defaults)
		if err != nil {
			var e *Error
			switch {
			case IsHelp(err):
			case !errors.As(err, &e) || len(e.Problems) == 0:
				t.Fatalf("%q: not an *Error: %v", r, err)
			case !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x00\r\x1b"):
				t.Fatalf("%q: the text cannot be printed: %q", r, err)
			}
			if !reflect.DeepEqual(o, Options{}) {
				t.Fatalf("%q: options in spite of an error: %+v", r, o)
			}
			return
		}
		s := o.Spec("v", "z")
		if o.Adopts() {
			if s.Attrs = o.Adoption("vol-1", "v").Attrs; s.Attrs["fs"] != FSAdopted || s.Attrs["subdir"] == "" || s.Attrs["reclaim"] == "" {
				t.Fatalf("%q: %+v", r, s.Attrs)
			}
		} else if s.SizeGiB < 1 || s.SizeGiB > 65536 || s.Attrs["fs"] != "none" || s.Attrs["fstype"] == "" || s.Attrs["subdir"] == "" {
			t.Fatalf("%q: %+v", r, s)
		}
		for k, v := range s.Attrs {
			if v == "" || len(v) > maxTagValue || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Fatalf("%q: attribute %s is %q", r, k, v)
			}
		}
		for k, v := range s.Tags {
			if k == "" || k == "Name" || utf8.RuneCountInString(k) > maxTagKey || utf8.RuneCountInString(v) > maxTagValue {
				t.Fatalf("%q: tag %q=%q", r, k, v)
			}
		}
		l, err := FromAttrs(s.Attrs)
		if err != nil || !reflect.DeepEqual(l, o.Layout()) {
			t.Fatalf("%q: %v became %+v, %v, want %+v", r, s.Attrs, l, err, o.Layout())
		}
		for _, w := range l.MkfsOptions {
			if strings.Contains(w, "/") || strings.HasPrefix(w, "-F") || l.FSType == "xfs" && strings.HasPrefix(w, "-f") {
				t.Fatalf("%q reaches mkfs", w)
			}
		}
		again, err := Parse(r, defaults)
		if err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%q: the second time %+v, %v", r, again, err)
		}
	})
}

func FuzzWordsComeBack(f *testing.F) {
	f.Add("-O 'a b' \"c\\\"d\" e\\ f ''")
	f.Fuzz(func(t *testing.T, s string) {
		words, err := splitWords(s)
		if err != nil {
			return
		}
		if back, err := splitWords(joinWords(words)); err != nil || !reflect.DeepEqual(back, words) {
			t.Fatalf("%q: %q came back as %q, %v", s, words, back, err)
		}
	})
}

package options

import (
	"errors"
	"fmt"
	"strings"
)

// splitWords splits as a shell does: white space separates, single quotes keep everything, double quotes keep everything but a
// backslash before a quote or a backslash, a backslash elsewhere keeps the next character. Nothing is expanded.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	in := false // inside a word, which may still be empty
	quoted := rune(0)
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			if quoted == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quoted != '\'':
			in, escaped = true, true
		case quoted != 0:
			if r == quoted {
				quoted = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			in, quoted = true, r
		case strings.ContainsRune(" \t\r\n", r):
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	switch {
	case quoted != 0:
		return nil, fmt.Errorf("a quote (%c) is not closed in %s", quoted, quote(s))
	case escaped:
		return nil, errors.New("a backslash at the end has nothing to keep")
	case in:
		words = append(words, word.String())
	}
	return words, nil
}

// joinWords is the inverse of splitWords.
func joinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsAny(w, " \t\r\n'\"\\") {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// ParseDefaults reads the setting DEFAULT_OPTIONS: key=value separated by white space, values with spaces in quotes as in a shell
// ("mkfs-options=-O bigalloc -C 65536"). Every option and every value is checked as far as it can be alone, and an error names the
// entry; what several options make together is checked by Parse, because a request may still change it.
func ParseDefaults(s string) (map[string]string, error) {
	words, err := splitWords(s)
	if err != nil {
		return nil, err
	}
	return parseEntries(words)
}

// parseEntries reads options of an administrator, each written key=value, and brings them under their canonical names.
func parseEntries(words []string) (map[string]string, error) {
	defaults := make(map[string]string, len(words))
	entries := map[string]entry{}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		fail := func(format string, args ...any) error {
			return fmt.Errorf("entry %s: %s", quote(word), fmt.Sprintf(format, args...))
		}
		opt, name, known := lookup(key)
		switch {
		case !known:
			text, _ := refusal(key, value)
			return nil, fail("%s", text)
		case opt.perVolume != "":
			return nil, fail("%s is no default: %s", name, opt.perVolume)
		case !ok && !opt.bare:
			return nil, fail("it is not of the form key=value; a value with spaces is put in quotes")
		}
		if before, twice := entries[name]; twice && before.value != value {
			return nil, fail("%s is already %s", name, quote(before.value))
		}
		entries[name] = entry{opt: opt, key: key, value: value}
		if problems, _ := new(Options).fill(map[string]entry{name: entries[name]}); len(problems) > 0 {
			return nil, fail("%s", strings.Join(problems, "; "))
		}
		defaults[name] = value
	}
	return defaults, nil
}

package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// page is one of the documents, as the tests of documents read it.
type page struct {
	path  string // from the project's root, with slashes
	lines []string
}

// pagesOf returns all documents for people: those in the project's root, and docs.
func pagesOf(t *testing.T) []page {
	t.Helper()
	var found []page
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, page{path: filepath.ToSlash(p), lines: strings.Split(string(b), "\n")})
		}
	}
	return found
}

// prose returns the page without its code blocks and code in the text, which may look like links and headings.
func (p page) prose() []string {
	code := regexp.MustCompile("`[^`]*`")
	var lines []string
	fenced := false
	for _, l := range p.lines {
		switch {
		case strings.HasPrefix(strings.TrimSpace(l), "```"):
			fenced = !fenced
			l = ""
		case fenced || strings.HasPrefix(l, "    "):
			l = ""
		case strings.HasPrefix(l, "#"): // code in a heading is part of its anchor
		default:
			l = code.ReplaceAllString(l, "")
		}
		lines = append(lines, l)
	}
	return lines
}

// anchors returns the anchors that GitHub makes of the page's headings: lower case, without punctuation, spaces as dashes.
func (p page) anchors() []string {
	var all []string
	for _, l := range p.prose() {
		title := strings.TrimLeft(l, "#")
		if title == l || !strings.HasPrefix(title, " ") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.TrimSpace(title))
		unique := anchor
		for n := 1; slices.Contains(all, unique); n++ {
			unique = fmt.Sprintf("%s-%d", anchor, n)
		}
		all = append(all, unique)
	}
	return all
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// links returns the targets of the page's links to other files, from the project's root, and the anchors behind them.
func (p page) links() [][2]string {
	var all [][2]string
	for _, m := range link.FindAllStringSubmatch(strings.Join(p.prose(), "\n"), -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		file, anchor, _ := strings.Cut(m[1], "#")
		if file == "" {
			file = p.path
		} else {
			file = path.Join(path.Dir(p.path), file)
		}
		all = append(all, [2]string{file, anchor})
	}
	return all
}

func TestLinksInTheDocumentsLeadSomewhere(t *testing.T) {
	all := pagesOf(t)
	anchors := map[string][]string{}
	for _, p := range all {
		anchors[p.path] = p.anchors()
	}
	n := 0
	for _, p := range all {
		for _, to := range p.links() {
			n++
			if _, err := os.Stat(to[0]); err != nil {
				t.Errorf("%s has a link to %s, which does not exist", p.path, to[0])
			} else if to[1] != "" && !slices.Contains(anchors[to[0]], to[1]) {
				t.Errorf("%s has a link to #%s in %s, which has only %q", p.path, to[1], to[0], anchors[to[0]])
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d links were found", n)
	}
}

func TestTheIndexOfTheDocumentsHasEveryPage(t *testing.T) {
	linked := map[string]bool{}
	for _, p := range pagesOf(t) {
		if p.path != "docs/README.md" {
			continue
		}
		for _, to := range p.links() {
			linked[to[0]] = true
		}
	}
	files, err := filepath.Glob("docs/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f = filepath.ToSlash(f); f != "docs/README.md" && !linked[f] {
			t.Errorf("docs/README.md does not name %s", f)
		}
	}
}

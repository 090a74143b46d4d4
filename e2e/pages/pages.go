// Package pages reads the code blocks of the documents, for the tests that run what is in them.
//
// A block is indented by four spaces, or fenced. A comment before it, which readers do not see, says what a test does with it:
//
//	<!-- run -->             its commands are run, each must succeed
//	<!-- run: COMMAND -->    the same, after COMMAND, which makes what a reader is supposed to have
//	<!-- file: NAME -->      it is a file of that name, for the commands that follow on the page
//	<!-- shown -->           it is what something prints, no command
//
// All that is run of one page is run in one folder, in the order of the page. Commands without a mark need a reason in the list of
// commands_test.go in the project's root.
package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Block is a code block of a document.
type Block struct {
	Page  string   // the document, from the project's root
	Line  int      // where the block begins, from 1
	Lang  string   // what the fence says, such as yaml; empty for an indented block
	Mark  string   // run, file or shown; empty without a comment
	Arg   string   // what the comment says behind the colon
	Lines []string // without indentation
}

// IsShell says whether the block can hold commands: it is indented, or says sh.
func (b Block) IsShell() bool { return b.Lang == "" || b.Lang == "sh" }

// Commands returns the commands of the block, with continued lines joined, and without comments and empty lines.
func (b Block) Commands() []string {
	var all []string
	open := false
	for _, l := range b.Lines {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") && !open {
			continue
		}
		more := strings.HasSuffix(l, `\`)
		l = strings.TrimSpace(strings.TrimSuffix(l, `\`))
		if open {
			all[len(all)-1] += " " + l
		} else {
			all = append(all, l)
		}
		open = more
	}
	return all
}

// Blocks returns all code blocks of README.md and docs, page by page.
func Blocks(root string) ([]Block, error) {
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	var all []Block
	for _, p := range append([]string{filepath.Join(root, "README.md")}, paths...) {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return nil, err
		}
		all = append(all, blocks(filepath.ToSlash(name), strings.Split(string(text), "\n"))...)
	}
	return all, nil
}

var comment = regexp.MustCompile(`^<!-- (run|file|shown)(?:: (.*))? -->$`)

func blocks(page string, lines []string) []Block {
	var all []Block
	mark, arg := "", ""
	for i := 0; i < len(lines); i++ {
		trimmed := strings.TrimSpace(lines[i])
		if trimmed == "" {
			continue
		}
		if m := comment.FindStringSubmatch(trimmed); m != nil {
			mark, arg = m[1], m[2]
			continue
		}
		b := Block{Page: page, Line: i + 1, Mark: mark, Arg: arg}
		mark, arg = "", ""
		lang, fenced := strings.CutPrefix(trimmed, "```")
		switch {
		case fenced:
			b.Lang = lang
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
				b.Lines = append(b.Lines, lines[i])
			}
		case i > 0 && strings.TrimSpace(lines[i-1]) == "" && strings.HasPrefix(lines[i], "    "):
			for ; i < len(lines) && (strings.HasPrefix(lines[i], "    ") || strings.TrimSpace(lines[i]) == ""); i++ {
				b.Lines = append(b.Lines, strings.TrimPrefix(lines[i], "    "))
			}
			i--
			for strings.TrimSpace(b.Lines[len(b.Lines)-1]) == "" {
				b.Lines = slices.Delete(b.Lines, len(b.Lines)-1, len(b.Lines))
			}
		default:
			continue
		}
		all = append(all, b)
	}
	return all
}

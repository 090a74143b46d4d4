package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]|\$\{?[a-zA-Z0-9_]+[^ }]*\}?`)

// said returns all texts that the code and the scripts can say, with "..." for what is filled in.
func said(t *testing.T) []string {
	t.Helper()
	var texts []string
	add := func(s string) { texts = append(texts, verb.ReplaceAllString(s, "...")) }
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "build" || path == ".git" || path == "e2e"):
			return fs.SkipDir
		case strings.HasPrefix(path, "scripts/") && !d.IsDir():
			b, err := os.ReadFile(path)
			for _, line := range strings.Split(string(b), "\n") {
				add(line)
			}
			return err
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			if text, literal := spoken(e); literal {
				add(text)
				return false
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// spoken is the text of a string literal, or of several that are added up, with "..." for what is no literal.
func spoken(e ast.Expr) (text string, ok bool) {
	switch x := e.(type) {
	case *ast.BasicLit:
		if x.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(x.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		a, okA := spoken(x.X)
		b, okB := spoken(x.Y)
		if x.Op != token.ADD || !okA && !okB {
			return "", false
		}
		if !okA {
			a = "..."
		}
		if !okB {
			b = "..."
		}
		return a + b, true
	}
	return "", false
}

// quoted are the messages of a page: what stands in backquotes in the first column of its tables of messages.
func quoted(page string) (messages []string) {
	inTable := false
	for _, line := range strings.Split(page, "\n") {
		switch {
		case strings.HasPrefix(line, "| message |"):
			inTable = true
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case inTable:
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(line, " | ")[0], -1) {
				messages = append(messages, m[1])
			}
		}
	}
	return messages
}

// says tells whether a text has all parts of a message, in order.
func says(text, message string) bool {
	for _, part := range strings.Split(message, "...") {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

func TestEveryMessageOnThePageOfTroublesIsOneThatTheCodeSays(t *testing.T) {
	page, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := said(t)
	messages := quoted(string(page))
	if len(messages) < 80 {
		t.Errorf("only %d messages are on the page", len(messages))
	}
	for _, m := range messages {
		found := false
		for _, text := range texts {
			found = found || says(text, m)
		}
		if !found {
			t.Errorf("nothing in the code says %q", m)
		}
	}
}

// What a person meets in an emergency must be on the page.
var important = []string{
	"exists already", "vanished while it was being created: EC2 removes", "is in state error", "times in this cluster", "it is released when the last one has ended",
	"while it runs, nothing proves that it does not write", "hibernated or possibly so", "only in its own zone", "no Nitro type", "can take no more volumes",
	"the work goes on, try again", "takes no volumes", "no device with serial", "says that it was never formatted, but", "has no tag blockvol:fs", "it was wiped",
	"damaged or wiped", "outside blockvol", "the tag is older than the data", "the device cannot be read, so nothing is done", "filesystem is damaged", "made by a newer blockvol",
	"which may still be starting", "still in use on this host", "there is no volume", "cannot be decided now", "CLUSTER is not set", "gave no answer", "another blockvol serves",
	"the settings now say", "is not allowed to do this", "EC2 does not accept the credentials", "more EC2 requests than AWS allows", "EC2 cannot be reached",
	"the KMS key is disabled", "not drained within", "waiting for the end of the detachment", "something on this host still uses the device", "several devices have this serial",
}

func TestThePageOfTroublesHasEveryImportantMessageAndEveryKindOfProblem(t *testing.T) {
	b, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	texts := said(t)
	for _, want := range important {
		onPage := false
		for _, m := range quoted(page) {
			onPage = onPage || strings.Contains(m, want)
		}
		inCode := false
		for _, text := range texts {
			inCode = inCode || strings.Contains(text, want)
		}
		if !onPage || !inCode {
			t.Errorf("%q: on the page %v, in the code %v", want, onPage, inCode)
		}
	}
	code, err := os.ReadFile("driver/health.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`(?m)^\tProblem[A-Za-z]+ += "([a-z-]+)"`).FindAllStringSubmatch(string(code), -1)
	if len(kinds) < 15 {
		t.Errorf("only %d kinds of problems are found", len(kinds))
	}
	for _, k := range kinds {
		if !strings.Contains(page, "\n| `"+k[1]+"` | ") {
			t.Errorf("the kind %s of blockvol health is not on the page", k[1])
		}
	}
}

var symptom = regexp.MustCompile("(?m)^- `([^`]+)`$")

// A runbook is found by the words of the message, and by the links of the page of troubles.
func TestRunbooksQuoteWhatTheCodeSaysAndAreFoundFromThePageOfTroubles(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	runbooks, troubles := read("docs/runbooks.md"), read("docs/troubleshooting.md")
	texts := said(t)
	quotes := symptom.FindAllStringSubmatch(runbooks, -1)
	if len(quotes) < 10 {
		t.Errorf("only %d symptoms are quoted", len(quotes))
	}
	for _, q := range quotes {
		found := false
		for _, text := range texts {
			found = found || says(text, q[1])
		}
		if !found {
			t.Errorf("nothing in the code says %q", q[1])
		}
	}
	anchors := map[string]bool{}
	for _, h := range regexp.MustCompile("(?m)^## (.+)$").FindAllStringSubmatch(runbooks, -1) {
		anchors[strings.ReplaceAll(strings.ToLower(h[1]), " ", "-")] = true
	}
	links := append(regexp.MustCompile(`runbooks\.md#([a-z-]+)\)`).FindAllStringSubmatch(troubles, -1), regexp.MustCompile(`\]\(#([a-z-]+)\)`).FindAllStringSubmatch(runbooks, -1)...)
	if len(links) < 8 {
		t.Errorf("only %d links lead to runbooks", len(links))
	}
	for _, l := range links {
		if !anchors[l[1]] {
			t.Errorf("there is no runbook #%s", l[1])
		}
	}
}

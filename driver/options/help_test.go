package options

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated table into docs/options.md")

const (
	docPage  = "../../docs/options.md"
	docBegin = "<!-- table: made by go test ./driver/options -run Doc -update -->\n"
	docEnd   = "<!-- end of table -->\n"
)

func TestHelpTellsEverythingInTheTableAndFitsATerminal(t *testing.T) {
	help := Help()
	for _, line := range strings.Split(help, "\n") {
		if len(line) > 100 {
			t.Errorf("%d columns: %s", len(line), line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("blanks at the end of %q", line)
		}
	}
	flat := strings.Join(strings.Fields(help), " ")
	for _, opt := range Table() {
		parts := append([]string{"\n  " + opt.Name + " ", opt.Doc, opt.Values, opt.Default}, opt.Aliases...)
		if opt.Default != "" {
			parts = append(parts, "Default: "+opt.Default)
		}
		for _, p := range parts {
			if !strings.Contains(help, p) && !strings.Contains(flat, strings.Join(strings.Fields(p), " ")) {
				t.Errorf("%s: %q is missing", opt.Name, p)
			}
		}
	}
	for _, l := range types {
		if !strings.Contains(help, "\n  "+l.name+" ") {
			t.Errorf("type %s is missing", l.name)
		}
	}
	for i := 0; i < len(help); i++ {
		if help[i] > 126 {
			t.Fatalf("not ASCII: %q", help[i:])
		}
	}
}

func TestEveryRowOfTheTableIsComplete(t *testing.T) {
	for _, opt := range Table() {
		if opt.Name != strings.ToLower(opt.Name) && opt.Name != tagName {
			t.Errorf("%s is not lower case", opt.Name)
		}
		if opt.Doc == "" || !strings.HasSuffix(opt.Doc, ".") {
			t.Errorf("%s: %q is no sentence", opt.Name, opt.Doc)
		}
		if len(opt.Aliases) == 0 || opt.Name != nameHelp && opt.Values == "" {
			t.Errorf("%s has no aliases or no values", opt.Name)
		}
		if opt.Default != "" {
			if err := opt.set(new(Options), opt.Default); err != nil {
				t.Errorf("%s: the default is refused: %v", opt.Name, err)
			}
		}
	}
	Table()[0].Aliases[0] = "changed"
	if Table()[0].Aliases[0] == "changed" {
		t.Error("a caller can change the table")
	}
}

// Every example in the column of values is accepted, but for those that say in words what may be written.
func TestTheValuesInTheTableAreAccepted(t *testing.T) {
	for _, opt := range Table() {
		values := strings.Split(opt.Values, ", ")
		switch opt.Name {
		case "kms-key-id", tagName, nameHelp, nameProfile:
			continue
		case "uid", "gid":
			values = strings.Split(opt.Values, "-")
		case "mount-options":
			values = []string{opt.Values}
		case nameSelector:
			values = []string{opt.Values}
		}
		for _, v := range values {
			r := m{opt.Name: v}
			if opt.Name == nameFallback {
				r[nameSelector] = "team=db"
			}
			if opt.Name == nameKeep {
				r[nameSchedule] = "@daily"
			}
			if opt.Name == "type" {
				r["size"] = "200"
				if v == "io1" || v == "io2" {
					r["iops"] = "1000"
				}
			}
			accept(t, r, nil)
		}
	}
}

func TestDocPageHoldsTheTableAsItIs(t *testing.T) {
	b, err := os.ReadFile(docPage)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), docBegin)
	table, tail, ok2 := strings.Cut(rest, docEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marks around the table", docPage)
	}
	want := "\n" + Markdown() + "\n"
	if *update && table != want {
		if err := os.WriteFile(docPage, []byte(head+docBegin+want+docEnd+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		table = want
	}
	if table != want {
		t.Errorf("%s is not what the code does: run go test ./driver/options -run Doc -update", docPage)
	}
	for _, row := range strings.Split(strings.Split(Markdown(), "\n\n")[0], "\n") {
		if strings.Count(row, "|")-strings.Count(row, `\|`) != 7 {
			t.Errorf("not six cells: %s", row)
		}
	}
}

// Every docker volume create in the page is one that works as it stands.
func TestDocExamplesAreAccepted(t *testing.T) {
	b, err := os.ReadFile(docPage)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, line := range strings.Split(strings.ReplaceAll(string(b), "\\\n", " "), "\n") {
		words, err := splitWords(line)
		if err != nil || len(words) < 4 || strings.Join(words[:4], " ") != "docker volume create -d" {
			continue
		}
		found++
		r := m{}
		for i, w := range words {
			if w == "-o" {
				k, v, _ := strings.Cut(words[i+1], "=")
				r[k] = v
			}
		}
		if _, err := Parse(r, nil); err != nil && !IsHelp(err) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if found < 4 {
		t.Errorf("only %d examples found", found)
	}
}

package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

// formatHelp tells what --format of a list understands.
const formatHelp = "table, json (one object per line), a Go template, or 'table TEMPLATE' for a table with headers"

// column is one thing that a list can show: the name by which a template asks for it, and its header.
type column struct {
	name, header string
	optional     bool // left out of the table where no row has it
}

// listing is how a list is shown: as Docker's own lists, by --format.
type listing struct {
	spare   []string // names of columns that are left out first where the table is wider than the terminal
	columns []column // of the table; all other fields of a row can be asked for too
	sample  any      // an empty row, to judge a template by before anything is done
	format  string
	noTrunc bool

	tmpl   *template.Template
	table  bool
	usual  bool // the table of columns, not one that was asked for
	header string
}

func (l *listing) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.format, "format", "table", formatHelp)
	cmd.Flags().BoolVar(&l.noTrunc, "no-trunc", false, "do not cut a table to the width of the terminal")
}

// check is to be called before anything is done.
func (l *listing) check() error {
	text := l.format
	switch {
	case text == "json":
		return nil
	case text == "" || text == "table":
		cells := make([]string, len(l.columns))
		for n, c := range l.columns {
			cells[n] = "{{." + c.name + "}}"
		}
		text, l.table, l.usual = strings.Join(cells, "\t"), true, true
	case strings.HasPrefix(text, "table "):
		text, l.table = strings.TrimPrefix(text, "table "), true
	}
	var err error
	l.tmpl, err = parseTemplate(text, l.sample)
	l.header = l.headerOf(text)
	return err
}

var (
	action = regexp.MustCompile(`\{\{.*?\}\}`)
	asked  = regexp.MustCompile(`\.([A-Za-z]+)`)
)

// headerOf is a template with the headers of what it asks for in place of that.
func (l *listing) headerOf(text string) string {
	return unescape.Replace(action.ReplaceAllStringFunc(text, func(a string) string {
		names := asked.FindAllStringSubmatch(a, -1)
		if len(names) == 0 {
			return ""
		}
		name := names[len(names)-1][1]
		for _, c := range l.columns {
			if c.name == name {
				return c.header
			}
		}
		return strings.ToUpper(name)
	}))
}

// print shows the rows.
func (l *listing) print(out io.Writer, rows []any) error {
	if l.tmpl == nil {
		e := json.NewEncoder(out)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	var b bytes.Buffer
	if l.table {
		b.WriteString(l.header + "\n")
	}
	for _, r := range rows {
		if err := l.tmpl.Execute(&b, r); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	if !l.table {
		_, err := b.WriteTo(out)
		return err
	}
	width := terminalWidth(out)
	if l.noTrunc {
		width = 0
	}
	return l.printIn(out, strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"), width)
}

// printIn shows the lines of the table in so many columns of a terminal; 0 is any number.
func (l *listing) printIn(out io.Writer, lines []string, width int) error {
	if l.usual {
		l.leaveOut(lines)
		for _, name := range l.spare {
			if width > 0 && widthOf(lines) > width {
				l.drop(lines, name)
			}
		}
	}
	return printTable(out, lines, width)
}

// leaveOut takes the optional columns out of the table that no row has.
func (l *listing) leaveOut(lines []string) {
	for i := len(l.columns) - 1; i >= 0; i-- {
		has := func(line string) bool { return strings.Split(line, "\t")[i] != "-" }
		if !l.columns[i].optional || slices.ContainsFunc(lines[1:], has) {
			continue
		}
		cut(lines, i)
	}
}

// drop takes a column out of the table.
func (l *listing) drop(lines []string, name string) {
	for _, c := range l.columns {
		if i := slices.Index(strings.Split(lines[0], "\t"), c.header); c.name == name && i >= 0 {
			cut(lines, i)
		}
	}
}

// cut takes a column out of lines.
func cut(lines []string, i int) {
	for n, line := range lines {
		lines[n] = strings.Join(slices.Delete(strings.Split(line, "\t"), i, i+1), "\t")
	}
}

// unescape puts what stands for a tab or a line's end on a command line.
var unescape = strings.NewReplacer(`\t`, "\t", `\n`, "\n")

// parseTemplate makes the template of --format. One that asks for what a row does not have is wrong before anything is done.
func parseTemplate(text string, sample any) (*template.Template, error) {
	if !strings.Contains(text, "{{") {
		return nil, usagef("--format %s is not known: use table, json or a Go template such as '{{.Name}}'", text)
	}
	t, err := template.New("format").Funcs(templateFuncs).Parse(unescape.Replace(text))
	if err == nil {
		err = t.Execute(io.Discard, sample)
	}
	if err != nil {
		return nil, usagef("--format %s cannot be used: %v", text, err)
	}
	return t, nil
}

// templateFuncs are those that Docker's own templates have. Source: "Format command and log output" in Docker's documentation.
var templateFuncs = template.FuncMap{
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return strings.TrimSpace(b.String()), err
	},
	"join":  strings.Join,
	"split": strings.Split,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"title": func(s string) string {
		if s == "" {
			return ""
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"pad": func(s string, before, after int) string {
		if s == "" {
			return ""
		}
		return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
	},
	"truncate": func(s string, n int) string {
		if r := []rune(s); n >= 0 && len(r) > n {
			return string(r[:n])
		}
		return s
	},
}

// answer prints the result of a verb that makes no list for a program: as JSON, or by a template.
type answer struct{ tmpl *template.Template } // nil: as JSON

// formatFlag adds --format. The returned function is to be called before anything is done; its answer is nil where the verb's own text is wanted.
// samples are empty results, to judge a template by.
func formatFlag(cmd *cobra.Command, samples ...any) (format func() (*answer, error)) {
	text := cmd.Flags().String("format", "table", "table, json, or a Go template")
	return func() (*answer, error) {
		switch *text {
		case "table", "":
			return nil, nil
		case "json":
			return &answer{}, nil
		}
		var wrong error
		for _, sample := range samples {
			t, err := parseTemplate(*text, sample)
			if err == nil {
				return &answer{t}, nil
			}
			wrong = cmp.Or(wrong, err)
		}
		return nil, wrong
	}
}

// print shows a result; a template sees each element of one that is a slice.
func (a *answer) print(out io.Writer, result any) error {
	if a.tmpl == nil {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(result)
	}
	rows := []any{result}
	if v := reflect.ValueOf(result); v.Kind() == reflect.Slice {
		rows = rows[:0]
		for i := range v.Len() {
			rows = append(rows, v.Index(i).Interface())
		}
	}
	for _, row := range rows {
		var line bytes.Buffer
		if err := a.tmpl.Execute(&line, row); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, &line); err != nil {
			return err
		}
	}
	return nil
}

// list shows a result that holds rows: as JSON the whole, and by a template each of the rows.
func (a *answer) list(out io.Writer, whole, rows any) error {
	if a.tmpl == nil {
		return a.print(out, whole)
	}
	return a.print(out, rows)
}

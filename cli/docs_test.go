package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite the generated parts of README.md and docs/cli.md")

// cell is a text in a table of a page.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}

// documented are the commands, as `blockvol --help` has them.
func documented() []*cobra.Command {
	root := &cobra.Command{Use: "blockvol"}
	root.AddCommand(Commands(Config{})...)
	return withSubcommands(root)
}

func commandsMarkdown() string {
	var b strings.Builder
	b.WriteString("| command | what it does |\n|---|---|\n")
	for _, cmd := range documented() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", cell(strings.TrimSuffix(cmd.UseLine(), " [flags]")), cell(cmd.Short))
	}
	return b.String()
}

func verbsMarkdown() string {
	var b strings.Builder
	for _, cmd := range documented() {
		fmt.Fprintf(&b, "### %s\n\n    %s\n\n", cmd.CommandPath(), cmd.UseLine())
		fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(strings.Replace(cmd.Long, ExitHelp, "", 1)))
		if !cmd.HasLocalFlags() {
			continue
		}
		b.WriteString("| flag | default | meaning |\n|---|---|---|\n")
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			def := f.DefValue
			if def == "false" || def == "[]" {
				def = ""
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, cell(def), cell(f.Usage))
		})
		b.WriteString("\n")
	}
	return b.String()
}

func TestThePagesOfCommandsAreThoseOfTheCode(t *testing.T) {
	for path, part := range map[string]struct{ name, want string }{
		"../README.md":   {"commands", commandsMarkdown()},
		"../docs/cli.md": {"verbs", verbsMarkdown()},
	} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		begin, end := strings.Index(text, "<!-- "+part.name+": "), strings.Index(text, "<!-- end of "+part.name+" -->")
		if begin < 0 || end < begin {
			t.Fatalf("%s has no part %q", path, part.name)
		}
		begin += strings.Index(text[begin:], "\n") + 1
		want := "\n" + strings.TrimSpace(part.want) + "\n\n"
		if text[begin:end] == want {
			continue
		}
		if !*update {
			t.Errorf("the part %q of %s is not what the code says: run go test ./cli -run Pages -update", part.name, path)
			continue
		}
		if err := os.WriteFile(path, []byte(text[:begin]+want+text[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryVerbTellsItsExitStatusAndHasHelpForEachFlag(t *testing.T) {
	for _, cmd := range documented() {
		if cmd.Short == "" || cmd.Long == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short %q, long %q", cmd.CommandPath(), cmd.Short, cmd.Long)
		}
		if !strings.Contains(cmd.Long, ExitHelp) {
			t.Errorf("the help of %s does not tell its exit status", cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no help", cmd.CommandPath(), f.Name)
			}
		})
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/e2e/pages"
)

// The commands that the documents mark are run as they are written, each page's in a folder of its own. The images that they name are all busybox
// here. What no test can run is listed, with its reason, in commands_test.go of the project's root.
func TestTheCommandsOfTheDocumentsWork(t *testing.T) {
	t.Parallel()
	e := shared
	all, err := pages.Blocks(repo)
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(filepath.Join(buildDir, "blockvol"), filepath.Join(bin, "blockvol")); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"alpine", "postgres:17"} {
		e.Docker(t, "tag", busybox, image)
		t.Cleanup(func() { e.Docker(t, "rmi", image) })
	}
	// The program is installed where nobody else finds it.
	env := append(e.env(), "PATH="+bin+":"+os.Getenv("PATH"), "COMPOSE_PROJECT_NAME=documents")
	begin := []string{"env"}
	begin = append(append(begin, env...), "unshare", "-m", "--propagation", "slave", "sh", "-euc", `mount -t tmpfs none /usr/local/lib; cd "$1"; eval "$2"`, "sh")

	for len(all) > 0 {
		n := slices.IndexFunc(all, func(b pages.Block) bool { return b.Page != all[0].Page })
		if n < 0 {
			n = len(all)
		}
		page, script := all[0].Page, pageScript(all[:n])
		all = all[n:]
		if script == "" {
			continue
		}
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			// The volume of most examples, of which each page gets its own.
			script := strings.ReplaceAll(script, "pgdata", name(t))
			t.Cleanup(func() { e.forget(t, script) })
			if r := e.Inside(append(slices.Clone(begin), t.TempDir(), script)...); r.Err() != nil {
				t.Errorf("%s: behind the last line with +++ a command failed\n%s\n%s", page, r.Stdout, r.Stderr)
			}
		})
	}
}

// pageScript is a shell script of all that is run of a page.
func pageScript(blocks []pages.Block) string {
	var s strings.Builder
	run := false
	for _, b := range blocks {
		switch b.Mark {
		case "run":
			run = true
			fmt.Fprintf(&s, "echo '+++ line %d' >&2\n", b.Line)
			if b.Arg != "" {
				fmt.Fprintf(&s, "%s\n", b.Arg)
			}
			for _, c := range b.Commands() {
				fmt.Fprintf(&s, "%s\n", c)
			}
		case "file":
			fmt.Fprintf(&s, "cat >%s <<'END OF FILE'\n", b.Arg)
			for _, l := range b.Lines {
				s.WriteString(l + "\n")
				if image := strings.Index(l, "image: "); image >= 0 { // the engines of the tests have no networks
					s.WriteString(l[:image] + "network_mode: none\n")
				}
			}
			s.WriteString("END OF FILE\n")
		}
	}
	if !run {
		return ""
	}
	return s.String()
}

// forget removes what the commands of a script have left: each volume whose name is a word of it, and the containers that have one.
func (e *Engine) forget(t testing.TB, script string) {
	t.Helper()
	words := strings.FieldsFunc(script, func(r rune) bool { return strings.ContainsRune(" \n\t'\"=,:;/()", r) })
	for _, v := range strings.Fields(e.Docker(t, "volume", "ls", "-q")) {
		if !slices.Contains(words, v) {
			continue
		}
		if users := strings.Fields(e.Docker(t, "ps", "-aq", "--filter", "volume="+v)); len(users) > 0 {
			e.Docker(t, append([]string{"rm", "-f", "-v"}, users...)...)
		}
		Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", v).Err() })
	}
}

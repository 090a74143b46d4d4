package main

import (
	"errors"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// elsewhere is another machine, for which the project's packages are read, each once.
type elsewhere struct {
	t     *testing.T
	fset  *token.FileSet
	std   types.Importer
	files map[string][]string // of each package of the project
	names map[string]string   // of all packages
	done  map[string]*types.Package
}

var errLibrary = errors.New("not read in this test")

// Import reads the project's own packages, the standard library and what it calls the kernel with. Other libraries know nothing of machines, and
// reading them takes half a minute; what is of their types is not looked at.
func (e *elsewhere) Import(path string) (*types.Package, error) {
	files, own := e.files[path]
	switch first, _, _ := strings.Cut(path, "/"); {
	case !own && (path == "golang.org/x/sys/unix" || !strings.Contains(first, ".")):
		return e.std.Import(path)
	case !own:
		return nil, errLibrary
	case e.done[path] != nil:
		return e.done[path], nil
	}
	var parsed []*ast.File
	for _, f := range files {
		file, err := parser.ParseFile(e.fset, f, nil, 0)
		if err != nil {
			return nil, err
		}
		for _, spec := range file.Imports { // what is not read must be told its name
			if of, err := strconv.Unquote(spec.Path.Value); err == nil && spec.Name == nil {
				spec.Name = ast.NewIdent(e.names[of])
			}
		}
		parsed = append(parsed, file)
	}
	conf := types.Config{Importer: e, Sizes: types.SizesFor("gc", "arm64"), Error: func(err error) {
		if !strings.Contains(err.Error(), errLibrary.Error()) {
			e.t.Error(err)
		}
	}}
	p, _ := conf.Check(path, e.fset, parsed, nil) // what is wrong has been told
	p.MarkComplete()
	e.done[path] = p
	return p, nil
}

// Numbers of system calls, sizes of fields and constants differ between machines. A compiler would find that too, and take minutes for it:
// make build ARCH=arm64.
func TestWhatCallsTheKernelIsRightForArm64(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}}|{{.Name}}|{{.Dir}}{{if not .DepOnly}}|{{join .GoFiles "|"}}{{end}}`, "./...")
	list.Env = append(list.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output() // a test that was built with -trimpath does not know
	if err != nil {
		t.Fatal(err)
	}
	before := build.Default
	t.Cleanup(func() { build.Default = before })
	build.Default.GOROOT, build.Default.GOARCH, build.Default.CgoEnabled = strings.TrimSpace(string(root)), "arm64", false
	e := &elsewhere{t: t, fset: token.NewFileSet(), files: map[string][]string{}, names: map[string]string{}, done: map[string]*types.Package{}}
	e.std = importer.ForCompiler(e.fset, "source", nil)
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		p := strings.Split(line, "|")
		e.names[p[0]] = p[1]
		for _, f := range p[3:] {
			if f != "" {
				e.files[p[0]] = append(e.files[p[0]], filepath.Join(p[2], f))
			}
		}
	}
	for path := range e.files {
		if _, err := e.Import(path); err != nil {
			t.Error(err)
		}
	}
	if len(e.done) < 10 {
		t.Errorf("only %d packages were read", len(e.done))
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// buildDir holds the plugin and the images; repo is the checkout; shared is the engine that most tests use.
var (
	buildDir string
	repo     string
	shared   *Engine
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	buildDir = os.Getenv("BLOCKVOL_E2E")
	if buildDir == "" {
		fmt.Fprintln(os.Stderr, "The end-to-end tests need root, the plugin and the test images, which are made by: make test"+
			"\nTo run some of them: make test RUN=TestName. To run them again without making anything: BLOCKVOL_E2E=$PWD/build go test ./e2e")
		return 1
	}
	var err error
	if repo, err = filepath.Abs(".."); err != nil {
		panic(err)
	}
	if _, err := os.Stat(filepath.Join(buildDir, "plugin", "config.json")); err != nil {
		fmt.Fprintf(os.Stderr, "There is no plugin in %s (%v): run make test\n", buildDir, err)
		return 1
	}
	shared = NewEngine("shared")
	if err := shared.stop(); err != nil { // what an interrupted run may have left
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	before := takeInventory()
	if err := shared.start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 1
	if err := shared.prepare("blockvol", "BACKEND=sim", "LOG_LEVEL=debug"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
		if err := shared.leaks(); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL: the tests have left something in the shared engine:\n%v\n", err)
			code = 1
		}
	}
	if code != 0 {
		shared.printLog(os.Stderr)
	}
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := before.compare(); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: the tests have left something on this machine:\n%v\n", err)
		code = 1
	}
	return code
}

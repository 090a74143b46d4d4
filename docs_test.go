package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/driver"
)

// testNames returns the names of all tests of the project.
func testNames(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("grep", "-rhoE", "^func Test[A-Za-z0-9]+", "--include=*_test.go", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(string(out), "func ", ""))
}

func TestThePageOfGuaranteesNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, name := range testNames(t) {
		have[name] = true
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 30 {
		t.Errorf("only %d tests are named", len(named))
	}
	runbooks, err := os.ReadFile("docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	named = append(named, regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(runbooks), -1)...)
	for _, n := range named {
		if !have[n[1]] {
			t.Errorf("docs/guarantees.md or docs/runbooks.md names %s, which does not exist", n[1])
		}
	}
}

func TestThePageOfSecurityNamesEveryPrivilegeThatThePluginAsksFor(t *testing.T) {
	b, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	m := readManifest(t)
	want := append([]string{"`mount: /dev`", "`network: host`", "propagated mount `" + m.PropagatedMount + "`"}, m.Linux.Capabilities...)
	if m.Linux.AllowAllDevices {
		want = append(want, "`allowAllDevices`")
	}
	for _, w := range want {
		if !strings.Contains(page, w) {
			t.Errorf("docs/security.md does not say why %s is asked for", w)
		}
	}
	for _, s := range driver.SettingsTable() {
		if s.Secret && !strings.Contains(page, "`"+s.Name+"`") {
			t.Errorf("docs/security.md does not say where the secret %s lies", s.Name)
		}
	}
}

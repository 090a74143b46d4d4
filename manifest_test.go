package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/driver"
)

// manifest is what the tests read of config.json.
type manifest struct {
	Interface       struct{ Types []string }
	Entrypoint      []string
	PropagatedMount string
	PidHost         bool
	IpcHost         bool
	Mounts          []struct {
		Name, Source, Destination string
		Settable                  []string
	}
	Linux struct {
		Capabilities    []string
		AllowAllDevices bool
	}
	Env []struct {
		Name, Description string
		Value             *string
		Settable          []string
	}
}

func readManifest(t *testing.T) manifest {
	t.Helper()
	b, err := os.ReadFile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEverySettingCanBeSetOnThePluginAndNothingElseCan(t *testing.T) {
	var inManifest, inCode []string
	for _, e := range readManifest(t).Env {
		inManifest = append(inManifest, e.Name)
		if !slices.Equal(e.Settable, []string{"value"}) {
			t.Errorf("%s cannot be set", e.Name)
		}
		if e.Description == "" {
			t.Errorf("%s is not described", e.Name)
		}
	}
	for _, s := range driver.SettingsTable() {
		inCode = append(inCode, s.Name)
	}
	slices.Sort(inManifest)
	slices.Sort(inCode)
	if !slices.Equal(inManifest, inCode) {
		t.Errorf("config.json has the settings %q, the code has %q", inManifest, inCode)
	}
}

// An upgraded plugin keeps the settings of the old one, so a default in the manifest would never change on a host.
func TestTheManifestHoldsNoDefaults(t *testing.T) {
	for _, e := range readManifest(t).Env {
		if e.Value != nil {
			t.Errorf("%s has the value %q in config.json", e.Name, *e.Value)
		}
	}
}

// docs/plugin.md justifies what is asked for here. A capability more is a decision, not an accident.
func TestTheManifestAsksForNoMoreThanItNeeds(t *testing.T) {
	m := readManifest(t)
	if want := []string{"CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"}; !slices.Equal(m.Linux.Capabilities, want) {
		t.Errorf("capabilities %q, not %q", m.Linux.Capabilities, want)
	}
	if len(m.Mounts) != 1 || m.Mounts[0].Destination != "/dev" || !slices.Equal(m.Mounts[0].Settable, []string{"source"}) {
		t.Errorf("mounts %+v, not /dev alone with a source that can be set", m.Mounts)
	}
	if m.PidHost || m.IpcHost {
		t.Error("the host's processes or IPC are asked for")
	}
	if m.PropagatedMount != "/data" {
		t.Errorf("propagatedMount is %q, not serve's default state folder", m.PropagatedMount)
	}
}

func TestTheServicesEnvironmentFileNamesEverySetting(t *testing.T) {
	b, err := os.ReadFile("packaging/blockvol.env")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, line := range strings.Split(string(b), "\n") {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "#"), "="); ok && !strings.Contains(name, " ") {
			named[name] = true
		}
	}
	for _, s := range driver.SettingsTable() {
		if !named[s.Name] {
			t.Errorf("packaging/blockvol.env does not name %s", s.Name)
		}
		delete(named, s.Name)
	}
	for n := range named {
		t.Errorf("packaging/blockvol.env names %s, which is no setting", n)
	}
}

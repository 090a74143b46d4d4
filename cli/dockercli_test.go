package cli

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheCommandEndsWhenDockersClientWantsItTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv(pluginSocketEnv, path)
	ctx := WithDocker(t.Context())
	client, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Error("ended at once")
	}
	client.Close()
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Error("the command goes on without its client")
	}
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "gone.sock")} {
		t.Setenv(pluginSocketEnv, socket)
		if ctx := WithDocker(context.Background()); ctx.Err() != nil {
			t.Errorf("with socket %q it never begins", socket)
		}
	}
}

func TestThePluginIsInstalledWhereDockersClientLooks(t *testing.T) {
	home := func() (string, error) { return "/home/ann", nil }
	none := func() (string, error) { return "", errors.New("no home") }
	env := func(config string) func(string) string {
		return func(name string) string { return map[string]string{"DOCKER_CONFIG": config}[name] }
	}
	for _, c := range []struct {
		uid    int
		config string
		home   func() (string, error)
		want   string
	}{
		{0, "/elsewhere", none, everybodysPlugins},
		{1000, "", home, "/home/ann/.docker/cli-plugins"},
		{1000, "/conf", none, "/conf/cli-plugins"},
	} {
		if got, err := pluginsFolder(c.uid, env(c.config), c.home); got != c.want || err != nil {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
	if _, err := pluginsFolder(1000, env(""), none); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("without a home: %v", err)
	}
}

func TestOnlyVersionsThatMayNotFitAreTold(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"1.2.3", "1.2.3", true},
		{"v1.2.3", "1.2.4", true},
		{"v1.2.3-4-gabcdef0", "v1.2.3", true},
		{"1.2.3", "1.3.0", false},
		{"1.12.0", "1.1.0", false},
		{"abcdef0", "abcdef0", true},
		{"abcdef0", "abcdef0-dirty", false},
		{"dev", "v1.2.3", false},
	} {
		if got := sameVersion(c.a, c.b); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	text := differentVersions("1.2.3", "2.0.0", "/does/not/exist")
	for _, w := range []string{"1.2.3", "2.0.0", "upgrade"} {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in %q", w, text)
		}
	}
	if text := differentVersions("1.2.3", "2.0.0", "/proc/self/exe"); !strings.Contains(text, "/proc/self/exe install-cli") {
		t.Errorf("the way to the plugin's own command is missing in %q", text)
	}
}

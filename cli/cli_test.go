package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// plugin serves a plugin of a cluster on a socket, with settings that keep it from doing anything: it can say who it is and why it cannot work.
func plugin(t *testing.T, socket, cluster, version string) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	m, err := driver.New(driver.Config{Settings: driver.Settings{Cluster: cluster, Backend: "ebs"}, SettingsErr: cloud.Errorf(cloud.ErrConfig, "settings are wrong"),
		Disk: &disk.Host{Dev: "/dev", Sys: "/sys", Log: log}, StateDir: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := driver.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	m.Start(context.Background())
	s := &driver.Server{Manager: m, Log: log, Version: version}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// answering serves the same answer to everything.
func answering(t *testing.T, socket string, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// sockets is a folder as dockerd keeps it.
func sockets(t *testing.T) (dir, managed string) {
	t.Helper()
	dir = t.TempDir()
	managed = filepath.Join(dir, "0123abcd", "blockvol.sock")
	if err := os.Mkdir(filepath.Dir(managed), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, managed
}

func TestTheOnlyPluginOfAHostIsFoundAmongOthers(t *testing.T) {
	dir, managed := sockets(t)
	plugin(t, managed, "prod", "1")
	answering(t, filepath.Join(dir, "other.sock"), http.NotFound)
	stale, err := net.Listen("unix", filepath.Join(dir, "stale.sock"))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	if got, err := findSocket(t.Context(), "", dir); err != nil || got != managed {
		t.Errorf("found %q, %v", got, err)
	}
	t.Setenv(socketEnv, "/from/env.sock")
	if got, err := findSocket(t.Context(), "", dir); err != nil || got != "/from/env.sock" {
		t.Errorf("%s is not obeyed: %q, %v", socketEnv, got, err)
	}
	if got, err := findSocket(t.Context(), "/named.sock", dir); err != nil || got != "/named.sock" {
		t.Errorf("--socket is not obeyed: %q, %v", got, err)
	}
}

func TestSeveralPluginsAreListedAndOneMustBeNamed(t *testing.T) {
	dir, managed := sockets(t)
	service := filepath.Join(dir, "blockvol.sock")
	plugin(t, managed, "prod", "1")
	plugin(t, service, "staging", "2")
	_, err := findSocket(t.Context(), "", dir)
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != ExitUsage {
		t.Fatalf("not an error of the command line: %v", err)
	}
	for _, w := range []string{"--socket " + managed, "--socket " + service, "CLUSTER=prod", "CLUSTER=staging"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is missing in: %v", w, err)
		}
	}
}

func TestNoPluginIsToldWithWhereItWasLookedFor(t *testing.T) {
	dir, managed := sockets(t)
	if _, err := findSocket(t.Context(), "", dir); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "docker plugin ls") {
		t.Errorf("the error is %v", err)
	}
	if _, err := findSocket(t.Context(), "", filepath.Join(dir, "missing")); err == nil {
		t.Error("found in a folder that does not exist")
	}
	answering(t, managed, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"Err": "\"%s\" is not a call of the Docker volume plugin protocol"}`, strings.ReplaceAll(r.URL.Path, `"`, ``))
	})
	_, err := findSocket(t.Context(), "", dir)
	if err == nil {
		t.Fatal("a plugin that does not know the verbs was found")
	}
}

// The thread's own identity is enough to be refused by the folder; the rest of the process stays root.
func TestWhoIsNotRootIsToldSo(t *testing.T) {
	dir, managed := sockets(t)
	plugin(t, managed, "prod", "1")
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	told := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its identity
		if err := unix.Setfsuid(65534); err != nil {
			told <- err
			return
		}
		_, err := findSocket(context.Background(), "", dir)
		told <- err
	}()
	if err := <-told; err == nil || !strings.Contains(err.Error(), "root") || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("the error is %v", err)
	}
}

func TestVersionsThatDifferAreTold(t *testing.T) {
	_, socket := sockets(t)
	plugin(t, socket, "prod", "2")
	for _, c := range []struct{ mine, want string }{{"2", ""}, {"1", "plugin 2 command 1"}} {
		told := ""
		var about driver.About
		err := (&client{socket: socket, version: c.mine, differ: func(plugin, command string) { told = "plugin " + plugin + " command " + command }}).
			ask(t.Context(), "About", driver.NoRequest{}, &about)
		if err != nil || about.Version != "2" || about.Cluster != "prod" || told != c.want {
			t.Errorf("command %s: %+v, %v, told %q", c.mine, about, err, told)
		}
	}
	if err := (&client{socket: socket, version: "3"}).ask(t.Context(), "Fly", driver.NoRequest{}, &struct{}{}); err == nil ||
		!strings.Contains(err.Error(), "older than this command (3)") {
		t.Errorf("a verb that the plugin does not know: %v", err)
	}
}

// run runs `blockvol ARGS` and returns its exit code and output.
func run(args ...string) (code int, stdout string) {
	root := &cobra.Command{Use: "blockvol", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(Commands(Config{Version: "1"})...)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs(args)
	return Execute(context.Background(), root), out.String()
}

func TestTheExitCodeTellsWhatHappened(t *testing.T) {
	_, socket := sockets(t)
	plugin(t, socket, "prod", "1")
	_, refusing := sockets(t)
	answering(t, refusing, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		fmt.Fprintln(w, `{"say":"looking"}`)
		fmt.Fprintln(w, `{"error":"not proven","refused":true}`)
	})
	_, cutting := sockets(t)
	answering(t, cutting, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		fmt.Fprintln(w, `{"say":"looking"}`)
	})
	for _, c := range []struct {
		code int
		args []string
	}{
		{ExitUsage, []string{"fly"}},
		{ExitUsage, []string{"ls", "--wings"}},
		{ExitUsage, []string{"ls", "pgdata"}},
		{ExitUsage, []string{"ls", "--format", "xml"}},
		{ExitUsage, []string{"detach"}},
		{ExitUsage, []string{"detach", "v", "--force", "--stop-instance"}},
		{ExitUsage, []string{"detach", "v", "--force", "-y"}},
		{ExitUsage, []string{"detach", "v", "--force-name", "w"}},
		{ExitUsage, []string{"drain", "--timeout", "-1s"}},
		{ExitUsage, []string{"profile"}},
		{ExitUsage, []string{"adopt"}},
		{ExitUsage, []string{"adopt", "vol-0123456789abcdef0"}},
		{ExitUsage, []string{"adopt", "--from-rexray"}},
		{ExitUsage, []string{"adopt", "vol-0123456789abcdef0", "db", "-o", "subdir"}},
		{ExitUsage, []string{"profile", "fly"}},
		{ExitUsage, []string{"profile", "show"}},
		{ExitUsage, []string{"profile", "set", "gold", "io2"}},
		{ExitUsage, []string{"profile", "set", "gold", "type=io2", "type=gp3"}},
		{ExitFailed, []string{"profile", "ls", "--socket", socket}}, // its settings are wrong
		{ExitFailed, []string{"ls", "--socket", "/does/not/exist.sock"}},
		{ExitFailed, []string{"ls", "--socket", socket}}, // its settings are wrong
		{ExitFailed, []string{"ls", "--socket", cutting}},
		{ExitRefused, []string{"ls", "--socket", refusing}},
		{ExitDone, []string{"ls", "--help"}},
	} {
		if got, _ := run(c.args...); got != c.code {
			t.Errorf("blockvol %s: exit status %d, want %d", strings.Join(c.args, " "), got, c.code)
		}
	}
	if _, help := run("ls", "--help"); !strings.Contains(help, ExitHelp) || !strings.Contains(help, "--socket") {
		t.Errorf("the help is %q", help)
	}
}

func TestAForcedDetachWantsTheVolumesName(t *testing.T) {
	_, socket := sockets(t)
	asked := make(chan string, 8)
	answering(t, socket, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(driver.VersionHeader, "1")
		asked <- r.URL.Path
		if r.URL.Path == driver.AdminPath("Holder") {
			fmt.Fprintln(w, `{"result":{"volume":"db","id":"vol-01234567","instance":"i-1","power":"running"}}`)
			return
		}
		fmt.Fprintln(w, `{"result":{"volume":"db","id":"vol-01234567","instance":"i-1","done":"detached"}}`)
	})
	for _, c := range []struct {
		name string
		code int
		asks int
	}{{"vol-01234567", ExitUsage, 1}, {"other", ExitUsage, 1}, {"db", ExitDone, 2}} {
		if got, _ := run("detach", "vol-01234567", "--force-name", c.name, "--socket", socket); got != c.code {
			t.Errorf("--force-name %s: exit status %d, want %d", c.name, got, c.code)
		}
		if len(asked) != c.asks {
			t.Errorf("--force-name %s: %d requests, want %d", c.name, len(asked), c.asks)
		}
		for len(asked) > 0 {
			<-asked
		}
	}
}

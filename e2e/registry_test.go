package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startRegistry runs Debian's docker-registry on a free port of loopback, with its files in the test's folder, and returns its address.
func startRegistry(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "files"), addr)
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// It must not outlive a test process that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the registry wrote: %s", b)
		}
	})
	Eventually(t, 10*time.Second, func() error {
		r, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			r.Body.Close()
		}
		return err
	})
	return addr
}

func TestThePluginIsPushedToARegistryAndInstalledFromItWithItsSettings(t *testing.T) {
	ref := startRegistry(t) + "/blockvol:1"
	e := PrivateEngine(t)
	script := func(args ...string) {
		t.Helper()
		env := append(e.env(), "BUILD="+buildDir, "FITTED=1") // it is installed on this machine
		if err := command(2*time.Minute, env, "", filepath.Join(repo, "scripts", "plugin"), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	script("push", ref)
	if ls := e.Docker(t, "plugin", "ls", "-q"); ls != "" {
		t.Fatalf("pushing has left a plugin in the engine: %s", ls)
	}
	e.Docker(t, "plugin", "install", "--alias", "blockvol", "--grant-all-permissions", ref, "BACKEND=sim", "CLUSTER=registry", "LOG_LEVEL=debug")
	p, err := e.adopt("blockvol")
	if err != nil {
		t.Fatal(err)
	}
	e.Plugin = p
	if got := e.Docker(t, "plugin", "inspect", "-f", "{{.Enabled}} {{.PluginReference}}", "blockvol"); got != "true "+ref {
		t.Errorf("docker plugin inspect: %s", got)
	}
	v := e.NewVolume(t, "size=1GiB")
	e.Busybox(t, []string{"-v", v + ":/data"}, "echo kept >/data/file")
	if got := e.Busybox(t, []string{"-v", v + ":/data"}, "cat /data/file"); got != "kept" {
		t.Errorf("the second container reads %q", got)
	}
	for _, secret := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		if env := e.Docker(t, "plugin", "inspect", "-f", "{{.Settings.Env}}", "blockvol"); strings.Contains(env, secret) {
			t.Errorf("a setting that nobody made is there: %s", env)
		}
	}
}

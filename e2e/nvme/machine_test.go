package nvme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How long the machine may take to boot, and one request to it may take, on a busy computer without KVM.
const (
	bootPatience    = 100 * time.Second
	requestPatience = 2 * time.Minute
)

// machine is a virtual machine and the first process in it.
type machine struct {
	qmp     *qmp
	url     string
	console string
	died    chan struct{}
	client  *http.Client
}

// startMachine boots a machine, which is gone at the end of the test.
func startMachine(t *testing.T, image string) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{
		console: filepath.Join(dir, "console"), died: make(chan struct{}),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: requestPatience},
	}
	control := filepath.Join(dir, "qmp")
	argv := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "768",
		"-kernel", kernel(t, "boot/vmlinuz-*"), "-initrd", image, "-append", "console=ttyS0 quiet rdinit=/guest mitigations=off random.trust_cpu=on",
		"-serial", "file:" + m.console, "-qmp", "unix:" + control + ",server=on,wait=off",
		"-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:80", "-device", "virtio-net-pci,netdev=net,romfile=",
	}
	for n := range slots {
		argv = append(argv, "-device", fmt.Sprintf("pcie-root-port,id=%s,chassis=%d,slot=%d", slotName(n), n+1, n+1))
	}
	cmd := exec.Command("qemu-system-x86_64", argv...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // The signal comes when the thread ends that started the process.
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // How it ended does not matter: it is killed.
			close(m.died)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // It may have ended.
		<-m.died
		if t.Failed() {
			log, _ := os.ReadFile(m.console)
			t.Logf("QEMU: %s\nconsole:\n%s", &said, log)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	var conn net.Conn
	m.until(t, ctx, "QEMU's control socket", func() (err error) { conn, err = net.Dial("unix", control); return err })
	var err error
	if m.qmp, err = dialQMP(ctx, conn); err != nil {
		t.Fatal(err)
	}
	var network string
	if err := m.qmp.do(ctx, "human-monitor-command", args{"command-line": "info usernet"}, &network); err != nil {
		t.Fatal(err)
	}
	port := regexp.MustCompile(`HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)`).FindStringSubmatch(network)
	if port == nil {
		t.Fatalf("no forwarded port in %q", network)
	}
	m.url = "http://127.0.0.1:" + port[1]
	m.awaitBoot(t)
	return m
}

// awaitBoot returns once the machine answers.
func (m *machine) awaitBoot(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	m.until(t, ctx, "the machine", func() error {
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		_, err := m.get(once, "/held?serial=none")
		return err
	})
}

// until tries again until it works.
func (m *machine) until(t *testing.T, ctx context.Context, what string, try func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-m.died:
			t.Fatalf("%s: QEMU has ended: %v", what, err)
		case <-ctx.Done():
			t.Fatalf("%s: %v: %v", what, ctx.Err(), err)
		}
	}
}

// reset is what the power switch does: nothing is flushed, and controllers stay plugged in.
func (m *machine) reset(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	if err := m.qmp.do(ctx, "system_reset", nil, nil); err != nil {
		t.Fatal(err)
	}
	m.awaitBoot(t)
}

func (m *machine) get(ctx context.Context, path string) (string, error) {
	return m.request(ctx, http.MethodGet, path, "")
}

func (m *machine) request(ctx context.Context, method, path, body string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, m.url+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	answer, err := m.client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(raw))
	if answer.StatusCode != http.StatusOK {
		return text, fmt.Errorf("%s: %s: %s", path, answer.Status, text)
	}
	return text, nil
}

// post makes a request that must succeed.
func (m *machine) post(t *testing.T, path, body string) string {
	t.Helper()
	out, err := m.request(context.Background(), http.MethodPost, path, body)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return out
}

// sh runs a script in the machine, which must succeed.
func (m *machine) sh(t *testing.T, script string) string {
	t.Helper()
	return m.post(t, "/run", script)
}

// call sends the plugin what Docker sends, and returns the mountpoint, if the answer has one.
func (m *machine) call(verb, volume, id string, options map[string]string) (mountpoint string, err error) {
	body, err := json.Marshal(map[string]any{"Name": volume, "ID": id, "Opts": options})
	if err != nil {
		return "", err
	}
	out, err := m.request(context.Background(), http.MethodPost, "/VolumeDriver."+verb, string(body))
	var answer struct{ Mountpoint, Err string }
	if perr := json.Unmarshal([]byte(out), &answer); perr != nil && err == nil {
		return "", perr
	}
	if answer.Err != "" {
		return "", errors.New(answer.Err)
	}
	return answer.Mountpoint, err
}

// must is call for what must succeed.
func (m *machine) must(t *testing.T, verb, volume, id string, options map[string]string) string {
	t.Helper()
	path, err := m.call(verb, volume, id, options)
	if err != nil {
		t.Fatalf("%s %s: %v", verb, volume, err)
	}
	return path
}

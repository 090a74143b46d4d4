// Command guest is the first process of the virtual machine that the tests boot. It mounts what every Linux has, loads the network's
// modules, starts nothing by itself, and does over HTTP what a test tells it: there is no udev, no shell login and no other service.
//
// What may be called from outside: POST /run with a shell script, POST /start for the plugin, POST /VolumeDriver.* as Docker sends it to the
// plugin's socket, GET /held?serial=S.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// socket is where the plugin serves; state is its folder.
const (
	socket = "/run/docker/plugins/blockvol.sock"
	state  = "/data"
)

func main() {
	log.SetFlags(0)
	if err := boot(); err != nil {
		log.Printf("guest: %v", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // Else the kernel panics, as it does when the first process ends.
	}
}

func boot() error {
	for _, m := range []struct{ fs, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}, {"tmpfs", state}} {
		if err := errors.Join(os.MkdirAll(m.at, 0o755), unix.Mount(m.fs, m.at, m.fs, 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup2(int(console.Fd()), fd); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	if out, err := sh(context.Background(), "set -e; /bin/busybox --install -s /bin; for m in $(cat /modules/order); do insmod /modules/$m; done; ip link set lo up; "+
		"ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; mkdir -p "+filepath.Dir(socket)); err != nil {
		return fmt.Errorf("busybox, modules, network: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	var p plugin
	toPlugin := &httputil.ReverseProxy{
		Director: func(r *http.Request) { r.URL.Scheme, r.URL.Host = "http", "plugin" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}},
	}
	mux := http.NewServeMux()
	mux.Handle("POST /run", action(func(r *http.Request) (string, error) {
		script, err := io.ReadAll(r.Body)
		if err != nil {
			return "", err
		}
		return sh(r.Context(), string(script))
	}))
	mux.Handle("POST /start", action(func(*http.Request) (string, error) { return "", p.start() }))
	mux.Handle("GET /held", action(func(r *http.Request) (string, error) { return held(r.FormValue("serial")) }))
	mux.Handle("/", toPlugin)
	log.Printf("guest: ready")
	return http.Serve(l, mux)
}

// action answers with what do says, or with its error and status 500.
func action(do func(*http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := do(r)
		if err != nil {
			http.Error(w, strings.TrimSpace(fmt.Sprintf("%v %s", err, out)), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, out) // The test notices an answer that is cut short.
	})
}

// sh runs a script of busybox's shell.
func sh(ctx context.Context, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/busybox", "sh", "-c", script)
	cmd.Env = []string{"PATH=/bin:/usr/sbin"}
	cmd.WaitDelay = time.Second // What it leaves in the background may keep its output open.
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return string(out), err
}

// held tells whether the kernel has a device with that serial in use: "held", "free", or "absent".
func held(serial string) (string, error) {
	files, err := filepath.Glob("/sys/block/*/device/serial")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		found, err := os.ReadFile(file)
		if err != nil || string(bytes.TrimSpace(found)) != serial {
			continue // It may have gone meanwhile.
		}
		fd, err := unix.Open(filepath.Join("/dev", filepath.Base(filepath.Dir(filepath.Dir(file)))), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EBUSY):
			return "held", nil
		case err != nil:
			return "", err
		}
		return "free", unix.Close(fd)
	}
	return "absent", nil
}

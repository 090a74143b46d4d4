package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// capabilities are what Docker leaves to a plugin with this project's config.json: its own list for containers, and the two asked for.
var capabilities = []uintptr{
	unix.CAP_AUDIT_WRITE, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_MKNOD,
	unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SETFCAP, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
	unix.CAP_SYS_ADMIN, unix.CAP_SYS_RESOURCE,
}

// plugin is the process of the plugin, if it runs.
type plugin struct {
	mu  sync.Mutex
	cmd *exec.Cmd
}

// start starts the plugin with the environment in /env, and returns once its socket accepts. Its log goes to the console.
func (p *plugin) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New("the plugin runs already")
	}
	raw, err := os.ReadFile("/env")
	if err != nil {
		return err
	}
	var env []string
	if err := json.Unmarshal(raw, &env); err != nil {
		return err
	}
	cmd := exec.Command("/blockvol", "serve", "--socket", socket, "--state", state)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, os.Stderr
	started := make(chan error)
	go func() {
		// The thread loses its capabilities, hands on the rest to its child, and ends with this goroutine.
		runtime.LockOSThread()
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if slices.Contains(capabilities, c) {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: the kernel does not know it
				started <- err
				return
			}
		}
		started <- cmd.Start()
	}()
	if err := <-started; err != nil {
		return err
	}
	p.cmd = cmd
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

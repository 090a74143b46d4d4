// Package faultpoint ends the process, as SIGKILL does, at a named point. It is for tests: the release binary does not contain it.
//
// What lives here: reading which point is meant, and dying there. It must never know what the points are.
package faultpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// File is the name of the file that says where to die: a point's name, or NAME:N for the N-th time that this process reaches it.
const File = "crash-at"

// Points are the fault points of one process. The zero value of the fields that are not exported is right.
type Points struct {
	Dir string // where File is looked for, at each point

	mu      sync.Mutex
	reached map[string]int
}

// Reach ends the process if File names this point. tool is the process of a tool that runs at this point, or 0: the end comes when the
// tool has begun to write, so that it is killed in the middle. File is removed first, so that the next process lives.
func (p *Points) Reach(point string, tool int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reached == nil {
		p.reached = map[string]int{}
	}
	p.reached[point]++
	path := filepath.Join(p.Dir, File)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	name, nth, counted := strings.Cut(strings.TrimSpace(string(data)), ":")
	n := p.reached[point]
	if counted && err == nil {
		n, err = strconv.Atoi(nth)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "faultpoint: %s says %q, which is not understood: %v\n", path, data, err)
		return
	}
	if name != point || n != p.reached[point] {
		return
	}
	if tool != 0 {
		untilItWrites(tool)
	}
	if err := os.Remove(path); err != nil {
		fmt.Fprintf(os.Stderr, "faultpoint: %v\n", err)
	}
	fmt.Fprintf(os.Stderr, "faultpoint: dying at %s\n", point)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	if os.Getpid() == 1 {
		// The first process of a container cannot be killed from inside it (pid_namespaces(7)). This ends it as abruptly.
		syscall.Exit(128 + int(syscall.SIGKILL))
	}
	select {} // a signal to oneself is delivered soon, not at once
}

// untilItWrites returns when a process has written something, has ended, or has done neither for a second.
func untilItWrites(pid int) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil || !bytes.Contains(data, []byte("wchar: ")) || !bytes.Contains(data, []byte("wchar: 0\n")) {
			return
		}
	}
}

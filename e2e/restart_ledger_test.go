package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// What may happen to the plugin's ledger while nobody writes it.

func rm(path string) error       { return os.Remove(path) }
func truncate(path string) error { return os.Truncate(path, 30) }
func garbage(path string) error  { return os.WriteFile(path, []byte("\x00\xff{garbage"), 0o600) }
func newer(path string) error {
	return os.WriteFile(path, []byte(`{"schema": 1000, "known": [{"what": "nobody knows yet"}]}`), 0o600)
}

// end kills the plugin. Its ledger may be changed before; it writes nothing any more then.
func (p *Plugin) end(t *testing.T, change func(ledger string) error) {
	t.Helper()
	pid, err := p.PID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		if err := change(filepath.Join(p.StateDir(), "ledger.json")); err != nil {
			t.Error(err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, time.Minute, func() error {
		now, err := p.PID()
		if err != nil || now != pid {
			return nil
		}
		return os.ErrExist
	})
}

// damaged kills the plugin, damages its ledger, and waits until dockerd has started it again and a ledger is there that it can read.
func damaged(p *Plugin, change func(ledger string) error) func(t *testing.T) {
	return func(t *testing.T) {
		ledger := filepath.Join(p.StateDir(), "ledger.json")
		// dockerd disables a plugin that dies before dockerd itself has seen its socket, which it looks for with pauses of some seconds.
		time.Sleep(5 * time.Second)
		p.end(t, change)
		Eventually(t, time.Minute, func() error {
			if _, err := p.PID(); err != nil {
				return err
			}
			_, err := os.Stat(ledger)
			return err
		})
	}
}

package driver

import (
	"net"
	"strings"
	"testing"
	"time"
)

// A process that was forked from the last plugin holds its lock for a moment, and says nothing.
func TestALockThatOnlyLingersIsWaitedForAndASilentHolderIsRefused(t *testing.T) {
	t.Parallel()
	held, err := net.Listen("unix", "@blockvol/lingers/"+t.Name())
	if err != nil {
		t.Fatal(err)
	}
	gone := time.AfterFunc(silentHolder/6, func() { held.Close() })
	defer gone.Stop()
	lock, err := lockInstance("lingers", t.Name(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	lock.release()

	silent, err := net.Listen("unix", "@blockvol/silent/"+t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if lock, err := lockInstance("silent", t.Name(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "does not say who it is") {
		t.Errorf("a lock that is held was taken: %v %v", lock, err)
	}
}

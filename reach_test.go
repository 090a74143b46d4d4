package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func TestAPluginOutOfReachEndsAtMostOnceAMinute(t *testing.T) {
	state := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(state, "plugin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var said strings.Builder
	log := logrus.New()
	log.SetOutput(&said)
	start := func(reaches bool, err error, dir string) error {
		said.Reset()
		c, dialErr := net.Dial("unix", l.Addr().String()) // as dockerd does, to see that the plugin has started
		if dialErr != nil {
			t.Fatal(dialErr)
		}
		defer c.Close()
		return outOfReach(func(string) (bool, error) { return reaches, err }, l, dir, log)
	}
	if err := start(true, nil, state); err != nil || said.Len() > 0 {
		t.Errorf("a plugin in order: %v %s", err, &said)
	}
	if err := start(false, errors.New("no such thing"), state); err != nil {
		t.Errorf("a plugin that cannot tell: %v", err)
	}
	if err := start(false, nil, filepath.Join(state, "nothing")); err != nil {
		t.Errorf("a plugin that cannot write down that it ends: %v", err)
	}
	if err := start(false, nil, state); !errors.Is(err, errOutOfReach) {
		t.Errorf("a plugin out of reach: %v", err)
	}
	if err := start(false, nil, state); err != nil || !strings.Contains(said.String(), "although the plugin was started anew") {
		t.Errorf("at once again: %v %s", err, &said)
	}
	long := time.Now().Add(-2 * anewAfter)
	if err := os.Chtimes(filepath.Join(state, "out-of-reach"), long, long); err != nil {
		t.Fatal(err)
	}
	if err := start(false, nil, state); !errors.Is(err, errOutOfReach) {
		t.Errorf("after a while: %v", err)
	}
}

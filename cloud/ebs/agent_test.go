package ebs

import (
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

func TestTheUserAgentTellsClusterAndOperationAndNothingThatMayNotStandThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(func(cfg *Config) { cfg.Cluster = "prod (eu)\u00fc/1" })
	if _, err := c.List(cloud.WithOperation(timeout(t, time.Minute), "mount\r\nX-Evil: 1")); err != nil {
		t.Fatal(err)
	}
	for _, call := range w.Calls() {
		if want := "blockvol-cluster/prod--eu---1 blockvol-operation/mount--X-Evil--1"; !strings.Contains(call.UserAgent, want) {
			t.Errorf("the user agent is %q, want it to have %q", call.UserAgent, want)
		}
	}
}

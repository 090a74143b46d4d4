package logs

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// stuck is a reader's end that takes nothing until it is opened.
type stuck struct {
	open chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.open
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

func TestABlockedReaderBlocksNobodyAndIsToldWhatItMissed(t *testing.T) {
	to := &stuck{open: make(chan struct{})}
	w := NewWriter(to)
	log := New(w, logrus.InfoLevel, false)
	done := make(chan struct{})
	go func() {
		for range 3 * backlog {
			log.Info("flood")
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("logging waits for the reader")
	}
	close(to.open)
	w.Close(time.Minute)
	out := to.got.String()
	if n := strings.Count(out, "flood"); n < backlog || n > backlog+1 {
		t.Errorf("%d lines were kept, want %d", n, backlog)
	}
	if !strings.Contains(out, "log lines were dropped") {
		t.Error("the reader is not told that lines are missing")
	}
}

func TestALineOfAnyLengthFitsDockersReader(t *testing.T) {
	for _, json := range []bool{false, true} {
		var out bytes.Buffer
		w := NewWriter(&out)
		New(w, logrus.InfoLevel, json).Info(strings.Repeat("x", 100<<10))
		w.Close(time.Minute)
		if n := out.Len(); n > maxLine || n < maxLine/2 || !strings.HasSuffix(out.String(), "\n") {
			t.Errorf("json=%v: the line has %d bytes and ends in %q", json, n, out.String()[max(0, n-20):])
		}
	}
}

func TestClosingWaitsForAStuckReaderNoLongerThanTold(t *testing.T) {
	to := &stuck{open: make(chan struct{})}
	defer close(to.open)
	w := NewWriter(to)
	New(w, logrus.InfoLevel, false).Info("x")
	done := make(chan struct{})
	go func() { w.Close(50 * time.Millisecond); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("closing waits for ever")
	}
}

func TestTheLastLinesAreKeptAlsoThoseThatNobodyReads(t *testing.T) {
	t.Parallel()
	never, end := io.Pipe() // nobody reads
	defer never.Close()
	defer end.Close()
	w := NewWriter(end)
	line := strings.Repeat("x", 1023) + "\n"
	for range 2 * keep / len(line) {
		fmt.Fprint(w, line)
	}
	fmt.Fprint(w, "last\n")
	got := string(w.Recent())
	if len(got) > keep || len(got) < keep-2*len(line) || !strings.HasSuffix(got, line+"last\n") {
		t.Errorf("%d bytes are kept, ending with %q", len(got), got[max(0, len(got)-20):])
	}
}

// Package logs makes the logger of all parts of blockvol. What may be called from outside: New. It must never know what is logged.
//
// dockerd 20.10 stops forwarding a plugin's output after one line of more than 64 KiB, and then the plugin's next writes block for ever
// once the pipe is full. So lines are cut, and what writes them never waits for the reader.
package logs

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// maxLine is the longest line written, in bytes.
	maxLine = 16 << 10
	// backlog is how many lines wait for a slow reader before lines are dropped.
	backlog = 1024
)

// Writer writes lines to another writer without ever blocking its caller: lines that the other cannot take are dropped and counted.
type Writer struct {
	to      io.Writer
	lines   chan []byte
	done    chan struct{}
	dropped atomic.Int64

	mu     sync.Mutex
	recent [][]byte // the last lines, also those that were dropped
	size   int      // of recent, in bytes
}

// keep is how much of the log Recent returns, in bytes.
const keep = 256 << 10

// Recent returns the last lines that were written, whether anybody has read them or not.
func (w *Writer) Recent() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Join(w.recent, nil)
}

// remember keeps a line for Recent.
func (w *Writer) remember(line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recent = append(w.recent, line)
	w.size += len(line)
	for w.size > keep {
		w.size -= len(w.recent[0])
		w.recent = w.recent[1:]
	}
}

// NewWriter starts a Writer.
func NewWriter(to io.Writer) *Writer {
	w := &Writer{to: to, lines: make(chan []byte, backlog), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one line. It never fails: there is nobody to tell.
func (w *Writer) Write(p []byte) (int, error) {
	line := bytes.Clone(p)
	if len(line) > maxLine {
		line = append(line[:maxLine-len(cut)], cut...)
	}
	w.remember(line)
	select {
	case w.lines <- line:
	default:
		w.dropped.Add(1)
	}
	return len(p), nil
}

const cut = " ... (cut)\n"

func (w *Writer) run() {
	defer close(w.done)
	for line := range w.lines {
		if n := w.dropped.Swap(0); n > 0 {
			fmt.Fprintf(w.to, "time=%q level=warning msg=\"%d log lines were dropped: nobody read them\"\n", time.Now().UTC().Format(time.RFC3339), n)
		}
		// A log that cannot be written has nowhere to say so.
		_, _ = w.to.Write(line)
	}
}

// Close writes what is waiting, for at most that long.
func (w *Writer) Close(within time.Duration) {
	close(w.lines)
	select {
	case <-w.done:
	case <-time.After(within):
	}
}

// New makes a logger that writes to w.
func New(w io.Writer, level logrus.Level, json bool) *logrus.Logger {
	l := logrus.New()
	l.SetOutput(w)
	l.SetLevel(level)
	if json {
		l.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	} else {
		l.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true, TimestampFormat: time.RFC3339Nano})
	}
	return l
}

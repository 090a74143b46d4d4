package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// progress tells a person what is being waited for: on a terminal in a last line that counts the seconds, elsewhere in plain lines.
type progress struct {
	out   io.Writer
	width int // of the terminal; 0: it is none

	mu    sync.Mutex
	text  string // of the line that counts
	since time.Time
	stop  chan struct{} // ends the counting
}

// clearLine takes the cursor to the begin of a line and empties it.
const clearLine = "\r\x1b[K"

// say ends the line before, and begins another one.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width == 0 {
		fmt.Fprintln(p.out, text)
		return
	}
	p.endLine()
	p.text, p.since = strings.Join(strings.Fields(text), " "), time.Now()
	p.show()
	if p.stop == nil {
		p.stop = make(chan struct{})
		go p.count(p.stop)
	}
}

// end leaves the last line as it is. More may be said after that.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
}

func (p *progress) count(stop chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			p.mu.Lock()
			if p.text != "" && p.stop == stop {
				p.show()
			}
			p.mu.Unlock()
		}
	}
}

// show writes the line anew. It must not be wider than the terminal: only the last line of it would be cleared.
func (p *progress) show() {
	took := fmt.Sprintf(" (%s)", time.Since(p.since).Round(time.Second))
	fmt.Fprint(p.out, clearLine+shorten(p.text, max(p.width-len(took)-1, narrowest))+took)
}

// endLine writes the whole text of the line that counted, for those who look back.
func (p *progress) endLine() {
	if p.text != "" {
		fmt.Fprintf(p.out, "%s%s (%s)\n", clearLine, p.text, time.Since(p.since).Round(time.Second))
		p.text = ""
	}
}

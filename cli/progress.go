package cli

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// progress tells a person what is being waited for: on a terminal in a last line that counts the seconds, elsewhere in plain lines. A text that ends
// in how much is done (see portion) has a bar on a terminal, which grows as long as the same is said with another number; elsewhere it is said
// again for every plainStep.
type progress struct {
	out   io.Writer
	width int // of the terminal; 0: it is none

	mu    sync.Mutex
	text  string // of the line that counts
	done  int    // percent of it; -1: there is no telling
	since time.Time
	stop  chan struct{} // ends the counting
}

// portion is how a plugin says how much is done: "copying vol-1: 42 %".
var portion = regexp.MustCompile(`^(.*\S): (\d{1,3}) %$`)

const (
	plainStep = 10 // percent from one plain line to the next
	barWidth  = 20 // letters
)

// split takes a text apart into what is done and how much of it in percent, or -1.
func split(text string) (what string, done int) {
	m := portion.FindStringSubmatch(text)
	if m == nil {
		return text, -1
	}
	done, _ = strconv.Atoi(m[2])
	return m[1], min(done, 100)
}

// clearLine takes the cursor to the begin of a line and empties it.
const clearLine = "\r\x1b[K"

// say ends the line before, and begins another one; or goes on with it, if it is about the same.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what, done := split(strings.Join(strings.Fields(text), " "))
	same := done >= 0 && what == p.text && p.done >= 0
	if p.width == 0 {
		if !same || done >= p.done+plainStep || done == 100 && p.done < 100 {
			fmt.Fprintln(p.out, text)
			p.text, p.done = what, done
		}
		return
	}
	if same {
		p.done = done
		p.show()
		return
	}
	p.endLine()
	p.text, p.done, p.since = what, done, time.Now()
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
	if p.width > 0 {
		p.endLine()
	}
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
	took := p.bar() + fmt.Sprintf(" (%s)", time.Since(p.since).Round(time.Second))
	fmt.Fprint(p.out, clearLine+shorten(p.text, max(p.width-len(took)-1, narrowest))+took)
}

// bar shows how much is done, where the terminal has room for it.
func (p *progress) bar() string {
	number := fmt.Sprintf(" %3d %%", p.done)
	switch {
	case p.done < 0:
		return ""
	case p.width < 3*barWidth:
		return number
	}
	full := barWidth * p.done / 100
	return " [" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]" + number
}

// endLine writes the whole text of the line that counted, for those who look back.
func (p *progress) endLine() {
	if p.text != "" {
		fmt.Fprintf(p.out, "%s%s%s (%s)\n", clearLine, p.text, p.bar(), time.Since(p.since).Round(time.Second))
		p.text = ""
	}
}

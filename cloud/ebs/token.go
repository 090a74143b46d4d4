package ebs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// tokens remembers which client token a name is at. Every creation of a name in a cluster uses the token of (cluster, name, n). n
// starts at 0 and goes up by one when the volume made with n is known to be gone, so that all hosts walk the same way and meet
// at the same token. EC2 itself remembers; this memory only saves the walk.
type tokens struct {
	mu      sync.Mutex
	cluster string
	keep    time.Duration
	now     func() time.Time
	of      map[string]generation
}

type generation struct {
	n       int
	touched time.Time
	gone    time.Time // when this process saw the volume of generation n-1 end
}

func newTokens(cluster string, keep time.Duration, now func() time.Time) *tokens {
	return &tokens{cluster: cluster, keep: keep, now: now, of: map[string]generation{}}
}

// token is 64 characters long, EC2's limit. The fields are encoded so that no two triples give one text.
func (t *tokens) token(name string, n int) string {
	text, _ := json.Marshal([]any{"blockvol", t.cluster, name, n}) // strings and an int always encode
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// current returns the generation of a name, and whether this process saw the one before it end within the last minute.
func (t *tokens) current(name string) (n int, justGone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.of[name]
	now := t.now()
	if g.touched.IsZero() || now.Sub(g.touched) > t.keep {
		return 0, false
	}
	return g.n, now.Sub(g.gone) < time.Minute
}

// burn says that the token of generation n can make no volume any more.
func (t *tokens) burn(name string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	g := t.of[name]
	if now.Sub(g.touched) > t.keep {
		g = generation{}
	}
	if n >= g.n {
		g.n, g.gone = n+1, now
	}
	g.touched = now
	if len(t.of) >= memoryLimit {
		for other, old := range t.of {
			if now.Sub(old.touched) > t.keep {
				delete(t.of, other)
			}
		}
	}
	t.of[name] = g
}

// restart makes the next creation of a name walk from the beginning: the volume of an earlier generation is back.
func (t *tokens) restart(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, name)
}

// deletedMessage reports whether EC2's text for IdempotentParameterMismatch says that the token's volume is gone; the code alone also
// stands for other parameters.
func deletedMessage(message string) bool {
	return strings.Contains(strings.ToLower(message), "already deleted")
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"github.com/blockvol/blockvol/driver"
)

// errForeign says that what answers on a socket is not blockvol.
var errForeign = errors.New("what answers there is not blockvol")

// client asks the plugin behind one socket.
type client struct {
	socket  string
	version string                       // of this command
	say     func(text string)            // told what is being done meanwhile; nil: nobody listens
	end     func()                       // told when that has ended; nil likewise
	differ  func(plugin, command string) // told when the versions differ; nil: nobody listens
}

// ask sends a verb's request and waits for the end of its work. The result goes to out. What the plugin refuses for safety is an error with
// the exit code for that.
func (c *client) ask(ctx context.Context, verb string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://blockvol"+driver.AdminPath(verb), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(driver.VersionHeader, c.version)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	}}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer answer.Body.Close()
	theirs := answer.Header.Get(driver.VersionHeader)
	if theirs == "" {
		return c.notAVerb(verb, answer)
	}
	if theirs != c.version && c.differ != nil {
		c.differ(theirs, c.version)
	}
	if c.end != nil {
		defer c.end()
	}
	return c.read(ctx, verb, answer.Body, out)
}

// read follows the answer to its last line.
func (c *client) read(ctx context.Context, verb string, answer io.Reader, out any) error {
	for d := json.NewDecoder(answer); ; {
		var line struct {
			driver.AdminLine
			Err string // of a request that did not get as far as its verb
		}
		switch err := d.Decode(&line); {
		case ctx.Err() != nil:
			return fmt.Errorf("%w; what the plugin has begun goes on, and doing it again does no harm", ctx.Err())
		case err != nil:
			return fmt.Errorf("the plugin's answer broke off (%w); what it has begun may go on, and doing it again does no harm", err)
		case line.Refused:
			return &exitError{code: ExitRefused, err: errors.New(line.Error)}
		case line.Error != "":
			return errors.New(line.Error)
		case line.Err != "":
			return errors.New(line.Err)
		case line.Result != nil:
			if err := json.Unmarshal(line.Result, out); err != nil {
				return fmt.Errorf("the plugin's answer to %s cannot be read; its version and that of this command may not fit: %w", verb, err)
			}
			return nil
		case line.Say != "" && c.say != nil:
			c.say(line.Say)
		}
	}
}

func (c *client) unreachable(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return needsRoot(c.socket)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no socket %s: is the plugin enabled? See `docker plugin ls`", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing answers on %s: the plugin has ended; see `docker plugin ls` and the engine's log", c.socket)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("asking the plugin on %s: %w", c.socket, err)
}

// notAVerb tells what answers without knowing the verb: an older blockvol, or another program.
func (c *client) notAVerb(verb string, answer *http.Response) error {
	var told struct{ Err string }
	_ = json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&told)
	if answer.StatusCode == http.StatusNotFound && told.Err == driver.UnknownCall(driver.AdminPath(verb)) {
		return fmt.Errorf("the plugin on %s does not know this verb: it is older than this command (%s); upgrade the plugin, or use the command of its own version", c.socket, c.version)
	}
	return fmt.Errorf("%s: %w", c.socket, errForeign)
}

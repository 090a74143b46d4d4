package nvme

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
)

// qmp is a connection to QEMU's control protocol. Source: docs/interop/qmp-spec of QEMU.
type qmp struct {
	conn net.Conn

	mu      sync.Mutex // one command at a time
	answers chan message
	ended   chan struct{}

	eventsMu sync.Mutex
	deleted  map[string]chan struct{} // by device ID: closed by DEVICE_DELETED
}

// message is everything that QEMU says.
type message struct {
	Event  string          `json:"event"`
	Data   eventData       `json:"data"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
}

// qmpError is how QEMU refuses a command.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Class + ": " + e.Desc }

type eventData struct {
	Device string `json:"device"`
}

// args are the arguments of a command.
type args map[string]any

// dialQMP takes over a connection and leaves the negotiation behind.
func dialQMP(ctx context.Context, conn net.Conn) (*qmp, error) {
	q := &qmp{conn: conn, answers: make(chan message), ended: make(chan struct{}), deleted: map[string]chan struct{}{}}
	go q.read()
	return q, q.do(ctx, "qmp_capabilities", nil, nil)
}

func (q *qmp) read() {
	defer close(q.ended)
	in := json.NewDecoder(q.conn)
	for {
		var m message
		if in.Decode(&m) != nil {
			return
		}
		switch {
		case m.Event == "DEVICE_DELETED" && m.Data.Device != "":
			q.eventsMu.Lock()
			if c := q.deleted[m.Data.Device]; c != nil {
				close(c)
				delete(q.deleted, m.Data.Device)
			}
			q.eventsMu.Unlock()
		case m.Return != nil || m.Error != nil:
			q.answers <- m
		}
	}
}

// do runs a command and puts what it returns into out, which may be nil.
func (q *qmp) do(ctx context.Context, command string, arguments args, out any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case m := <-q.answers:
		if m.Error != nil {
			return fmt.Errorf("%s: %w", command, m.Error)
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(m.Return, out)
	case <-q.ended:
		return fmt.Errorf("%s: QEMU has ended", command)
	case <-ctx.Done():
		q.conn.Close() // The answer may still come, and would be taken for that of the next command.
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}

// gone returns a channel that is closed when QEMU says that the device is gone.
func (q *qmp) gone(device string) <-chan struct{} {
	q.eventsMu.Lock()
	defer q.eventsMu.Unlock()
	c := q.deleted[device]
	if c == nil {
		c = make(chan struct{})
		q.deleted[device] = c
	}
	return c
}

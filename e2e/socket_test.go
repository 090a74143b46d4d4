package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Socket is a way to the plugin beside dockerd: requests as dockerd makes them, over the plugin's own socket.
type Socket struct{ client http.Client }

// Socket opens it for the dockerd that runs now.
func (p *Plugin) Socket(t testing.TB) *Socket {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(p.e.PID(t)), "root/run/docker/plugins", p.ID)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialIn(ctx, dir, "blockvol.sock") }
	return &Socket{http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Ask makes a request, with an answer into out unless that is nil. What the plugin answers as its error is refusal; err says that there
// was no answer.
func (s *Socket) Ask(call string, in, out any) (refusal string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	r, err := s.client.Post("http://plugin/VolumeDriver."+call, "", bytes.NewReader(append(body, '\n')))
	if err != nil {
		return "", fmt.Errorf("VolumeDriver.%s %s: %w", call, body, err)
	}
	defer r.Body.Close()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return "", fmt.Errorf("VolumeDriver.%s %s: %w", call, body, err)
	}
	var answer struct{ Err string }
	if err := json.Unmarshal(raw, &answer); err != nil {
		return "", fmt.Errorf("VolumeDriver.%s %s: %s: %w", call, body, raw, err)
	}
	if out != nil && answer.Err == "" {
		err = json.Unmarshal(raw, out)
	}
	return answer.Err, err
}

// Do makes a request that must succeed.
func (s *Socket) Do(call string, in any) error {
	refusal, err := s.Ask(call, in, nil)
	if refusal != "" {
		return fmt.Errorf("VolumeDriver.%s %v: %s", call, in, refusal)
	}
	return err
}

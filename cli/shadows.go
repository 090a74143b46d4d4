package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// dockerSocket is where Docker's engine listens, if nothing says otherwise.
const dockerSocket = "unix:///var/run/docker.sock"

// dockerTime is how long the engine has to list its volumes: it asks every plugin.
const dockerTime = 20 * time.Second

// dockerVolume is what the engine tells of a volume.
type dockerVolume struct{ Name, Driver string }

// dockerFindings looks for volumes of the engine that are not blockvol's and look as if they were meant to be. host is that of `docker -H`.
func dockerFindings(ctx context.Context, host string, ours []string) []cloud.Finding {
	if host == "" {
		host = os.Getenv("DOCKER_HOST")
	}
	if host == "" {
		host = dockerSocket
	}
	const check = "local volumes"
	path, local := strings.CutPrefix(host, "unix://")
	if !local {
		return []cloud.Finding{{Check: check, Verdict: cloud.Unknown, Text: "not looked at: the engine is at " + withoutUser(host) + ", and only that of this host is asked, over its socket"}}
	}
	theirs, err := dockerVolumes(ctx, path)
	if err != nil {
		return []cloud.Finding{{Check: check, Verdict: cloud.Unknown, Text: "not looked at: " + err.Error()}}
	}
	var found []cloud.Finding
	for _, v := range theirs {
		for _, name := range ours {
			if v.Driver != "local" || !resembles(v.Name, name) {
				continue
			}
			f := cloud.Finding{Check: check, Subject: v.Name, Verdict: cloud.Warning,
				Text: fmt.Sprintf("it is local to this host, and its name resembles that of the volume %s: was it made by mistake?", name),
				Fix:  "if so, copy what is in it, and docker volume rm " + v.Name}
			if v.Name == name {
				f.Text = "it is local to this host and has the name of a volume of blockvol: containers here get the local one"
				f.Fix = "stop what uses it, copy what is in it, docker volume rm " + v.Name + "; with --mount, volume-driver=blockvol stands inside the value"
			}
			found = append(found, f)
			break
		}
	}
	if len(found) == 0 {
		return []cloud.Finding{{Check: check, Verdict: cloud.OK, Text: "none has or resembles the name of a volume of blockvol"}}
	}
	return found
}

// withoutUser is an address without a password that may stand in it.
func withoutUser(host string) string {
	if i := strings.LastIndex(host, "@"); i >= 0 {
		return host[i+1:]
	}
	return host
}

func dockerVolumes(ctx context.Context, path string) ([]dockerVolume, error) {
	ctx, cancel := context.WithTimeout(ctx, dockerTime)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/volumes", nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		var asked *url.Error
		if errors.As(err, &asked) {
			err = asked.Err
		}
		return nil, fmt.Errorf("the engine does not answer: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the engine on %s answers with %s", path, answer.Status)
	}
	var list struct{ Volumes []dockerVolume }
	if err := json.NewDecoder(answer.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("the engine on %s: %w", path, err)
	}
	slices.SortFunc(list.Volumes, func(a, b dockerVolume) int { return strings.Compare(a.Name, b.Name) })
	return list.Volumes, nil
}

// anonymous is the name that the engine gives to a volume that nobody has named.
var anonymous = regexp.MustCompile(`^[0-9a-f]{64}$`)

// resembles tells whether somebody may have meant the volume named ours with that name: the same but for letter case and separators, with the
// name of a compose project before it, or with one letter wrong.
func resembles(theirs, ours string) bool {
	if anonymous.MatchString(theirs) {
		return false
	}
	plain := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
	}
	a, b := plain(theirs), plain(ours)
	return a == b || strings.HasSuffix(theirs, "_"+ours) || len(b) >= 5 && oneEdit(a, b)
}

// oneEdit tells whether one text becomes the other by one letter more, less, other, or by two that change places.
func oneEdit(a, b string) bool {
	if len(a) < len(b) {
		a, b = b, a
	}
	for i := range a {
		if i < len(b) && a[i] == b[i] {
			continue
		}
		switch len(a) - len(b) {
		case 1:
			return a[i+1:] == b[i:]
		case 0:
			return a[i+1:] == b[i+1:] || i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
		}
		return false
	}
	return false // the same
}

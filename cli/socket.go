package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/blockvol/blockvol/driver"
)

const (
	// pluginDir is where dockerd has the sockets of plugins: those of managed plugins in a folder each, named by the plugin's ID; those
	// of services of the host in the folder itself.
	pluginDir = "/run/docker/plugins"
	// socketEnv names the socket where --socket does not.
	socketEnv = "BLOCKVOL_SOCKET"
	// lookTime is how long a socket has to say that it is blockvol's.
	lookTime = 5 * time.Second
)

// errNoPlugin says that there is no plugin to ask.
var errNoPlugin = errors.New("no plugin of blockvol runs on this host")

// found is a socket that blockvol answers on.
type found struct {
	path  string
	about driver.About
}

// findSocket returns the socket of the plugin of this host: the one that is named, or the only one there is.
func findSocket(ctx context.Context, named, dir string) (string, error) {
	if named == "" {
		named = os.Getenv(socketEnv)
	}
	if named != "" {
		return named, nil
	}
	paths, err := socketsIn(dir)
	if err != nil {
		return "", err
	}
	var have []found
	var silent []error
	for _, p := range paths {
		look, cancel := context.WithTimeout(ctx, lookTime)
		var about driver.About
		err := (&client{socket: p}).ask(look, "About", driver.NoRequest{}, &about)
		cancel()
		switch {
		case err == nil:
			have = append(have, found{p, about})
		case errors.Is(err, fs.ErrPermission):
			return "", needsRoot(p)
		case !errors.Is(err, errForeign):
			silent = append(silent, fmt.Errorf("%s: %w", p, err))
		}
	}
	switch {
	case len(have) == 1:
		return have[0].path, nil
	case len(have) > 1:
		text := "several plugins of blockvol run here: say which one with --socket (or " + socketEnv + ")"
		for _, f := range have {
			text += fmt.Sprintf("\n  --socket %s  # CLUSTER=%s, version %s", f.path, f.about.Cluster, f.about.Version)
		}
		return "", usagef("%s", text)
	case len(silent) > 0:
		return "", fmt.Errorf("no plugin of blockvol answers on this host: %w", errors.Join(silent...))
	}
	return "", fmt.Errorf("%w: there is no socket of it in %s; see `docker plugin ls`, or name the socket with --socket", errNoPlugin, dir)
}

// socketsIn returns the sockets that may be blockvol's.
func socketsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, needsRoot(dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".sock") {
			paths = append(paths, filepath.Join(dir, e.Name()))
			continue
		}
		managed := filepath.Join(dir, e.Name(), "blockvol.sock")
		if _, err := os.Stat(managed); err == nil {
			paths = append(paths, managed)
		} else if errors.Is(err, fs.ErrPermission) {
			return nil, needsRoot(managed)
		}
	}
	return paths, nil
}

func needsRoot(path string) error {
	return fmt.Errorf("%s: %w: the plugin's socket is for root only, run this as root (sudo)", path, fs.ErrPermission)
}

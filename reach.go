package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/blockvol/blockvol/driver/disk"
	"github.com/moby/sys/mountinfo"
	"github.com/sirupsen/logrus"
)

// errOutOfReach ends a plugin whose mounts no container would ever see.
var errOutOfReach = errors.New("what is mounted here does not reach the host, so no container could use a volume; ending, so that dockerd starts the plugin again")

// anewAfter is the least time between two such ends: dockerd starts a plugin again at once and without end.
const anewAfter = time.Minute

// startAnew returns errOutOfReach if dockerd has started the plugin in a way in which no volume can be used, and a new start may help. [After
// dockerd was killed, its new process ends the old plugin, cleans up behind it and starts the new one, all at the same time. If it cleans
// up too late, the plugin gets a private folder instead of one that is shared with the host: every container start then fails with "no such
// file or directory", until the plugin is started once more.] Without plugin packaging there is nothing to find out.
func startAnew(l net.Listener, state string, log logrus.FieldLogger) error {
	if os.Getpid() != 1 {
		return nil
	}
	if mounted, err := mountinfo.Mounted(state); err != nil || !mounted {
		return nil
	}
	return outOfReach(disk.Reaches, l, state, log)
}

// outOfReach is startAnew in a plugin.
func outOfReach(ask func(dir string) (bool, error), l net.Listener, state string, log logrus.FieldLogger) error {
	reaches, err := ask(state)
	if err != nil {
		log.Warnf("whether mounts in %s reach the host cannot be told: %v", state, err)
		return nil
	}
	note := filepath.Join(state, "out-of-reach")
	if reaches {
		return nil
	}
	if last, err := os.Stat(note); err == nil && time.Since(last.ModTime()) < anewAfter {
		log.Errorf("what is mounted in %s does not reach the host, although the plugin was started anew for that: containers will not find their volumes; restart the plugin or dockerd", state)
		return nil
	}
	if err := os.WriteFile(note, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return nil // without the note this could go on for ever
	}
	log.Error(errOutOfReach)
	// dockerd disables a plugin that dies before dockerd has seen its socket, which it looks for with pauses, for 9.5 s in all.
	if u, ok := l.(*net.UnixListener); ok {
		if err := u.SetDeadline(time.Now().Add(10 * time.Second)); err == nil {
			if c, err := l.Accept(); err == nil {
				c.Close()
				time.Sleep(500 * time.Millisecond) // and until it has taken note
			}
		}
	}
	return errOutOfReach
}

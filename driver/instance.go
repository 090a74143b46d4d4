package driver

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/moby/sys/mountinfo"
)

// instanceLock is the proof that no second blockvol serves this cluster on this instance. Two of them would both see a new volume as
// "attached to me, and blank". An abstract unix socket in the host's network namespace ends with its process, however that dies.
type instanceLock struct{ l net.Listener }

// errSecond marks the error of a plugin that is not alone.
var errSecond = errors.New("another blockvol has the lock")

// silentHolder is how long a holder may be silent before it is believed to be one. A blockvol says who it is. A process that the last one has
// forked holds a copy of the lock, and says nothing, until it becomes its program.
const silentHolder = 3 * time.Second

// lockInstance takes the lock, or tells who has it.
func lockInstance(cluster, instance, stateDir string) (*instanceLock, error) {
	name := "@blockvol/" + cluster + "/" + instance
	l, err := net.Listen("unix", name)
	for end := time.Now().Add(silentHolder); errors.Is(err, syscall.EADDRINUSE); l, err = net.Listen("unix", name) {
		who := askHolder(name)
		if who != "" || time.Now().After(end) {
			if who == "" {
				who = "it does not say who it is"
			}
			return nil, &cloud.Error{Kind: cloud.ErrConfig, Cause: errSecond, Text: fmt.Sprintf("another blockvol serves cluster %q on this instance already (%s): "+
				"two would format and detach each other's volumes; remove one of them, or give this one another CLUSTER", cluster, who)}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("taking the lock for cluster %q on instance %s: %w", cluster, instance, err)
	}
	lock := &instanceLock{l: l}
	go lock.introduce(fmt.Sprintf("process %d, started %s, data in %s", os.Getpid(), time.Now().UTC().Format(time.RFC3339), hostPath(stateDir)))
	return lock, nil
}

// introduce tells everybody who asks who holds the lock.
func (i *instanceLock) introduce(who string) {
	for {
		c, err := i.l.Accept()
		if err != nil {
			return
		}
		// A reader that is gone, or slow, is its own loss.
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte(who + "\n"))
		c.Close()
	}
}

func (i *instanceLock) release() { i.l.Close() }

// askHolder returns what the holder of the lock says of itself, or "".
func askHolder(name string) string {
	c, err := net.DialTimeout("unix", name, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSpace(line)
}

// hostPath names dir as the host sees it where the plugin's mount table tells: the folder of a managed plugin names its plugin.
func hostPath(dir string) string {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil {
		return dir
	}
	best := ""
	path := dir
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(best) && m.Mountpoint != "/" && m.Root != "/" {
			best = m.Mountpoint
			path = m.Root + strings.TrimPrefix(dir, m.Mountpoint)
		}
	}
	return path
}

// program names this process's own program as the host sees it where the plugin's mount table tells: its root lies in the plugin's folder.
func program() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	if err != nil || len(mounts) == 0 {
		return path
	}
	return filepath.Join(mounts[len(mounts)-1].Root, path)
}

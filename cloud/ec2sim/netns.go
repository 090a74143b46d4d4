package ec2sim

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// listenIn is listen in a network namespace, by the name that ip-netns(8) knows it by. A socket stays in the namespace it was made in, so
// one process serves hosts that cannot reach each other's loopback.
func listenIn(netns, address string, remote bool) (l net.Listener, endpoint string, err error) {
	if netns == "" {
		return listen(address, remote)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is never unlocked: it ends with this goroutine, and no other one finds itself in that namespace.
		runtime.LockOSThread()
		var ns *os.File
		if ns, err = os.Open(filepath.Join("/var/run/netns", netns)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			l, endpoint, err = listen(address, remote)
		}
	}()
	<-done
	if err != nil {
		return nil, "", fmt.Errorf("in the network namespace %s: %w", netns, err)
	}
	return l, endpoint, nil
}

// namespaces are the network namespaces of the instances, each once.
func namespaces(asked map[string]instanceOption) []string {
	names := map[string]bool{}
	for _, o := range asked {
		if o.netns != "" {
			names[o.netns] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Package disk is the way from a block device to a filesystem to a mount on this host.
//
// What lives here: finding a device by its serial, waiting for it, proving what is on it, the rule that decides whether it may be
// formatted (Decide), making, checking, mounting, growing and freezing a filesystem, and telling whether a device is in use. What may be
// called from outside: the methods of Host, the pure functions Decide, ValidateMountOptions and ValidateSubdir, Guard, and the sentinel
// errors. What it must never know about: clouds and their calls, Docker, volumes' names.
//
// A device is known by its serial and its number, never by its name alone: every method that takes a Device opens its node,
// compares the number, and reads the serial again while the node is open, for as long as it is open the kernel gives neither
// away.
package disk

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// The errors of this package, for errors.Is. What is returned wraps one of them with a text for the user.
var (
	ErrNoDevice    = errors.New("no such device")                   // no device with that serial is there, or not any more
	ErrNotReady    = errors.New("device is not ready")              // the serial is there, but not yet its size or its node
	ErrDuplicate   = errors.New("several devices have this serial") // none of them is used
	ErrInUse       = errors.New("device is in use")                 // EBUSY: mounted or held open in some mount namespace
	ErrUnreadable  = errors.New("device cannot be read")            // see ReadError
	ErrReadOnly    = errors.New("device is read-only")              // as the kernel has it: blockdev --getro
	ErrRefused     = errors.New("refused")                          // what was asked for is not done because it may do damage
	ErrDamaged     = errors.New("filesystem is damaged")            // a check found more than it may repair by itself
	ErrTool        = errors.New("a needed tool is missing")         // not on PATH
	ErrStuck       = errors.New("the kernel has not answered")      // work went on when the context ended; see the text
	ErrNotMounted  = errors.New("nothing is mounted there")         // Unmount, Grow
	ErrUnsupported = errors.New("filesystem type is not supported") // neither ext4 nor xfs
	ErrOption      = errors.New("this option cannot be used")       // mount or format options
	ErrSerial      = errors.New("a device cannot be found by this") // the wanted serial is empty
	errGone        = fmt.Errorf("%w: it went away", ErrNoDevice)    // ENXIO, ENODEV, ENOENT while working
	errChanged     = fmt.Errorf("%w: its name now means another device", ErrNoDevice)
)

// Host is where this machine shows its devices. The zero value of every field but Dev and Sys is usable. All methods are safe for
// concurrent use; calls that concern one device must be serialised by the caller where the order matters.
type Host struct {
	// Dev holds the device nodes, normally /dev.
	Dev string
	// Sys holds block/<name>/{dev,size,device/serial}, normally /sys. A simulator may show another view.
	Sys string
	// Log gets what is worth knowing but is not an error. Nil logs nothing.
	Log logrus.FieldLogger
	// Rescan is how often Wait and WaitGone look without being woken by an event; 0 means one second.
	Rescan time.Duration
	// Kmsg is where the kernel's log is read for the cause of a failed mount; empty means /dev/kmsg. Unreadable is no error.
	Kmsg string
	// Tool, if set, is called with the name and the process of every filesystem tool, while that runs or has just ended.
	Tool func(name string, pid int)
}

// Device is a block device with a serial, as it was found.
type Device struct {
	Name         string // the kernel's name, e.g. nvme1n1
	Path         string // its node, e.g. /dev/nvme1n1
	Major, Minor uint32
	Serial       string // without padding, never empty
	Size         int64  // bytes
}

func (d Device) String() string { return fmt.Sprintf("%s (serial %s)", d.Path, d.Serial) }

func (h *Host) log() logrus.FieldLogger {
	if h.Log != nil {
		return h.Log
	}
	l := logrus.New()
	l.SetLevel(logrus.PanicLevel)
	return l
}

// bounded runs f, which may block in the kernel for as long as the storage behind a device does not answer (NVMe on EC2 waits
// for ever), and returns when f has ended or ctx has. In the second case f goes on by itself and frees what it holds. Before
// anything that others can see, f asks commit: false means that nobody waits any more and that it must not be done; after true it
// is waited for.
func bounded[T any](ctx context.Context, doing string, f func(commit func() bool) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	var claimed atomic.Bool // by f, which commits, or by the waiter, who gives up
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%s: panic: %v\n%s", doing, p, debug.Stack())
			}
			done <- r
		}()
		r.v, r.err = f(func() bool { return claimed.CompareAndSwap(false, true) })
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	if !claimed.CompareAndSwap(false, true) {
		r := <-done
		return r.v, r.err
	}
	var none T
	return none, fmt.Errorf("%s: %w in time, and is still working on it: %w", doing, ErrStuck, context.Cause(ctx))
}

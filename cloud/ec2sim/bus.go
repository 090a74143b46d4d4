package ec2sim

import (
	"errors"
	"path/filepath"

	"github.com/sirupsen/logrus"
)

// Bus puts volumes into hosts that are more than a folder: virtual machines, where a volume is a device of the hardware. A simulator with
// a Bus makes no loop devices, and shows nothing in its hosts' DevDir. Calls for different attachments come at the same time; those for
// one come one after the other. A call that fails is made again until it succeeds.
type Bus interface {
	// Plug gives the instance a device over the file, with that serial. One that it has already stays as it is.
	Plug(instance, file, serial string) error
	// Unplug takes the device away; it is no error if there is none. Without force it returns ErrHeld while the host uses the device.
	// Once it has returned nothing reads or writes the file any more.
	Unplug(instance, serial string, force bool) error
}

// ErrHeld says that the host still uses a device.
var ErrHeld = errors.New("the host still uses the device")

// hardware is how attachments become devices: loop devices in a folder, or what a Bus does.
type hardware interface {
	plugIn(devDir, file string, look appearance, shuffle bool) (plug, error)
	adopt(devDir, file string, p plug, look appearance) bool
	unplug(devDir string, p plug, force bool) (left bool, err error)
	release(devDir string, p plug)
	removeSoon(loop int)
	reap(loop int) bool
	grow(devDir string, p plug, sizeGiB int64) error
	forget(devDir string, p plug)
	sweep(devDir string, keep map[string]bool)
}

// bussed is a Bus as hardware. Of a plug it uses the serial; Node is 1.
type bussed struct {
	bus Bus
	log logrus.FieldLogger
}

// hostOf is the instance whose DevDir that is.
func hostOf(devDir string) string { return filepath.Base(filepath.Dir(devDir)) }

func (b bussed) plugIn(devDir, file string, look appearance, _ bool) (plug, error) {
	if err := b.bus.Plug(hostOf(devDir), file, look.serial); err != nil {
		return plug{}, err
	}
	return plug{Node: 1, Serial: look.serial}, nil
}

// adopt plugs in again: that leaves a device that is still there alone.
func (b bussed) adopt(devDir, file string, p plug, _ appearance) bool {
	return p.Node != 0 && b.bus.Plug(hostOf(devDir), file, p.Serial) == nil
}

func (b bussed) unplug(devDir string, p plug, force bool) (left bool, err error) {
	if p.Node == 0 {
		return false, nil
	}
	return false, b.bus.Unplug(hostOf(devDir), p.Serial, force)
}

// release takes away what nobody uses, as the end of the simulator wants it.
func (b bussed) release(devDir string, p plug) {
	if _, err := b.unplug(devDir, p, false); err != nil && !errors.Is(err, ErrHeld) {
		b.log.WithError(err).Warn("ec2sim: cannot take a device away")
	}
}

// grow does nothing: a host with a Bus sees another size with the next attachment.
func (bussed) grow(string, plug, int64) error { return nil }

func (b bussed) forget(devDir string, p plug) { b.release(devDir, p) }

// There are no loop devices and no nodes to clean up.
func (bussed) removeSoon(int)                {}
func (bussed) reap(int) bool                 { return true }
func (bussed) sweep(string, map[string]bool) {}

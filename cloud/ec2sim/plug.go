package ec2sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// maxNode is the highest N of the /dev/nvmeNn1 that a simulated host has. 0 is its root disk, which is not simulated.
const maxNode = 255

// disks is the data plane: it puts volumes into hosts as devices, and takes them out again.
type disks struct {
	loops loops
	log   logrus.FieldLogger

	mu     sync.Mutex
	cables map[int]*os.File // by loop number: our own hold on the device, without which it would go as soon as nobody uses it
}

// plug is where an attachment's device is. The zero value is: nowhere.
type plug struct {
	Node  int  `json:"node,omitempty"` // N of nvmeNn1
	Loop  int  `json:"loop,omitempty"`
	Added bool `json:"added,omitempty"` // the loop number is ours to remove

	Serial string `json:"serial,omitempty"` // on a Bus: what the device shows
}

// appearance is what a host's kernel shows of a device.
type appearance struct {
	serial  string
	sizeGiB int64
}

func newDisks(dir string, log logrus.FieldLogger) *disks {
	return &disks{loops: loops{dev: "/dev", sys: "/sys", nodes: filepath.Join(dir, "nodes")}, log: log, cables: map[int]*os.File{}}
}

// plugIn makes a device of a volume's file in a host's /dev. Node, and then the view of sysfs, appear after the device works; the kernel's
// event comes after both, so that whoever waits for it finds all in place.
func (d *disks) plugIn(devDir, file string, look appearance, shuffle bool) (plug, error) {
	cable, n, added, err := d.loops.create(file)
	if err != nil {
		return plug{}, err
	}
	p := plug{Loop: n, Added: added}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.Node, err = freeNode(devDir, shuffle); err == nil {
		err = d.publish(devDir, p, cable, look)
	}
	if err != nil {
		d.unpublish(devDir, p)
		cable.Close()
		if added {
			d.loops.remove(n)
		}
		return plug{}, err
	}
	d.cables[n] = cable
	return p, d.loops.announce(cable)
}

// adopt takes over the device of an attachment that an earlier simulator left; false when there is none any more.
func (d *disks) adopt(devDir, file string, p plug, look appearance) bool {
	if p.Node == 0 {
		return false
	}
	cable, ok := d.loops.find(p.Loop, file)
	if !ok {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.publish(devDir, p, cable, look); err != nil {
		d.log.WithError(err).Warn("ec2sim: cannot show a device that was found again")
	}
	d.cables[p.Loop] = cable
	return true
}

// publish makes node and view.
func (d *disks) publish(devDir string, p plug, cable *os.File, look appearance) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(cable.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := makeNode(filepath.Join(devDir, p.name()), unix.S_IFBLK, st.Rdev); err != nil {
		return err
	}
	blocks := filepath.Join(devDir, ".sysfs", "block")
	if err := os.MkdirAll(blocks, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(blocks), "new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Mkdir(filepath.Join(tmp, "device"), 0o755)); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"dev":           fmt.Sprintf("%d:%d\n", unix.Major(st.Rdev), unix.Minor(st.Rdev)),
		"size":          fmt.Sprintf("%d\n", look.sizeGiB<<30/512),
		"device/serial": fmt.Sprintf("%-20s\n", look.serial), // The kernel pads both with spaces.
		"device/model":  fmt.Sprintf("%-40s\n", "Amazon Elastic Block Store"),
	} {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	view := filepath.Join(blocks, p.name())
	if err := os.RemoveAll(view); err != nil {
		return err
	}
	return os.Rename(tmp, view)
}

func (p plug) name() string { return "nvme" + strconv.Itoa(p.Node) + "n1" }

// unpublish removes view and node.
func (d *disks) unpublish(devDir string, p plug) {
	if p.Node == 0 {
		return
	}
	err := errors.Join(os.RemoveAll(filepath.Join(devDir, ".sysfs", "block", p.name())), os.RemoveAll(filepath.Join(devDir, p.name())))
	if err != nil {
		d.log.WithError(err).Warn("ec2sim: cannot remove a device's node")
	}
}

// unplug takes a device out of a host. While the host holds it that is refused with ErrHeld, unless by force: then the holder gets I/O
// errors from now on. left tells that somebody still has the dead device open, and that reap must remove its number later. Calls for one
// attachment come one after the other.
func (d *disks) unplug(devDir string, p plug, force bool) (left bool, err error) {
	d.mu.Lock()
	cable := d.cables[p.Loop]
	d.mu.Unlock()
	if p.Node == 0 || cable == nil {
		d.unpublish(devDir, p)
		return false, nil
	}
	probe, held, err := d.loops.held(p.Loop)
	if err != nil {
		return false, fmt.Errorf("probe loop%d: %w", p.Loop, err)
	}
	if held && !force {
		return false, ErrHeld
	}
	if !held {
		defer probe.Close()
		// The cable keeps the last close of a user from being the last of all, which is when the kernel would write back.
		if err := cable.Sync(); err != nil {
			return false, fmt.Errorf("write back loop%d: %w", p.Loop, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unpublish(devDir, p)
	if err := d.loops.cut(cable); err != nil {
		return false, fmt.Errorf("cut off loop%d: %w", p.Loop, err)
	}
	delete(d.cables, p.Loop)
	cable.Close()
	if probe != nil {
		probe.Close()
	}
	return p.Added && !d.loops.remove(p.Loop), nil
}

// releasePatience is how long release waits for those who open every new device for a moment, such as udev.
const releasePatience = 300 * time.Millisecond

// grow gives a device the size that its file has now. The view of sysfs follows, and then the kernel's event once more, so that whoever waits
// for it finds both.
func (d *disks) grow(devDir string, p plug, sizeGiB int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	cable := d.cables[p.Loop]
	if p.Node == 0 || cable == nil {
		return nil
	}
	if err := d.loops.announce(cable); err != nil {
		return fmt.Errorf("grow loop%d: %w", p.Loop, err)
	}
	size := filepath.Join(devDir, ".sysfs", "block", p.name(), "size")
	if err := writeAtomically(size, fmt.Appendf(nil, "%d\n", sizeGiB<<30/512)); err != nil {
		return err
	}
	if err := os.Chmod(size, 0o644); err != nil {
		return err
	}
	return d.loops.announce(cable)
}

// release lets go of a device at the end of the simulator. One that the host uses stays, with its node, and can be adopted.
func (d *disks) release(devDir string, p plug) {
	d.mu.Lock()
	defer d.mu.Unlock()
	cable := d.cables[p.Loop]
	if p.Node == 0 || cable == nil {
		return
	}
	if err := cable.Sync(); err != nil {
		d.log.WithError(err).Warn("ec2sim: cannot write back a device")
	}
	delete(d.cables, p.Loop)
	probe, held, err := d.loops.held(p.Loop)
	cable.Close()
	if held || err != nil {
		return
	}
	d.unpublish(devDir, p)
	probe.Close()
	if p.Added {
		d.removeSoon(p.Loop)
	}
}

// removeSoon removes the number of a device that nobody but such a passer-by has open.
func (d *disks) removeSoon(n int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(releasePatience); !d.loops.remove(n) && time.Now().Before(end); {
		<-tick.C
	}
}

// reap removes the number of a device that unplug left; false while somebody has it open.
func (d *disks) reap(n int) bool { return d.loops.remove(n) }

// forget removes what is left of a device that went away while no simulator was there. Its number may be somebody else's by now: then
// it is in use, and stays.
func (d *disks) forget(devDir string, p plug) {
	d.unpublish(devDir, p)
	if p.Added {
		d.loops.remove(p.Loop)
	}
}

// sweep removes from a host's /dev what a simulator left that was killed while it made or removed a device.
func (d *disks) sweep(devDir string, keep map[string]bool) {
	for _, pattern := range []string{"nvme*n1", ".sysfs/block/nvme*n1", ".sysfs/new-*"} {
		found, err := filepath.Glob(filepath.Join(devDir, pattern))
		for _, path := range found {
			if !keep[filepath.Base(path)] {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
		if err != nil {
			d.log.WithError(err).Warn("ec2sim: cannot remove an old device's node")
		}
	}
}

// freeNode chooses N of nvmeNn1: the lowest free, or any.
func freeNode(devDir string, shuffle bool) (int, error) {
	if err := os.MkdirAll(devDir, 0o755); err != nil {
		return 0, err
	}
	var free []int
	for n := 1; n <= maxNode; n++ {
		if _, err := os.Lstat(filepath.Join(devDir, plug{Node: n}.name())); errors.Is(err, os.ErrNotExist) {
			free = append(free, n)
		}
	}
	if len(free) == 0 {
		return 0, fmt.Errorf("%s: no free device number up to %d", devDir, maxNode)
	}
	if shuffle {
		return free[rand.IntN(len(free))], nil
	}
	return free[0], nil
}

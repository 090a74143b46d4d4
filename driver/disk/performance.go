package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Performance is what the EBS device of a Nitro instance counts of a volume, since it was attached.
type Performance struct {
	Reads, Writes             Transfers
	VolumeIOPSExceeded        time.Duration // how long more IOPS were asked for than the volume has
	VolumeBytesExceeded       time.Duration // the same for throughput
	InstanceIOPSExceeded      time.Duration // how long more IOPS were asked for than the instance has for EBS
	InstanceBytesExceeded     time.Duration // the same for throughput
	QueueLength               uint64        // requests that wait
	ReadLatency, WriteLatency []LatencyBin  // as many bins as the device tells; may be none
}

// Transfers are the completed requests of one direction.
type Transfers struct {
	Count, Bytes uint64
	Time         time.Duration // of all of them together
}

// LatencyBin counts the requests that took up to Upper.
type LatencyBin struct {
	Upper time.Duration
	Count uint64 // of this bin alone
}

// The statistics page of EBS. Sources: "Amazon EBS detailed performance statistics" in the EBS User Guide, and struct amzn_latency_log_page of
// nvme-cli (plugins/amzn/amzn-nvme.c).
const (
	nvmeAdmin       = 0xC0484E41 // NVME_IOCTL_ADMIN_CMD, linux/nvme_ioctl.h
	nvmeGetLogPage  = 0x02       // the NVMe specification, Get Log Page
	statsPage       = 0xD0
	statsSize       = 4096
	statsMagic      = 0x3C23B510
	statsCounters   = 8   // offset of the first counter
	statsHistograms = 512 // offset of the first histogram
	histogramBins   = 64
	binSize         = 24 // lower and upper bound, 8 bytes each, count and reserve, 4 each
	statsLimit      = 2 * time.Second

	loopMajor = 7 // of the devices of a simulator, which are called nvme; see the kernel's devices.txt
)

// nvmeCommand is struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type nvmeCommand struct {
	opcode, flags             uint8
	_                         uint16
	namespace                 uint32
	_, _                      uint32
	metadata, address         uint64
	metadataLength, length    uint32
	cdw10, cdw11, cdw12       uint32
	cdw13, cdw14, cdw15       uint32
	timeoutMillis, resultWord uint32
}

// errNoPerformance says that a device has no statistics of EBS.
var errNoPerformance = errors.New("the device has no EBS statistics")

// Performance reads the statistics of d. Devices that are not of EBS have none, which is an error like any other. It may block for seconds while
// the device does not answer. It reads no block and holds nothing: the volume may be mounted, or be made meanwhile.
func (h *Host) Performance(d Device) (Performance, error) {
	if !strings.HasPrefix(d.Name, "nvme") || d.Major == loopMajor {
		return Performance{}, fmt.Errorf("%s: %w", d.Path, errNoPerformance)
	}
	f, err := os.OpenFile(d.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Performance{}, err
	}
	defer f.Close()
	page := make([]byte, statsSize)
	var pins runtime.Pinner // the command has the address as a number
	defer pins.Unpin()
	pins.Pin(&page[0])
	c := nvmeCommand{
		opcode: nvmeGetLogPage, namespace: 1, address: uint64(uintptr(unsafe.Pointer(&page[0]))), length: statsSize,
		cdw10:         statsPage | (statsSize/4-1)<<16, // the number of words is given less one
		timeoutMillis: uint32(statsLimit / time.Millisecond),
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeAdmin, uintptr(unsafe.Pointer(&c)))
	if errno != 0 {
		return Performance{}, fmt.Errorf("%s: %w: %w", d.Path, errNoPerformance, errno)
	}
	if status != 0 {
		return Performance{}, fmt.Errorf("%s: %w: NVMe status %#x", d.Path, errNoPerformance, status)
	}
	return parsePerformance(page)
}

// parsePerformance reads the statistics page.
func parsePerformance(page []byte) (Performance, error) {
	if len(page) < statsSize {
		return Performance{}, fmt.Errorf("%w: the page has %d bytes, want %d", errNoPerformance, len(page), statsSize)
	}
	le := binary.LittleEndian
	if magic := le.Uint32(page); magic != statsMagic {
		return Performance{}, fmt.Errorf("%w: the page begins with %#x, want %#x", errNoPerformance, magic, statsMagic)
	}
	counter := func(n int) uint64 { return le.Uint64(page[statsCounters+8*n:]) }
	micros := func(n int) time.Duration { return microseconds(counter(n)) }
	const histogram = 8 + histogramBins*binSize
	return Performance{
		Reads:                 Transfers{Count: counter(0), Bytes: counter(2), Time: micros(4)},
		Writes:                Transfers{Count: counter(1), Bytes: counter(3), Time: micros(5)},
		VolumeIOPSExceeded:    micros(6),
		VolumeBytesExceeded:   micros(7),
		InstanceIOPSExceeded:  micros(8),
		InstanceBytesExceeded: micros(9),
		QueueLength:           counter(10),
		ReadLatency:           parseBins(page[statsHistograms:]),
		WriteLatency:          parseBins(page[statsHistograms+histogram:]),
	}, nil
}

func parseBins(b []byte) []LatencyBin {
	le := binary.LittleEndian
	bins := make([]LatencyBin, min(le.Uint64(b), histogramBins))
	for n := range bins {
		at := b[8+n*binSize:]
		bins[n] = LatencyBin{Upper: microseconds(le.Uint64(at[8:])), Count: uint64(le.Uint32(at[16:]))}
	}
	return bins
}

// microseconds is n of them, or as many as a Duration can hold.
func microseconds(n uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Microsecond)
	return time.Duration(min(n, most)) * time.Microsecond
}

package disk

import (
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// statsPageOf makes a page as an EBS device does.
func statsPageOf(counters []uint64, read, write [][3]uint64) []byte {
	page := make([]byte, statsSize)
	le := binary.LittleEndian
	le.PutUint32(page, statsMagic)
	for n, c := range counters {
		le.PutUint64(page[8+8*n:], c)
	}
	for _, h := range []struct {
		at   int
		bins [][3]uint64
	}{{512, read}, {512 + 1544, write}} {
		le.PutUint64(page[h.at:], uint64(len(h.bins)))
		for n, b := range h.bins {
			le.PutUint64(page[h.at+8+24*n:], b[0])
			le.PutUint64(page[h.at+16+24*n:], b[1])
			le.PutUint32(page[h.at+24+24*n:], uint32(b[2]))
		}
	}
	return page
}

func TestTheStatisticsPageOfEBSIsRead(t *testing.T) {
	t.Parallel()
	page := statsPageOf([]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, [][3]uint64{{0, 100, 20}, {100, 200, 30}}, [][3]uint64{{0, 50, 7}})
	got, err := parsePerformance(page)
	want := Performance{
		Reads:  Transfers{Count: 1, Bytes: 3, Time: 5 * time.Microsecond},
		Writes: Transfers{Count: 2, Bytes: 4, Time: 6 * time.Microsecond},

		VolumeIOPSExceeded: 7 * time.Microsecond, VolumeBytesExceeded: 8 * time.Microsecond,
		InstanceIOPSExceeded: 9 * time.Microsecond, InstanceBytesExceeded: 10 * time.Microsecond,
		QueueLength:  11,
		ReadLatency:  []LatencyBin{{100 * time.Microsecond, 20}, {200 * time.Microsecond, 30}},
		WriteLatency: []LatencyBin{{50 * time.Microsecond, 7}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestAPageThatIsNotOfEBSIsNoStatistics(t *testing.T) {
	t.Parallel()
	other := statsPageOf(nil, nil, nil)
	binary.LittleEndian.PutUint32(other, 0xEC2C0D7E) // that of an instance store
	for name, page := range map[string][]byte{"empty": nil, "zero": make([]byte, statsSize), "short": statsPageOf(nil, nil, nil)[:statsSize-1], "instance store": other} {
		if p, err := parsePerformance(page); !errors.Is(err, errNoPerformance) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestAPageWithImpossibleNumbersDoesNoHarm(t *testing.T) {
	t.Parallel()
	page := statsPageOf([]uint64{0, 0, 0, 0, math.MaxUint64}, nil, nil)
	binary.LittleEndian.PutUint64(page[512:], math.MaxUint64) // bins
	p, err := parsePerformance(page)
	if err != nil || len(p.ReadLatency) != histogramBins || p.Reads.Time < 0 {
		t.Errorf("%d bins, %s, %v", len(p.ReadLatency), p.Reads.Time, err)
	}
}

func TestTheCommandIsAsLargeAsTheKernelSays(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(nvmeCommand{}); size != nvmeAdmin>>16&0x3fff {
		t.Errorf("it has %d bytes, and the request's number says %d", size, nvmeAdmin>>16&0x3fff)
	}
}

func TestASimulatedDeviceHasNoStatistics(t *testing.T) {
	t.Parallel()
	for _, d := range []Device{{Name: "loop0", Path: "/dev/loop0"}, {Name: "nvme1n1", Path: "/dev/null"}, {Name: "nvme1n1", Path: "/nonexistent"}} {
		if p, err := (&Host{}).Performance(d); err == nil || strings.Contains(err.Error(), "magic") {
			t.Errorf("%s: %+v, %v", d, p, err)
		}
	}
}

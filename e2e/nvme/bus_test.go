package nvme

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// slots is how many hot-plug slots the machine has.
const slots = 8

// How long a hot-plug operation may take on a busy machine without KVM.
const plugPatience = 30 * time.Second

// bus makes volumes NVMe controllers of the machine. A controller's ID in QEMU is its serial.
type bus struct {
	m *machine

	mu    sync.Mutex
	inUse map[int]string // serial by slot
}

var _ ec2sim.Bus = (*bus)(nil)

// slotOf is the slot of a serial; that of "" is a free one.
func (b *bus) slotOf(serial string) (int, bool) {
	for n := range slots {
		if b.inUse[n] == serial {
			return n, true
		}
	}
	return 0, false
}

// Plug adds a controller in a free slot.
func (b *bus) Plug(_, file, serial string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.slotOf(serial); there {
		return nil
	}
	slot, ok := b.slotOf("")
	if !ok {
		return errors.New("no slot is free")
	}
	ctx, cancel := context.WithTimeout(context.Background(), plugPatience)
	defer cancel()
	node := "node-" + serial
	if err := b.m.qmp.do(ctx, "blockdev-add", args{"node-name": node, "driver": "raw", "discard": "unmap",
		"file": args{"driver": "file", "filename": file}}, nil); err != nil {
		return err
	}
	if err := b.m.qmp.do(ctx, "device_add", args{"driver": "nvme", "id": serial, "serial": serial, "drive": node, "bus": slotName(slot)}, nil); err != nil {
		return errors.Join(err, b.m.qmp.do(ctx, "blockdev-del", args{"node-name": node}, nil))
	}
	b.inUse[slot] = serial
	return nil
}

// Unplug asks the machine whether it uses the controller, unless by force, and has it ejected.
func (b *bus) Unplug(_, serial string, force bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	slot, there := b.slotOf(serial)
	if !there {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), plugPatience)
	defer cancel()
	if !force {
		use, err := b.m.get(ctx, "/held?serial="+serial)
		if err != nil {
			return err
		}
		if use == "held" {
			return ec2sim.ErrHeld
		}
	}
	gone := b.m.qmp.gone(serial)
	// A request that an earlier call has made is refused, and still under way or already carried out.
	err := b.m.qmp.do(ctx, "device_del", args{"id": serial}, nil)
	if refused := (*qmpError)(nil); !errors.As(err, &refused) || refused.Class != "DeviceNotFound" {
		select {
		case <-gone:
		case <-ctx.Done():
			return fmt.Errorf("the machine does not let go of %s: %w", serial, errors.Join(ctx.Err(), err))
		}
	}
	delete(b.inUse, slot)
	return b.m.qmp.do(ctx, "blockdev-del", args{"node-name": "node-" + serial}, nil)
}

func slotName(n int) string { return fmt.Sprintf("slot%d", n) }

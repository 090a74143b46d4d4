package driver

import (
	"fmt"
	"sort"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/options"
)

// info is what Docker is told of a volume, from memory and the kernel alone.
func (m *Manager) info(v *record) Info {
	host := m.self().ID
	draining := m.drainingSince()
	path, mounted := m.mountedAt(v)
	var used *disk.Usage // asked without the lock: it may hang
	if id, _ := v.known(); mounted {
		if u, err := m.usage(id); err == nil {
			used = &u
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	i := Info{Name: v.name, Status: map[string]any{}}
	st := i.Status
	if m.cfg.Simulated {
		st["simulated"] = "local files, not EBS"
	}
	if !draining.IsZero() {
		st["draining"] = "this host takes no volumes since " + draining.UTC().Format(time.RFC3339) + " (blockvol drain)"
	}
	if v.ambiguous != nil {
		st["error"] = v.ambiguous.Error()
		return i
	}
	if v.id != "" {
		st["id"] = v.id
	}
	st["state"] = string(v.phase)
	if mounted && v.phase == phaseFree { // by an earlier process
		st["state"] = string(phaseMounted)
	}
	if v.doing != "" {
		st["doing"] = v.doing + " since " + v.doingSince.UTC().Format(time.RFC3339)
	}
	switch {
	case v.seen != nil && v.seen.Newer != nil:
		st["error"] = v.seen.Newer.Error()
	case v.lastErr != nil:
		st["error"] = v.lastErr.Error()
	}
	if len(v.users) > 0 {
		users := make([]string, 0, len(v.users))
		for id := range v.users {
			users = append(users, short(id))
		}
		sort.Strings(users)
		st["users"] = users
	}
	vol := v.seen
	if vol == nil {
		return i
	}
	i.Created = vol.Created
	st["size"] = fmt.Sprintf("%d GiB", vol.SizeGiB)
	st["type"] = vol.Type
	st["zone"] = vol.Zone
	st["encrypted"] = vol.Encrypted
	st["volumeState"] = string(vol.State)
	if vol.IOPS > 0 {
		st["iops"] = vol.IOPS
	}
	if vol.Throughput > 0 {
		st["throughput"] = vol.Throughput
	}
	if vol.KMSKeyID != "" {
		st["kmsKeyID"] = vol.KMSKeyID
	}
	if len(vol.Tags) > 0 {
		st["tags"] = vol.Tags
	}
	if p := vol.Attrs[attrProfile]; p != "" {
		st["profile"] = p
	}
	if rule, err := options.ReclaimOf(vol.Attrs); err != nil {
		st["reclaim"] = err.Error()
	} else {
		st["reclaim"] = rule
	}
	st["filesystem"] = vol.Attrs[attrFS]
	if schedule := vol.Attrs[attrSchedule]; schedule != "" {
		st["snapshotSchedule"] = schedule
		if keep := vol.Attrs[attrKeep]; keep != "" {
			st["snapshotKeep"] = keep
		}
		if row := m.slots.row(vol.ID); row != nil {
			st["snapshotNext"] = timeText(row.Next)
			if row.Problem != "" {
				st["snapshotError"] = row.Problem
			}
		}
	}
	if a, ok := vol.Elsewhere(host); ok {
		st["attachedTo"] = a.Host
	}
	if v.attached {
		if dev, err := m.disk.Find(vol.Serial); err == nil {
			st["attachedTo"] = host
			st["device"] = dev.Path
			st["volumeState"] = string(cloud.InUse) // the cloud was asked before it was attached
		}
	}
	if mounted {
		i.Mountpoint = path
		if used != nil {
			st["usedBytes"], st["freeBytes"] = used.Used, used.Free
		}
	}
	return i
}

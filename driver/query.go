package driver

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

// Info is what Docker is told about a volume.
type Info struct {
	Name       string
	Mountpoint string // empty while it is not mounted
	Created    time.Time
	Status     map[string]any
}

// Get answers what is known of a volume. Its only error besides errUndecided says "does not exist" to Docker, which then forgets the
// volume's labels and users and may go on to delete it; so that is answered only for a fact.
func (m *Manager) Get(ctx context.Context, name string) (Info, error) {
	if err := checkName(name); err != nil {
		return Info{}, fmt.Errorf("%w (%w)", err, errQuiet) // no volume can have it: a fact
	}
	if err := m.readyToGet(ctx, name); err != nil {
		return m.getUnready(name, err)
	}
	v := m.record(name)
	if m.present(v) {
		return m.info(v), nil
	}
	v.set(func() { v.looking++ })
	defer v.set(func() { v.looking-- })
	id, _ := v.known()
	var err error
	if id != "" {
		// The volume is known: there is something to answer even if the cloud is slow. Only what looks like its end is worth a longer wait.
		first, cancel := context.WithTimeout(ctx, m.timing.Absent*3/5)
		defer cancel()
		_, err = m.lookup(first, v, m.timing.Fresh)
	}
	if id == "" || errors.Is(err, cloud.ErrNotFound) {
		// While EC2 does not answer this takes all the time there is, and so does the Create that Docker sends next: together about 48 s until
		// an unknown name is refused. A shorter wait here would be paid by those who start a container of an existing volume while EC2 throttles:
		// their Get would be cut where it is answered now.
		_, err = m.exists(ctx, v, m.timing.Fresh)
	}
	switch {
	case err == nil:
		m.save(v)
		return m.info(v), nil
	case errors.Is(err, cloud.ErrNotFound):
		return Info{}, err
	case errors.Is(err, cloud.ErrAmbiguous), id != "":
		m.log.WithField("volume", name).Warnf("answered from memory: %v", err)
		i := m.info(v)
		i.Status["error"] = err.Error()
		return i, nil
	}
	return Info{}, fmt.Errorf("whether volume %q exists %w: %w", name, errUndecided, err)
}

// readyToGet is ready, for no longer than is worth it: of a volume that was handed to Docker from here there is something to answer. It is not
// listed meanwhile.
func (m *Manager) readyToGet(ctx context.Context, name string) error {
	if m.ledger.has(name) {
		v := m.record(name)
		v.set(func() { v.looking++ })
		defer v.set(func() { v.looking-- })
		soon, cancel := context.WithTimeout(ctx, 2*m.timing.Listing)
		defer cancel()
		ctx = soon
	}
	return m.ready(ctx)
}

// getUnready answers Get while the host cannot serve. A volume that was handed to Docker from here existed, and the reason is told in its
// status. Where no volume ever was, nothing can be lost by saying why at once; otherwise Docker must not take the reason for "does not exist".
func (m *Manager) getUnready(name string, err error) (Info, error) {
	if m.ledger.has(name) {
		i := m.info(m.record(name))
		i.Status["error"] = err.Error()
		return i, nil
	}
	if errors.Is(err, cloud.ErrConfig) && !m.ledger.knows() {
		return Info{}, err
	}
	return Info{}, fmt.Errorf("whether volume %q exists %w: %w", name, errUndecided, err)
}

// present tells whether v's device is in this host's kernel. Then it exists, whatever the cloud can say at the moment.
func (m *Manager) present(v *record) bool {
	_, seen := v.known()
	if seen == nil {
		return false
	}
	_, err := m.disk.Find(seen.Serial)
	return err == nil
}

// List names the volumes of the cluster. dockerd takes the lock of each name it is told, so names with a Create, Remove or undecided Get
// in flight are left out: one that hangs would make `docker volume ls` hang. While the host finds out which one it is, because the cloud
// does not answer since the start, the volumes that Docker knows from here are named from memory.
func (m *Manager) List(ctx context.Context) ([]Info, error) {
	soon, cancel := context.WithTimeout(ctx, m.timing.Listing)
	defer cancel()
	unready := m.ready(soon)
	switch {
	case unready == nil:
		m.refreshList(ctx)
	case errors.Is(unready, cloud.ErrConfig):
		return nil, unready
	default:
		m.log.Warnf("listing volumes: answered from memory: %v", unready)
	}
	m.mu.Lock()
	names := append([]string(nil), m.listed...)
	m.mu.Unlock()
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	for _, v := range m.all() {
		if id, _ := v.known(); id != "" && !have[v.name] {
			names = append(names, v.name)
		}
	}
	sort.Strings(names)
	var out []Info
	for _, n := range names {
		v := m.record(n)
		v.mu.Lock()
		show := v.changing == 0 && v.looking == 0 && (v.id != "" || v.ambiguous != nil)
		v.mu.Unlock()
		if show {
			out = append(out, m.info(v))
		}
	}
	if len(out) == 0 && unready != nil {
		return nil, unready
	}
	return out, nil
}

// refreshList asks the cloud for all volumes, unless it was asked a moment ago, and waits a short time for the answer.
func (m *Manager) refreshList(ctx context.Context) {
	m.mu.Lock()
	fresh := time.Since(m.listedAt) < m.timing.ListFresh
	m.mu.Unlock()
	if fresh {
		return
	}
	ch := m.flight("\x00list", func() (any, error) {
		ctx, cancel := context.WithTimeout(cloud.WithOperation(m.base, cloud.Operation(ctx)), m.timing.Request)
		defer cancel()
		return nil, m.takeStock(ctx)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			m.log.Warnf("listing volumes: answered from memory: %v", r.Err)
		}
	case <-time.After(m.timing.Listing):
		m.log.Warn("listing volumes: EC2 is slow, answered from memory")
	case <-ctx.Done():
	}
}

// takeStock lists the cluster's volumes and brings the records up to date.
func (m *Manager) takeStock(ctx context.Context) error {
	began := time.Now()
	vols, err := m.cloud.List(ctx)
	if err != nil {
		return err
	}
	if len(vols) > 0 {
		m.ledger.confirm()
	}
	byName := map[string][]cloud.Volume{}
	for _, vol := range vols {
		if checkName(vol.Name) == nil && !m.gone(vol) {
			byName[vol.Name] = append(byName[vol.Name], vol)
		}
	}
	names := make([]string, 0, len(byName))
	ids := make(map[string]string, len(byName))
	for name, twins := range byName {
		names = append(names, name)
		ids[name] = twins[0].ID
		v := m.record(name)
		if len(twins) > 1 {
			ids := make([]string, len(twins))
			for i, t := range twins {
				ids[i] = t.ID
			}
			sort.Strings(ids)
			v.twins(&cloud.AmbiguousError{Name: name, IDs: ids})
			continue
		}
		v.mu.Lock()
		newer := v.seenAt.After(began) || v.absentAt.After(began)
		v.mu.Unlock()
		if !newer {
			v.saw(twins[0], m.self().ID)
		}
	}
	if began.Sub(m.started) > m.timing.HandOver {
		m.ledger.complete(ids)
	}
	for _, v := range m.all() {
		if byName[v.name] == nil {
			m.dropIfUnknown(v)
		}
	}
	m.mu.Lock()
	m.listed, m.listedAt = names, time.Now()
	m.mu.Unlock()
	return nil
}

// dropIfUnknown forgets the record of a volume that only a listing made known and that the next listing does not show. Whether one that Docker
// may know is gone is looked at apart, so that it is not listed for ever: exists makes its absence a fact. What is here stays known.
func (m *Manager) dropIfUnknown(v *record) {
	known, look := m.ledger.has(v.name), false
	v.set(func() {
		if v.attached || len(v.users) > 0 || v.changing > 0 || v.looking > 0 || time.Since(v.seenAt) <= m.timing.Absent {
			return
		}
		if !known {
			v.id, v.seen, v.ambiguous = "", nil, nil
			return
		}
		v.looking++
		look = true
	})
	if !look {
		return
	}
	m.goOn(v.name, func(ctx context.Context) {
		defer v.set(func() { v.looking-- })
		ctx, cancel := context.WithTimeout(as(ctx, OpSweep), m.timing.Request)
		defer cancel()
		if _, err := m.exists(ctx, v, 0); err != nil && !errors.Is(err, cloud.ErrNotFound) {
			m.log.WithField("volume", v.name).Warnf("a listing does not show it, and whether it is gone cannot be told: %v", err)
		}
	})
}

// Path answers from memory alone: where the volume is mounted, or "".
func (m *Manager) Path(name string) string {
	m.mu.Lock()
	v := m.records[name]
	m.mu.Unlock()
	if v == nil {
		return ""
	}
	return m.info(v).Mountpoint
}

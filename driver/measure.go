package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/blockvol/blockvol/driver/metrics"
)

// problemKinds are all kinds that Health may tell.
var problemKinds = []string{ProblemSettings, ProblemSecond, ProblemOtherCluster, ProblemHost, ProblemClosing, ProblemDrained, ProblemCloud, ProblemDenied,
	ProblemAmbiguous, ProblemAttaching, ProblemDetaching, ProblemBusy, ProblemDraining, ProblemLettingGo, ProblemReadOnly, ProblemDeviceGone,
	ProblemSnapshot, ProblemNotGrown}

// lookLimit is how long a filesystem or a device has to answer a question that is asked for people to see.
const lookLimit = time.Second

// usage tells how full the filesystem of a mounted volume is. One that hangs is waited for once, however often it is asked.
func (m *Manager) usage(id string) (disk.Usage, error) {
	return apart(m, "usage", id, func() (disk.Usage, error) { return m.disk.Usage(m.target(id)) })
}

// performance tells what a device counts, likewise.
func (m *Manager) performance(dev disk.Device) (disk.Performance, error) {
	return apart(m, "performance", dev.Serial, func() (disk.Performance, error) { return m.disk.Performance(dev) })
}

// errNoAnswer says that the kernel did not answer in time.
var errNoAnswer = errors.New("no answer in time")

// apart runs a question to the kernel that may hang, apart from who asks it. While one hangs, those that follow wait for the same.
func apart[T any](m *Manager, what, key string, ask func() (T, error)) (T, error) {
	var none T
	ch := m.flight("\x00"+what+"\x00"+key, func() (any, error) { return ask() })
	timer := time.NewTimer(lookLimit)
	defer timer.Stop()
	select {
	case r := <-ch:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-timer.C:
		return none, errNoAnswer
	}
}

// measure is what a scrape tells. It takes a few seconds at most, whatever hangs.
func (m *Manager) measure(ctx context.Context) metrics.Host {
	ctx, cancel := context.WithTimeout(ctx, m.timing.HealthWait)
	defer cancel()
	health := m.Health(ctx)
	self := m.self()
	h := metrics.Host{Cluster: m.cfg.Settings.Cluster, Backend: m.cfg.Settings.Backend, Instance: self.ID, InstanceType: self.Type, Zone: self.Zone, Region: self.Region,
		Ready: health.Ready, Problems: map[string]int{}}
	for _, kind := range problemKinds {
		h.Problems[kind] = 0
	}
	for _, p := range health.Problems {
		h.Problems[p.Kind]++
	}
	here := m.here()
	h.Volumes = make([]metrics.Volume, len(here))
	var looks sync.WaitGroup
	for n, v := range here {
		looks.Go(func() { h.Volumes[n] = m.measureVolume(v) })
	}
	looks.Wait()
	return h
}

// measureVolume is what a scrape tells of one volume of this host.
func (m *Manager) measureVolume(v *record) metrics.Volume {
	_, mounted := m.mountedAt(v)
	v.mu.Lock()
	out := metrics.Volume{Name: v.name, ID: v.id, State: string(v.phase), Uses: len(v.users)}
	var vol cloud.Volume
	if v.seen != nil {
		vol = *v.seen
	}
	v.mu.Unlock()
	if mounted && out.State == string(phaseFree) { // by an earlier process
		out.State = string(phaseMounted)
	}
	out.Type, out.Filesystem, out.Zone, out.Profile = vol.Type, vol.Attrs[attrFS], vol.Zone, vol.Attrs[attrProfile]
	out.SizeGiB, out.IOPS, out.ThroughputMiB = vol.SizeGiB, vol.IOPS, vol.Throughput
	if row := m.slots.row(out.ID); row != nil {
		out.LastSnapshot, out.NextSnapshot = row.Last, row.Next
	}
	if mounted {
		u, err := m.usage(vol.ID)
		if err == nil {
			out.Usage = &u
		}
		out.Unresponsive = errors.Is(err, errNoAnswer)
	}
	if dev, err := m.disk.Find(vol.Serial); vol.Serial != "" && err == nil {
		p, err := m.performance(dev)
		if err == nil {
			out.Performance = &p
		}
		out.Unresponsive = out.Unresponsive || errors.Is(err, errNoAnswer)
	}
	return out
}

// count counts a change of a volume's state.
func (m *Manager) count(c change) {
	m.metrics.Changed(string(c.to), c.cause)
	switch {
	case c.from == phaseAttaching && c.to == phaseAttached:
		m.metrics.Attached(c.moving)
	case (c.from == phaseDetaching || c.from == phaseBusy) && c.to == phaseFree:
		m.metrics.Detached(c.moving)
	}
	if c.cause != OpLetGo && c.cause != OpSweep && c.cause != OpShutdown {
		return
	}
	switch {
	case c.from == phaseMounted:
		m.metrics.Reconciled(metrics.ActionUnmount)
	case c.to == phaseDetaching && c.from != phaseBusy:
		m.metrics.Reconciled(metrics.ActionDetach)
	}
}

// Metrics answers a scrape of Prometheus.
func (s *Server) Metrics() http.Handler {
	s.Manager.metrics.Observe(func() metrics.Host {
		h := s.Manager.measure(s.ending())
		h.InFlight = s.InFlight()
		return h
	})
	return s.Manager.metrics.Handler()
}

// parseMetricsAddr judges the setting METRICS_ADDR.
func parseMetricsAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 1 || n > 65535 || host != "" && net.ParseIP(host) == nil {
		return fmt.Errorf("METRICS_ADDR=%s is not an address to listen on: write 127.0.0.1:9809 or :9809", addr)
	}
	return nil
}

// metricsAgain is how long after a failure METRICS_ADDR is tried again.
const metricsAgain = 30 * time.Second

// ServeMetrics serves GET /metrics on the TCP address of the setting METRICS_ADDR until Shutdown. An address that cannot be used is told in the
// log and by doctor, and tried again; volumes are served all the same.
func (s *Server) ServeMetrics() {
	set := s.Manager.cfg.Settings
	if set.MetricsAddr == "" {
		return
	}
	if set.MetricsErr != nil {
		s.metricsFailed(set.MetricsErr)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.Metrics())
	var listen net.ListenConfig
	for told := false; s.ending().Err() == nil; {
		l, err := listen.Listen(s.ending(), "tcp", set.MetricsAddr)
		if err == nil {
			s.Log.Infof("metrics are served on http://%s/metrics", l.Addr())
			s.Manager.noteMetrics(nil)
			srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
			stop := context.AfterFunc(s.ending(), func() { srv.Close() })
			err = srv.Serve(l)
			stop()
			if errors.Is(err, http.ErrServerClosed) {
				return
			}
		}
		err = fmt.Errorf("METRICS_ADDR=%s cannot be used: %w; it is tried again every %s, and volumes are served all the same", set.MetricsAddr, err, metricsAgain)
		if !told {
			s.metricsFailed(err)
		}
		told = true
		select {
		case <-time.After(metricsAgain):
		case <-s.ending().Done():
		}
	}
}

func (s *Server) metricsFailed(err error) {
	s.Log.Error(err)
	s.Manager.noteMetrics(err)
}

// noteMetrics remembers why metrics are not served, for doctor.
func (m *Manager) noteMetrics(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.metricsErr = err
}

func (m *Manager) doctorMetrics(f *Findings) {
	m.mu.Lock()
	err := m.metricsErr
	m.mu.Unlock()
	if err != nil {
		f.add("metrics", "", cloud.Warning, "free the port, or change METRICS_ADDR; the plugin's own socket serves /metrics too", "%v", err)
	}
}

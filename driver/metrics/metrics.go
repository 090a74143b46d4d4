package metrics

import (
	"net/http"
	"regexp"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/blockvol/blockvol/driver/disk"
)

// Host is what a scrape tells of the host at that moment.
type Host struct {
	Cluster, Backend, Instance, InstanceType, Zone, Region string // Instance is empty until it is known

	Ready    bool
	Problems map[string]int // how many, for every kind that there may be
	InFlight int
	Volumes  []Volume // that are on this host
}

// Volume is what a scrape tells of a volume.
type Volume struct {
	Name, ID, State                 string
	Type, Filesystem, Zone, Profile string
	SizeGiB, IOPS, ThroughputMiB    int64
	Uses                            int
	LastSnapshot, NextSnapshot      time.Time // by schedule; zero: none
	Unresponsive                    bool
	Usage                           *disk.Usage       // nil: not mounted, or no answer
	Performance                     *disk.Performance // nil: the device does not tell it, or no answer
}

// Metrics counts. It is safe for concurrent use.
type Metrics struct {
	version  string
	registry *prometheus.Registry
	descs    map[string]*prometheus.Desc // of what is made when it is asked for

	operations, ec2, attaches, detaches *prometheus.HistogramVec
	requests, repeats, changes          *prometheus.CounterVec
	reconciler, leaks                   *prometheus.CounterVec

	mu   sync.Mutex
	look func() Host
}

// Buckets: operations take from no time at all (a volume that is mounted already) to minutes (a command that waits for an instance to stop); EC2
// answers in tens of milliseconds and is repeated for up to half a minute; attaching takes seconds, and minutes are an alarm.
var (
	operationBuckets = []float64{.005, .025, .1, .5, 1, 2.5, 5, 10, 20, 30, 60, 300}
	ec2Buckets       = []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	attachBuckets    = []float64{.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 180}
)

// New makes Metrics for a version of blockvol.
func New(version string) *Metrics {
	m := &Metrics{version: version, registry: prometheus.NewRegistry(), descs: map[string]*prometheus.Desc{}}
	known := map[string]Metric{}
	for _, t := range Table {
		known[t.Name] = t
		m.descs[t.Name] = prometheus.NewDesc(t.Name, t.Doc, t.Labels, nil)
	}
	counter := func(name string) *prometheus.CounterVec {
		t := known[name]
		delete(m.descs, name)
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: t.Name, Help: t.Doc}, t.Labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name string, buckets []float64) *prometheus.HistogramVec {
		t := known[name]
		delete(m.descs, name)
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: t.Name, Help: t.Doc, Buckets: buckets}, t.Labels)
		m.registry.MustRegister(h)
		return h
	}
	m.operations = histogram("blockvol_operation_duration_seconds", operationBuckets)
	m.requests = counter("blockvol_ec2_requests_total")
	m.ec2 = histogram("blockvol_ec2_request_duration_seconds", ec2Buckets)
	m.repeats = counter("blockvol_ec2_repeats_total")
	m.attaches = histogram("blockvol_attach_duration_seconds", attachBuckets)
	m.detaches = histogram("blockvol_detach_duration_seconds", attachBuckets)
	m.changes = counter("blockvol_state_changes_total")
	m.reconciler = counter("blockvol_reconciler_actions_total")
	m.leaks = counter("blockvol_leaks_found_total")
	// What is rare begins at 0, so that the first one is an increase that an alert can see.
	for _, h := range []*prometheus.HistogramVec{m.attaches, m.detaches} {
		h.WithLabelValues()
	}
	for _, action := range []string{ActionUnmount, ActionDetach, ActionRetry} {
		m.reconciler.WithLabelValues(action)
	}
	for _, kind := range []string{LeakMount, LeakDevice, LeakMountpoint} {
		m.leaks.WithLabelValues(kind)
	}
	m.registry.MustRegister(&scrape{m}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe sets what tells of the host at a scrape. It must answer within a few seconds, whatever hangs.
func (m *Metrics) Observe(look func() Host) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look = look
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
}

// The results of an operation.
const (
	ResultOK      = "ok"
	ResultError   = "error"
	ResultRefused = "refused"
	ResultCut     = "cut"
)

// Operation counts a request that was answered.
func (m *Metrics) Operation(name, result string, took time.Duration) {
	m.operations.WithLabelValues(name, result).Observe(took.Seconds())
}

// errorCode is what an error code of EC2 may look like. What comes from elsewhere, a proxy for example, becomes other.
var errorCode = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9.-]{1,79}$`)

func code(s string) string {
	switch {
	case s == "":
		return ResultOK
	case !errorCode.MatchString(s):
		return "other"
	}
	return s
}

// Called counts a call of EC2, with all its repeats. code is empty for success.
func (m *Metrics) Called(action, errorCode string, took time.Duration) {
	m.requests.WithLabelValues(action, code(errorCode)).Inc()
	m.ec2.WithLabelValues(action).Observe(took.Seconds())
}

// Repeated counts a call of EC2 that is repeated.
func (m *Metrics) Repeated(action, errorCode string) {
	m.repeats.WithLabelValues(action, code(errorCode)).Inc()
}

// Changed counts a change of a volume's state.
func (m *Metrics) Changed(to, cause string) { m.changes.WithLabelValues(to, cause).Inc() }

// Attached and Detached count how long it took.
func (m *Metrics) Attached(took time.Duration) {
	m.attaches.WithLabelValues().Observe(took.Seconds())
}

// Detached is Attached for the other way.
func (m *Metrics) Detached(took time.Duration) {
	m.detaches.WithLabelValues().Observe(took.Seconds())
}

// The actions of the reconciler.
const (
	ActionUnmount = "unmount"
	ActionDetach  = "detach"
	ActionRetry   = "retry"
)

// Reconciled counts what was done without being asked.
func (m *Metrics) Reconciled(action string) { m.reconciler.WithLabelValues(action).Inc() }

// The kinds of leaks.
const (
	LeakMount      = "mount"
	LeakDevice     = "device"
	LeakMountpoint = "mountpoint"
)

// Leaked counts what was found and should not be.
func (m *Metrics) Leaked(kind string) { m.leaks.WithLabelValues(kind).Inc() }

// scrape makes what is told of the host and of volumes, when it is asked for.
type scrape struct{ m *Metrics }

// Describe tells which metrics there may be.
func (s *scrape) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range s.m.descs {
		ch <- d
	}
}

// Collect looks.
func (s *scrape) Collect(ch chan<- prometheus.Metric) {
	began := time.Now()
	gauge := func(name string, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(s.m.descs[name], prometheus.GaugeValue, value, labels...)
	}
	gauge("blockvol_build_info", 1, s.m.version, runtime.Version())
	s.m.mu.Lock()
	look := s.m.look
	s.m.mu.Unlock()
	if look == nil {
		return
	}
	h := look()
	if h.Instance != "" {
		gauge("blockvol_host_info", 1, h.Cluster, h.Backend, h.Instance, h.InstanceType, h.Zone, h.Region)
	}
	gauge("blockvol_ready", number(h.Ready))
	for kind, n := range h.Problems {
		gauge("blockvol_problems", float64(n), kind)
	}
	gauge("blockvol_requests_in_flight", float64(h.InFlight))
	for _, v := range h.Volumes {
		s.volume(ch, v)
	}
	gauge("blockvol_metrics_collection_seconds", time.Since(began).Seconds())
}

func (s *scrape) volume(ch chan<- prometheus.Metric, v Volume) {
	is := func(name string, kind prometheus.ValueType, value float64) {
		ch <- prometheus.MustNewConstMetric(s.m.descs[name], kind, value, v.Name, v.ID)
	}
	gauge := func(name string, value float64) { is(name, prometheus.GaugeValue, value) }
	counter := func(name string, value float64) { is(name, prometheus.CounterValue, value) }

	ch <- prometheus.MustNewConstMetric(s.m.descs["blockvol_volume_info"], prometheus.GaugeValue, 1, v.Name, v.ID, v.Type, v.Filesystem, v.Zone, v.Profile)
	ch <- prometheus.MustNewConstMetric(s.m.descs["blockvol_volume_state"], prometheus.GaugeValue, 1, v.Name, v.ID, v.State)
	gauge("blockvol_volume_uses", float64(v.Uses))
	gauge("blockvol_volume_size_bytes", float64(v.SizeGiB<<30))
	if v.IOPS > 0 {
		gauge("blockvol_volume_provisioned_iops", float64(v.IOPS))
	}
	if v.ThroughputMiB > 0 {
		gauge("blockvol_volume_provisioned_throughput_bytes_per_second", float64(v.ThroughputMiB<<20))
	}
	gauge("blockvol_volume_unresponsive", number(v.Unresponsive))
	for name, at := range map[string]time.Time{"blockvol_volume_snapshot_last_timestamp_seconds": v.LastSnapshot, "blockvol_volume_snapshot_next_timestamp_seconds": v.NextSnapshot} {
		if !at.IsZero() {
			gauge(name, float64(at.Unix()))
		}
	}
	if u := v.Usage; u != nil {
		gauge("blockvol_filesystem_size_bytes", float64(u.Total))
		gauge("blockvol_filesystem_used_bytes", float64(u.Used))
		gauge("blockvol_filesystem_free_bytes", float64(u.Free))
		gauge("blockvol_filesystem_inodes", float64(u.Inodes))
		gauge("blockvol_filesystem_inodes_used", float64(u.InodesUsed))
	}
	if p := v.Performance; p != nil {
		counter("blockvol_ebs_read_operations_total", float64(p.Reads.Count))
		counter("blockvol_ebs_write_operations_total", float64(p.Writes.Count))
		counter("blockvol_ebs_read_bytes_total", float64(p.Reads.Bytes))
		counter("blockvol_ebs_written_bytes_total", float64(p.Writes.Bytes))
		counter("blockvol_ebs_read_seconds_total", p.Reads.Time.Seconds())
		counter("blockvol_ebs_write_seconds_total", p.Writes.Time.Seconds())
		counter("blockvol_ebs_volume_iops_exceeded_seconds_total", p.VolumeIOPSExceeded.Seconds())
		counter("blockvol_ebs_volume_throughput_exceeded_seconds_total", p.VolumeBytesExceeded.Seconds())
		counter("blockvol_ebs_instance_iops_exceeded_seconds_total", p.InstanceIOPSExceeded.Seconds())
		counter("blockvol_ebs_instance_throughput_exceeded_seconds_total", p.InstanceBytesExceeded.Seconds())
		gauge("blockvol_ebs_queue_length", float64(p.QueueLength))
		s.latency(ch, "blockvol_ebs_read_latency_seconds", v, p.Reads, p.ReadLatency)
		s.latency(ch, "blockvol_ebs_write_latency_seconds", v, p.Writes, p.WriteLatency)
	}
}

// latency makes a histogram of the device's bins. Prometheus adds the bins up, and the last one, without an end, has all that were counted.
func (s *scrape) latency(ch chan<- prometheus.Metric, name string, v Volume, t disk.Transfers, bins []disk.LatencyBin) {
	if len(bins) == 0 {
		return
	}
	upTo, sum := map[float64]uint64{}, uint64(0)
	for _, b := range bins {
		sum += b.Count
		upTo[b.Upper.Seconds()] = sum
	}
	ch <- prometheus.MustNewConstHistogram(s.m.descs[name], sum, t.Time.Seconds(), upTo, v.Name, v.ID)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

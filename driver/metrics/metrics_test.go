package metrics

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/blockvol/blockvol/driver/disk"
)

var update = flag.Bool("update", false, "rewrite the table of metrics in docs/metrics.md")

// busy is Metrics of which everything has something to tell.
func busy(volumes ...Volume) *Metrics {
	m := New("1.2.3")
	m.Operation("mount", ResultOK, time.Second)
	m.Called("AttachVolume", "", time.Second)
	m.Repeated("AttachVolume", "RequestLimitExceeded")
	m.Changed("attached", "mount")
	m.Attached(2 * time.Second)
	m.Detached(2 * time.Second)
	m.Reconciled(ActionDetach)
	m.Leaked(LeakDevice)
	m.Observe(func() Host {
		return Host{Cluster: "prod", Backend: "ebs", Instance: "i-1", InstanceType: "m5.large", Zone: "z-1a", Region: "z-1", Ready: true,
			Problems: map[string]int{"cloud": 0}, InFlight: 1, Volumes: volumes}
	})
	return m
}

var full = Volume{Name: "pgdata", ID: "vol-1", State: "mounted", Type: "gp3", Filesystem: "ext4", Zone: "z-1a", SizeGiB: 10, IOPS: 3000, ThroughputMiB: 125, Uses: 2,
	LastSnapshot: time.Unix(1000, 0), NextSnapshot: time.Unix(2000, 0),
	Usage: &disk.Usage{Total: 100, Used: 40, Free: 50, Inodes: 10, InodesUsed: 3},
	Performance: &disk.Performance{Reads: disk.Transfers{Count: 5, Bytes: 4096, Time: 3 * time.Millisecond}, QueueLength: 7,
		ReadLatency:  []disk.LatencyBin{{Upper: time.Millisecond, Count: 3}, {Upper: 2 * time.Millisecond, Count: 2}},
		WriteLatency: []disk.LatencyBin{{Upper: time.Millisecond, Count: 0}}}}

func TestEveryMetricOfTheTableIsShownAndNoOther(t *testing.T) {
	t.Parallel()
	shown := map[string]string{}
	families, err := busy(full).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := f.GetName(); !strings.HasPrefix(n, "go_") && !strings.HasPrefix(n, "process_") {
			shown[n] = strings.ToLower(f.GetType().String())
			for _, s := range f.Metric {
				for _, l := range s.Label {
					shown[n] += " " + l.GetName()
				}
				break
			}
		}
	}
	want := map[string]string{}
	for _, m := range Table {
		want[m.Name] = strings.Join(append([]string{string(m.Kind)}, slices.Sorted(slices.Values(m.Labels))...), " ")
	}
	if !maps.Equal(shown, want) {
		for n := range want {
			if shown[n] != want[n] {
				t.Errorf("%s is shown as %q, and the table says %q", n, shown[n], want[n])
			}
		}
		for n := range shown {
			if want[n] == "" {
				t.Errorf("%s is not in the table", n)
			}
		}
	}
}

func TestNamesFollowTheRulesOfPrometheus(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(busy(full).registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestValuesAreShownInBaseUnits(t *testing.T) {
	t.Parallel()
	want := `
# HELP blockvol_ebs_read_latency_seconds How long reads took, as the EBS device counts them, in its own bins.
# TYPE blockvol_ebs_read_latency_seconds histogram
blockvol_ebs_read_latency_seconds_bucket{volume="pgdata",volume_id="vol-1",le="0.001"} 3
blockvol_ebs_read_latency_seconds_bucket{volume="pgdata",volume_id="vol-1",le="0.002"} 5
blockvol_ebs_read_latency_seconds_bucket{volume="pgdata",volume_id="vol-1",le="+Inf"} 5
blockvol_ebs_read_latency_seconds_sum{volume="pgdata",volume_id="vol-1"} 0.003
blockvol_ebs_read_latency_seconds_count{volume="pgdata",volume_id="vol-1"} 5
# HELP blockvol_filesystem_free_bytes Bytes that containers can still write; less than size without used, if the filesystem keeps some back.
# TYPE blockvol_filesystem_free_bytes gauge
blockvol_filesystem_free_bytes{volume="pgdata",volume_id="vol-1"} 50
# HELP blockvol_volume_provisioned_throughput_bytes_per_second Throughput that the volume has; missing if its type has none.
# TYPE blockvol_volume_provisioned_throughput_bytes_per_second gauge
blockvol_volume_provisioned_throughput_bytes_per_second{volume="pgdata",volume_id="vol-1"} 1.31072e+08
# HELP blockvol_volume_size_bytes Size of the EBS volume.
# TYPE blockvol_volume_size_bytes gauge
blockvol_volume_size_bytes{volume="pgdata",volume_id="vol-1"} 1.073741824e+10
`
	if err := testutil.GatherAndCompare(busy(full).registry, strings.NewReader(want), "blockvol_ebs_read_latency_seconds", "blockvol_filesystem_free_bytes",
		"blockvol_volume_provisioned_throughput_bytes_per_second", "blockvol_volume_size_bytes"); err != nil {
		t.Error(err)
	}
}

// seriesOf counts the series of a metric.
func seriesOf(t *testing.T, r prometheus.Gatherer, name string) int {
	t.Helper()
	n, err := testutil.GatherAndCount(r, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnAnswerThatIsNotOfEC2MakesNoSeriesOfItsOwn(t *testing.T) {
	t.Parallel()
	m := New("x")
	for n := range 100 {
		m.Called("AttachVolume", fmt.Sprintf("<html> %d", n), time.Second)
	}
	m.Called("AttachVolume", "Client.InvalidVolume.NotFound", time.Second)
	if n := seriesOf(t, m.registry, "blockvol_ec2_requests_total"); n != 2 {
		t.Errorf("%d series, want 2", n)
	}
}

func TestWhatIsNotKnownIsNotShownAsZero(t *testing.T) {
	t.Parallel()
	m := busy(Volume{Name: "pgdata", ID: "vol-1", State: "attached", Type: "st1"})
	for _, name := range []string{"blockvol_filesystem_used_bytes", "blockvol_ebs_queue_length", "blockvol_ebs_read_latency_seconds", "blockvol_volume_provisioned_iops", "blockvol_volume_snapshot_last_timestamp_seconds"} {
		if n := seriesOf(t, m.registry, name); n != 0 {
			t.Errorf("%s has %d series", name, n)
		}
	}
	if n := seriesOf(t, New("x").registry, "blockvol_ready"); n != 0 {
		t.Error("readiness is told before anybody has looked")
	}
}

func TestImpossibleNumbersOfADeviceSpoilNoScrape(t *testing.T) {
	t.Parallel()
	odd := full
	odd.Performance = &disk.Performance{Reads: disk.Transfers{Count: math.MaxUint64},
		ReadLatency: []disk.LatencyBin{{Upper: time.Millisecond, Count: math.MaxUint32}, {Upper: time.Millisecond, Count: 1}, {Upper: 0, Count: 5}}}
	if _, err := busy(odd).registry.Gather(); err != nil {
		t.Error(err)
	}
}

func TestThePageOfMetricsHasTheTable(t *testing.T) {
	t.Parallel()
	const page, begin, end = "../../docs/metrics.md", "<!-- metrics: checked by go test ./driver/metrics; rewritten with -update -->\n", "\n<!-- end of metrics -->"
	var b strings.Builder
	b.WriteString("\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range Table {
		labels := "`" + strings.Join(m.Labels, "`, `") + "`"
		if len(m.Labels) == 0 {
			labels = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, labels, m.Doc)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	if have == b.String() {
		return
	}
	if !*update {
		t.Errorf("%s does not have the table of the code: run go test ./driver/metrics -update", page)
		return
	}
	if err := os.WriteFile(page, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

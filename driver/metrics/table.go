// Package metrics counts what blockvol does and shows it to Prometheus.
//
// What lives here: the table of metrics, the counters, and the form in which all of it is shown. What may be called from outside: New, and the
// methods of Metrics. What it must never know about: how volumes are found, mounted or attached; it is told.
package metrics

// Kind is what Prometheus calls the type of a metric.
type Kind string

// The kinds.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
)

// Metric is one thing that is measured.
type Metric struct {
	Name   string
	Kind   Kind
	Labels []string
	Doc    string // a sentence, which is the help text and stands in docs/metrics.md
}

var volumeLabels = []string{"volume", "volume_id"}

// Table lists all metrics, but for those of the Go runtime and of the process. What has the label volume is told of volumes that are on this host,
// and of no others.
var Table = []Metric{
	{"blockvol_build_info", Gauge, []string{"version", "goversion"}, "Always 1: which blockvol this is."},
	{"blockvol_host_info", Gauge, []string{"cluster", "backend", "instance_id", "instance_type", "zone", "region"}, "Always 1: which host this is; missing until that is known."},
	{"blockvol_ready", Gauge, nil, "1 if blockvol can do its work on this host, as GET /readyz tells it."},
	{"blockvol_problems", Gauge, []string{"kind"}, "What keeps it from being ready, by the kinds that blockvol health tells; 0 for those that there are not."},
	{"blockvol_metrics_collection_seconds", Gauge, nil, "How long the last look at host and volumes took."},

	{"blockvol_requests_in_flight", Gauge, nil, "Requests of Docker and of blockvol commands that are being answered."},
	{"blockvol_operation_duration_seconds", Histogram, []string{"operation", "result"}, "Requests that were answered: ok, error, refused (a command, because it is not proven to be safe) or cut (Docker must not take the answer for a fact)."},
	{"blockvol_ec2_requests_total", Counter, []string{"action", "code"}, "Calls of EC2 with all their repeats, by EC2's error code, or ok, no-answer or given-up (nobody waited for it any more)."},
	{"blockvol_ec2_request_duration_seconds", Histogram, []string{"action"}, "How long these took, with their repeats."},
	{"blockvol_ec2_repeats_total", Counter, []string{"action", "code"}, "Calls that had to be repeated, by why: throttling has the code RequestLimitExceeded."},

	{"blockvol_attach_duration_seconds", Histogram, nil, "From AttachVolume until the kernel shows the device."},
	{"blockvol_detach_duration_seconds", Histogram, nil, "From DetachVolume until EC2 and the kernel say that it is gone."},
	{"blockvol_state_changes_total", Counter, []string{"to", "cause"}, "Changes of the state of a volume, by the new state and the operation that brought it about (docs/logs.md)."},
	{"blockvol_reconciler_actions_total", Counter, []string{"action"}, "What blockvol did without being asked: unmount, detach, or retry (letting go of a volume has failed and is tried again)."},
	{"blockvol_leaks_found_total", Counter, []string{"kind"}, "What was found here and should not be: mount (of a volume that nothing was known of), device (attached, and nobody had asked for it) or mountpoint (an empty folder)."},

	{"blockvol_volume_info", Gauge, []string{"volume", "volume_id", "type", "filesystem", "zone", "profile"}, "Always 1: a volume that is on this host."},
	{"blockvol_volume_state", Gauge, []string{"volume", "volume_id", "state"}, "1 for the state that it is in (docs/logs.md)."},
	{"blockvol_volume_uses", Gauge, volumeLabels, "Mounts that Docker has not given back."},
	{"blockvol_volume_size_bytes", Gauge, volumeLabels, "Size of the EBS volume."},
	{"blockvol_volume_provisioned_iops", Gauge, volumeLabels, "I/O operations per second that the volume has; missing if its type has none."},
	{"blockvol_volume_provisioned_throughput_bytes_per_second", Gauge, volumeLabels, "Throughput that the volume has; missing if its type has none."},
	{"blockvol_volume_unresponsive", Gauge, volumeLabels, "1 if its filesystem or device did not answer in time; what would follow is missing then."},
	{"blockvol_volume_snapshot_last_timestamp_seconds", Gauge, volumeLabels, "The time of the schedule (docs/schedules.md) to which its last snapshot belongs; missing without a schedule, or if there is none yet."},
	{"blockvol_volume_snapshot_next_timestamp_seconds", Gauge, volumeLabels, "The next time of its schedule; missing without one."},

	{"blockvol_filesystem_size_bytes", Gauge, volumeLabels, "Size of the filesystem, while it is mounted."},
	{"blockvol_filesystem_used_bytes", Gauge, volumeLabels, "Bytes in use."},
	{"blockvol_filesystem_free_bytes", Gauge, volumeLabels, "Bytes that containers can still write; less than size without used, if the filesystem keeps some back."},
	{"blockvol_filesystem_inodes", Gauge, volumeLabels, "Inodes; 0 if the filesystem makes them as needed."},
	{"blockvol_filesystem_inodes_used", Gauge, volumeLabels, "Inodes in use."},

	{"blockvol_ebs_read_operations_total", Counter, volumeLabels, "Completed reads, as the EBS device counts them since it was attached."},
	{"blockvol_ebs_write_operations_total", Counter, volumeLabels, "Completed writes, likewise."},
	{"blockvol_ebs_read_bytes_total", Counter, volumeLabels, "Bytes read, likewise."},
	{"blockvol_ebs_written_bytes_total", Counter, volumeLabels, "Bytes written, likewise."},
	{"blockvol_ebs_read_seconds_total", Counter, volumeLabels, "Time that all reads took together, likewise."},
	{"blockvol_ebs_write_seconds_total", Counter, volumeLabels, "Time that all writes took together, likewise."},
	{"blockvol_ebs_volume_iops_exceeded_seconds_total", Counter, volumeLabels, "How long more IOPS were asked for than the volume has, likewise."},
	{"blockvol_ebs_volume_throughput_exceeded_seconds_total", Counter, volumeLabels, "How long more throughput was asked for than the volume has, likewise."},
	{"blockvol_ebs_instance_iops_exceeded_seconds_total", Counter, volumeLabels, "How long more IOPS were asked for than the instance has for EBS, likewise."},
	{"blockvol_ebs_instance_throughput_exceeded_seconds_total", Counter, volumeLabels, "How long more throughput was asked for than the instance has for EBS, likewise."},
	{"blockvol_ebs_queue_length", Gauge, volumeLabels, "Reads and writes that wait for the device."},
	{"blockvol_ebs_read_latency_seconds", Histogram, volumeLabels, "How long reads took, as the EBS device counts them, in its own bins."},
	{"blockvol_ebs_write_latency_seconds", Histogram, volumeLabels, "How long writes took, likewise."},
}

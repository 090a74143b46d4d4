package driver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
	"github.com/sirupsen/logrus"
)

// Setting is one thing that can be set for the whole plugin, by `docker plugin set` or in the environment of `blockvol serve`.
type Setting struct {
	Name    string // of the environment variable
	Default string // as a person reads it
	Doc     string
	Secret  bool // never shown
}

// SettingsTable lists all settings. Defaults are in the code, not in the plugin's manifest, because an upgraded plugin keeps the
// settings of the old one. The names that begin with AWS_ are the AWS SDK's own and are read by it.
func SettingsTable() []Setting {
	return []Setting{
		{Name: "BACKEND", Default: "ebs", Doc: "Where volumes live: `ebs` (Amazon EBS), or `sim` (a simulator inside the plugin, with local files; for trying out)"},
		{Name: "CLUSTER", Default: "none with ebs, `sim` with sim", Doc: "The name of the group of hosts that share volumes. Hosts with another value never see them. Needed with ebs"},
		{Name: "DEFAULT_OPTIONS", Default: "", Doc: "Options for volumes that are created without them, e.g. `size=100GiB type=gp3 encrypted=true`"},
		{Name: "PROFILES", Default: "", Doc: "Named sets of options for `-o profile=NAME`, the default one with a star, e.g. `gold: type=io2 iops=10000; silver*: type=gp3`, or the same as JSON; see docs/profiles.md"},
		{Name: "MAX_SIZE", Default: "none", Doc: "The largest volume that may be created from this host, e.g. `500GiB`"},
		{Name: "DETACH_GRACE", Default: "2s", Doc: "How long a volume stays attached after its last use, so that a container that restarts finds it in place"},
		{Name: "DELETE_DELAY", Default: "24h", Doc: "How long a volume that was removed can be brought back (`blockvol undelete`) before it is deleted for good: `12h`, `7d`, or `0` for at once; anonymous volumes are deleted at once; see docs/provisioning.md"},
		{Name: "FENCING", Default: "stopped", Doc: "When a volume may be taken from another host that holds it: `stopped` (EC2 says that host is stopped, not hibernated, or terminated), `impaired` (besides, a host whose status checks fail for IMPAIRED_AFTER is stopped; see docs/fencing.md) or `never`; the option `fencing` of a volume goes first"},
		{Name: "IMPAIRED_AFTER", Default: "5m", Doc: "With `fencing=impaired`: how long EC2's status checks of a host must have failed before it is stopped and its volume taken"},
		{Name: "INSTANCE_ID", Default: "from instance metadata", Doc: "This host's instance ID, for hosts without instance metadata"},
		{Name: "AVAILABILITY_ZONE", Default: "from instance metadata", Doc: "This host's availability zone, for hosts without instance metadata"},
		{Name: "LOG_LEVEL", Default: "info", Doc: "`error`, `warn`, `info` or `debug`"},
		{Name: "LOG_FORMAT", Default: "text", Doc: "`text` or `json`"},
		{Name: "METRICS_ADDR", Default: "off", Doc: "Where Prometheus metrics are served over TCP, e.g. `127.0.0.1:9809`, or `:9809` on all addresses of the host; see docs/metrics.md"},
		{Name: "AWS_REGION", Default: "from instance metadata", Doc: "The region"},
		{Name: "AWS_ACCESS_KEY_ID", Default: "the instance's role", Doc: "Credentials, where the instance has no role"},
		{Name: "AWS_SECRET_ACCESS_KEY", Doc: "Belongs to AWS_ACCESS_KEY_ID", Secret: true},
		{Name: "AWS_SESSION_TOKEN", Doc: "Belongs to AWS_ACCESS_KEY_ID, for temporary credentials", Secret: true},
		{Name: "AWS_ENDPOINT_URL", Default: "EC2's own", Doc: "Another address for the EC2 API, e.g. of a VPC endpoint or a simulator"},
		{Name: "AWS_EC2_METADATA_SERVICE_ENDPOINT", Default: "EC2's own", Doc: "Another address for instance metadata"},
		{Name: "AWS_CA_BUNDLE", Doc: "A file with certificates to trust instead of the built-in ones; it must lie under /dev or the plugin's data, the only folders the plugin sees"},
		{Name: "HTTPS_PROXY", Doc: "A proxy for the EC2 API"},
		{Name: "NO_PROXY", Doc: "Hosts that are reached without the proxy; include 169.254.169.254"},
	}
}

// Settings are the values that the driver itself reads.
type Settings struct {
	Backend        string
	Cluster        string
	DefaultOptions map[string]string
	Profiles       options.Profiles
	MaxSizeGiB     int64 // of a volume that is created; 0: no limit
	DetachGrace    time.Duration
	DeleteDelay    time.Duration // from the removal of a named volume to its end; 0: at once
	Fencing        string        // one of options.Fencings
	ImpairedAfter  time.Duration
	InstanceID     string
	Zone           string
	Region         string
	LogLevel       logrus.Level
	LogJSON        bool
	MetricsAddr    string // host:port; empty: metrics are served on the plugin's socket alone
	MetricsErr     error  // why MetricsAddr cannot be used; it keeps no volume from being served
}

// ReadSettings reads the settings through getenv. All that is wrong is told in one error, which wraps cloud.ErrConfig; the Settings
// are usable for logging and for opening the socket even then.
func ReadSettings(getenv func(string) string) (Settings, error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	s := Settings{Backend: "ebs", DetachGrace: 2 * time.Second, DeleteDelay: 24 * time.Hour, Fencing: "stopped", ImpairedAfter: 5 * time.Minute, LogLevel: logrus.InfoLevel}
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }

	if b := strings.ToLower(get("BACKEND")); b != "" {
		s.Backend = b
	}
	s.Cluster = get("CLUSTER")
	switch s.Backend {
	case "ebs":
		if s.Cluster == "" {
			bad("CLUSTER is not set: it names the group of hosts that share volumes, so that development and production in one account never do; " +
				"for example: docker plugin disable blockvol; docker plugin set blockvol CLUSTER=prod; docker plugin enable blockvol")
		}
	case "sim":
		if s.Cluster == "" {
			s.Cluster = "sim"
		}
	default:
		bad("BACKEND=%s is not known: use ebs or sim", s.Backend)
	}
	if len(s.Cluster) > 100 || strings.ContainsAny(s.Cluster, "*?\\\n\r\t") {
		bad("CLUSTER=%q is not allowed: use at most 100 characters, without '*', '?' and '\\'", s.Cluster)
	}
	var err error
	if s.DefaultOptions, err = options.ParseDefaults(get("DEFAULT_OPTIONS")); err != nil {
		bad("DEFAULT_OPTIONS: %w", err)
	} else if _, err = options.Parse(nil, s.DefaultOptions); err != nil {
		bad("DEFAULT_OPTIONS: %w", err)
	}
	if s.Profiles, err = options.ParseProfiles(get("PROFILES"), s.DefaultOptions); err != nil {
		bad("PROFILES: %w", err)
	}
	if size := get("MAX_SIZE"); size != "" {
		if s.MaxSizeGiB, err = options.ParseSize(size); err != nil {
			bad("MAX_SIZE: %w", err)
		}
	}
	if g := get("DETACH_GRACE"); g != "" {
		d, err := parseGrace(g)
		if err != nil {
			bad("DETACH_GRACE=%s is not a duration from 0 to 10m: write 2s, 500ms or 1m", g)
		} else {
			s.DetachGrace = d
		}
	}
	if d := get("DELETE_DELAY"); d != "" {
		if s.DeleteDelay, err = parseDelay(d); err != nil {
			bad("DELETE_DELAY=%s is not a duration from 0 to 365d: write 24h, 7d, or 0 to delete at once", d)
		}
	}
	if f := strings.ToLower(get("FENCING")); f != "" {
		s.Fencing = f
		if !slices.Contains(options.Fencings, f) {
			bad("FENCING=%s is not known: use %s", f, strings.Join(options.Fencings, " or "))
		}
	}
	if a := get("IMPAIRED_AFTER"); a != "" {
		d, err := time.ParseDuration(a)
		if err != nil || d < time.Minute || d > 24*time.Hour {
			bad("IMPAIRED_AFTER=%s is not a duration from 1m to 24h: write 5m or 1h30m", a)
		} else {
			s.ImpairedAfter = d
		}
	}
	s.InstanceID, s.Zone, s.Region = get("INSTANCE_ID"), get("AVAILABILITY_ZONE"), get("AWS_REGION")
	if s.InstanceID != "" && !strings.HasPrefix(s.InstanceID, "i-") {
		bad("INSTANCE_ID=%s is not an instance ID: it looks like i-0123456789abcdef0", s.InstanceID)
	}
	if s.InstanceID != "" && s.Zone == "" || s.InstanceID == "" && s.Zone != "" {
		bad("INSTANCE_ID and AVAILABILITY_ZONE go together: set both, or none to read them from instance metadata")
	}
	if l := get("LOG_LEVEL"); l != "" {
		if level, err := logrus.ParseLevel(l); err != nil {
			bad("LOG_LEVEL=%s is not known: use error, warn, info or debug", l)
		} else {
			s.LogLevel = level
		}
	}
	switch f := strings.ToLower(get("LOG_FORMAT")); f {
	case "", "text":
	case "json":
		s.LogJSON = true
	default:
		bad("LOG_FORMAT=%s is not known: use text or json", f)
	}
	if s.MetricsAddr = get("METRICS_ADDR"); s.MetricsAddr != "" {
		s.MetricsErr = parseMetricsAddr(s.MetricsAddr)
	}
	if len(wrong) > 0 {
		return s, &cloud.Error{Kind: cloud.ErrConfig, Text: "blockvol's settings are wrong: " + errors.Join(wrong...).Error()}
	}
	return s, nil
}

// parseGrace understands a Go duration, or a number of seconds.
func parseGrace(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		n, nerr := strconv.Atoi(s)
		if nerr != nil {
			return 0, err
		}
		d = time.Duration(n) * time.Second
	}
	if d < 0 || d > 10*time.Minute {
		return 0, errors.New("out of range")
	}
	return d, nil
}

// parseDelay understands a Go duration, a number of days (7d), and a bare 0.
func parseDelay(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * day
	}
	if err == nil && (d < 0 || d > 365*day) {
		err = errors.New("out of range")
	}
	return d, err
}

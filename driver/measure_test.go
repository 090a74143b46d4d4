package driver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/disk"
)

// scrape reads the metrics on the plugin's socket.
func (r *rig) scrape() string {
	r.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	return get(r.t, &client, "http://plugin/metrics")
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v\n%s", url, res.Status, err, body)
	}
	return string(body)
}

// shows tells whether a series, given by a regular expression, is there.
func shows(t *testing.T, scraped, series string) {
	t.Helper()
	if !regexp.MustCompile("(?m)^" + series + "$").MatchString(scraped) {
		name, _, _ := strings.Cut(series, `\{`)
		t.Errorf("no series %s; there is %q", series, regexp.MustCompile("(?m)^"+name+".*$").FindAllString(scraped, -1))
	}
}

func TestMetricsTellOfTheVolumesOfThisHostAndOfWhatWasDone(t *testing.T) {
	r := newRig(t)
	r.create("pgdata", "tag.team", "db")
	r.create("elsewhere")
	write(t, r.mount("pgdata", "c1")+"/row", "42")
	r.refused("Mount", m{"Name": "nosuch", "ID": "c9"}, "nosuch")
	id := r.status("pgdata")["id"].(string)
	got := r.scrape()
	volume := fmt.Sprintf(`\{volume="pgdata",volume_id="%s"\}`, id)
	for _, series := range []string{
		`blockvol_ready 1`,
		`blockvol_problems\{kind="cloud"\} 0`,
		`blockvol_host_info\{backend="ebs",cluster="` + r.settings.Cluster + `",instance_id="` + r.host.ID + `",.*\} 1`,
		`blockvol_requests_in_flight 0`,
		`blockvol_volume_info\{filesystem="ext4",profile="",type="gp3",volume="pgdata",volume_id="` + id + `",zone="` + r.host.Zone + `"\} 1`,
		`blockvol_volume_state\{state="mounted",volume="pgdata",volume_id="` + id + `"\} 1`,
		`blockvol_volume_uses` + volume + ` 1`,
		`blockvol_volume_size_bytes` + volume + ` 1\.073741824e\+09`,
		`blockvol_volume_provisioned_iops` + volume + ` 3000`,
		`blockvol_volume_unresponsive` + volume + ` 0`,
		`blockvol_filesystem_used_bytes` + volume + ` [1-9].*`,
		`blockvol_filesystem_inodes` + volume + ` [1-9].*`,
		`blockvol_operation_duration_seconds_count\{operation="create",result="ok"\} 2`,
		`blockvol_operation_duration_seconds_count\{operation="mount",result="error"\} [1-9].*`,
		`blockvol_attach_duration_seconds_count 1`,
		`blockvol_detach_duration_seconds_count 0`,
		`blockvol_ec2_requests_total\{action="CreateVolume",code="ok"\} 2`,
		`blockvol_ec2_request_duration_seconds_count\{action="AttachVolume"\} 1`,
		`blockvol_state_changes_total\{cause="mount",to="mounted"\} 1`,
		`blockvol_reconciler_actions_total\{action="detach"\} 0`,
		`blockvol_leaks_found_total\{kind="device"\} 0`,
	} {
		shows(t, got, series)
	}
	if strings.Contains(got, `"elsewhere"`) {
		t.Error("a volume that is not on this host has a series")
	}
	if strings.Contains(got, "blockvol_ebs_") {
		t.Error("a simulated device has statistics of EBS")
	}

	r.unmount("pgdata", "c1")
	r.eventually("detached", func() bool { return r.status("pgdata")["state"] == "free" })
	got = r.scrape()
	shows(t, got, `blockvol_detach_duration_seconds_count 1`)
	shows(t, got, `blockvol_reconciler_actions_total\{action="detach"\} 1`)
	if strings.Contains(got, `"pgdata"`) {
		t.Error("a volume that has left this host has a series")
	}
}

func TestMetricsCountTheCodesForWhichEC2Refuses(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Code: "RequestLimitExceeded", Status: 503, Action: "CreateVolume", Times: 2}); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.create("vol")
	got := r.scrape()
	shows(t, got, `blockvol_ec2_repeats_total\{action="CreateVolume",code="RequestLimitExceeded"\} 2`)
	shows(t, got, `blockvol_ec2_requests_total\{action="CreateVolume",code="ok"\} 1`)
}

// stuck is a kernel whose filesystems and devices do not answer, but for one.
type stuck struct {
	kernel
	well string // part of the target that answers
	end  chan struct{}
}

func (s stuck) Usage(target string) (disk.Usage, error) {
	if !strings.Contains(target, s.well) {
		<-s.end
	}
	return s.kernel.Usage(target)
}

func (s stuck) Performance(disk.Device) (disk.Performance, error) {
	return disk.Performance{QueueLength: 7, ReadLatency: []disk.LatencyBin{{Upper: time.Millisecond, Count: 3}}}, nil
}

func TestAFilesystemThatHangsIsShownAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	r.start()
	r.create("well")
	r.create("ill")
	r.mount("well", "c1")
	r.mount("ill", "c2")
	well, ill := r.status("well")["id"].(string), r.status("ill")["id"].(string)
	r.crash()

	var err error
	if r.manager, err = r.plan().manager(r.log); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	r.manager.disk = stuck{kernel: r.manager.disk, well: well, end: end}
	r.serve()
	r.eventually("both volumes are known again", func() bool {
		got := r.scrape()
		return strings.Contains(got, `volume="ill"`) && strings.Contains(got, `volume="well"`)
	})
	got := r.scrape()
	for _, series := range []string{
		`blockvol_volume_unresponsive\{volume="ill",volume_id="` + ill + `"\} 1`,
		`blockvol_volume_unresponsive\{volume="well",volume_id="` + well + `"\} 0`,
		`blockvol_filesystem_size_bytes\{volume="well",volume_id="` + well + `"\} .*`,
		`blockvol_ebs_queue_length\{volume="ill",volume_id="` + ill + `"\} 7`,
		`blockvol_ebs_read_latency_seconds_count\{volume="well",volume_id="` + well + `"\} 3`,
	} {
		shows(t, got, series)
	}
	if strings.Contains(got, `blockvol_filesystem_size_bytes{volume="ill"`) {
		t.Error("what did not answer is told")
	}
	// Docker is answered too, and nobody is left waiting for the volume's lock.
	if st := r.status("ill"); st["usedBytes"] != nil || st["state"] == nil {
		t.Errorf("the status of a volume that hangs: %v", st)
	}
	r.must("List", m{})
}

// listenLocal listens on a free port of this machine.
func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (r *rig) metricsVerdict() string {
	r.t.Helper()
	f, err := r.manager.doctor(r.t.Context(), NoRequest{}, func(string, ...any) {})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, found := range f.Findings {
		if found.Check == "metrics" {
			return string(found.Verdict) + ": " + found.Text
		}
	}
	return ""
}

func TestMetricsAreServedOnAnAddressAndAnAddressThatIsTakenStopsNoVolume(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	taken := listenLocal(t)
	r.settings.MetricsAddr = taken.Addr().String()
	r.start()
	go r.server.ServeMetrics()
	r.eventually("told by doctor", func() bool {
		return strings.Contains(r.metricsVerdict(), "warning: METRICS_ADDR="+r.settings.MetricsAddr)
	})
	r.create("vol")
	r.mount("vol", "c1")
	r.unmount("vol", "c1")
	r.stop()

	taken.Close()
	r.start()
	go r.server.ServeMetrics()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + r.settings.MetricsAddr
	r.eventually("served", func() bool {
		res, err := client.Get(url + "/metrics")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	shows(t, get(t, client, url+"/metrics"), `blockvol_build_info\{.*\} 1`)
	for _, path := range []string{"/", "/healthz", callPath("List"), AdminPath("List")} {
		res, err := client.Post(url+path, "", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s answers %s over TCP", path, res.Status)
		}
	}
	if v := r.metricsVerdict(); v != "" {
		t.Errorf("doctor says %q", v)
	}
	r.stop()
	if _, err := client.Get(url + "/metrics"); err == nil {
		t.Error("it is served after the end")
	}
}

func TestAnAddressForMetricsThatIsNoneIsToldAndStopsNoVolume(t *testing.T) {
	t.Parallel()
	for addr, wrong := range map[string]bool{"": false, ":9809": false, "127.0.0.1:9809": false, "[::1]:9809": false,
		"9809": true, "localhost:9809": true, "127.0.0.1": true, "127.0.0.1:0": true, ":http": true, ":99999": true, "http://127.0.0.1:9809": true} {
		s, err := ReadSettings(func(name string) string { return map[string]string{"CLUSTER": "c", "METRICS_ADDR": addr}[name] })
		if err != nil {
			t.Errorf("%q keeps volumes from being served: %v", addr, err)
		}
		if (s.MetricsErr != nil) != wrong || wrong && !strings.Contains(s.MetricsErr.Error(), "METRICS_ADDR="+addr) {
			t.Errorf("%q: %v", addr, s.MetricsErr)
		}
	}
	r := newMachine(t)
	r.settings.MetricsAddr, r.settings.MetricsErr = "9809", parseMetricsAddr("9809")
	r.start()
	r.server.ServeMetrics()
	if v := r.metricsVerdict(); !strings.Contains(v, "write 127.0.0.1:9809 or :9809") {
		t.Errorf("doctor says %q", v)
	}
	r.create("vol")
}

func TestEveryKindOfProblemIsCounted(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("health.go")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^\tProblem[A-Za-z]+ += "([a-z-]+)"`).FindAllStringSubmatch(string(b), -1)
	if len(all) < 10 {
		t.Fatalf("only %d kinds are found", len(all))
	}
	have := strings.Join(problemKinds, " ") + " "
	for _, kind := range all {
		if !strings.Contains(have, kind[1]+" ") {
			t.Errorf("metrics do not count problems of the kind %s", kind[1])
		}
	}
}

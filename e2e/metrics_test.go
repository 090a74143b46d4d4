package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// scrape reads the metrics on the plugin's own socket.
func (s *Socket) scrape(t testing.TB) string {
	t.Helper()
	r, err := s.client.Get("http://plugin/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", r.Status, err, body)
	}
	return string(body)
}

func TestPrometheusSeesWhatContainersDoToVolumes(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t)
	e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "dd if=/dev/zero of=/data/file bs=1M count=64 && sync && sleep 3600")
	plugin := e.Plugin.Socket(t)
	value := func(metric string) string {
		found := regexp.MustCompile(`(?m)^` + metric + `\{(?:.*,)?volume="` + v + `".*\} (\S+)$`).FindStringSubmatch(plugin.scrape(t))
		if found == nil {
			return ""
		}
		return found[1]
	}
	Eventually(t, time.Minute, func() error {
		var used float64
		if _, err := fmt.Sscan(value("blockvol_filesystem_used_bytes"), &used); err != nil || used < 64<<20 {
			return fmt.Errorf("used are %g bytes: %v", used, err)
		}
		return nil
	})
	if uses, free := value("blockvol_volume_uses"), value("blockvol_volume_unresponsive"); uses != "1" || free != "0" {
		t.Errorf("uses %q, unresponsive %q", uses, free)
	}
	all := plugin.scrape(t)
	for _, want := range []string{`blockvol_ready 1`, `blockvol_operation_duration_seconds_count{operation="mount",result="ok"}`, `blockvol_attach_duration_seconds_count`,
		`blockvol_ec2_requests_total{action="AttachVolume",code="ok"}`, `blockvol_build_info{`, `blockvol_host_info{backend="sim"`} {
		if !strings.Contains(all, "\n"+want) {
			t.Errorf("there is no %s", want)
		}
	}
}

// servesMetricsOverTCP restarts the plugin with an address that is none, and with one that is.
func (p *Plugin) servesMetricsOverTCP(t testing.TB) {
	t.Helper()
	e := p.e
	p.Restart(t, append(plain, "METRICS_ADDR=9809")...)
	v := e.NewVolume(t, "size=1GiB")
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo a wrong address stops no volume >/data/file")
	if log := e.Log(); !strings.Contains(log, "METRICS_ADDR=9809 is not an address to listen on") {
		t.Error("the log does not tell that the address is wrong")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p.Restart(t, append(plain, "METRICS_ADDR="+addr)...)
	Eventually(t, time.Minute, func() error {
		r := e.Inside("curl", "-sS", "http://"+addr+"/metrics")
		if r.Code != 0 || !strings.Contains(r.Stdout, "\nblockvol_ready 1") {
			return fmt.Errorf("%s %s", r.Stdout, r.Stderr)
		}
		return nil
	})
}

package nvme

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/sirupsen/logrus"
)

// host is the machine and the cloud that it is an instance of.
type host struct {
	*machine
	sim *ec2sim.Sim
	ec2 *ec2.Client
}

// newHost boots an instance, with the plugin running in it.
func newHost(t *testing.T) *host {
	t.Helper()
	log := logrus.New()
	log.SetOutput(t.Output())
	b := &bus{inUse: map[int]string{}}
	sim, err := ec2sim.New(ec2sim.Config{
		Dir: t.TempDir(), Log: log, Bus: b,
		Delays: ec2sim.Delays{Create: 100 * time.Millisecond, Attach: 100 * time.Millisecond, Detach: 100 * time.Millisecond, Delete: 100 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	instance, err := sim.AddInstance(ec2sim.Instance{})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{sim: sim}
	api, imds := serve(t, sim.Handler()), serve(t, sim.Metadata(instance.ID))
	h.ec2 = ec2.New(ec2.Options{Region: "us-sim-1", BaseEndpoint: aws.String("http://127.0.0.1" + api),
		Credentials: credentials.NewStaticCredentialsProvider("AKIAOPERATOR", "operator", "")})
	// The machine sees this computer's loopback at 10.0.2.2.
	h.machine = startMachine(t, makeImage(t, []string{
		"CLUSTER=nvme", "METRICS_ADDR=127.0.0.1:9809", "DETACH_GRACE=500ms", "DELETE_DELAY=0", "LOG_LEVEL=debug", "PATH=/usr/sbin", "AWS_REGION=us-sim-1",
		"AWS_ENDPOINT_URL=http://10.0.2.2" + api, "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://10.0.2.2" + imds,
	}))
	b.m = h.machine
	t.Cleanup(func() {
		if err := sim.Destroy(); err != nil {
			t.Error(err)
		}
	})
	h.post(t, "/start", "")
	return h
}

// serve answers on loopback, and returns ":" and the port.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }() // It ends with Close.
	t.Cleanup(func() { server.Close() })
	return fmt.Sprintf(":%d", l.Addr().(*net.TCPAddr).Port)
}

// ebsVolume is what the cloud knows of a volume.
type ebsVolume struct {
	ID          string
	Tags        map[string]string
	Attachments []struct{ State string }
}

// inCloud returns the volume of that name, if there is one. It looks at what is true, without a call that the plugin could have made.
func (h *host) inCloud(t *testing.T, name string) (ebsVolume, bool) {
	t.Helper()
	answer := httptest.NewRecorder()
	h.sim.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/_sim/state", nil))
	var state struct{ Volumes []ebsVolume }
	if err := json.Unmarshal(answer.Body.Bytes(), &state); err != nil {
		t.Fatalf("%v: %s", err, answer.Body)
	}
	for _, v := range state.Volumes {
		if v.Tags["blockvol:name"] == name {
			return v, true
		}
	}
	return ebsVolume{}, false
}

// id is the ID of the volume of that name.
func (h *host) id(t *testing.T, name string) string {
	t.Helper()
	v, ok := h.inCloud(t, name)
	if !ok {
		t.Fatalf("there is no volume %s in the cloud", name)
	}
	return v.ID
}

// becomes waits until the machine says that of the volume's device: held, free or absent.
func (h *host) becomes(t *testing.T, name, want string) {
	t.Helper()
	serial := strings.ReplaceAll(h.id(t, name), "-", "")
	h.eventually(t, fmt.Sprintf("volume %s becoming %s", name, want), func() error {
		if got, err := h.get(context.Background(), "/held?serial="+serial); err != nil || got != want {
			return fmt.Errorf("it is %q, %v", got, err)
		}
		return nil
	})
}

// detached waits until neither the cloud nor the machine has the volume here.
func (h *host) detached(t *testing.T, name string) {
	t.Helper()
	h.becomes(t, name, "absent")
	h.eventually(t, "the end of the attachment", func() error {
		if v, ok := h.inCloud(t, name); !ok || len(v.Attachments) > 0 {
			return fmt.Errorf("volume %s: %+v", name, v)
		}
		return nil
	})
}

// eventually waits until try succeeds.
func (h *host) eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	h.until(t, ctx, what, try)
}

// device is the kernel's name of the volume's device, such as nvme0n1.
func (h *host) device(t *testing.T, name string) string {
	t.Helper()
	file := h.sh(t, "grep -l "+strings.ReplaceAll(h.id(t, name), "-", "")+" /sys/block/*/device/serial 2>/dev/null; true") // others may go at this moment
	return path.Base(path.Dir(path.Dir(file)))
}

// create makes a volume of 1 GiB.
func (h *host) create(t *testing.T, name, fstype string) {
	t.Helper()
	h.must(t, "Create", name, "", map[string]string{"size": "1GiB", "fstype": fstype})
}

// mount mounts a volume and returns its folder. The machine is emulated and may be slow: what goes on beyond one request is asked for again.
func (h *host) mount(t *testing.T, name, use string) (folder string) {
	t.Helper()
	var err error
	h.eventually(t, "the mount of "+name, func() error {
		if folder, err = h.call("Mount", name, use, nil); err != nil && strings.Contains(err.Error(), "try again") {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// leave ends a use, and waits until the volume is detached.
func (h *host) leave(t *testing.T, name, use string) {
	t.Helper()
	h.must(t, "Unmount", name, use, nil)
	h.detached(t, name)
}

// remove removes a volume, and waits until it is gone.
func (h *host) remove(t *testing.T, name string) {
	t.Helper()
	h.must(t, "Remove", name, "", nil)
	h.eventually(t, "the end of "+name, func() error {
		if v, there := h.inCloud(t, name); there {
			return fmt.Errorf("it is still there: %+v", v)
		}
		return nil
	})
}

// contains fails the test unless the file in the machine has that content.
func (h *host) contains(t *testing.T, file, want string) {
	t.Helper()
	if got := h.sh(t, "cat "+file); got != want {
		t.Errorf("%s holds %q, not %q", file, got, want)
	}
}

// mounted is an error if the plugin has a mount or a mountpoint of the volume.
func (h *host) mounted(t *testing.T, name string) error {
	t.Helper()
	if left := h.sh(t, "grep "+h.id(t, name)+" /proc/mounts; ls /data/mounts | grep "+h.id(t, name)+"; true"); left != "" {
		return fmt.Errorf("left of volume %s: %s", name, left)
	}
	return nil
}

// notMounted fails the test if something is left of the volume's mount.
func (h *host) notMounted(t *testing.T, name string) {
	t.Helper()
	if err := h.mounted(t, name); err != nil {
		t.Error(err)
	}
}

// calls counts the calls of an action for the volume.
func (h *host) calls(t *testing.T, action, name string) (n int) {
	t.Helper()
	id := h.id(t, name)
	for _, c := range h.sim.Calls() {
		if c.Action == action && c.Params["VolumeId"] == id {
			n++
		}
	}
	return n
}

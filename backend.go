package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/blockvol/blockvol/cli"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ebs"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/sirupsen/logrus"
)

// backend is a provider and the machine's devices as that provider shows them.
type backend struct {
	cloud     cloud.Cloud
	disk      *disk.Host
	simulated bool
	close     func() error
}

// backends are what the setting BACKEND may say.
var backends = map[string]func(driver.Settings, string, logrus.FieldLogger, ebs.Meter) (backend, error){
	"ebs": openEBS,
	"sim": openSim,
}

// openBackend makes the backend that the settings name. Wrong settings give one that can do nothing; they are told at each request.
func openBackend(s driver.Settings, settingsErr error, state string, log logrus.FieldLogger, count ebs.Meter) (backend, error) {
	none := backend{disk: &disk.Host{Dev: "/dev", Sys: "/sys", Log: log}}
	open, ok := backends[s.Backend]
	if settingsErr != nil || !ok {
		return none, settingsErr
	}
	b, err := open(s, state, log, count)
	if err != nil {
		return none, &cloud.Error{Kind: cloud.ErrConfig, Text: fmt.Sprintf("backend %s cannot be used: %v", s.Backend, err), Cause: err}
	}
	return b, nil
}

func openEBS(s driver.Settings, _ string, log logrus.FieldLogger, count ebs.Meter) (backend, error) {
	c, err := ebs.New(ebs.Config{Cluster: s.Cluster, Region: s.Region, InstanceID: s.InstanceID, Zone: s.Zone, Version: version, Log: log, Meter: count})
	if err != nil {
		return backend{}, err
	}
	return backend{cloud: c, disk: &disk.Host{Dev: "/dev", Sys: sysfs("/dev", os.Getenv("AWS_ENDPOINT_URL")), Log: log}}, nil
}

// openLister opens a cluster for a command that runs anywhere, with the AWS settings of that machine.
func openLister(cluster string) (cli.Lister, error) {
	return ebs.New(ebs.Config{Cluster: cluster, Version: version})
}

// sysfs is where devices and their serials are looked for. A simulator on this machine shows them in a folder of the /dev it hands to its
// hosts; that view is believed only if the endpoint is on this machine too, never for the real EC2.
func sysfs(dev, endpoint string) string {
	view := filepath.Join(dev, ".sysfs")
	u, err := url.Parse(endpoint)
	if err != nil || endpoint == "" {
		return "/sys"
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "/sys"
	}
	if _, err := os.Stat(view); err != nil {
		return "/sys"
	}
	return view
}

// simRegion is the simulated region.
const simRegion = "us-sim-1"

// openSim starts the simulator inside this process. Nothing listens on the network: its socket lies in the state folder and only root can
// open it.
func openSim(s driver.Settings, state string, log logrus.FieldLogger, count ebs.Meter) (backend, error) {
	dir := filepath.Join(state, "sim")
	sim, err := ec2sim.New(ec2sim.Config{Dir: dir, Region: simRegion, Log: log.WithField("part", "simulator")})
	if err != nil {
		return backend{}, err
	}
	host, err := simHost(sim, s)
	if err != nil {
		return backend{}, errors.Join(err, sim.Close())
	}
	socket := filepath.Join(dir, "sim.sock")
	l, err := listenPrivate(socket)
	if err != nil {
		return backend{}, errors.Join(err, sim.Close())
	}
	srv := &http.Server{Handler: sim.Handler()}
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Errorf("the simulator's socket: %v", err)
		}
	}()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	c, err := ebs.New(ebs.Config{
		Cluster: s.Cluster, Region: simRegion, InstanceID: host.ID, Zone: host.Zone, Version: version, Log: log, Meter: count,
		Endpoint:    "http://ec2.simulated",
		HTTPClient:  awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.DialContext, t.Proxy = dial, nil }),
		Credentials: aws.CredentialsProvider(credentials.NewStaticCredentialsProvider("AKIASIMULATED", "simulated", "")),
	})
	if err != nil {
		return backend{}, errors.Join(err, srv.Close(), sim.Close())
	}
	log.Warn("backend sim: volumes are local files of this plugin, simulated, and are destroyed with it")
	dev := sim.DevDir(host.ID)
	return backend{
		cloud:     c,
		disk:      &disk.Host{Dev: dev, Sys: filepath.Join(dev, ".sysfs"), Log: log},
		simulated: true,
		close:     func() error { return errors.Join(srv.Close(), sim.Close()) },
	}, nil
}

// simHost is the simulated instance that this process runs on: always the same one for one state folder.
func simHost(sim *ec2sim.Sim, s driver.Settings) (ec2sim.Instance, error) {
	if hosts := sim.Instances(); len(hosts) > 0 && s.InstanceID == "" {
		return hosts[0], nil
	}
	return sim.AddInstance(ec2sim.Instance{ID: s.InstanceID, Zone: s.Zone})
}

func listenPrivate(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

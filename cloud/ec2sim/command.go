package ec2sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Command is `blockvol sim`: the simulator as a program of its own, and the verbs that steer a running one.
func Command() *cobra.Command {
	o := options{delays: DefaultDelays}
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate EC2 with volumes that are real block devices",
		Long: "Serves the EC2 API and the instance metadata of simulated instances, keeps volumes as sparse files and attaches them as loop devices.\n" +
			"Needs root. Ends on SIGTERM; devices that nobody uses go away with it.",
		Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGTERM, unix.SIGINT)
			defer stop()
			return o.run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "folder for all state; without it one is made under the temporary folder and deleted at the end")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the EC2 API: HOST:PORT (port 0: any) or unix:/PATH")
	f.StringArrayVar(&o.instances, "instance", nil, "an instance: ID[,type=m5.large][,zone=ZONE][,root=ebs|instance-store][,spot=one-time|persistent][,imds=HOST:PORT][,netns=NAME]; repeatable; ID may be empty for a random one")
	f.StringVar(&o.region, "region", "us-sim-1", "name of the region; its zones are a, b and c")
	f.StringVar(&o.account, "account", "123456789012", "ID of the account")
	f.StringVar(&o.format, "format", "text", "of what is printed at the start: text or json")
	f.BoolVar(&o.remote, "allow-remote", false, "allow addresses that other machines can reach (anybody there can read and delete the volumes)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	for name, value := range o.delays.names() {
		f.DurationVar(value, "delay-"+name, *value, delayHelp[name])
	}
	cmd.AddCommand(callsCommand(), faultCommand(), importCommand(), stateCommand(), volumeStatusCommand())
	return cmd
}

var delayHelp = map[string]string{
	"create":     "from CreateVolume to available",
	"attach":     "from AttachVolume to attached",
	"detach":     "from DetachVolume to detached",
	"delete":     "from DeleteVolume to not found",
	"snapshot":   "from CreateSnapshot to completed",
	"initialize": "from available to all data there, of a volume made of a snapshot or another volume",
	"modify":     "from ModifyVolume to optimizing: the volume has its new size",
	"optimize":   "from optimizing to completed",
	"start":      "from StartInstances or RunInstances to running",
	"stop":       "from StopInstances to stopped",
	"terminate":  "from TerminateInstances to terminated",
	"checks":     "from running to the first results of status checks",
	"terminated": "how long a terminated instance is shown",
	"visible":    "how far every Describe lags behind",
	"call":       "of every call",
}

type options struct {
	dir, listen, region, account, format string
	instances                            []string
	remote, verbose                      bool
	delays                               Delays
}

// instanceOption is one --instance.
type instanceOption struct {
	Instance
	imds  string
	netns string // the network namespace that is the instance's; empty: that of the simulator
}

func parseInstance(text string) (instanceOption, error) {
	id, rest, _ := strings.Cut(text, ",")
	o := instanceOption{Instance: Instance{ID: id}, imds: "127.0.0.1:0"}
	if rest == "" {
		return o, nil
	}
	fields := map[string]*string{"type": &o.Type, "zone": &o.Zone, "root": &o.Root, "spot": &o.Spot, "imds": &o.imds, "netns": &o.netns}
	for _, part := range strings.Split(rest, ",") {
		key, value, _ := strings.Cut(part, "=")
		field, ok := fields[key]
		if !ok || value == "" {
			return o, fmt.Errorf("--instance %s: %q is not one of type=, zone=, root=, spot=, imds=, netns=", text, part)
		}
		*field = value
	}
	return o, nil
}

// banner is what is printed once everything answers.
type banner struct {
	Endpoint  string            `json:"endpoint"`
	Dir       string            `json:"dir"`
	Region    string            `json:"region"`
	Account   string            `json:"account"`
	Instances []bannerInstance  `json:"instances"`
	Env       map[string]string `json:"env"`
}

type bannerInstance struct {
	Instance
	Metadata string `json:"metadata"`
	DevDir   string `json:"devDir"`
	Sysfs    string `json:"sysfs"`
}

func (o options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if o.format != "text" && o.format != "json" {
		return fmt.Errorf("--format is %q, not text or json", o.format)
	}
	throwAway := o.dir == ""
	if throwAway {
		if o.dir, err = os.MkdirTemp("", "blockvol-sim-"); err != nil {
			return err
		}
	}
	log := logrus.New()
	log.SetOutput(stderr)
	if o.verbose {
		log.SetLevel(logrus.DebugLevel)
	}
	sim, err := New(Config{Dir: o.dir, Region: o.region, Account: o.account, Delays: o.delays, Log: log})
	if err != nil {
		if throwAway {
			os.RemoveAll(o.dir)
		}
		return err
	}
	end := sim.Close
	if throwAway {
		end = sim.Destroy
	}
	var servers []*http.Server
	defer func() {
		err = errors.Join(err, end()) // First, so that calls that hang come to an end.
		for _, server := range servers {
			server.Close()
		}
	}()
	asked, err := o.addInstances(sim)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	open := func(netns, address string, handler http.Handler) (string, error) {
		listener, endpoint, err := listenIn(netns, address, o.remote)
		if err != nil {
			return "", err
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		servers = append(servers, server)
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				select {
				case failed <- err:
				default:
				}
			}
		}()
		return endpoint, nil
	}
	b := banner{Dir: sim.cfg.Dir, Region: sim.cfg.Region, Account: sim.cfg.Account}
	if b.Endpoint, err = open("", o.listen, sim.Handler()); err != nil {
		return err
	}
	for _, netns := range namespaces(asked) {
		address, ok := strings.CutPrefix(b.Endpoint, "http://")
		if !ok {
			return fmt.Errorf("--listen %s: an instance with netns= needs HOST:PORT", o.listen)
		}
		if _, err := open(netns, address, sim.Handler()); err != nil {
			return err
		}
	}
	for _, i := range sim.Instances() {
		option, ok := asked[i.ID]
		if !ok {
			option.imds = "127.0.0.1:0"
		}
		endpoint, err := open(option.netns, option.imds, sim.Metadata(i.ID))
		if err != nil {
			return err
		}
		b.Instances = append(b.Instances, bannerInstance{i, endpoint, sim.DevDir(i.ID), filepath.Join(sim.DevDir(i.ID), ".sysfs")})
	}
	b.setEnv()
	if err := b.print(stdout, o.format); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// addInstances makes the instances that were asked for, or one if there is none at all, and returns by ID what was asked.
func (o options) addInstances(sim *Sim) (map[string]instanceOption, error) {
	options := map[string]instanceOption{}
	asked := o.instances
	if len(asked) == 0 && len(sim.Instances()) == 0 {
		asked = []string{""}
	}
	for _, text := range asked {
		option, err := parseInstance(text)
		if err != nil {
			return nil, err
		}
		made, err := sim.AddInstance(option.Instance)
		if err != nil {
			return nil, err
		}
		options[made.ID] = option
	}
	return options, nil
}

// listen opens an address and returns how clients name it.
func listen(address string, remote bool) (net.Listener, string, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if _, err := net.Dial("unix", path); err == nil {
			return nil, "", fmt.Errorf("somebody is listening on %s already", path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, "", err
		}
		old := unix.Umask(0o177) // Only its owner may open the socket, from the first moment on.
		l, err := net.Listen("unix", path)
		unix.Umask(old)
		return l, address, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", fmt.Errorf("listen on %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && !remote {
		return nil, "", fmt.Errorf("listen on %q: other machines may reach it, and the simulator protects nothing: use 127.0.0.1, or say --allow-remote", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", err
	}
	return l, "http://" + l.Addr().String(), nil
}

func (b *banner) setEnv() {
	b.Env = map[string]string{
		"AWS_REGION": b.Region, "AWS_DEFAULT_REGION": b.Region, "AWS_ACCESS_KEY_ID": "AKIASIMULATED", "AWS_SECRET_ACCESS_KEY": "simulated",
		"AWS_ENDPOINT_URL": b.Endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT": b.Instances[0].Metadata,
	}
}

func (b *banner) print(w io.Writer, format string) error {
	if format == "json" {
		return json.NewEncoder(w).Encode(b)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "EC2 is simulated at %s\nRegion %s, account %s, state in %s\n", b.Endpoint, b.Region, b.Account, b.Dir)
	for _, i := range b.Instances {
		fmt.Fprintf(&out, "\nInstance %s (%s, %s)\n  metadata  %s\n  devices   %s\n", i.ID, i.Type, i.Zone, i.Metadata, i.DevDir)
	}
	fmt.Fprintf(&out, "\nTo use it as the first instance:\n")
	for _, name := range slices.Sorted(maps.Keys(b.Env)) {
		fmt.Fprintf(&out, "  export %s=%s\n", name, b.Env[name])
	}
	_, err := io.WriteString(w, out.String())
	return err
}

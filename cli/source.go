package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// clusterEnv names the cluster where --cluster does not.
const clusterEnv = "CLUSTER"

// cloudTime is how long the cloud has to answer a command that asks it itself.
const cloudTime = time.Minute

// source is where a verb that only looks gets the volumes from: the plugin of this host, or, from any machine with credentials, the cloud.
type source struct {
	*shared
	cluster string // --cluster
}

func (s *source) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.cluster, "cluster", "", "ask EC2 itself for those of this cluster, with this machine's AWS settings, instead of the plugin "+
		"(default where no plugin runs: $"+clusterEnv+")")
}

// volumes returns the volumes of the cluster. What one has to know of how it came by them goes to the command's standard error.
func (s *source) volumes(cmd *cobra.Command) (rows driver.VolumeRows, err error) {
	err = s.either(cmd, "volumes of the cluster %s; what only a host knows (uses, used bytes) is not shown", func(plugin *client) (simulated bool, err error) {
		err = plugin.ask(cmd.Context(), "List", driver.NoRequest{}, &rows)
		return rows.Simulated, err
	}, func(ctx context.Context, c Lister, cluster string) error {
		vols, err := c.List(ctx)
		if err == nil {
			rows = driver.VolumeRows{Cluster: cluster, Volumes: driver.CloudRows(vols)}
		}
		return err
	})
	return rows, err
}

// snapshots returns the snapshots of the cluster, or of one volume, by name or ID, likewise.
func (s *source) snapshots(cmd *cobra.Command, volume string) (rows driver.SnapshotRows, err error) {
	err = s.either(cmd, "snapshots of the cluster %s", func(plugin *client) (simulated bool, err error) {
		err = plugin.ask(cmd.Context(), "Snapshots", driver.SnapshotsRequest{Volume: volume}, &rows)
		return rows.Simulated, err
	}, func(ctx context.Context, c Lister, cluster string) error {
		all, err := c.Snapshots(ctx, "")
		if err == nil {
			rows = driver.SnapshotRows{Cluster: cluster, Snapshots: driver.CloudSnapshots(all, volume)}
		}
		return err
	})
	return rows, err
}

// either asks the plugin of this host, or the cloud: of a cluster that is named, or where no plugin runs. what is asked of the cloud is noted.
func (s *source) either(cmd *cobra.Command, what string, plugin func(*client) (simulated bool, err error), fromCloud func(context.Context, Lister, string) error) error {
	cluster := s.cluster
	if cluster != "" && s.socket != "" {
		return usagef("--cluster and --socket do not go together: one asks EC2, the other a plugin")
	}
	if cluster == "" {
		path, err := findSocket(cmd.Context(), s.socket, s.dir())
		if err == nil {
			simulated, err := plugin(s.clientOf(cmd, path))
			if err == nil && simulated {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: these are local files of a simulator, not EBS volumes")
			}
			return err
		}
		if cluster = os.Getenv(clusterEnv); cluster == "" || !errors.Is(err, errNoPlugin) {
			var exit *exitError
			if errors.As(err, &exit) {
				return err
			}
			return fmt.Errorf("%w; from any machine with AWS credentials, --cluster NAME asks EC2 itself", err)
		}
	}
	if s.Cloud == nil {
		return errors.New("this command cannot ask EC2 itself")
	}
	c, err := s.Cloud(cluster)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), cloudTime)
	defer cancel()
	fmt.Fprintf(cmd.ErrOrStderr(), "note: asking EC2 itself for the "+what+"\n", cluster)
	return fromCloud(ctx, c, cluster)
}

// Lister is what the verbs need of a cloud that they ask themselves.
type Lister interface {
	List(ctx context.Context) ([]cloud.Volume, error)
	Snapshots(ctx context.Context, volumeID string) ([]cloud.Snapshot, error)
}

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
	cmd.Flags().StringVar(&s.cluster, "cluster", "", "ask EC2 itself for the volumes of this cluster, with this machine's AWS settings, instead of the plugin "+
		"(default where no plugin runs: $"+clusterEnv+")")
}

// volumes returns the volumes of the cluster. What one has to know of how it came by them goes to the command's standard error.
func (s *source) volumes(cmd *cobra.Command) (driver.VolumeRows, error) {
	cluster := s.cluster
	if cluster != "" && s.socket != "" {
		return driver.VolumeRows{}, usagef("--cluster and --socket do not go together: one asks EC2, the other a plugin")
	}
	if cluster == "" {
		path, err := findSocket(cmd.Context(), s.socket, s.dir())
		if err == nil {
			var rows driver.VolumeRows
			err := s.clientOf(cmd, path).ask(cmd.Context(), "List", driver.NoRequest{}, &rows)
			if err == nil && rows.Simulated {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: these are local files of a simulator, not EBS volumes")
			}
			return rows, err
		}
		if cluster = os.Getenv(clusterEnv); cluster == "" || !errors.Is(err, errNoPlugin) {
			var exit *exitError
			if errors.As(err, &exit) {
				return driver.VolumeRows{}, err
			}
			return driver.VolumeRows{}, fmt.Errorf("%w; from any machine with AWS credentials, --cluster NAME asks EC2 itself", err)
		}
	}
	if s.Cloud == nil {
		return driver.VolumeRows{}, errors.New("this command cannot ask EC2 itself")
	}
	c, err := s.Cloud(cluster)
	if err != nil {
		return driver.VolumeRows{}, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), cloudTime)
	defer cancel()
	fmt.Fprintf(cmd.ErrOrStderr(), "note: asking EC2 itself for the volumes of the cluster %s; what only a host knows (uses, used bytes) is not shown\n", cluster)
	vols, err := c.List(ctx)
	if err != nil {
		return driver.VolumeRows{}, err
	}
	return driver.VolumeRows{Cluster: cluster, Volumes: driver.CloudRows(vols)}, nil
}

// Lister is what the verbs need of a cloud that they ask themselves.
type Lister interface {
	List(ctx context.Context) ([]cloud.Volume, error)
}

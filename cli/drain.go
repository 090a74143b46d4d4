package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const drainLong = `Take everything of the cluster off this host, before it is stopped, terminated or taken away.

From now on this host mounts no volume that is not mounted already. What nobody uses is detached at once, without its grace. What is in use is
shown and waited for: blockvol stops no container. It ends with 0 only when nothing of the cluster is attached to this host any more; otherwise,
after --timeout, with 1 and the list of what is left. The host takes no volumes until --undo, or until the plugin is started again.`

func drainCommand(s *shared) *cobra.Command {
	var req driver.DrainRequest
	cmd := &cobra.Command{Use: "drain", Short: "Take no more volumes on this host, and let go of those that are here", Long: drainLong, Args: cobra.NoArgs}
	cmd.Flags().DurationVar(&req.Timeout, "timeout", 2*time.Minute, "how long to wait for volumes in use")
	cmd.Flags().BoolVar(&req.Undo, "undo", false, "take volumes again")
	asJSON := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		inJSON, err := asJSON()
		if err != nil {
			return err
		}
		if req.Timeout < 0 {
			return usagef("--timeout %s is less than nothing", req.Timeout)
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var d driver.Drained
		if err := plugin.ask(cmd.Context(), "Drain", req, &d); err != nil {
			return err
		}
		switch {
		case inJSON:
			err = printJSON(cmd.OutOrStdout(), d)
		case req.Undo:
			fmt.Fprintf(cmd.OutOrStdout(), "%s takes volumes again\n", d.Instance)
		case len(d.Left) == 0:
			fmt.Fprintf(cmd.OutOrStdout(), "%s is drained: no volume of the cluster is attached to it\n", d.Instance)
		default:
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "LEFT\tID\tSTATE\tWHY")
			for _, l := range d.Left {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Volume, l.ID, l.State, l.Why)
			}
			err = w.Flush()
		}
		if err == nil && len(d.Left) > 0 {
			err = fmt.Errorf("not drained within %s: %d volumes are still attached to %s, which takes no more", req.Timeout, len(d.Left), d.Instance)
		}
		return err
	}
	return cmd
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// errNotReady ends `blockvol health` where there are problems; the problems themselves are its output.
var errNotReady = errors.New("not ready")

func healthCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Tell whether blockvol can do its work on this host, and what keeps it from doing so",
		Long: "Tell whether blockvol can do its work on this host: exit status 0 if it is ready, 1 if not, with one line for each problem: what, which\n" +
			"volume, since when, the way out. EC2 is asked at most once a minute, however often this command runs. With --live only: does the plugin answer?",
		Args: cobra.NoArgs,
	}
	format := formatFlag(cmd, driver.Health{}, driver.About{})
	live := cmd.Flags().Bool("live", false, "only whether the plugin answers")
	limit := cmd.Flags().Duration("timeout", 10*time.Second, "how long the plugin has to answer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		as, err := format()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), *limit, fmt.Errorf("the plugin did not answer within %s", *limit))
		defer cancel()
		cmd.SetContext(ctx)
		defer func() {
			if errors.Is(err, context.DeadlineExceeded) {
				err = context.Cause(ctx)
			}
		}()
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		if *live {
			var about driver.About
			if err := plugin.ask(ctx, "About", driver.NoRequest{}, &about); err != nil {
				return err
			}
			if as != nil {
				return as.print(cmd.OutOrStdout(), about)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "live")
			return nil
		}
		var h driver.Health
		if err := plugin.ask(ctx, "Health", driver.NoRequest{}, &h); err != nil {
			return err
		}
		switch {
		case as != nil:
			err = as.print(cmd.OutOrStdout(), h)
		case h.Ready:
			fmt.Fprintf(cmd.OutOrStdout(), "ready: cluster %s, instance %s\n", h.Cluster, h.Instance)
		}
		if h.Ready || err != nil {
			return err
		}
		if as == nil {
			for _, p := range h.Problems {
				fmt.Fprintln(cmd.OutOrStdout(), p)
			}
		}
		return errNotReady
	}
	return cmd
}

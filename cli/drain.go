package cli

import (
	"fmt"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const drainLong = `Take everything of the cluster off this host, before it is stopped, terminated or taken away.

From now on this host mounts no volume that is not mounted already. What nobody uses is detached at once, without its grace. What is in use is
shown and waited for: blockvol stops no container. It ends with 0 only when nothing of the cluster is attached to this host any more; otherwise,
after --timeout, with 1 and the list of what is left. The host takes no volumes until --undo, or until the plugin is started again.

It shows what is here and asks first; scripts say -y.`

func drainCommand(s *shared) *cobra.Command {
	var req driver.DrainRequest
	cmd := &cobra.Command{Use: "drain", Short: "Take no more volumes on this host, and let go of those that are here", Long: drainLong, Args: cobra.NoArgs}
	cmd.Flags().DurationVar(&req.Timeout, "timeout", 2*time.Minute, "how long to wait for volumes in use")
	cmd.Flags().BoolVar(&req.Undo, "undo", false, "take volumes again")
	yes := cmd.Flags().BoolP("yes", "y", false, "do not ask")
	dryRun := cmd.Flags().Bool("dry-run", false, "show what would be done, and do nothing")
	format := formatFlag(cmd, driver.Drained{}, planned{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		if req.Timeout < 0 {
			return usagef("--timeout %s is less than nothing", req.Timeout)
		}
		if req.Undo && *dryRun {
			return usagef("--undo and --dry-run do not go together: --undo changes no volume")
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		if !req.Undo && (*dryRun || !*yes) {
			if err := drainPlan(cmd, plugin, as, *dryRun); err != nil || *dryRun {
				return err
			}
		}
		var d driver.Drained
		if err := plugin.ask(cmd.Context(), "Drain", req, &d); err != nil {
			return err
		}
		switch {
		case as != nil:
			err = as.print(cmd.OutOrStdout(), d)
		case req.Undo:
			fmt.Fprintf(cmd.OutOrStdout(), "%s takes volumes again\n", d.Instance)
		case len(d.Left) == 0:
			fmt.Fprintf(cmd.OutOrStdout(), "%s is drained: no volume of the cluster is attached to it\n", d.Instance)
		default:
			lines := []string{"LEFT\tID\tSTATE\tWHY"}
			for _, l := range d.Left {
				lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s", l.Volume, l.ID, l.State, l.Why))
			}
			err = printTable(cmd.OutOrStdout(), lines, 0)
		}
		if err == nil && len(d.Left) > 0 {
			err = fmt.Errorf("not drained within %s: %d volumes are still attached to %s, which takes no more", req.Timeout, len(d.Left), d.Instance)
		}
		return err
	}
	return cmd
}

// planned is a volume of this host, and what a drain would do with it.
type planned struct {
	Volume string `json:"volume"`
	ID     string `json:"id"`
	State  string `json:"state"`
	Uses   int    `json:"uses"`
	Plan   string `json:"plan"` // detach, or wait
}

// drainPlan shows what a drain would do, and unless it is only shown, asks. A plan that cannot be made, because EC2 does not answer, keeps
// nobody from draining.
func drainPlan(cmd *cobra.Command, plugin *client, as *answer, dryRun bool) error {
	var rows driver.VolumeRows
	err := plugin.ask(cmd.Context(), "List", driver.NoRequest{}, &rows)
	if err != nil && dryRun {
		return err
	}
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "which volumes are here cannot be told: %v\n", err)
	}
	plan := []planned{}
	lines := []string{"VOLUME\tID\tSTATE\tUSES\tPLAN"}
	for _, v := range rows.Volumes {
		if v.Here == nil && (v.Host == "" || v.Host != rows.Instance) {
			continue
		}
		p := planned{Volume: v.Name, ID: v.ID, State: v.Status, Plan: "detach"}
		if v.Here != nil && v.Here.Uses > 0 {
			p.Uses, p.Plan = v.Here.Uses, "wait"
		}
		plan = append(plan, p)
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%d\t%s", p.Volume, p.ID, p.State, p.Uses, p.Plan))
	}
	host := "this host"
	if rows.Instance != "" {
		host = rows.Instance
	}
	switch {
	case as != nil && dryRun:
		return as.print(cmd.OutOrStdout(), plan)
	case dryRun:
		if err := printTable(cmd.OutOrStdout(), lines, 0); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "dry run: %s would take no more volumes, detach what nothing uses, and wait for the rest\n", host)
		return nil
	}
	if err := printTable(cmd.ErrOrStderr(), lines, 0); err != nil {
		return err
	}
	return confirm(cmd, fmt.Sprintf("Take no more volumes on %s, detach what nothing uses, and wait for the rest?", host))
}

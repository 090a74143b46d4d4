package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const pruneLong = `List what the cluster has left behind, with the reason, and delete what nobody can miss: volumes that were removed and whose time is over, snapshots that EC2
could not make, doubles, and of volumes that are gone the snapshots that a schedule made, but for the last. Only what blockvol made is looked at.

The rest is shown, and kept unless a flag says otherwise:
  --all-snapshots  of volumes that are gone also the last snapshot, those that people made, and those that were made at a removal (reclaim=snapshot)
  --kept           volumes that were removed and kept (reclaim=retain)
  --removed        volumes that were removed and can still be brought back (blockvol undelete)

It shows what it would do and asks first; scripts say -y. What changed since it was shown is not deleted.`

func pruneCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "prune", Short: "Delete what removed volumes have left behind, after showing it", Long: pruneLong, Args: cobra.NoArgs}
	var req driver.PruneRequest
	cmd.Flags().BoolVarP(&req.AllSnapshots, "all-snapshots", "a", false, "of volumes that are gone, delete also snapshots that people or removals made")
	cmd.Flags().BoolVar(&req.Kept, "kept", false, "delete also volumes that were removed with reclaim=retain")
	cmd.Flags().BoolVar(&req.Removed, "removed", false, "delete also volumes that could still be brought back")
	given := cmd.Flags().StringArrayP("filter", "f", nil, "until=AGE: only what is at least so old (24h, 30d)")
	yes := cmd.Flags().BoolP("yes", "y", false, "do not ask")
	dryRun := cmd.Flags().Bool("dry-run", false, "show what would be deleted, and do nothing")
	format := formatFlag(cmd, driver.PruneRow{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		as, err := format()
		if err == nil {
			req.OlderThan, err = untilOf(*given)
		}
		if err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var plan driver.PruneRows
		if err := plugin.ask(cmd.Context(), "Prunable", req, &plan); err != nil {
			return err
		}
		if err := showPlan(cmd, plan, as, *dryRun); err != nil || *dryRun {
			return err
		}
		for _, r := range plan.Rows {
			if r.Delete {
				req.IDs = append(req.IDs, r.ID)
			}
		}
		done := driver.Pruned{Deleted: []driver.PruneRow{}, Left: []driver.PruneRow{}}
		if len(req.IDs) > 0 {
			if !*yes {
				if err := confirm(cmd, fmt.Sprintf("Delete the %s marked delete for good?", some(len(req.IDs), "thing"))); err != nil {
					return err
				}
			}
			if err := plugin.ask(cmd.Context(), "Prune", req, &done); err != nil {
				return err
			}
		}
		if as != nil {
			err = as.list(cmd.OutOrStdout(), done, done.Deleted)
		} else {
			for _, r := range done.Deleted {
				fmt.Fprintln(cmd.OutOrStdout(), r.ID)
			}
		}
		failed := []error{err}
		for _, r := range done.Left {
			failed = append(failed, fmt.Errorf("%s %s is not deleted: %s", r.Kind, r.ID, r.Why))
		}
		return errors.Join(failed...)
	}
	return cmd
}

// showPlan prints what prune has found: with --dry-run as the answer, else for the person who is asked.
func showPlan(cmd *cobra.Command, plan driver.PruneRows, as *answer, dryRun bool) error {
	for _, n := range plan.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), n)
	}
	if as != nil && dryRun {
		return as.list(cmd.OutOrStdout(), plan, plan.Rows)
	}
	out := cmd.ErrOrStderr()
	if dryRun {
		out = cmd.OutOrStdout()
	}
	if len(plan.Rows) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing is left behind")
		return nil
	}
	lines := []string{"PLAN\tKIND\tID\tVOLUME\tSIZE\tAGE\tWHY"}
	for _, r := range plan.Rows {
		action, age := "keep", "-"
		if r.Delete {
			action = "delete"
		}
		if !r.Since.IsZero() {
			age = short(time.Since(r.Since))
		}
		lines = append(lines, strings.Join([]string{action, r.Kind, r.ID, dash(r.Name), gib(r.SizeGiB), age, r.Why}, "\t"))
	}
	return printTable(out, lines, 0)
}

// untilOf reads the filter until=AGE: a Go duration, or days.
func untilOf(given []string) (age time.Duration, err error) {
	for _, g := range given {
		key, value, _ := strings.Cut(g, "=")
		if key != "until" || age != 0 {
			return 0, usagef("--filter %s is not known, or is there twice: use until=AGE", g)
		}
		if days, ok := strings.CutSuffix(value, "d"); ok {
			var n uint64
			n, err = strconv.ParseUint(days, 10, 16)
			age = time.Duration(n) * 24 * time.Hour
		} else {
			age, err = time.ParseDuration(value)
		}
		if err != nil || age <= 0 {
			return 0, usagef("--filter %s is no age: write until=24h or until=30d", g)
		}
	}
	return age, nil
}

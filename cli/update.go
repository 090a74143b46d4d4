package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/blockvol/blockvol/driver"
	"github.com/blockvol/blockvol/driver/options"
	"github.com/spf13/cobra"
)

const updateLong = `Change a volume that exists, given by its name or its ID (vol-...), from any host of the cluster, also while containers use it.

  blockvol update db size=200GiB              size, type, iops and throughput go to EC2 together, as one modification
  blockvol update db size=+50GiB iops=6000    50 GiB more than it has
  blockvol update db reclaim=retain tag.Team=db
  blockvol update db tag.Team- fencing-       take a tag away, or an option that has no default

Options, units and limits are those of docker volume create; docs/options.md tells which can be changed. Where the volume is mounted the filesystem
grows while containers write; otherwise it grows on the host that has the volume, within about a minute, or at its next mount. Mount options count from
the next mount on.

A volume never shrinks, and EC2 takes only a few modifications of one volume a day, one after the other. So size and type are asked about first; -y
answers yes. The verb ends when the volume has its new form and its filesystem has grown; EC2 optimizes it for some time after that.`

func updateCommand(s *shared) *cobra.Command {
	var yes, dryRun, noWait, completed bool
	cmd := &cobra.Command{Use: "update VOLUME KEY=VALUE... KEY-...", Short: "Change the size, type, performance, options or tags of a volume that exists", Long: updateLong}
	flags := cmd.Flags()
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask before size or type are changed")
	flags.BoolVar(&dryRun, "dry-run", false, "show what would be changed, and change nothing")
	flags.BoolVar(&noWait, "no-wait", false, "end when EC2 has accepted the modification; the filesystem grows by itself")
	flags.BoolVar(&completed, "until-completed", false, "wait until EC2 has optimized the volume, too, and takes the next modification")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return s.completeNames(1)(cmd, args, begun)
		}
		return completeChanges(begun), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	format := formatFlag(cmd, driver.Updated{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		req, err := parseUpdate(args)
		switch {
		case err != nil:
			return err
		case noWait && completed:
			return usagef("--no-wait and --until-completed do not go together")
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		req.DryRun = true
		var plan, done driver.Updated
		if err := plugin.ask(cmd.Context(), "Update", req, &plan); err != nil {
			return err
		}
		if dryRun || len(plan.Changes) == 0 {
			return printUpdated(cmd, plan, as)
		}
		if plan.Lasting && !yes {
			printChanges(cmd.ErrOrStderr(), plan)
			printNotes(cmd.ErrOrStderr(), plan)
			if err := confirm(cmd, fmt.Sprintf("Change %s (%s)? %s", plan.Volume, plan.ID, lasting(plan))); err != nil {
				return err
			}
		}
		// What was shown is what is done, however often: a size to be added would be added again.
		if plan.SizeGiB != 0 {
			for key, value := range req.Set {
				if strings.HasPrefix(strings.TrimSpace(value), "+") && !strings.HasPrefix(strings.ToLower(key), "tag") {
					req.Set[key] = fmt.Sprintf("%dGiB", plan.SizeGiB)
				}
			}
		}
		req.Volume, req.ID, req.DryRun, req.NoWait, req.Completed = plan.Volume, plan.ID, false, noWait, completed
		if err := plugin.ask(cmd.Context(), "Update", req, &done); err != nil {
			return err
		}
		return printUpdated(cmd, done, as)
	}
	return cmd
}

// completeChanges completes the names of options that can be changed.
func completeChanges(begun string) (list []cobra.Completion) {
	for _, opt := range options.Table() {
		name, isTag := strings.CutSuffix(opt.Name, "KEY")
		if !isTag {
			name += "="
		}
		if opt.Changeable && strings.HasPrefix(name, begun) {
			list = append(list, name)
		}
	}
	return list
}

// parseUpdate reads the arguments of the verb.
func parseUpdate(args []string) (driver.UpdateRequest, error) {
	if len(args) < 2 {
		return driver.UpdateRequest{}, usagef("say which volume, and what to change: blockvol update VOLUME KEY=VALUE...")
	}
	req := driver.UpdateRequest{Volume: args[0], Set: map[string]string{}}
	for _, arg := range args[1:] {
		key, value, ok := strings.Cut(arg, "=")
		_, twice := req.Set[key]
		gone, drop := strings.CutSuffix(arg, "-")
		switch {
		case ok && key != "" && !twice:
			req.Set[key] = value
		case !ok && drop && gone != "":
			req.Unset = append(req.Unset, gone)
		default:
			return driver.UpdateRequest{}, usagef("%q is neither KEY=VALUE nor KEY- (which takes away), or is there twice", arg)
		}
	}
	return req, nil
}

// lasting is why it is asked.
func lasting(u driver.Updated) string {
	if u.SizeGiB != 0 {
		return "It cannot be made smaller again."
	}
	return "The type can be changed back only after EC2 has completed this modification."
}

func printUpdated(cmd *cobra.Command, u driver.Updated, as *answer) error {
	if as != nil {
		return as.print(cmd.OutOrStdout(), u)
	}
	if len(u.Changes) == 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "%s (%s): nothing to change\n", u.Volume, u.ID)
		return nil
	}
	if u.DryRun {
		fmt.Fprintln(cmd.ErrOrStderr(), "dry run: would be changed")
	}
	printChanges(cmd.OutOrStdout(), u)
	if u.Grown {
		fmt.Fprintln(cmd.ErrOrStderr(), "the filesystem has its new size")
	}
	printNotes(cmd.ErrOrStderr(), u)
	return nil
}

func printChanges(out io.Writer, u driver.Updated) {
	for _, c := range u.Changes {
		fmt.Fprintf(out, "%s (%s): %s: %s -> %s\n", u.Volume, u.ID, c.Name, orNotSet(c.From), orNotSet(c.To))
	}
}

func printNotes(out io.Writer, u driver.Updated) {
	for _, note := range u.Notes {
		fmt.Fprintln(out, "note:", note)
	}
}

func orNotSet(s string) string {
	if s == "" {
		return "not set"
	}
	return s
}

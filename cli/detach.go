package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const detachLong = `Detach a volume, given by its name or its ID (vol-...), from the instance that has it, from any host of the cluster.

First it shows which instance that is, what EC2 says of it, and what that proves. Then:
  - No instance has the volume: nothing is to be done.
  - This host has it: it is detached if nothing here uses it.
  - The instance is terminated, or stopped and not hibernated: it can write no more. After a confirmation (-y), and a second look, the volume is
    detached.
  - Anything else proves nothing, and is refused.

--stop-instance stops the instance first, with everything that runs on it. --force detaches without proof: what the instance has not
written yet is lost, and if it goes on writing, the filesystem may be damaged. It wants the volume's name typed, or --force-name.`

// detachFlags are the flags of blockvol detach.
type detachFlags struct {
	yes, stop, force, dryRun bool
	forceName                string
}

// detachReport is the answer in JSON.
type detachReport struct {
	Holder  driver.Holder    `json:"holder"`
	Action  string           `json:"action"` // what is done or, with --dry-run, would be: none, release, detach, stop-and-detach, force
	DryRun  bool             `json:"dryRun,omitempty"`
	Refused string           `json:"refused,omitempty"`
	Result  *driver.Detached `json:"result,omitempty"`
}

func detachCommand(s *shared) *cobra.Command {
	var f detachFlags
	cmd := &cobra.Command{Use: "detach VOLUME", Short: "Detach a volume from the instance that has it, if that is proven to be safe", Long: detachLong, Args: cobra.ExactArgs(1)}
	flags := cmd.Flags()
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask (not enough for --force)")
	flags.BoolVar(&f.stop, "stop-instance", false, "stop the instance that has the volume first")
	flags.BoolVar(&f.force, "force", false, "detach without proof, after the volume's name was typed")
	flags.StringVar(&f.forceName, "force-name", "", "the volume's name once more, for --force in a script")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would be done, and do nothing")
	cmd.ValidArgsFunction = s.completeNames(1)
	format := formatFlag(cmd, detachReport{Result: &driver.Detached{}})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err == nil {
			err = f.check(args[0])
		}
		if err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var r detachReport
		if err := plugin.ask(cmd.Context(), "Holder", driver.HolderRequest{Volume: args[0]}, &r.Holder); err != nil {
			return err
		}
		if f.forceName != "" && f.forceName != r.Holder.Volume {
			return usagef("--force-name %s is not the name of the volume (%s is %s)", f.forceName, r.Holder.ID, r.Holder.Volume)
		}
		if as == nil {
			printHolder(cmd.OutOrStdout(), r.Holder)
		}
		err = f.run(cmd, plugin, &r)
		if as != nil {
			err = errors.Join(err, as.print(cmd.OutOrStdout(), r))
		}
		return err
	}
	return cmd
}

// check refuses flags that do not go together.
func (f *detachFlags) check(volume string) error {
	f.force = f.force || f.forceName != ""
	switch {
	case f.force && f.stop:
		return usagef("--force and --stop-instance do not go together")
	case f.forceName != "" && f.forceName != volume && !strings.HasPrefix(volume, "vol-"): // of an ID the name is not known yet
		return usagef("--force-name %s is not the name of the volume (%s)", f.forceName, volume)
	case f.force && f.yes && f.forceName == "":
		return usagef("-y is not enough for --force: type the volume's name when asked, or give it with --force-name")
	}
	return nil
}

// run decides what is to be done, asks, and has it done.
func (f *detachFlags) run(cmd *cobra.Command, plugin *client, r *detachReport) error {
	h := r.Holder
	r.DryRun = f.dryRun
	var question string
	switch {
	case h.Instance == "":
		r.Action = "none"
		return nil
	case f.force:
		r.Action = "force"
	case h.Here:
		r.Action = "release"
	case h.Dead:
		r.Action = "detach"
		question = fmt.Sprintf("Detach %s from %s, which is %s?", h.ID, h.Instance, h.Power)
	case f.stop && h.NoStop != "":
		return r.refuse("%s has the volume and is not stopped: %s", h.Instance, h.NoStop)
	case f.stop && (h.Power == "running" || h.Power == "stopping"):
		r.Action = "stop-and-detach"
		question = fmt.Sprintf("Stop the instance %s, with everything that runs on it, and detach %s when it is stopped?", h.Instance, h.ID)
	default:
		return r.refuse("it is not proven that %s can write to the volume no more; ways out:\n  - %s", h.Instance, strings.Join(h.WaysOut, "\n  - "))
	}
	if f.force {
		fmt.Fprintf(cmd.ErrOrStderr(), "By force: what %s has not written to the volume yet is lost. If it goes on writing, or a second host mounts the volume before it\n"+
			"has stopped, the filesystem may be damaged. Make a snapshot first if you can. Nothing of this is undone by attaching it again.\n", h.Instance)
	}
	if f.dryRun {
		fmt.Fprintf(cmd.ErrOrStderr(), "dry run: would %s\n", map[string]string{
			"force": "detach by force, after the volume's name was typed", "release": "detach from this host if nothing here uses it",
			"detach": "look again, and detach", "stop-and-detach": "stop " + h.Instance + ", wait until it is stopped, look again, and detach",
		}[r.Action])
		return nil
	}
	if err := f.confirm(cmd, h.Volume, question); err != nil {
		return err
	}
	var done driver.Detached
	err := plugin.ask(cmd.Context(), "Detach", driver.DetachRequest{Volume: h.Volume, ID: h.ID, Instance: h.Instance, Stop: r.Action == "stop-and-detach", Force: f.force}, &done)
	var exit *exitError
	if errors.As(err, &exit) && exit.code == ExitRefused {
		r.Refused = err.Error()
	}
	if err != nil {
		return err
	}
	r.Result = &done
	fmt.Fprintf(cmd.ErrOrStderr(), "%s (%s): %s\n", done.Volume, done.ID, done.Done)
	return nil
}

func (r *detachReport) refuse(format string, args ...any) error {
	r.Action, r.Refused = "none", fmt.Sprintf(format, args...)
	return &exitError{code: ExitRefused, err: fmt.Errorf("volume %q (%s) is not detached: %s", r.Holder.Volume, r.Holder.ID, r.Refused)}
}

// confirm asks the person, where there is something to ask.
func (f *detachFlags) confirm(cmd *cobra.Command, volume, question string) error {
	switch {
	case f.force && f.forceName == volume, !f.force && (question == "" || f.yes):
		return nil
	case !f.force:
		return confirm(cmd, question)
	}
	got, err := ask(cmd, "Type the name of the volume to detach it by force:")
	if err == nil && got != volume {
		err = errNotConfirmed
	}
	return err
}

func printHolder(out io.Writer, h driver.Holder) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("volume", "%s (%s, %s)", h.Volume, h.ID, h.Zone)
	if h.Instance != "" {
		here := ""
		if h.Here {
			here = ", this host"
		}
		row("holder", "%s%s", h.Instance, here)
		row("attachment", "%s%s", h.Attachment, sinceText(h.Since))
	}
	if h.Users > 0 {
		row("uses", "%d here, as Docker says", h.Users)
	}
	if h.Power != "" && !h.Here {
		power := h.Power
		if h.Hibernated {
			power += ", hibernated or possibly so"
		}
		if h.Reason != "" {
			power += " (" + h.Reason + ")"
		}
		row("instance", "%s", power)
	}
	if h.SystemCheck != "" || h.InstanceCheck != "" {
		row("system check", "%s%s", dash(h.SystemCheck), sinceText(h.SystemSince))
		row("instance check", "%s%s", dash(h.InstanceCheck), sinceText(h.InstanceSince))
	}
	if h.Unknown != "" {
		row("unknown", "%s", h.Unknown)
	}
	row("this proves", "%s", h.Proves)
	_ = w.Flush()
}

func sinceText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf(" since %s (%s ago)", t.UTC().Format(time.RFC3339), time.Since(*t).Round(time.Second))
}

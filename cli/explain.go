package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func explainCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain VOLUME",
		Short: "Tell why a volume is where it is: what kernel, EC2 and ledger say, the last refusal, the way out",
		Long: "Tell all that is known of a volume, given by name or ID, and what follows from it: what the kernel of this host, EC2, blockvol's ledger and the plugin's\n" +
			"memory say, side by side; the last error that Docker was told about it from here; and what can be done. It changes nothing.",
		Args: cobra.ExactArgs(1),
	}
	cmd.ValidArgsFunction = s.completeNames(1)
	format := formatFlag(cmd, driver.Explanation{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var e driver.Explanation
		if err := plugin.ask(cmd.Context(), "Explain", driver.HolderRequest{Volume: args[0]}, &e); err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if as != nil {
			return as.print(out, e)
		}
		fmt.Fprintf(out, "volume %s (%s), seen from %s\n\n", e.Volume, dash(e.ID), e.Host)
		lines := []string{"SOURCE\tWHAT\tSAYS"}
		for _, f := range e.Facts {
			lines = append(lines, f.Source+"\t"+f.What+"\t"+strings.Join(strings.Fields(f.Says), " "))
		}
		if err := printTable(out, lines, 0); err != nil {
			return err
		}
		if r := e.Refused; r != nil {
			fmt.Fprintf(out, "\nlast refusal: %s, %s ago (%s):\n  %s\n", r.Call, units.HumanDuration(time.Since(r.At)), r.At.UTC().Format(time.RFC3339), r.Text)
		}
		fmt.Fprintf(out, "\nwhat follows:\n  - %s\n", strings.Join(e.Follows, "\n  - "))
		if len(e.WaysOut) > 0 {
			fmt.Fprintf(out, "\nthe way out:\n  - %s\n", strings.Join(e.WaysOut, "\n  - "))
		}
		return nil
	}
	return cmd
}

package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

func lsCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the volumes of the cluster, and which instance has each",
		Long: "List the volumes of the cluster, in all zones of the region, with the instance that has each and since when.\n" +
			"HERE tells where a volume stands on this host.",
		Args: cobra.NoArgs,
	}
	asJSON := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		inJSON, err := asJSON()
		if err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var rows driver.VolumeRows
		if err := plugin.ask(cmd.Context(), "List", driver.NoRequest{}, &rows); err != nil {
			return err
		}
		if inJSON {
			return printJSON(cmd.OutOrStdout(), rows)
		}
		if rows.Simulated {
			fmt.Fprintln(cmd.ErrOrStderr(), "note: these are local files of a simulator, not EBS volumes")
		}
		return printRows(cmd.OutOrStdout(), rows)
	}
	return cmd
}

func printRows(out io.Writer, rows driver.VolumeRows) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tID\tSIZE\tTYPE\tZONE\tFILESYSTEM\tHOLDER\tSINCE\tHERE\tPROBLEM")
	for _, v := range rows.Volumes {
		holder, since := dash(v.Holder), "-"
		if v.Attachment != "" && v.Attachment != "attached" {
			holder += " (" + v.Attachment + ")"
		}
		if v.Since != nil {
			since = v.Since.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%d GiB\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, dash(v.ID), v.SizeGiB, dash(v.Type), dash(v.Zone), dash(v.Filesystem), holder, since, dash(v.Here), v.Problem)
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

package cli

import (
	"errors"
	"text/template"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

func inspectCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect VOLUME...",
		Short: "Show all that is known of volumes, as JSON",
		Long: "Show all that is known of volumes, given by name or ID, as a JSON array: what EC2 says, with all tags, and where each stands on this host. A volume\n" +
			"that does not exist is an error, after the others were shown. A template is used for each volume, with the fields of the JSON and capital\n" +
			"letters: --format '{{.Name}} {{.Host}}'.",
		Args: cobra.MinimumNArgs(1),
	}
	from := source{shared: s}
	from.flags(cmd)
	format := cmd.Flags().StringP("format", "f", "json", "json, or a Go template")
	cmd.ValidArgsFunction = s.completeNames(0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var t *template.Template
		if *format != "json" {
			var err error
			if t, err = parseTemplate(*format, driver.VolumeRow{Here: &driver.VolumeHere{}}); err != nil {
				return err
			}
		}
		rows, err := from.volumes(cmd)
		if err != nil {
			return err
		}
		found := []driver.VolumeRow{}
		var missing []error
		for _, name := range args {
			v, err := byNameOrID(rows.Volumes, name)
			if err != nil {
				missing = append(missing, err)
				continue
			}
			found = append(found, v)
		}
		return errors.Join(append(missing, (&answer{t}).print(cmd.OutOrStdout(), found))...)
	}
	return cmd
}

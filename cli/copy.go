package cli

import (
	"fmt"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const snapshotRestoreLong = `Make a new volume of a snapshot: of one by its ID, or of the latest that blockvol made of a volume, latest:VOLUME. The volume of the snapshot is left
as it is, and may be gone. The new one is made in this host's zone, is never formatted, and is mounted as the old one was. A pending snapshot is waited
for. It is the same as docker volume create -d blockvol -o snapshot-id=SNAPSHOT NEWNAME, and takes the options of that.`

func snapshotRestore(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "restore SNAPSHOT NEWNAME", Short: "Make a new volume of a snapshot", Long: snapshotRestoreLong, Args: cobra.ExactArgs(2)}
	copying(s, cmd, func(what string) driver.CopyRequest { return driver.CopyRequest{Snapshot: what} })
	return cmd
}

const cloneLong = `Make a new volume that is a copy of another one, given by name or ID, as that is at this moment. If it is mounted on this host, its filesystem stands
still for that moment, for 10 seconds at most. The copy is made in this host's zone, is never formatted, and is mounted as the other one is. It is the
same as docker volume create -d blockvol -o from=VOLUME NEWNAME, and takes the options of that.`

func cloneCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "clone VOLUME NEWNAME", Short: "Make a new volume that is a copy of another one", Long: cloneLong, Args: cobra.ExactArgs(2)}
	cmd.ValidArgsFunction = s.completeNames(1)
	copying(s, cmd, func(what string) driver.CopyRequest { return driver.CopyRequest{Volume: what} })
	return cmd
}

// copying makes a command of one that makes a volume of what its first argument names.
func copying(s *shared, cmd *cobra.Command, of func(what string) driver.CopyRequest) {
	given := cmd.Flags().StringArrayP("opt", "o", nil, "an option as docker volume create has it, KEY=VALUE; may be given many times")
	format := formatFlag(cmd, driver.VolumeRow{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		req := of(args[0])
		req.Name = args[1]
		if req.Options, err = pairs("-o", *given); err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var made driver.VolumeRow
		if err := plugin.ask(cmd.Context(), "Copy", req, &made); err != nil {
			return err
		}
		if as != nil {
			return as.print(cmd.OutOrStdout(), made)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is the volume %s\n", made.ID, made.Name)
		return nil
	}
}

package cli

import (
	"errors"
	"fmt"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const adoptLong = `Take an EBS volume that blockvol did not make, or that it has given up, as a volume of the cluster. It must be in this host's zone and attached
nowhere. Nothing on it is changed, and it is never formatted; its filesystem (ext4 or xfs) is found when it is first mounted. It is the same as
docker volume create -d blockvol -o volume-id=VOLUME-ID NAME.

  blockvol adopt VOLUME-ID NAME       containers get the root of the volume, unless -o subdir=... says otherwise
  blockvol adopt --from-rexray NAME.. takes each volume whose tag Name is NAME, and containers get its folder data, as REX-Ray had it`

func adoptCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "adopt VOLUME-ID NAME | --from-rexray NAME...", Short: "Take a volume that exists, also one of REX-Ray, without changing what is on it", Long: adoptLong}
	rexray := cmd.Flags().Bool("from-rexray", false, "take REX-Ray's volumes over, by their names")
	given := cmd.Flags().StringArrayP("opt", "o", nil, "an option as docker volume create has it, KEY=VALUE; may be given many times")
	format := formatFlag(cmd, driver.AdoptedVolume{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		opts, err := pairs("-o", *given)
		if err != nil {
			return err
		}
		var todo []driver.AdoptRequest
		switch {
		case *rexray && len(args) == 0:
			return usagef("say which volumes: blockvol adopt --from-rexray NAME...")
		case *rexray:
			for _, name := range args {
				todo = append(todo, driver.AdoptRequest{Name: name, FromREXRay: true, Options: opts})
			}
		case len(args) != 2:
			return usagef("say which volume, and its new name: blockvol adopt VOLUME-ID NAME")
		default:
			todo = []driver.AdoptRequest{{Name: args[1], VolumeID: args[0], Options: opts}}
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		done := []driver.AdoptedVolume{}
		var failed []error
		for _, req := range todo {
			var got driver.AdoptedVolume
			if err := plugin.ask(cmd.Context(), "Adopt", req, &got); err != nil {
				failed = append(failed, err)
				continue
			}
			done = append(done, got)
			if as == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is the volume %s\n", got.ID, got.Name)
			}
		}
		if as != nil {
			if err := as.print(cmd.OutOrStdout(), done); err != nil {
				return err
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}

package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const profileLong = `Show and change the profiles of this host: named sets of options that docker volume create takes by -o profile=NAME.

They come from the plugin's setting PROFILES, and from here, at once and without disabling the plugin. What is set here is kept on this host and
lies over the setting; hosts that create volumes of one cluster should have the same. Volumes that exist keep the options that they were created
with.`

func profileCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "profile", Short: "Show and change the profiles (storage classes) of this host", Long: profileLong, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to do with profiles: ls, show, set or rm; see blockvol profile --help")
		}}
	cmd.AddCommand(profileLs(s), profileShow(s), profileSet(s), profileRm(s))
	return cmd
}

func profileLs(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the profiles of this host",
		Long: "List the profiles of this host, with where each comes from: the setting PROFILES, this host (blockvol profile set), or this host over the setting.", Args: cobra.NoArgs}
	format := formatFlag(cmd, driver.ProfileRow{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		rows, err := s.askProfiles(cmd, "Profiles", driver.NoRequest{})
		if err != nil {
			return err
		}
		if as != nil {
			return as.list(cmd.OutOrStdout(), rows, rows.Profiles)
		}
		return printProfiles(cmd.OutOrStdout(), rows.Profiles)
	}
	return cmd
}

func profileShow(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "show PROFILE", Short: "Show one profile", Long: "Show one profile of this host, one option a line.", Args: cobra.ExactArgs(1)}
	format := formatFlag(cmd, driver.ProfileRow{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		rows, err := s.askProfiles(cmd, "Profiles", driver.NoRequest{})
		if err != nil {
			return err
		}
		for _, row := range rows.Profiles {
			switch {
			case row.Name != args[0]:
			case as != nil:
				return as.print(cmd.OutOrStdout(), row)
			default:
				return printProfile(cmd.OutOrStdout(), row)
			}
		}
		return fmt.Errorf("there is no profile %q; `blockvol profile ls` shows those that there are", args[0])
	}
	return cmd
}

func profileSet(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "set PROFILE [OPTION=VALUE ...]", Short: "Make a profile on this host, or replace one",
		Long: "Make a profile on this host, or replace one with all its options. The options are those of docker volume create, for example\n" +
			"blockvol profile set gold type=io2 iops=10000 \"mkfs-options=-m 0\"", Args: cobra.MinimumNArgs(1)}
	asDefault := cmd.Flags().Bool("default", false, "take it for volumes that name no profile; =false: do not any more (without the flag it stays as it was)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req := driver.SetProfileRequest{Name: args[0], Options: map[string]string{}}
		for _, arg := range args[1:] {
			key, value, ok := strings.Cut(arg, "=")
			if _, twice := req.Options[key]; !ok || twice {
				return usagef("%q is not of the form OPTION=VALUE, or is there twice", arg)
			}
			req.Options[key] = value
		}
		if cmd.Flags().Changed("default") {
			req.Default = asDefault
		}
		rows, err := s.askProfiles(cmd, "SetProfile", req)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "profile %s is set on %s\n", req.Name, host(rows))
		}
		return err
	}
	return cmd
}

func profileRm(s *shared) *cobra.Command {
	return &cobra.Command{Use: "rm PROFILE", Short: "Remove a profile that was set on this host",
		Long: "Remove a profile that was set on this host. If the setting PROFILES has one of that name, it counts again. Volumes are not changed.", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rows, err := s.askProfiles(cmd, "RemoveProfile", driver.RemoveProfileRequest{Name: args[0]})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "profile %s is removed from %s\n", args[0], host(rows))
			for _, row := range rows.Profiles {
				if row.Name == args[0] {
					fmt.Fprintln(cmd.OutOrStdout(), "the one of the setting PROFILES counts again")
				}
			}
			return nil
		}}
}

// askProfiles asks the plugin for one of the verbs of profiles. All have the same answer.
func (s *shared) askProfiles(cmd *cobra.Command, verb string, req any) (rows driver.ProfileRows, err error) {
	plugin, err := s.plugin(cmd)
	if err != nil {
		return rows, err
	}
	return rows, plugin.ask(cmd.Context(), verb, req, &rows)
}

// host is how the host is called, which may not know its own name yet.
func host(rows driver.ProfileRows) string {
	if rows.Instance == "" {
		return "this host"
	}
	return rows.Instance
}

func printProfiles(out io.Writer, rows []driver.ProfileRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tDEFAULT\tFROM\tOPTIONS")
	for _, row := range rows {
		isDefault := "-"
		if row.Default {
			isDefault = "yes"
		}
		var opts []string
		for _, key := range row.Keys() {
			opts = append(opts, key+"="+row.Options[key])
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", row.Name, isDefault, row.From, dash(strings.Join(opts, " ")))
	}
	return w.Flush()
}

func printProfile(out io.Writer, row driver.ProfileRow) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "name\t%s\ndefault\t%t\nfrom\t%s\n", row.Name, row.Default, row.From)
	for _, key := range row.Keys() {
		fmt.Fprintf(w, "%s\t%s\n", key, row.Options[key])
	}
	return w.Flush()
}

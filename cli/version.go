package cli

import (
	"context"
	"fmt"
	"os"
	"regexp"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// versions is the answer of `blockvol version` in JSON.
type versions struct {
	Command string `json:"command"`
	Plugin  string `json:"plugin,omitempty"`
	Socket  string `json:"socket,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Unknown string `json:"unknown,omitempty"` // why the plugin's version is not known
}

func versionCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this command and of the plugin on this host",
		Long:  "Show the version of this command and of the plugin on this host. Where no plugin answers, that is said, and is no failure.",
		Args:  cobra.NoArgs,
	}
	format := formatFlag(cmd, versions{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		v := versions{Command: s.Version}
		ctx, cancel := context.WithTimeout(cmd.Context(), lookTime)
		defer cancel()
		path, err := findSocket(ctx, s.socket, s.dir())
		var about driver.About
		if err == nil {
			err = (&client{socket: path, version: s.Version}).ask(ctx, "About", driver.NoRequest{}, &about)
		}
		if err != nil {
			v.Unknown = err.Error()
		} else {
			v.Plugin, v.Socket, v.Cluster = about.Version, path, about.Cluster
		}
		out := cmd.OutOrStdout()
		if as != nil {
			return as.print(out, v)
		}
		fmt.Fprintf(out, "command  %s\n", v.Command)
		if v.Unknown != "" {
			fmt.Fprintf(out, "plugin   unknown: %s\n", v.Unknown)
			return nil
		}
		fmt.Fprintf(out, "plugin   %s (CLUSTER=%s, %s)\n", v.Plugin, v.Cluster, v.Socket)
		if !sameVersion(v.Plugin, v.Command) {
			fmt.Fprintln(cmd.ErrOrStderr(), differentVersions(v.Plugin, v.Command, about.Program))
		}
		return nil
	}
	return cmd
}

var release = regexp.MustCompile(`^v?(\d+\.\d+)\.\d+`)

// sameVersion tells whether a command and a plugin of these versions understand each other for certain: releases that differ in their last
// number alone, and what is built on them, do.
func sameVersion(a, b string) bool {
	ra, rb := release.FindStringSubmatch(a), release.FindStringSubmatch(b)
	return a == b || ra != nil && rb != nil && ra[1] == rb[1]
}

// differentVersions is what is said to somebody whose command and plugin differ; program is the plugin's own, if it can be found here.
func differentVersions(plugin, command, program string) string {
	way := "use the command of the plugin's own version, or upgrade the plugin"
	if _, err := os.Stat(program); err == nil {
		way = "install the command of the plugin's own version with: " + program + " install-cli"
	}
	return fmt.Sprintf("note: the plugin is version %s, this command is version %s, and what one knows the other may not: %s", plugin, command, way)
}

package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// verbs are the commands that ask the plugin. Each makes its command out of what all of them share.
var verbs = []func(*shared) *cobra.Command{lsCommand, detachCommand, drainCommand, healthCommand}

// shared is what the verbs have in common.
type shared struct {
	version string
	socket  string // --socket
}

// Commands returns the verbs of a blockvol of this version.
func Commands(version string) []*cobra.Command {
	var all []*cobra.Command
	for _, make := range verbs {
		s := &shared{version: version}
		cmd := make(s)
		cmd.Long += "\n\n" + ExitHelp
		cmd.Flags().StringVar(&s.socket, "socket", "", "the plugin's socket (default: $"+socketEnv+", or the one that is found in "+pluginDir+")")
		all = append(all, cmd)
	}
	return all
}

// plugin returns the way to the plugin of this host. What is told meanwhile goes to the command's standard error, one line each.
func (s *shared) plugin(cmd *cobra.Command) (*client, error) {
	path, err := findSocket(cmd.Context(), s.socket, pluginDir)
	if err != nil {
		return nil, err
	}
	told := false
	return &client{
		socket: path, version: s.version,
		say: func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) },
		differ: func(plugin, command string) {
			if !told {
				told = true
				fmt.Fprintf(cmd.ErrOrStderr(), "note: the plugin is version %s, this command is version %s\n", plugin, command)
			}
		},
	}, nil
}

// formatFlag adds --format; the returned function is to be called before anything is done.
func formatFlag(cmd *cobra.Command) (asJSON func() (bool, error)) {
	format := cmd.Flags().String("format", "table", "table or json")
	return func() (bool, error) {
		switch *format {
		case "table", "json":
			return *format == "json", nil
		}
		return false, usagef("--format %s is not known: use table or json", *format)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

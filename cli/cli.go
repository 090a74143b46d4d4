package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// verbs are the commands that ask the plugin. Each makes its command out of what all of them share.
var verbs = []func(*shared) *cobra.Command{lsCommand, detachCommand, drainCommand, healthCommand, profileCommand, versionCommand}

// Config is what the verbs are made of.
type Config struct {
	Version string // of this command
}

// shared is what the verbs have in common.
type shared struct {
	Config
	socket string // --socket
}

// Commands returns the verbs.
func Commands(cfg Config) []*cobra.Command {
	list := []*cobra.Command{installCommand()}
	for _, make := range verbs {
		s := &shared{Config: cfg}
		top := make(s)
		for _, cmd := range withSubcommands(top) {
			cmd.Flags().StringVar(&s.socket, "socket", "", "the plugin's socket (default: $"+socketEnv+", or the one that is found in "+pluginDir+")")
		}
		list = append(list, top)
	}
	for _, top := range list {
		for _, cmd := range withSubcommands(top) {
			cmd.Long += "\n\n" + ExitHelp
		}
	}
	return list
}

// withSubcommands returns what can be run of a command and of those below it.
func withSubcommands(cmd *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	if cmd.Runnable() {
		list = append(list, cmd)
	}
	for _, c := range cmd.Commands() {
		list = append(list, withSubcommands(c)...)
	}
	return list
}

// plugin returns the way to the plugin of this host. What is told meanwhile goes to the command's standard error, one line each.
func (s *shared) plugin(cmd *cobra.Command) (*client, error) {
	path, err := findSocket(cmd.Context(), s.socket, pluginDir)
	if err != nil {
		return nil, err
	}
	told := false
	return &client{
		socket: path, version: s.Version,
		say: func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) },
		differ: func(plugin, command string) {
			if told || sameVersion(plugin, command) {
				return
			}
			told = true
			var about driver.About
			_ = (&client{socket: path}).ask(cmd.Context(), "About", driver.NoRequest{}, &about) // it may be too old to tell where it lies
			fmt.Fprintln(cmd.ErrOrStderr(), differentVersions(plugin, command, about.Program))
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

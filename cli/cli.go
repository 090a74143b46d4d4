package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// verbs are the commands that ask the plugin. Each makes its command out of what all of them share.
var verbs = []func(*shared) *cobra.Command{lsCommand, inspectCommand, dfCommand, explainCommand, doctorCommand, detachCommand, drainCommand, healthCommand, adoptCommand, updateCommand, undeleteCommand, pruneCommand, snapshotCommand, cloneCommand, profileCommand, versionCommand}

// Config is what the verbs are made of.
type Config struct {
	Version string // of this command
	// Cloud opens a cluster with the AWS settings of this machine, for the verbs that only look. Nil: they cannot do without a plugin.
	Cloud func(cluster string) (Lister, error)

	sockets string // the folder of the sockets of plugins; empty: pluginDir
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
	path, err := findSocket(cmd.Context(), s.socket, s.dir())
	if err != nil {
		return nil, err
	}
	return s.clientOf(cmd, path), nil
}

// clientOf is the way to the plugin behind a socket.
func (s *shared) clientOf(cmd *cobra.Command, path string) *client {
	told := false
	p := &progress{out: cmd.ErrOrStderr(), width: terminalWidth(cmd.ErrOrStderr())}
	return &client{
		socket: path, version: s.Version, say: p.say, end: p.end,
		differ: func(plugin, command string) {
			if told || sameVersion(plugin, command) {
				return
			}
			told = true
			var about driver.About
			_ = (&client{socket: path}).ask(cmd.Context(), "About", driver.NoRequest{}, &about) // it may be too old to tell where it lies
			fmt.Fprintln(cmd.ErrOrStderr(), differentVersions(plugin, command, about.Program))
		},
	}
}

// dir is where sockets are looked for.
func (s *shared) dir() string {
	if s.sockets != "" {
		return s.sockets
	}
	return pluginDir
}

// completeNames completes the names of volumes for the shell, for the first arguments, 0 for all of them.
func (s *shared) completeNames(first int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if first > 0 && len(args) >= first {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), lookTime)
		defer cancel()
		var rows driver.VolumeRows
		path, err := findSocket(ctx, s.socket, s.dir())
		if err == nil {
			err = (&client{socket: path, version: s.Version}).ask(ctx, "List", driver.NoRequest{}, &rows)
		}
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for _, v := range rows.Volumes {
			if strings.HasPrefix(v.Name, begun) && !slices.Contains(args, v.Name) {
				names = append(names, v.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// errNotConfirmed ends a verb that a person has not agreed to.
var errNotConfirmed = errors.New("not confirmed: nothing was done")

// ask asks the person a question, and returns what was typed; at the end of the input that is nothing.
func ask(cmd *cobra.Command, question string) (string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), question, " ")
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimSpace(line), err
}

// confirm asks the person whether to go on.
func confirm(cmd *cobra.Command, question string) error {
	got, err := ask(cmd, question+" [y/N]")
	if err == nil && !strings.EqualFold(got, "y") && !strings.EqualFold(got, "yes") {
		err = fmt.Errorf("%w (-y is the answer in a script)", errNotConfirmed)
	}
	return err
}

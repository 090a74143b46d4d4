package cli

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// The protocol of Docker's CLI plugins: the client runs each docker-* in its folders with metadataArg, and shows what answers as a command of
// its own. `docker [OPTIONS] blockvol ARGS` then runs it with everything that stands behind `docker`. Source: docs/extend/cli_plugins.md of
// the Docker CLI.
const (
	pluginPrefix = "docker-"
	pluginName   = "blockvol"
	metadataArg  = "docker-cli-plugin-metadata"
	// pluginSocketEnv names a socket that Docker's client holds open for as long as the command is to run. It does so where the two do not
	// get the signals of one terminal.
	pluginSocketEnv = "DOCKER_CLI_PLUGIN_SOCKET"
)

// URL is where the project lives.
const URL = "https://github.com/blockvol/blockvol"

// metadata is what Docker's client wants to know of a plugin.
type metadata struct {
	SchemaVersion    string
	Vendor           string
	Version          string
	ShortDescription string
	URL              string
}

// IsDockerPlugin tells whether the program was called as a plugin of Docker's client, by its name.
func IsDockerPlugin(program string) bool {
	return strings.HasPrefix(filepath.Base(program), pluginPrefix)
}

// DockerPlugin returns the commands of `docker blockvol`, as Docker's client calls them.
func DockerPlugin(cfg Config) *cobra.Command {
	root := &cobra.Command{
		Use: "docker", TraverseChildren: true, SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}, // that of docker itself asks this one
	}
	dockerFlags(root)
	group := &cobra.Command{
		Use:   pluginName,
		Short: "Networked block storage as Docker volumes",
		Long: "Networked block storage as Docker volumes: the verbs for people and scripts.\n" +
			"Volumes are made, used and removed with docker volume and docker run; see " + URL,
		Args: cobra.NoArgs, // any other word is an unknown command
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(Commands(cfg)...)
	root.AddCommand(group, &cobra.Command{
		Use: metadataArg, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(metadata{
				SchemaVersion: "0.1.0", Vendor: "blockvol", Version: cfg.Version, ShortDescription: group.Short, URL: URL,
			})
		},
	})
	return root
}

// dockerFlags are the options that may stand before the name of the plugin. They are Docker's own; which engine is meant is told on to
// those who ask it.
func dockerFlags(root *cobra.Command) {
	f := root.Flags()
	for _, name := range []string{"config", "tlscacert", "tlscert", "tlskey"} {
		f.String(name, "", "")
	}
	f.StringP("context", "c", "", "")
	f.StringP("log-level", "l", "", "")
	f.StringArrayP("host", "H", nil, "")
	f.BoolP("debug", "D", false, "")
	f.Bool("tls", false, "")
	f.Bool("tlsverify", false, "")
}

// WithDocker returns a context that also ends when Docker's client, which has started this program, wants it to end.
func WithDocker(ctx context.Context) context.Context {
	socket := os.Getenv(pluginSocketEnv)
	if socket == "" {
		return ctx
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return ctx // an old client, or one that is gone: the signals do
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = c.Read(make([]byte, 1)) // nothing is ever sent
	}()
	return ctx
}

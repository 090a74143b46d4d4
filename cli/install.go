package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// everybodysPlugins is where Docker's client looks for plugins, whoever runs it. Source: docs/extend/cli_plugins.md of the Docker CLI.
const everybodysPlugins = "/usr/local/lib/docker/cli-plugins"

func installCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "install-cli",
		Short: "Install this program as docker blockvol",
		Long: "Install this program as a plugin of Docker's client, so that docker blockvol VERB works: for everybody on this host (root), or for\n" +
			"yourself (anybody else). Done again, it replaces the one that is there. The program of the managed plugin lies on the host in\n" +
			"/var/lib/docker/plugins/ID/rootfs/blockvol, with the ID that docker plugin inspect -f '{{.Id}}' blockvol prints; run from there, the\n" +
			"command is of the same version as the plugin.",
		Args: cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "the folder to install into (default: "+everybodysPlugins+" for root, else ~/.docker/cli-plugins)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *dir == "" {
			var err error
			if *dir, err = pluginsFolder(os.Geteuid(), os.Getenv, os.UserHomeDir); err != nil {
				return err
			}
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding out where this program lies: %w", err)
		}
		path, err := install(self, *dir)
		if err != nil {
			return fmt.Errorf("%s is not installed: %w", pluginPrefix+pluginName, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "installed %s; try: docker blockvol --help\n", path)
		return nil
	}
	return cmd
}

// pluginsFolder is where Docker's client finds the plugins of that user.
func pluginsFolder(uid int, getenv func(string) string, home func() (string, error)) (string, error) {
	if uid == 0 {
		return everybodysPlugins, nil
	}
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "cli-plugins"), nil
	}
	h, err := home()
	if err != nil {
		return "", usagef("your home folder is not known (%v): say where to install with --dir", err)
	}
	return filepath.Join(h, ".docker", "cli-plugins"), nil
}

// install copies the program into the folder, under the name that Docker's client looks for. Whoever runs the old one meanwhile is not
// disturbed, and one half written is never run.
func install(program, dir string) (path string, err error) {
	path = filepath.Join(dir, pluginPrefix+pluginName)
	in, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if was, err := os.Lstat(path); err == nil && was.IsDir() {
		return "", fmt.Errorf("%s is a folder: look what it is, and remove it", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	out, err := os.CreateTemp(dir, "."+pluginName+"-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return path, os.Rename(out.Name(), path)
}

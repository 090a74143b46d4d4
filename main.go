// Command blockvol is a Docker volume plugin for networked block storage. `blockvol serve` is what the plugin runs;
// the other commands ask it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/blockvol/blockvol/cli"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "dev"

func main() {
	if disk.Guard(os.Args) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	root := &cobra.Command{
		Use:           "blockvol",
		Short:         "A Docker volume plugin for networked block storage",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), ec2sim.Command())
	cfg := cli.Config{Version: version, Cloud: openLister}
	root.AddCommand(cli.Commands(cfg)...)
	if cli.IsDockerPlugin(os.Args[0]) {
		root, ctx = cli.DockerPlugin(cfg), cli.WithDocker(ctx)
	}
	code := cli.Execute(ctx, root)
	stop()
	os.Exit(code)
}

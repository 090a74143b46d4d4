package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/blockvol/blockvol/driver/metrics"
	"github.com/blockvol/blockvol/logs"
	"github.com/spf13/cobra"
)

// serveCommand is `blockvol serve`: the plugin itself. It ends with SIGTERM.
func serveCommand() *cobra.Command {
	var socket, state string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the Docker volume plugin protocol on a unix socket",
		Long: "Serve the Docker volume plugin protocol on a unix socket. Inside the managed plugin this is the entrypoint;\n" +
			"without plugin packaging it runs as a service of the host. Settings come from the environment.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), socket, state) },
	}
	cmd.Flags().StringVar(&socket, "socket", "/run/docker/plugins/blockvol.sock", "the unix socket to serve on")
	cmd.Flags().StringVar(&state, "state", "/data", "the folder for mounts and state; dockerd must see mounts made in it")
	return cmd
}

// serve opens the socket first and finds out everything else later: dockerd disables a plugin that does not accept within seconds, and
// whatever is wrong is told at each request.
func serve(ctx context.Context, socket, state string) error {
	l, err := driver.Listen(socket)
	if err != nil {
		return err
	}
	settings, settingsErr := driver.ReadSettings(os.Getenv)
	out := logs.NewWriter(os.Stdout)
	defer out.Close(time.Second)
	log := logs.New(out, settings.LogLevel, settings.LogJSON)
	log.WithField("version", version).Infof("serving on %s", socket)

	state, err = filepath.Abs(state)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o711); err != nil {
		log.Errorf("the folder for mounts and state cannot be made, and nothing can be mounted until it can: %v", err)
	}
	if err := startAnew(l, state, log); err != nil {
		return err
	}
	count := metrics.New(version)
	back, err := openBackend(settings, settingsErr, state, log, count)
	if err != nil {
		settingsErr = err
	}
	if settingsErr != nil {
		log.Errorf("no request can be served: %v", settingsErr)
	}
	manager, err := driver.New(driver.Config{
		Settings: settings, SettingsErr: settingsErr, Cloud: back.cloud, Disk: back.disk,
		Simulated: back.simulated, StateDir: state, Log: log, Metrics: count, Step: faultPoints(state),
	})
	if err != nil {
		return err
	}
	server := &driver.Server{Manager: manager, Log: log, Version: version, Getenv: os.Getenv, RecentLog: out.Recent}
	// The work in the background outlives the signal: it ends in Shutdown, in order.
	manager.Start(context.WithoutCancel(ctx))
	go server.ServeMetrics()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		log.Info("shutting down")
		server.Shutdown(context.WithoutCancel(ctx))
		err = <-failed
	}
	if back.close != nil {
		if cerr := back.close(); err == nil {
			err = cerr
		}
	}
	return err
}

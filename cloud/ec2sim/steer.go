package ec2sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// steerTimeout bounds one request to a running simulator. Copying a large image takes long.
const steerTimeout = 10 * time.Minute

// endpointFlag adds --endpoint, which names a running simulator.
func endpointFlag(cmd *cobra.Command) *string {
	endpoint := cmd.Flags().String("endpoint", "", "a running simulator: http://HOST:PORT or unix:/PATH")
	if err := cmd.MarkFlagRequired("endpoint"); err != nil {
		panic(err) // The flag was defined one line above.
	}
	return endpoint
}

// steer sends one request to a running simulator's control.
func steer(ctx context.Context, endpoint, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, steerTimeout)
	defer cancel()
	client, base := http.DefaultClient, strings.TrimSuffix(endpoint, "/")
	if socket, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
		base = "http://simulator"
	}
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		var refusal struct{ Error string }
		if err := json.NewDecoder(answer.Body).Decode(&refusal); err != nil || refusal.Error == "" {
			return fmt.Errorf("the simulator answers %s: is %s one?", answer.Status, endpoint)
		}
		return fmt.Errorf("the simulator refuses: %s", refusal.Error)
	}
	if out == nil || answer.StatusCode == http.StatusNoContent {
		return nil
	}
	return json.NewDecoder(answer.Body).Decode(out)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func callsCommand() *cobra.Command {
	var reset, asJSON bool
	cmd := &cobra.Command{Use: "calls", Short: "Show the calls a running simulator got", Args: cobra.NoArgs, SilenceUsage: true}
	endpoint := endpointFlag(cmd)
	cmd.Flags().BoolVar(&reset, "reset", false, "forget them afterwards")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var calls []Call
		if err := steer(cmd.Context(), *endpoint, http.MethodGet, "/_sim/calls", nil, &calls); err != nil {
			return err
		}
		if reset {
			if err := steer(cmd.Context(), *endpoint, http.MethodDelete, "/_sim/calls", nil, nil); err != nil {
				return err
			}
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), calls)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
		for _, c := range calls {
			result := c.Code
			if c.Status == 0 {
				result = "cut"
			} else if result == "" {
				result = "ok"
			}
			var params []string
			for _, name := range slices.Sorted(maps.Keys(c.Params)) {
				params = append(params, name+"="+c.Params[name])
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d ms\t%s\t%s\n", c.Time.Format("15:04:05.000"), c.Action, result, c.DurationMS, c.Instance, strings.Join(params, " "))
		}
		return w.Flush()
	}
	return cmd
}

func faultCommand() *cobra.Command {
	var f Fault
	var list, clear bool
	cmd := &cobra.Command{Use: "fault [KIND]", Short: "Make something go wrong in a running simulator", Long: faultHelp(), Args: cobra.MaximumNArgs(1), SilenceUsage: true}
	endpoint := endpointFlag(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&list, "list", false, "show the faults that can still hit")
	flags.BoolVar(&clear, "clear", false, "remove all faults")
	flags.StringVar(&f.Action, "action", "", "which calls, e.g. AttachVolume (default: those the kind is made for, or any)")
	flags.StringVar(&f.Volume, "volume", "", "only calls that name this volume or snapshot")
	flags.StringVar(&f.Instance, "instance", "", "only calls that name or come from this instance")
	flags.IntVar(&f.Skip, "skip", 0, "let so many calls pass first")
	flags.IntVar(&f.Times, "times", 1, "how many calls it hits; -1: until it is removed")
	flags.StringVar(&f.Code, "code", "", "error code, for kind error")
	flags.StringVar(&f.Message, "message", "", "error message, for kind error")
	flags.IntVar(&f.Status, "status", 0, "HTTP status, for kind error (default: what EC2 gives with the code)")
	flags.DurationVar(&f.Duration, "duration", 0, "for the kinds that last")
	flags.IntVar(&f.Count, "count", 0, "results per page, for kind page-size")
	flags.StringVar(&f.Serial, "serial", "", "for kind wrong-serial")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case clear:
			return steer(cmd.Context(), *endpoint, http.MethodDelete, "/_sim/faults", nil, nil)
		case list:
			var faults []Fault
			if err := steer(cmd.Context(), *endpoint, http.MethodGet, "/_sim/faults", nil, &faults); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), faults)
		case len(args) == 0:
			return fmt.Errorf("which kind of fault? There are %s", strings.Join(slices.Sorted(maps.Keys(faultKinds)), ", "))
		}
		f.Kind = args[0]
		var made Fault
		if err := steer(cmd.Context(), *endpoint, http.MethodPost, "/_sim/faults", f, &made); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), made.ID)
		return nil
	}
	return cmd
}

func faultHelp() string {
	var out strings.Builder
	out.WriteString("Arms a fault that hits the next call that it matches. Kinds:\n")
	kinds := FaultKinds()
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&out, "  %-16s %s\n", name, kinds[name])
	}
	return out.String()
}

func importCommand() *cobra.Command {
	var spec ImportSpec
	cmd := &cobra.Command{Use: "import [IMAGE]", Short: "Make a volume out of an image file, or a blank one, in a running simulator", Args: cobra.MaximumNArgs(1), SilenceUsage: true}
	endpoint := endpointFlag(cmd)
	flags := cmd.Flags()
	flags.Int64Var(&spec.SizeGiB, "size", 0, "in GiB (default: the image's, rounded up)")
	flags.StringVar(&spec.Type, "type", "gp3", "volume type")
	flags.StringVar(&spec.Zone, "zone", "", "availability zone (default: the region's a)")
	flags.Int64Var(&spec.IOPS, "iops", 0, "provisioned IOPS")
	flags.Int64Var(&spec.Throughput, "throughput", 0, "provisioned throughput in MiB/s")
	flags.StringVar(&spec.SnapshotID, "snapshot", "", "ID of the snapshot that it pretends to come from")
	flags.StringToStringVar(&spec.Tags, "tag", nil, "KEY=VALUE, repeatable")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			image, err := filepath.Abs(args[0]) // The simulator opens it, and may be in another folder.
			if err != nil {
				return err
			}
			spec.Image = image
		}
		var made struct{ VolumeID string }
		if err := steer(cmd.Context(), *endpoint, http.MethodPost, "/_sim/volumes", spec, &made); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), made.VolumeID)
		return nil
	}
	return cmd
}

func volumeStatusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "volume-status VOLUME STATUS", Short: "Set what DescribeVolumeStatus says of a volume: ok, warning, impaired, insufficient-data",
		Args: cobra.ExactArgs(2), SilenceUsage: true}
	endpoint := endpointFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return steer(cmd.Context(), *endpoint, http.MethodPut, "/_sim/volumes/"+url.PathEscape(args[0])+"/status", args[1], nil)
	}
	return cmd
}

func stateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "state", Short: "Show what a running simulator holds, as JSON", Args: cobra.NoArgs, SilenceUsage: true}
	endpoint := endpointFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var state json.RawMessage
		if err := steer(cmd.Context(), *endpoint, http.MethodGet, "/_sim/state", nil, &state); err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), state)
	}
	return cmd
}

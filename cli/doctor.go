package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// errBad ends `blockvol doctor` where something does not work; the findings themselves are its output.
var errBad = errors.New("something does not work: see the findings that are bad")

func doctorCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that blockvol needs on this host, with a verdict and the fix for each",
		Long: "Look at everything that blockvol needs on this host, and at what may have been left behind, one line for each: ok, warning (works, but somebody should\n" +
			"look), bad (does not work), or unknown (cannot be told), with what to do about it. Exit status 1 if anything is bad. It changes nothing: permissions are\n" +
			"tried by EC2's dry runs, and what only the real thing could show is unknown. Volumes of other drivers are compared with blockvol's by name, through\n" +
			"Docker's socket, where that can be opened.\n\n" +
			"--bundle writes an archive (tar, gzip) for support, readable by you alone: the findings, health, volumes without the values of your tags, the ledger, settings\n" +
			"without secrets, and the last lines of the log. Look into it before you give it away.",
		Args: cobra.NoArgs,
	}
	format := formatFlag(cmd, cloud.Finding{})
	bundle := cmd.Flags().String("bundle", "", "also write an archive for support to this file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		if _, err := os.Lstat(*bundle); *bundle != "" && err == nil {
			return usagef("%s exists already: give --bundle another name", *bundle)
		}
		found, plugin := s.examine(cmd)
		if *bundle != "" {
			if err := writeBundle(cmd.Context(), *bundle, s.Version, plugin, found); err != nil {
				return fmt.Errorf("%s is not written: %w", *bundle, err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "written: %s\n", *bundle)
		}
		if as != nil {
			err = as.print(cmd.OutOrStdout(), found)
		} else {
			err = printFindings(cmd.OutOrStdout(), found)
		}
		for _, f := range found {
			if f.Verdict == cloud.Bad && err == nil {
				err = errBad
			}
		}
		return err
	}
	return cmd
}

// examine asks the plugin, and looks at what the plugin cannot see. There is always a first finding: whether the plugin answers.
func (s *shared) examine(cmd *cobra.Command) ([]cloud.Finding, *client) {
	bad := func(err error) []cloud.Finding {
		fix := "see docker plugin ls and the engine's log; docs/runbooks.md, the plugin does not answer"
		if errors.Is(err, os.ErrPermission) {
			fix = "run this as root (sudo)"
		}
		return []cloud.Finding{{Check: "plugin", Verdict: cloud.Bad, Text: err.Error(), Fix: fix}}
	}
	plugin, err := s.plugin(cmd)
	if err != nil {
		return bad(err), nil
	}
	var about driver.About
	if err := plugin.ask(cmd.Context(), "About", driver.NoRequest{}, &about); err != nil {
		return bad(err), nil
	}
	first := cloud.Finding{Check: "plugin", Verdict: cloud.OK, Text: fmt.Sprintf("version %s answers on %s, CLUSTER=%s", about.Version, plugin.socket, about.Cluster)}
	if !sameVersion(about.Version, s.Version) {
		first.Verdict, first.Fix = cloud.Warning, differentVersions(about.Version, s.Version, about.Program)
	}
	var f driver.Findings
	if err := plugin.ask(cmd.Context(), "Doctor", driver.NoRequest{}, &f); err != nil {
		return append([]cloud.Finding{first}, bad(err)...), plugin
	}
	host := ""
	if h, err := cmd.Root().Flags().GetStringArray("host"); err == nil && len(h) > 0 {
		host = h[0]
	}
	return append(append([]cloud.Finding{first}, f.Findings...), dockerFindings(cmd.Context(), host, f.Volumes)...), plugin
}

func printFindings(out io.Writer, found []cloud.Finding) error {
	count := map[cloud.Verdict]int{}
	for _, f := range found {
		count[f.Verdict]++
		line := f.Check
		if f.Subject != "" {
			line += " " + f.Subject
		}
		line += ": " + f.Text
		if f.Fix != "" {
			line += "; fix: " + f.Fix
		}
		if _, err := fmt.Fprintf(out, "%-7s  %s\n", f.Verdict, strings.Join(strings.Fields(line), " ")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%d ok, %d warnings, %d bad, %d unknown\n", count[cloud.OK], count[cloud.Warning], count[cloud.Bad], count[cloud.Unknown])
	return err
}

// writeBundle makes the archive. What the plugin cannot tell is left out, and that is said in it.
func writeBundle(ctx context.Context, path, version string, plugin *client, found []cloud.Finding) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	defer func() {
		for _, c := range []io.Closer{t, z, f} {
			if cerr := c.Close(); err == nil {
				err = cerr
			}
		}
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	now := time.Now()
	put := func(name string, data []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: "blockvol/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: now}); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	putJSON := func(name string, v any) error {
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		return put(name, append(data, '\n'))
	}
	if err := errors.Join(put("command-version", []byte(version+"\n")), putJSON("doctor.json", found)); err != nil || plugin == nil {
		return err
	}
	var about driver.About
	var health driver.Health
	var rows driver.VolumeRows
	var support driver.Support
	for _, part := range []struct {
		verb, file string
		answer     any
	}{{"About", "about.json", &about}, {"Health", "health.json", &health}, {"List", "volumes.json", &rows}, {"Support", "settings.json", &support}} {
		if err := plugin.ask(ctx, part.verb, driver.NoRequest{}, part.answer); err != nil {
			if err := put(part.file+".missing", []byte(err.Error()+"\n")); err != nil {
				return err
			}
			continue
		}
		for n := range rows.Volumes {
			for key := range rows.Volumes[n].Tags {
				rows.Volumes[n].Tags[key] = "(redacted)"
			}
		}
		answer := part.answer
		if part.answer == &support {
			answer = support.Settings
			if err := errors.Join(putJSON("ledger.json", support.Ledger), put("log", []byte(support.Log))); err != nil {
				return err
			}
		}
		if err := putJSON(part.file, answer); err != nil {
			return err
		}
	}
	return nil
}

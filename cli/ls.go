package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// listed is a volume as a list shows it: its methods are for tables and templates, beside all fields of the row.
type listed struct {
	driver.VolumeRow
	now time.Time
}

// Size is the size of the EBS volume.
func (l listed) Size() string { return gib(l.SizeGiB) }

// Used is how much of the filesystem is used, where that can be told: while it is mounted on the host that is asked.
func (l listed) Used() string { return bytesSize(l.used()) }

// used is that in bytes, or nil.
func (l listed) used() *int64 {
	if l.Here == nil {
		return nil
	}
	return l.Here.UsedBytes
}

// Age is how long ago the volume was created.
func (l listed) Age() string {
	if l.Created.IsZero() {
		return "-"
	}
	return short(l.now.Sub(l.Created))
}

// short is a duration in its largest unit: 45s, 12m, 5h, 20d, 3y.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		upTo, unit time.Duration
		name       string
	}{{2 * time.Minute, time.Second, "s"}, {2 * time.Hour, time.Minute, "m"}, {2 * day, time.Hour, "h"}, {2 * 365 * day, day, "d"}} {
		if d < u.upTo {
			return strconv.FormatInt(int64(max(d, 0)/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/(365*day)), 10) + "y"
}

// row is what a table shows of it. "-" is for what there is not.
func (l listed) row() tableRow {
	return tableRow{listed: l, ID: dash(l.VolumeRow.ID), Type: dash(l.VolumeRow.Type), Zone: dash(l.VolumeRow.Zone), Host: dash(l.VolumeRow.Host), Profile: dash(l.VolumeRow.Profile),
		Reclaim: dash(l.VolumeRow.Reclaim), AccessMode: dash(l.VolumeRow.AccessMode)}
}

// tableRow is listed, with nothing empty in it.
type tableRow struct {
	listed
	ID, Type, Zone, Host, Profile, Reclaim, AccessMode string
}

var lsColumns = []column{{"Name", "NAME", false}, {"ID", "ID", false}, {"Size", "SIZE", false}, {"Used", "USED", false}, {"Type", "TYPE", false}, {"Zone", "ZONE", false}, {"Host", "HOST", false}, {"Status", "STATUS", false},
	{"Reclaim", "RECLAIM", false}, {"AccessMode", "ACCESS", false}, {"Profile", "PROFILE", true}, {"Age", "AGE", false}}

// lsSpare are the columns that a narrow terminal does without.
var lsSpare = []string{"AccessMode", "Reclaim"}

func lsCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the volumes of the cluster, with the instance that has each",
		Long: "List the volumes of the cluster, in all zones of the region, with the instance that has each. USED is known while a volume is mounted on\n" +
			"this host. STATUS is where it stands on this host; if it is not here, its attachment to another; if it has none, EC2's word for it.\n" +
			"RECLAIM is what docker volume rm does with it. A terminal that is too narrow shows no ACCESS and RECLAIM, and cuts what is widest.\n" +
			"What is wrong with a volume is told below the table.\n\n" +
			"A template can use every field that --format json shows, with a capital letter ({{.SizeGiB}}, {{with .Here}}{{.Device}}{{end}}),\n" +
			"and {{.Size}}, {{.Used}}, {{.Age}}.",
		Args: cobra.NoArgs,
	}
	from := source{shared: s}
	from.flags(cmd)
	var f filters
	f.flags(cmd)
	l := listing{columns: lsColumns, spare: lsSpare, sample: listed{VolumeRow: driver.VolumeRow{Here: &driver.VolumeHere{}}}}
	l.flags(cmd)
	quiet := cmd.Flags().BoolP("quiet", "q", false, "only the names")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if err := l.check(); err != nil {
			return err
		}
		rows, err := from.volumes(cmd)
		if err != nil {
			return err
		}
		chosen := f.choose(rows.Volumes)
		if *quiet {
			for _, v := range chosen {
				fmt.Fprintln(cmd.OutOrStdout(), v.Name)
			}
			return nil
		}
		show := make([]any, len(chosen))
		for n, v := range chosen {
			row := listed{v, time.Now()}
			show[n] = row
			if l.table {
				show[n] = row.row()
			}
		}
		if err := l.print(cmd.OutOrStdout(), show); err != nil || !l.table {
			return err
		}
		for _, v := range chosen {
			if v.Problem != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "problem: %s: %s\n", v.Name, v.Problem)
			}
		}
		return nil
	}
	return cmd
}

func bytesSize(n *int64) string {
	if n == nil {
		return "-"
	}
	return units.BytesSize(float64(*n))
}

func gib(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10) + "GiB"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

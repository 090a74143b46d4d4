package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// counted is a line of df: a volume, or a sum of volumes.
type counted struct {
	Name       string `json:"name"`
	Volumes    int    `json:"volumes"`
	SizeGiB    int64  `json:"sizeGiB"`
	UsedBytes  *int64 `json:"usedBytes,omitempty"` // of what is mounted on the host that is asked
	IOPS       int64  `json:"iops"`
	Throughput int64  `json:"throughput"` // MiB/s
	Type       string `json:"type,omitempty"`
	Host       string `json:"host,omitempty"`
	IdleDays   *int64 `json:"idleDaysAtMost,omitempty"` // whole days since it was created, if no instance has it
}

// Size is the size of the EBS volumes.
func (c counted) Size() string { return gib(c.SizeGiB) }

// Used is how much of the filesystems is used, where that can be told.
func (c counted) Used() string { return bytesSize(c.UsedBytes) }

// Idle is for how many days no instance has had it, at most: EC2 does not tell when one had it last, only when it was created.
func (c counted) Idle() string {
	if c.IdleDays == nil {
		return "-"
	}
	return fmt.Sprintf("<%dd", *c.IdleDays+1)
}

// add counts another line in.
func (c *counted) add(o counted) {
	c.Volumes += o.Volumes
	c.SizeGiB += o.SizeGiB
	c.IOPS += o.IOPS
	c.Throughput += o.Throughput
	if o.UsedBytes != nil {
		sum := *o.UsedBytes
		if c.UsedBytes != nil {
			sum += *c.UsedBytes
		}
		c.UsedBytes = &sum
	}
}

// cells is a line as the table shows it.
type cells struct {
	counted
	IOPS, Throughput, Type, Host string
}

var dfColumns = []column{{"Name", "NAME", false}, {"Size", "SIZE", false}, {"Used", "USED", false}, {"IOPS", "IOPS", false}, {"Throughput", "MIB/S", false}, {"Type", "TYPE", false}, {"Host", "HOST", false}, {"Idle", "IDLE", false}}

func dfCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "df",
		Short: "Show what the volumes of the cluster take: size, used, IOPS and throughput, with totals",
		Long: "Show what the volumes of the cluster take: size, IOPS and throughput are what AWS bills; USED is known of volumes that are mounted on this host. The\n" +
			"last lines add up all of them, and those that no instance has: they cost the same. EC2 does not tell\n" +
			"when a volume was used last: IDLE is since its creation, the most that it can be, and - while an instance has it.",
		Args: cobra.NoArgs,
	}
	from := source{shared: s}
	from.flags(cmd)
	var f filters
	f.flags(cmd)
	l := listing{columns: dfColumns, sample: counted{}}
	l.flags(cmd)
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
		lines, total, idle := count(f.choose(rows.Volumes), time.Now())
		if l.table {
			lines = append(lines, total, idle)
		}
		show := make([]any, len(lines))
		for n, c := range lines {
			show[n] = c
			if l.table {
				show[n] = cells{counted: c, IOPS: number(c.IOPS), Throughput: number(c.Throughput), Type: dash(c.Type), Host: dash(c.Host)}
			}
		}
		return l.print(cmd.OutOrStdout(), show)
	}
	return cmd
}

// count makes the lines of df, and its two sums.
func count(vols []driver.VolumeRow, now time.Time) (lines []counted, total, idle counted) {
	for _, v := range vols {
		c := counted{Name: v.Name, Volumes: 1, SizeGiB: v.SizeGiB, UsedBytes: listed{VolumeRow: v}.used(), IOPS: v.IOPS, Throughput: v.Throughput, Type: v.Type, Host: v.Host}
		if v.Host == "" && !v.Created.IsZero() {
			days := int64(now.Sub(v.Created) / (24 * time.Hour))
			c.IdleDays = &days
		}
		lines = append(lines, c)
		total.add(c)
		if v.Host == "" {
			idle.add(c)
		}
	}
	total.Name, idle.Name = fmt.Sprintf("all (%d)", total.Volumes), fmt.Sprintf("unattached (%d)", idle.Volumes)
	return lines, total, idle
}

func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

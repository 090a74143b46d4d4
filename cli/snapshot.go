package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

const snapshotLong = `Keep the data of volumes at moments, as EBS snapshots, and make new volumes of them. A snapshot is of use in every zone of the region, and after
its volume is gone.`

func snapshotCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Make, list and delete snapshots of volumes, and restore them to new volumes", Long: snapshotLong, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to do with snapshots: create, ls, rm or restore; see blockvol snapshot --help")
		}}
	cmd.AddCommand(snapshotCreate(s), snapshotLs(s), snapshotRm(s), snapshotRestore(s))
	return cmd
}

const snapshotCreateLong = `Make a snapshot of a volume, given by name or ID. If it is mounted on this host, its filesystem stands still for that moment, for 10 seconds at most:
what was written before is in the snapshot, complete, and what is written afterwards waits. What another host has mounted is kept as it is on the
device, as after a power failure; ext4, xfs and databases recover from that. The snapshot is made in the moment of the call and may be used when its
data are copied, which --wait waits for.`

func snapshotCreate(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "create VOLUME", Short: "Make a snapshot of a volume", Long: snapshotCreateLong, Args: cobra.ExactArgs(1)}
	var req driver.CreateSnapshotRequest
	cmd.Flags().StringVar(&req.Description, "description", "", "text for the EC2 console, up to 255 characters")
	tags := cmd.Flags().StringArray("tag", nil, "a tag of the snapshot, KEY=VALUE; may be given many times")
	cmd.Flags().BoolVar(&req.Wait, "wait", false, "wait until the snapshot is completed")
	format := formatFlag(cmd, driver.SnapshotRow{})
	cmd.ValidArgsFunction = s.completeNames(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		as, err := format()
		if err != nil {
			return err
		}
		if req.Tags, err = pairs("--tag", *tags); err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		req.Volume = args[0]
		var made driver.SnapshotRow
		if err := plugin.ask(cmd.Context(), "CreateSnapshot", req, &made); err != nil {
			return err
		}
		if as != nil {
			return as.print(cmd.OutOrStdout(), made)
		}
		fmt.Fprintln(cmd.OutOrStdout(), made.ID)
		return nil
	}
	return cmd
}

// pairs reads flags of the form KEY=VALUE.
func pairs(flag string, given []string) (map[string]string, error) {
	read := map[string]string{}
	for _, g := range given {
		key, value, ok := strings.Cut(g, "=")
		if _, twice := read[key]; !ok || twice {
			return nil, usagef("%s %q is not of the form KEY=VALUE, or is there twice", flag, g)
		}
		read[key] = value
	}
	return read, nil
}

// listedSnapshot is a snapshot as a list shows it, as listed is for volumes.
type listedSnapshot struct {
	driver.SnapshotRow
	now time.Time
}

// Size is the size of the volume.
func (l listedSnapshot) Size() string { return gib(l.SizeGiB) }

// Data is how much data EBS keeps for it, where that is known: for one that is completed.
func (l listedSnapshot) Data() string {
	if l.Bytes == 0 {
		return "-"
	}
	return units.BytesSize(float64(l.Bytes))
}

// Status is the state, with the progress of one that is pending.
func (l listedSnapshot) Status() string {
	if l.State == "pending" {
		return "pending " + strconv.Itoa(l.Progress) + "%"
	}
	return l.State
}

// Age is how long ago its moment was.
func (l listedSnapshot) Age() string {
	if l.Started.IsZero() {
		return "-"
	}
	return short(l.now.Sub(l.Started))
}

// row is what a table shows of it. "-" is for what there is not.
func (l listedSnapshot) row() snapshotTableRow {
	return snapshotTableRow{listedSnapshot: l, Consistency: dash(l.SnapshotRow.Consistency), Description: dash(l.SnapshotRow.Description)}
}

// snapshotTableRow is listedSnapshot, with nothing empty in it.
type snapshotTableRow struct {
	listedSnapshot
	Consistency, Description string
}

var snapshotColumns = []column{{"ID", "ID", false}, {"Volume", "VOLUME", false}, {"Size", "SIZE", false}, {"Data", "DATA", false}, {"Status", "STATUS", false},
	{"Consistency", "CONSISTENCY", false}, {"Age", "AGE", false}, {"Description", "DESCRIPTION", true}}

// snapshotFilters are the keys that --filter of snapshots knows, and what each compares.
var snapshotFilters = map[string]func(v driver.SnapshotRow, want string) bool{
	"id":          func(v driver.SnapshotRow, want string) bool { return v.ID == want },
	"volume":      func(v driver.SnapshotRow, want string) bool { return v.Volume == want || v.VolumeID == want },
	"status":      func(v driver.SnapshotRow, want string) bool { return strings.EqualFold(v.State, want) },
	"consistency": func(v driver.SnapshotRow, want string) bool { return strings.EqualFold(v.Consistency, want) },
	"scheduled": func(v driver.SnapshotRow, want string) bool {
		return strings.EqualFold(want, strconv.FormatBool(v.Scheduled != ""))
	},
	"tag": func(v driver.SnapshotRow, want string) bool {
		key, value, given := strings.Cut(want, "=")
		got, ok := v.Tags[key]
		return ok && (!given || got == value)
	},
}

const snapshotLsLong = `List the snapshots that blockvol made in the cluster, the newest first: of one volume, by its name or ID, or all. CONSISTENCY says in what state the
filesystem was: frozen (it was mounted, and stood still), unmounted, or crash (another host had it mounted: as after a power failure). DATA is how much
EBS keeps for a completed one. What a schedule has made says so in DESCRIPTION, with its time.

A template can use every field that --format json shows, with a capital letter ({{.VolumeID}}), and {{.Size}}, {{.Data}}, {{.Status}}, {{.Age}}.`

func snapshotLs(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "ls [VOLUME]", Short: "List the snapshots of the cluster, or of one volume", Long: snapshotLsLong, Args: cobra.MaximumNArgs(1)}
	from := source{shared: s}
	from.flags(cmd)
	l := listing{columns: snapshotColumns, sample: listedSnapshot{}}
	l.flags(cmd)
	given := cmd.Flags().StringArrayP("filter", "f", nil, "show only snapshots that fit: id=ID, volume=NAME or ID, status=WORD, consistency=WORD, scheduled=true (made by a schedule) or false, tag=KEY or tag=KEY=VALUE; may be given many times")
	quiet := cmd.Flags().BoolP("quiet", "q", false, "only the IDs")
	cmd.ValidArgsFunction = s.completeNames(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fits, err := chooseSnapshots(*given)
		if err != nil {
			return err
		}
		if err := l.check(); err != nil {
			return err
		}
		rows, err := from.snapshots(cmd, strings.Join(args, ""))
		if err != nil {
			return err
		}
		var show []any
		for _, v := range rows.Snapshots {
			row := listedSnapshot{v, time.Now()}
			switch {
			case !fits(v):
			case *quiet:
				fmt.Fprintln(cmd.OutOrStdout(), v.ID)
			case l.table:
				show = append(show, row.row())
			default:
				show = append(show, row)
			}
		}
		if *quiet {
			return nil
		}
		return l.print(cmd.OutOrStdout(), show)
	}
	return cmd
}

// chooseSnapshots makes one condition of filters: of several of one key one is enough, but for tags, which all have to be there.
func chooseSnapshots(given []string) (fits func(driver.SnapshotRow) bool, err error) {
	byKey := map[string][]string{}
	for _, g := range given {
		key, value, ok := strings.Cut(g, "=")
		if !ok || value == "" {
			return nil, usagef("--filter %s is not KEY=VALUE", g)
		}
		if snapshotFilters[key] == nil {
			return nil, usagef("--filter %s: %q is not known: use id, volume, status, consistency, scheduled or tag", g, key)
		}
		byKey[key] = append(byKey[key], value)
	}
	return func(v driver.SnapshotRow) bool {
		for key, wanted := range byKey {
			fit := func(want string) bool { return snapshotFilters[key](v, want) }
			misses := func(want string) bool { return !fit(want) }
			if key == "tag" && slices.ContainsFunc(wanted, misses) || key != "tag" && !slices.ContainsFunc(wanted, fit) {
				return false
			}
		}
		return true
	}, nil
}

const snapshotRmLong = `Delete snapshots of the cluster, for good. Volumes that were made of them, and all other snapshots, keep their data. Snapshots that blockvol did not
make, and those of other clusters, are not deleted.

It shows what they are and asks first; scripts say -y.`

func snapshotRm(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "rm SNAPSHOT-ID...", Short: "Delete snapshots", Long: snapshotRmLong, Args: cobra.MinimumNArgs(1)}
	yes := cmd.Flags().BoolP("yes", "y", false, "do not ask")
	dryRun := cmd.Flags().Bool("dry-run", false, "show what would be deleted, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		var rows driver.SnapshotRows
		if err := plugin.ask(cmd.Context(), "Snapshots", driver.SnapshotsRequest{}, &rows); err != nil {
			return err
		}
		var todo []string
		var failed []error
		lines := []string{"ID\tVOLUME\tSIZE\tSTATUS\tAGE\tDESCRIPTION"}
		for _, id := range args {
			n := slices.IndexFunc(rows.Snapshots, func(v driver.SnapshotRow) bool { return v.ID == id })
			if n < 0 {
				failed = append(failed, fmt.Errorf("snapshot %s does not exist in this cluster", id))
				continue
			}
			if slices.Contains(todo, id) {
				continue
			}
			todo = append(todo, id)
			r := listedSnapshot{rows.Snapshots[n], time.Now()}.row()
			lines = append(lines, strings.Join([]string{r.ID, r.Volume, r.Size(), r.Status(), r.Age(), r.Description}, "\t"))
		}
		if len(todo) > 0 && (*dryRun || !*yes) {
			if err := printTable(cmd.ErrOrStderr(), lines, 0); err != nil {
				return err
			}
		}
		if len(todo) == 0 || *dryRun {
			if *dryRun {
				fmt.Fprintf(cmd.ErrOrStderr(), "dry run: would delete %s\n", some(len(todo), "snapshot"))
			}
			return errors.Join(failed...)
		}
		if !*yes {
			if err := confirm(cmd, fmt.Sprintf("Delete %s for good?", some(len(todo), "snapshot"))); err != nil {
				return errors.Join(append(failed, err)...)
			}
		}
		for _, id := range todo {
			var gone driver.RemoveSnapshotRequest
			if err := plugin.ask(cmd.Context(), "RemoveSnapshot", driver.RemoveSnapshotRequest{ID: id}, &gone); err != nil {
				failed = append(failed, err)
				continue
			}
			fmt.Fprintln(cmd.OutOrStdout(), id)
		}
		return errors.Join(failed...)
	}
	return cmd
}

// some is a number of things in words: 1 snapshot, 2 snapshots.
func some(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

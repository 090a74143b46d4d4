package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

const undeleteLong = `Bring a volume back that was removed, with its data, options and tags: docker volume rm, docker compose down -v and the like can be undone until
DELETE_DELAY is over. Volumes that were kept (reclaim=retain) come back in the same way, at any time. Name it by the name that it had, or by its ID; it gets
that name again, or NEWNAME. It must be in this host's zone.

A volume that was deleted for good, where the account has a rule of the Recycle Bin for it, is named by its ID.

  blockvol undelete --ls               what can be brought back, and until when
  blockvol undelete pgdata             under its name
  blockvol undelete vol-ID pgdata-old  under another one, if that name is in use by now`

// undeletable is a volume as undelete --ls shows it.
type undeletable struct {
	driver.GivenUpRow
	now time.Time
}

// Size is the size of the EBS volume.
func (u undeletable) Size() string { return gib(u.SizeGiB) }

// Removed is how long ago it was given up, or came into the Recycle Bin.
func (u undeletable) Removed() string {
	if u.Since == nil {
		return "-"
	}
	return short(u.now.Sub(*u.Since))
}

// Gone is in how long it is deleted for good.
func (u undeletable) Gone() string {
	switch {
	case u.End == driver.EndSnapshot:
		return "soon"
	case u.Until == nil:
		return "never"
	case u.End == driver.EndRemoved && u.Left <= 0:
		return "now"
	case u.End == driver.EndRemoved:
		return "in " + short(time.Duration(u.Left)*time.Second)
	}
	return "in " + short(u.Until.Sub(u.now))
}

// row is what a table shows of it.
func (u undeletable) row() undeletableRow {
	return undeletableRow{undeletable: u, Name: dash(u.GivenUpRow.Name), Type: dash(u.GivenUpRow.Type), Zone: dash(u.GivenUpRow.Zone)}
}

// undeletableRow is undeletable, with nothing empty in it.
type undeletableRow struct {
	undeletable
	Name, Type, Zone string
}

var undeleteColumns = []column{{"Name", "NAME", false}, {"ID", "ID", false}, {"Size", "SIZE", false}, {"Type", "TYPE", false}, {"Zone", "ZONE", false},
	{"End", "END", false}, {"Removed", "REMOVED", false}, {"Gone", "GONE", false}}

func undeleteCommand(s *shared) *cobra.Command {
	cmd := &cobra.Command{Use: "undelete VOLUME [NEWNAME] | --ls", Short: "Bring a volume back that was removed, or list those that can be", Long: undeleteLong}
	list := cmd.Flags().Bool("ls", false, "list what can be brought back; GONE says when it is deleted for good")
	bin := cmd.Flags().Bool("recycle-bin", false, "with --ls: also what is in the Recycle Bin of the account, whose names EC2 does not tell")
	l := listing{columns: undeleteColumns, sample: undeletable{}}
	l.flags(cmd)
	quiet := cmd.Flags().BoolP("quiet", "q", false, "with --ls: only the IDs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *list && len(args) > 0:
			return usagef("--ls lists all: leave %s out", strings.Join(args, " "))
		case !*list && (*bin || *quiet):
			return usagef("--recycle-bin and --quiet belong to --ls")
		case !*list && (len(args) == 0 || len(args) > 2):
			return usagef("say which volume: blockvol undelete VOLUME [NEWNAME], or --ls to see what there is")
		}
		if err := l.check(); err != nil {
			return err
		}
		plugin, err := s.plugin(cmd)
		if err != nil {
			return err
		}
		if *list {
			return undeleteLs(cmd, plugin, l, *bin, *quiet)
		}
		req := driver.UndeleteRequest{Volume: args[0]}
		if len(args) == 2 {
			req.Name = args[1]
		}
		var got driver.AdoptedVolume
		if err := plugin.ask(cmd.Context(), "Undelete", req, &got); err != nil {
			return err
		}
		if l.format == "json" {
			return (&answer{}).print(cmd.OutOrStdout(), got)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is the volume %s\n", got.ID, got.Name)
		return nil
	}
	return cmd
}

func undeleteLs(cmd *cobra.Command, plugin *client, l listing, bin, quiet bool) error {
	var rows driver.GivenUpRows
	if err := plugin.ask(cmd.Context(), "GivenUp", driver.GivenUpRequest{RecycleBin: bin}, &rows); err != nil {
		return err
	}
	var show []any
	for _, v := range rows.Volumes {
		row := undeletable{v, time.Now()}
		switch {
		case quiet:
			fmt.Fprintln(cmd.OutOrStdout(), v.ID)
		case l.table:
			show = append(show, row.row())
		default:
			show = append(show, row)
		}
	}
	if quiet {
		return nil
	}
	if err := l.print(cmd.OutOrStdout(), show); err != nil || !l.table {
		return err
	}
	for _, v := range rows.Volumes {
		if v.Problem != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "problem: %s: %s\n", v.ID, v.Problem)
		}
	}
	return nil
}

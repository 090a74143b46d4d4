package driver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// snapshotWith makes a completed snapshot of a volume with tags, as blockvol would have.
func (r *rig) snapshotWith(id string, tags map[string]string) string {
	r.t.Helper()
	var list []types.Tag
	for k, v := range tags {
		list = append(list, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	ctx := context.Background()
	out, err := r.person().CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &id, TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot, Tags: list}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.eventually("the snapshot is completed", func() bool {
		got, err := r.person().DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*out.SnapshotId}})
		return err == nil && got.Snapshots[0].State == types.SnapshotStateCompleted
	})
	return *out.SnapshotId
}

func (r *rig) plans(req PruneRequest) map[string]PruneRow {
	r.t.Helper()
	var rows PruneRows
	r.askFor("Prunable", req, &rows)
	if len(rows.Notes) > 0 {
		r.t.Errorf("%v", rows.Notes)
	}
	byID := map[string]PruneRow{}
	for _, row := range rows.Rows {
		byID[row.ID] = row
	}
	return byID
}

func TestAPruneDeletesWhatNobodyCanMissAndShowsTheRest(t *testing.T) {
	t.Parallel()
	r := newMachine(t)
	d, l := r.sim.Delays(), r.sim.Limits()
	d.Snapshot, l.SnapshotSeconds = 10*time.Millisecond, 0
	r.sim.SetDelays(d)
	r.sim.SetLimits(l)
	r.start()
	ids := map[string]string{}
	// The rows by what they are called here.
	add := func(name string, opts ...string) {
		r.create(name, opts...)
		ids[name] = r.status(name)["id"].(string)
	}
	snapshot := func(name, volume string, tags map[string]string) {
		for k, v := range map[string]string{"blockvol:cluster": r.settings.Cluster, "blockvol:name": volume, "blockvol:schema": "1"} {
			if tags[k] == "" {
				tags[k] = v
			}
		}
		ids[name] = r.snapshotWith(ids[volume], tags)
	}
	scheduled := func(slot string) map[string]string {
		return map[string]string{"blockvol:slot": slot, "blockvol:scheduled": "0 3 * * *"}
	}
	if attrScheduled != "scheduled" {
		t.Fatalf("a schedule's snapshots have the attribute %s", attrScheduled)
	}
	add("living")
	add("gone")
	snapshot("by schedule", "gone", scheduled("2026-01-02T03:00:00Z"))
	snapshot("of a living one", "living", scheduled("2026-01-02T03:00:00Z"))
	snapshot("by hand", "gone", map[string]string{"blockvol:slot": "once:abc"})
	snapshot("by removal", "gone", map[string]string{"blockvol:slot": "removed:2026-01-02T03:00:00Z"})
	snapshot("by removal again", "gone", map[string]string{"blockvol:slot": "removed:2026-01-02T03:00:00Z"})
	snapshot("of another cluster", "gone", map[string]string{"blockvol:slot": "2026-01-02T03:00:00Z", "blockvol:scheduled": "0 3 * * *", "blockvol:cluster": "theirs"})
	snapshot("of a newer version", "gone", map[string]string{"blockvol:slot": "2026-01-02T03:00:00Z", "blockvol:scheduled": "0 3 * * *", "blockvol:schema": "9"})
	ids["nobody's"] = r.snapshotWith(ids["gone"], map[string]string{"Name": "gone"})
	add("lost")
	snapshot("the last one", "lost", scheduled("2026-01-02T03:00:00Z"))
	r.remove("gone") // at once
	r.remove("lost")
	add("kept", "reclaim", "retain")
	r.remove("kept")
	r.stop()
	r.settings.DeleteDelay = time.Hour
	r.start()
	add("removed")
	snapshot("of a removed one", "removed", scheduled("2026-01-02T03:00:00Z"))
	r.remove("removed")
	r.eventually("EC2 shows all", func() bool { return len(r.plans(PruneRequest{})) >= 7 })

	check := func(what string, req PruneRequest, delete, keep []string) {
		t.Helper()
		plan := r.plans(req)
		for i, names := range [][]string{delete, keep} {
			for _, name := range names {
				row, ok := plan[ids[name]]
				if !ok || row.Delete != (i == 0) || row.Why == "" || row.Name == "" {
					t.Errorf("%s, %s: %+v", what, name, row)
				}
			}
		}
		if len(plan) != len(delete)+len(keep) {
			t.Errorf("%s: %+v", what, plan)
		}
	}
	check("usual", PruneRequest{}, []string{"by schedule", "by removal again"}, []string{"the last one", "by hand", "by removal", "kept", "removed"})
	check("all snapshots", PruneRequest{AllSnapshots: true}, []string{"by schedule", "by removal again", "the last one", "by hand", "by removal"}, []string{"kept", "removed"})
	check("volumes", PruneRequest{Kept: true, Removed: true}, []string{"by schedule", "by removal again", "kept", "removed"}, []string{"the last one", "by hand", "by removal"})
	check("old ones", PruneRequest{AllSnapshots: true, Kept: true, Removed: true, OlderThan: time.Hour}, nil, []string{"by schedule", "by removal again", "the last one", "by hand", "by removal", "kept", "removed"})

	// What was agreed to is deleted by the same rules only.
	var done Pruned
	r.askFor("Prune", PruneRequest{IDs: []string{ids["by hand"], ids["kept"], ids["living"], ids["of a living one"], ids["of another cluster"], ids["nobody's"], "snap-0123456789abcdef0"}}, &done)
	if len(done.Deleted) != 0 || len(done.Left) != 2 {
		t.Errorf("%+v", done)
	}
	r.askFor("Prune", PruneRequest{IDs: []string{ids["by schedule"], ids["by removal again"]}}, &done)
	if len(done.Deleted) != 2 || len(done.Left) != 0 {
		t.Errorf("%+v", done)
	}
	check("afterwards", PruneRequest{}, nil, []string{"the last one", "by hand", "by removal", "kept", "removed"})
	if n := r.calls(); n["DeleteVolume"] != 2 || n["DeleteSnapshot"] != 2 {
		t.Errorf("sent was %v", n)
	}
	// What came back meanwhile stays.
	r.askFor("Undelete", UndeleteRequest{Volume: "removed"}, &AdoptedVolume{})
	r.askFor("Prune", PruneRequest{Kept: true, Removed: true, AllSnapshots: true, IDs: []string{ids["kept"], ids["removed"], ids["the last one"], ids["by hand"], ids["by removal"]}}, &done)
	if len(done.Deleted) != 4 || len(done.Left) != 0 || !r.has("removed", ids["removed"]) {
		t.Errorf("%+v", done)
	}
	check("at the end", PruneRequest{Kept: true, Removed: true, AllSnapshots: true}, nil, nil)
	left, err := r.person().DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	if err != nil || len(left.Snapshots) != 5 {
		t.Errorf("%+v, %v", left, err)
	}
	if a, err := r.ask(t.Context(), "Prunable", PruneRequest{OlderThan: -1}); err != nil || !strings.Contains(a.Error, "less than nothing") {
		t.Errorf("%+v, %v", a, err)
	}
	if vols := r.volumes(); len(vols) != 2 {
		t.Errorf("the cluster has %+v", vols)
	}
}

package driver

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// schemaOf returns the volume's tag blockvol:schema.
func (r *rig) schemaOf(id string) string {
	r.t.Helper()
	out, err := r.person().DescribeVolumes(r.t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, tag := range out.Volumes[0].Tags {
		if *tag.Key == "blockvol:schema" {
			return *tag.Value
		}
	}
	return "absent"
}

// After a downgrade, or on the older of two hosts: what a newer version has made is told of and let go, and otherwise left alone.
func TestAVolumeOfANewerBlockvolIsShownAndLetGoAndOtherwiseRefused(t *testing.T) {
	r := newRig(t)
	r.create("pgdata")
	id := r.status("pgdata")["id"].(string)
	if got := r.schemaOf(id); got != "1" {
		t.Errorf("a new volume has the schema %s", got)
	}
	write(t, filepath.Join(r.mount("pgdata", "c1"), "row"), "42")
	r.crash()
	r.tag(id, "blockvol:schema", "3")
	r.calls()
	r.start()
	words := []string{"pgdata", id, "blockvol:schema is 3", "knows 2", "upgrade the plugin"}
	told := func() {
		t.Helper()
		r.eventually("Get tells why it is not used", func() bool {
			said, _ := r.status("pgdata")["error"].(string)
			for _, w := range words {
				if !strings.Contains(said, w) {
					return false
				}
			}
			return true
		})
		listed := r.must("List", m{})["Volumes"].([]any)
		if len(listed) != 1 || listed[0].(map[string]any)["Name"] != "pgdata" {
			t.Errorf("List answers %v", listed)
		}
	}
	told()
	r.refused("Mount", m{"Name": "pgdata", "ID": "c2"}, words...) // although it is mounted here
	r.unmount("pgdata", "c1")
	r.eventually("detached", func() bool { return r.attached() == 0 })
	told()
	r.refused("Mount", m{"Name": "pgdata", "ID": "c3"}, words...)
	r.refused("Create", m{"Name": "pgdata", "Opts": m{"size": "1"}}, words...)
	r.refused("Remove", m{"Name": "pgdata"}, append(words, "not removed")...)
	if err := r.manager.cloud.SetAttrs(t.Context(), id, map[string]string{attrFS: "none"}); err == nil {
		t.Error("its tags were changed")
	}
	told()
	for action, n := range r.calls() {
		switch action {
		case "CreateVolume", "AttachVolume", "CreateTags", "DeleteTags", "DeleteVolume":
			t.Errorf("%s was sent %d times", action, n)
		}
	}
	// Once the tag is one that this version knows, or there is none, the volume is used as ever.
	r.tag(id, "blockvol:schema", "1")
	if got := read(t, filepath.Join(r.mount("pgdata", "c4"), "row")); got != "42" {
		t.Errorf("it holds %q", got)
	}
	r.unmount("pgdata", "c4")
	key := "blockvol:schema"
	if _, err := r.person().DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: &key}}}); err != nil {
		t.Fatal(err)
	}
	if got := r.schemaOf(id); got != "absent" {
		t.Errorf("the schema is %s", got)
	}
	if got := read(t, filepath.Join(r.mount("pgdata", "c5"), "row")); got != "42" {
		t.Errorf("without a schema it holds %q", got)
	}
	r.unmount("pgdata", "c5")
	r.must("Remove", m{"Name": "pgdata"})
}

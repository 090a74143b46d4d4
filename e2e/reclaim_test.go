package e2e

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func TestARemovedVolumeThatIsKeptIsGoneForDockerAndThereForItsOwner(t *testing.T) {
	t.Parallel()
	e := shared
	sim := e.Plugin.Sim()
	v := e.NewVolume(t, "size=1GiB", "reclaim=retain")
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo row >/data/row; sync")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "exec sleep 1000")
	e.DockerFails(t, []string{v, "in use"}, "volume", "rm", v)
	e.Docker(t, "rm", "-f", c)
	before := sim.Volumes(t, v)
	if len(before) != 1 || before[0].Tags["blockvol:reclaim"] != "retain" || before[0].Tags["blockvol:schema"] != "2" {
		t.Fatalf("EC2 has %+v", before)
	}
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", v).Err() })
	e.DockerFails(t, []string{"no such volume"}, "volume", "inspect", v)
	kept := sim.Volumes(t, "released:"+v)
	if len(sim.Volumes(t, v)) != 0 || len(kept) != 1 || kept[0].ID != before[0].ID {
		t.Fatalf("EC2 has %+v", kept)
	}
	// The name is free at once, and of a new, empty volume.
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=2GiB", v)
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "test ! -e /data/row")
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", v).Err() })
	// As the documents tell it: the name, given back, brings the data back.
	owner := sim.EC2()
	if _, err := owner.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{kept[0].ID}, Tags: []types.Tag{{Key: aws.String("blockvol:name"), Value: &v}}}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "inspect", v).Err() }) // before that Docker would make a new one
	Eventually(t, 90*time.Second, func() error {
		return e.Try("run", "--rm", "--mount", e.on(v, "/data"), busybox, "grep", "-qx", "row", "/data/row").Err()
	})
	Eventually(t, 90*time.Second, func() error { return e.Try("volume", "rm", v).Err() })
	if _, err := owner.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &kept[0].ID}); err != nil {
		t.Error(err)
	}
}

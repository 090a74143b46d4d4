package driver

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// A volume that its name does not find is looked for by its ID; the person who reads the error knows only the name.
func TestAnErrorOfALookUpByIDNamesTheVolume(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Fresh = 0 })
	r.create("pgdata")
	for _, f := range []ec2sim.Fault{{Kind: "invisible", Action: "DescribeVolumes"}, {Kind: "error", Action: "DescribeVolumes", Code: "AuthFailure", Skip: 1}} {
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	r.refused("Mount", m{"Name": "pgdata", "ID": "c1"}, `"pgdata"`, "does not accept the credentials")
}

// Docker takes the success of a Remove for the end of the volume; one that is left is paid for ever after.
func TestAVolumeThatWasAbsentAMomentAgoIsStillRemoved(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Fresh = time.Minute })
	r.refused("Get", m{"Name": "pgdata"}, "there is no volume")
	other := r.twin()
	other.create("pgdata")
	r.must("Remove", m{"Name": "pgdata"})
	r.eventually("deleted", func() bool {
		out, err := r.person().DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
		return err == nil && len(out.Volumes) == 0
	})
}

package driver

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
	"github.com/blockvol/blockvol/driver/disk"
	"github.com/sirupsen/logrus"
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

// gone is a cloud that has lost a volume.
type gone struct{ empty }

func (*gone) ByID(context.Context, string) (cloud.Volume, error) {
	return cloud.Volume{}, cloud.ErrNotFound
}

// Two looks with time between prove that a volume is gone, and that nobody has made another one of its name. They are not made twice.
func TestTheRemovalOfAVolumeThatIsGoneWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := logrus.New()
		log.SetOutput(io.Discard)
		manager, err := New(Config{Settings: Settings{Backend: "ebs", Cluster: "test"}, Cloud: &gone{empty{t: t}},
			Disk: &disk.Host{Dev: t.TempDir(), Sys: t.TempDir(), Log: log}, StateDir: t.TempDir(), Timing: DefaultTiming(), Log: log})
		if err != nil {
			t.Fatal(err)
		}
		manager.lock = func(string, string, string) (*instanceLock, error) { return &instanceLock{noListener{}}, nil }
		manager.base, manager.stop = context.WithCancel(context.Background())
		defer manager.Close(context.Background())
		v := manager.record("pgdata")
		for _, known := range []string{"vol-0123456789abcdef0", ""} {
			v.set(func() { v.id, v.absentAt = known, time.Time{} })
			began := time.Now()
			if err := manager.Remove(t.Context(), "pgdata"); err != nil {
				t.Errorf("known as %q: %v", known, err)
			}
			if took := time.Since(began); took != manager.timing.Absent {
				t.Errorf("known as %q: it took %s, want %s", known, took, manager.timing.Absent)
			}
		}
	})
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refusal is what EC2 may answer, and what the user is told besides the volume's name and EC2's own code.
type refusal struct{ code, cause, wayOut string }

// everywhere are the answers that any action may get.
var everywhere = []refusal{
	{"UnauthorizedOperation", "not allowed", "docs/iam-policy.json"},
	{"AuthFailure", "does not accept the credentials", "access key"},
	{"ExpiredToken", "expired", "instance role"},
	{"SignatureDoesNotMatch", "signature", "secret access key"},
	{"OptInRequired", "not opted in", "enable"},
	{"InvalidAction", "no EC2", "AWS_ENDPOINT_URL"},
	{"NobodyKnowsThisCode", "refused", "EC2's message"},
}

// errorsOf lets an action be refused in each of the ways.
func (s *Sim) errorsOf(t *testing.T, action string, refusals []refusal, try func(t *testing.T, r refusal)) {
	for _, r := range refusals {
		t.Run(action+"/"+r.code, func(t *testing.T) {
			s.Inject(t, Fault{Kind: "error", Action: action, Code: r.code, Message: "What EC2 says.", Times: -1})
			try(t, r)
		})
	}
}

// told fails the test unless a refusal tells the volume, the cause, the way out, and what EC2 said.
func told(t *testing.T, said, volume string, r refusal) {
	t.Helper()
	readable(t, said, volume, r.code, r.cause, r.wayOut, "What EC2 says")
}

func refusedCreates(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	v := e.VolumeName(t)
	before := e.traces(t)
	s.errorsOf(t, "CreateVolume", append([]refusal{
		{"VolumeLimitExceeded", "limit", "Service Quotas"},
		{"MaxIOPSLimitExceeded", "limit", "Service Quotas"},
		{"InsufficientVolumeCapacity", "no room", "another type or zone"},
		{"VolumeTypeNotAvailableInZone", "does not have this volume type", "gp3"},
		{"UnknownVolumeType", "does not know the volume type", "gp3"},
		{"InvalidParameterValue", "does not take the value", "change the option"},
		{"InvalidParameterCombination", "do not go together", "leave out"},
		{"InvalidParameterDependency", "needs another one", "add or leave out"},
		{"InvalidZone.NotFound", "no such availability zone", "AVAILABILITY_ZONE"},
		{"InvalidKmsKey.NotFound", "does not exist", "kms-key-id"},
		{"InvalidKmsKey.InvalidState", "disabled", "enable the key"},
		{"TagLimitExceeded", "50 tags", "fewer tag options"},
		{"UnsupportedOperation", "does not support", "EC2's message"},
		{"PendingVerification", "verifying", "wait"},
	}, everywhere...), func(t *testing.T, r refusal) {
		told(t, e.refusesToCreate(t, v, "size=1GiB"), v, r)
		e.leavesNothing(t, before)
	})
	// EC2 says so only after it has accepted the volume.
	t.Run("a key that turns out to be unusable", func(t *testing.T) {
		s.Inject(t, Fault{Kind: "kms-failed"})
		readable(t, e.refusesToCreate(t, v, "size=1GiB", "kms-key-id=alias/revoked"), v, "alias/revoked", "key", "policy")
		e.leavesNothing(t, before)
	})
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", v)
}

func refusedAttaches(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	s.Delays(t, map[string]string{"attach": "200ms", "detach": "200ms"})
	v := e.NewVolume(t, "size=1GiB")
	before := e.traces(t)
	s.errorsOf(t, "AttachVolume", append([]refusal{
		{"AttachmentLimitExceeded", "cannot be attached", "larger instance type"},
		{"InvalidVolume.ZoneMismatch", "different availability zones", "a host in the volume's zone"},
		{"EncryptedVolumesNotSupported", "encrypted", "current instance type"},
		{"CustomerKeyHasBeenRevoked", "revoked", "enable the key"},
		{"IncorrectInstanceState", "not in a state", "running"},
		{"IncorrectState", "not in a state", "try again"},
		{"VolumeInUse", "attached", "stop the containers"},
		{"OperationNotPermitted", "not permit", "EC2's message"},
	}, everywhere...), func(t *testing.T, r refusal) {
		told(t, e.refusesToRun(t, v), v, r)
		e.leavesNothing(t, before)
	})
	// The tag before the format cannot be set: the device goes, and nothing was written.
	s.errorsOf(t, "CreateTags", []refusal{{"TagLimitExceeded", "50 tags", "remove tags"}, everywhere[0]}, func(t *testing.T, r refusal) {
		told(t, e.refusesToRun(t, v), v, r)
		e.leavesNothing(t, before)
	})
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo usable >/data/file")
}

// refusesToRun runs a container that must not get its volume, and returns what is said.
func (e *Engine) refusesToRun(t testing.TB, volume string) string {
	t.Helper()
	return e.DockerFails(t, nil, "run", "--rm", "--name", e.Container(t), "--mount", e.on(volume, "/data"), busybox, "true")
}

func refusedDeletes(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	s.Delays(t, map[string]string{"attach": "200ms", "detach": "200ms"})
	v := e.NewVolume(t, "size=1GiB")
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file")
	e.Detached(t, v)
	before := e.traces(t)
	s.errorsOf(t, "DeleteVolume", append([]refusal{{"OperationNotPermitted", "not permit", "EC2's message"}}, everywhere...), func(t *testing.T, r refusal) {
		told(t, e.DockerFails(t, nil, "volume", "rm", v), v, r)
		e.leavesNothing(t, before)
	})
	if got := e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "cat /data/file"); got != "kept" {
		t.Errorf("the volume that was not removed holds %q", got)
	}
}

func refusedDetaches(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	s.Delays(t, map[string]string{"attach": "200ms", "detach": "200ms"})
	v := e.NewVolume(t, "size=1GiB")
	s.Inject(t, Fault{Kind: "error", Action: "DetachVolume", Code: "UnauthorizedOperation", Message: "What EC2 says.", Times: -1})
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo kept >/data/file")
	Eventually(t, settled, func() error {
		said := fmt.Sprint(e.Inspect(t, v).Status["error"])
		if !strings.Contains(said, "UnauthorizedOperation") {
			return fmt.Errorf("inspect says %q", said)
		}
		readable(t, said, v, "cannot detach", "docs/iam-policy.json")
		return nil
	})
	readable(t, e.DockerFails(t, nil, "volume", "rm", v), v, "UnauthorizedOperation", "docs/iam-policy.json")
	s.ClearFaults(t)
	// Nobody asks for it: it is let go by itself.
	Eventually(t, 90*time.Second, func() error {
		if said := e.Inspect(t, v).Status["error"]; said != nil {
			return fmt.Errorf("inspect still says %q", said)
		}
		return e.isDetached(t, v)
	})
}

// EC2 is asked again as long as its answer may change, and Docker is told before it gives up. The work goes on meanwhile.
func notForNow(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	wanted, unwanted := e.VolumeName(t), e.NewVolume(t, "size=1GiB")
	s.Inject(t, Fault{Kind: "error", Action: "CreateVolume", Code: "RequestLimitExceeded", Times: -1})
	s.Inject(t, Fault{Kind: "error", Action: "DeleteVolume", Code: "InternalError", Times: -1})
	t.Run("together", func(t *testing.T) {
		t.Run("create", func(t *testing.T) {
			t.Parallel()
			readable(t, e.refusesToCreate(t, wanted, "size=1GiB"), wanted, "creating the volume", "the work goes on", "try again")
		})
		t.Run("remove", func(t *testing.T) {
			t.Parallel()
			readable(t, e.DockerFails(t, nil, "volume", "rm", unwanted), unwanted, "deleting the volume", "the work goes on", "try again")
		})
	})
	s.ClearFaults(t)
	e.Docker(t, "volume", "rm", "-f", unwanted)
	e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", wanted)
	Eventually(t, settled, func() error {
		if is, was := s.Volumes(t, wanted), s.Volumes(t, unwanted); len(is) != 1 || len(was) != 0 {
			return fmt.Errorf("the account has of the wanted name %+v, of the other %+v", is, was)
		}
		return nil
	})
}

func foreignData(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	s.Delays(t, map[string]string{"attach": "200ms", "detach": "200ms"})
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := command(time.Minute, nil, "", "mkfs.ext4", "-q", "-L", "THEIRS", image).Err(); err != nil {
		t.Fatal(err)
	}
	for tag, words := range map[string][]string{
		"none": {"never formatted", "ext4", "not formatted", "set the volume's tag blockvol:fs to ext4"},
		"xfs":  {"blockvol:fs says xfs", "ext4", "neither mounted nor formatted"},
		"":     {"no tag blockvol:fs", "ext4", "neither formatted nor mounted"},
	} {
		v := e.VolumeName(t)
		tags := map[string]string{"blockvol:cluster": "sim", "blockvol:name": v, "blockvol:schema": "1", "blockvol:fstype": "ext4", "blockvol:subdir": "data"}
		if tag != "" {
			tags["blockvol:fs"] = tag
		}
		id, file := s.Import(t, image, 1, tags)
		content := digest(t, file)
		// What dockerd learns by looking is no trace of the refusal.
		e.Inspect(t, v)
		before := e.traces(t)
		readable(t, e.refusesToRun(t, v), append(words, v, id)...)
		e.leavesNothing(t, before)
		if digest(t, file) != content {
			t.Errorf("with the tag blockvol:fs=%q the bytes of %s have changed", tag, v)
		}
		e.Docker(t, "volume", "rm", v)
	}
}

package ec2sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// awsCLI is Debian's package awscli, or what PATH has.
func awsCLI(t *testing.T) string {
	t.Helper()
	const debian = "/usr/bin/aws"
	if _, err := os.Stat(debian); err == nil {
		return debian
	}
	path, err := exec.LookPath("aws")
	if err != nil {
		t.Fatal("the AWS CLI is needed: apt-get install awscli")
	}
	return path
}

// aws runs `aws ec2` with the arguments and returns what it printed, and what it said on its standard error.
func (b *bench) aws(args string) (out, complaint string) {
	b.t.Helper()
	cmd := exec.CommandContext(within(b.t, 40*time.Second), awsCLI(b.t), append([]string{"--endpoint-url", b.url, "--output", "json", "ec2"}, strings.Fields(args)...)...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=secret", "AWS_DEFAULT_REGION=us-sim-1", "AWS_REGION=us-sim-1",
		"AWS_PAGER=", "AWS_MAX_ATTEMPTS=1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil && stderr.Len() == 0 {
		b.t.Fatalf("aws ec2 %s: %v", args, err)
	}
	if err == nil && stderr.Len() > 0 {
		b.t.Errorf("aws ec2 %s succeeded and complains: %s", args, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), stderr.String()
}

// must is aws for a command that succeeds.
func (b *bench) must(args string) string {
	b.t.Helper()
	out, complaint := b.aws(args)
	if complaint != "" {
		b.t.Fatalf("aws ec2 %s: %s", args, complaint)
	}
	return out
}

func TestTheAWSCLIDrivesAVolumeThroughItsLife(t *testing.T) {
	b := newBench(t)
	must := b.must
	id := strings.Trim(must("create-volume --size 2 --volume-type gp3 --availability-zone us-sim-1a --query VolumeId "+
		"--tag-specifications ResourceType=volume,Tags=[{Key=Name,Value=db},{Key=team,Value=x}]"), `"`)
	must("wait volume-available --volume-ids " + id)
	if got := must("attach-volume --device /dev/xvdf --instance-id " + hostA + " --query State --volume-id " + id); got != `"attaching"` {
		t.Errorf("attach-volume: %s", got)
	}
	must("wait volume-in-use --volume-ids " + id)
	b.becomes(id, "in-use/attached")
	for range 6 {
		b.volume()
	}
	if got := must("describe-volumes --output text --query Volumes[].[VolumeId,Attachments[0].State,Size,Throughput] --filters Name=tag:Name,Values=d*,x Name=status,Values=in-use"); got != id+"\tattached\t2\t125" {
		t.Errorf("describe-volumes with filters: %q", got)
	}
	if got := must("describe-volumes --page-size 5 --query length(Volumes[])"); got != "7" {
		t.Errorf("7 volumes in pages of 5: %s", got)
	}
	var page struct {
		Volumes   []any
		NextToken string
	}
	if err := json.Unmarshal([]byte(must("describe-volumes --max-items 5 --page-size 5")), &page); err != nil || len(page.Volumes) != 5 || page.NextToken == "" {
		t.Errorf("the first 5 of 7: %+v, %v", page, err)
	}
	must("create-tags --resources " + id + " --tags Key=team,Value=y Key=new,Value=")
	must("delete-tags --resources " + id + " --tags Key=Name")
	if got := must("describe-tags --output text --query Tags[].[Key,Value] --filters Name=resource-id,Values=" + id); got != "new\t\nteam\ty" && got != "team\ty\nnew" && got != "new\nteam\ty" {
		t.Errorf("describe-tags: %q", got)
	}
	if got := must("describe-instances --output text --query Reservations[].Instances[].BlockDeviceMappings[].Ebs.VolumeId --instance-ids " + hostA); got != id {
		t.Errorf("describe-instances: %q", got)
	}
	if _, complaint := b.aws("delete-volume --volume-id " + id); !strings.Contains(complaint, "(VolumeInUse) when calling the DeleteVolume operation") {
		t.Errorf("delete-volume while attached: %s", complaint)
	}
	must("detach-volume --volume-id " + id)
	b.becomes(id, "available")
	must("delete-volume --volume-id " + id)
	must("wait volume-deleted --volume-ids " + id)
	if _, complaint := b.aws("describe-volumes --volume-ids " + id); !strings.Contains(complaint, "(InvalidVolume.NotFound) when calling the DescribeVolumes operation") || !strings.Contains(complaint, ": The volume '"+id+"' does not exist.") {
		t.Errorf("describe-volumes of a deleted one: %s", complaint)
	}
	if _, complaint := b.aws("create-volume --dry-run --size 2 --availability-zone us-sim-1a"); !strings.Contains(complaint, "(DryRunOperation)") {
		t.Errorf("dry run: %s", complaint)
	}
}

func TestTheAWSCLIMakesSnapshotsCopiesAndModifications(t *testing.T) {
	b := newBench(t)
	b.limits(func(l *Limits) {
		l.Retention = []Retention{{Resource: "volume", For: time.Hour}, {Resource: "snapshot", For: time.Hour}}
	})
	id := b.volume()
	bare := func(text string) string { return strings.Trim(text, `"`) }
	snap := bare(b.must("create-snapshot --description nightly --query SnapshotId --tag-specifications ResourceType=snapshot,Tags=[{Key=slot,Value=1}] --volume-id " + id))
	b.snapshotBecomes(snap, "completed")
	if got := b.must("describe-snapshots --owner-ids self --output text --filters Name=tag:slot,Values=1 --query Snapshots[].[SnapshotId,VolumeId,State,Progress,VolumeSize,StorageTier]"); got !=
		strings.Join([]string{snap, id, "completed", "100%", "1", "standard"}, "\t") {
		t.Errorf("describe-snapshots: %q", got)
	}
	copied := bare(b.must("copy-volumes --volume-type gp3 --size 2 --query Volumes[0].VolumeId --source-volume-id " + id))
	b.becomes(copied, "available")
	if got := b.must("modify-volume --size 3 --output text --query VolumeModification.[ModificationState,OriginalSize,TargetSize] --volume-id " + id); got != "modifying\t1\t3" {
		t.Errorf("modify-volume: %q", got)
	}
	b.modified(id, types.VolumeModificationStateCompleted)
	if got := b.must("describe-volumes-modifications --output text --query VolumesModifications[].[VolumeId,ModificationState,Progress,TargetIops] --volume-ids " + id); got != id+"\tcompleted\t100\t3000" {
		t.Errorf("describe-volumes-modifications: %q", got)
	}
	if got := b.must("describe-volume-status --output text --query VolumeStatuses[].[VolumeId,VolumeStatus.Status,InitializationStatusDetails.InitializationType] --volume-ids " + copied); got != copied+"\tok\tvolume-copy" {
		t.Errorf("describe-volume-status: %q", got)
	}
	if _, err := b.ec2.DeleteSnapshot(within(t, time.Minute), &ec2.DeleteSnapshotInput{SnapshotId: &snap}); err != nil {
		t.Fatal(err)
	}
	if got := b.must("list-snapshots-in-recycle-bin --output text --query Snapshots[].[SnapshotId,VolumeId,Description]"); got != snap+"\t"+id+"\tnightly" {
		t.Errorf("list-snapshots-in-recycle-bin: %q", got)
	}
	if got := b.must("restore-snapshot-from-recycle-bin --query State --snapshot-id " + snap); got != `"completed"` {
		t.Errorf("restore-snapshot-from-recycle-bin: %q", got)
	}
	if _, err := b.ec2.DeleteVolume(within(t, time.Minute), &ec2.DeleteVolumeInput{VolumeId: &copied}); err != nil {
		t.Fatal(err)
	}
	b.becomes(copied, "gone")
	if got := b.must("list-volumes-in-recycle-bin --output text --query Volumes[].[VolumeId,State,Size,SourceVolumeId]"); got != copied+"\tavailable\t2\t"+id {
		t.Errorf("list-volumes-in-recycle-bin: %q", got)
	}
	if got := b.must("restore-volume-from-recycle-bin --query Return --volume-id " + copied); got != "true" {
		t.Errorf("restore-volume-from-recycle-bin: %q", got)
	}
}

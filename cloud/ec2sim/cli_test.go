package ec2sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
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

func TestTheAWSCLIDrivesAVolumeThroughItsLife(t *testing.T) {
	b := newBench(t)
	must := func(args string) string {
		t.Helper()
		out, complaint := b.aws(args)
		if complaint != "" {
			t.Fatalf("aws ec2 %s: %s", args, complaint)
		}
		return out
	}
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

package ebs

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

var _ cloud.Examiner = (*Client)(nil)

// policyFix is the way out of a permission that is not there.
const policyFix = "compare the role's policy with docs/iam-policy.json; aws sts decode-authorization-message tells which rule refused it"

// Examine looks at credentials, metadata, this instance, and each permission. Permissions are tried by dry runs, and only after the endpoint has
// shown with a harmless request that it honours them; and what is tried is chosen so that nothing would be lost if it did not.
func (c *Client) Examine(ctx context.Context, vols []cloud.Volume) []cloud.Finding {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	list := []cloud.Finding{c.examineCredentials(ctx), c.examineMetadata(ctx)}
	list = append(list, c.examineInstance(ctx))
	return append(list, c.examinePermissions(ctx, vols)...)
}

func (c *Client) examineCredentials(ctx context.Context) cloud.Finding {
	f := cloud.Finding{Check: "credentials", Verdict: cloud.OK}
	loaded, err := c.loadSDK(ctx)
	var found aws.Credentials
	if err == nil {
		found, err = loaded.Credentials.Retrieve(ctx)
	}
	if err != nil {
		f.Verdict, f.Text = cloud.Bad, c.secrets.redact(c.explain("get credentials", ref{}, err).Error())
		f.Fix = "give the instance a role with the policy of docs/iam-policy.json, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
		return f
	}
	f.Text = "from " + found.Source
	if n := len(found.AccessKeyID); n > 8 {
		f.Text += ", access key " + found.AccessKeyID[:4] + "..." + found.AccessKeyID[n-4:]
	}
	if found.CanExpire {
		f.Text += ", until " + found.Expires.UTC().Format(time.RFC3339)
		if found.Expires.Before(c.now()) {
			f.Verdict, f.Fix = cloud.Bad, "they have expired: set new ones, or use the instance's role"
		}
	}
	return f
}

func (c *Client) examineMetadata(ctx context.Context) cloud.Finding {
	f := cloud.Finding{Check: "metadata", Verdict: cloud.OK}
	if c.cfg.InstanceID != "" && c.cfg.Zone != "" {
		f.Text = "not needed: INSTANCE_ID and AVAILABILITY_ZONE are set"
		return f
	}
	loaded, err := c.loadSDK(ctx)
	var document *imds.GetInstanceIdentityDocumentOutput
	if err == nil {
		document, err = c.metadata(loaded).GetInstanceIdentityDocument(ctx, &imds.GetInstanceIdentityDocumentInput{})
	}
	if err != nil {
		f.Verdict, f.Text = cloud.Bad, "IMDSv2 does not answer: "+lastLine(err)
		f.Fix = "aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled --http-put-response-hop-limit 2, or set INSTANCE_ID, AVAILABILITY_ZONE and AWS_REGION"
		return f
	}
	f.Text = fmt.Sprintf("IMDSv2 answers: %s in %s", document.InstanceID, document.AvailabilityZone)
	if host, err := c.Host(ctx); err == nil && host.ID != document.InstanceID && c.cfg.InstanceID == "" {
		f.Verdict, f.Text = cloud.Bad, f.Text+", but this process has begun on "+host.ID
		f.Fix = "restart the plugin"
	}
	return f
}

func (c *Client) examineInstance(ctx context.Context) cloud.Finding {
	f := cloud.Finding{Check: "instance", Verdict: cloud.OK}
	host, err := c.Host(ctx)
	var m machine
	if err == nil {
		m, err = c.getMachine(ctx)
	}
	switch {
	case err != nil:
		f.Verdict, f.Text = cloud.Unknown, err.Error()
		return f
	case !m.nitro:
		f.Verdict, f.Text = cloud.Bad, fmt.Sprintf("%s is of type %s, which is no Nitro type: its kernel does not show which device is which volume", host.ID, m.kind)
		f.Fix = "use a Nitro instance type (t3, m5, c5, r5 and newer)"
		return f
	}
	f.Subject = host.ID
	f.Text = fmt.Sprintf("%s in %s, a Nitro type", m.kind, host.Zone)
	if m.max > 0 {
		f.Text += fmt.Sprintf(" for at most %d attachments", m.max)
	}
	return f
}

// targets are volumes to try permissions on.
type targets struct {
	host     cloud.Host
	attached *cloud.Volume // to any instance: it cannot be deleted
	free     *cloud.Volume // in this zone: attaching it here would be undone by itself, and there is nothing to detach
	any      *cloud.Volume
}

// noTarget is why some permissions are not tried.
const noTarget = "it takes a volume to try it on, and none of the cluster is "

// dryRun is a request that does nothing but to show whether it would be allowed; or why it is not made.
type dryRun func(ctx context.Context, c *Client, a api, t targets) (why string, err error)

// dryRuns are the permissions that a dry run can tell of. The others are unknown until they are used.
var dryRuns = map[string]dryRun{
	"DescribeInstances": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		return tryDry(ctx, c, "DescribeInstances", a.DescribeInstances, &ec2.DescribeInstancesInput{DryRun: aws.Bool(true), InstanceIds: []string{t.host.ID}})
	},
	"DescribeInstanceStatus": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		return tryDry(ctx, c, "DescribeInstanceStatus", a.DescribeInstanceStatus, &ec2.DescribeInstanceStatusInput{DryRun: aws.Bool(true), InstanceIds: []string{t.host.ID}})
	},
	"DescribeInstanceTypes": func(ctx context.Context, c *Client, a api, _ targets) (string, error) {
		return tryDry(ctx, c, "DescribeInstanceTypes", a.DescribeInstanceTypes, &ec2.DescribeInstanceTypesInput{DryRun: aws.Bool(true), InstanceTypes: []types.InstanceType{"m5.large"}})
	},
	"DescribeSnapshots": func(ctx context.Context, c *Client, a api, _ targets) (string, error) {
		return tryDry(ctx, c, "DescribeSnapshots", a.DescribeSnapshots, &ec2.DescribeSnapshotsInput{DryRun: aws.Bool(true), OwnerIds: []string{"self"}, MaxResults: aws.Int32(5)})
	},
	"DescribeVolumesModifications": func(ctx context.Context, c *Client, a api, _ targets) (string, error) {
		return tryDry(ctx, c, "DescribeVolumesModifications", a.DescribeVolumesModifications, &ec2.DescribeVolumesModificationsInput{DryRun: aws.Bool(true), MaxResults: aws.Int32(5)})
	},
	"ListVolumesInRecycleBin": func(ctx context.Context, c *Client, a api, _ targets) (string, error) {
		return tryDry(ctx, c, "ListVolumesInRecycleBin", a.ListVolumesInRecycleBin, &ec2.ListVolumesInRecycleBinInput{DryRun: aws.Bool(true), MaxResults: aws.Int32(5)})
	},
	"ListSnapshotsInRecycleBin": func(ctx context.Context, c *Client, a api, _ targets) (string, error) {
		return tryDry(ctx, c, "ListSnapshotsInRecycleBin", a.ListSnapshotsInRecycleBin, &ec2.ListSnapshotsInRecycleBinInput{DryRun: aws.Bool(true), MaxResults: aws.Int32(5)})
	},
	"CreateVolume": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		in := createInput(c.cfg.Cluster, cloud.Spec{Name: "blockvol-doctor", SizeGiB: 1, Type: "gp3", Zone: t.host.Zone}, fmt.Sprintf("doctor-%d", c.now().UnixNano()))
		in.DryRun = aws.Bool(true)
		return tryDry(ctx, c, "CreateVolume", a.CreateVolume, in)
	},
	"CreateTags": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		if t.any == nil {
			return noTarget + "there", nil
		}
		return tryDry(ctx, c, "CreateTags", a.CreateTags, &ec2.CreateTagsInput{DryRun: aws.Bool(true), Resources: []string{t.any.ID},
			Tags: []types.Tag{{Key: aws.String(tagConsole), Value: aws.String(t.any.Name)}}}) // which it has already
	},
	"AttachVolume": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		if t.free == nil {
			return noTarget + "unattached in this zone", nil
		}
		return tryDry(ctx, c, "AttachVolume", a.AttachVolume,
			&ec2.AttachVolumeInput{DryRun: aws.Bool(true), VolumeId: aws.String(t.free.ID), InstanceId: aws.String(t.host.ID), Device: aws.String("/dev/xvddx")})
	},
	"DetachVolume": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		if t.free == nil {
			return noTarget + "unattached in this zone", nil
		}
		return tryDry(ctx, c, "DetachVolume", a.DetachVolume, &ec2.DetachVolumeInput{DryRun: aws.Bool(true), VolumeId: aws.String(t.free.ID), InstanceId: aws.String(t.host.ID)})
	},
	"DeleteVolume": func(ctx context.Context, c *Client, a api, t targets) (string, error) {
		if t.attached == nil {
			return noTarget + "attached, which would keep it from being deleted", nil
		}
		return tryDry(ctx, c, "DeleteVolume", a.DeleteVolume, &ec2.DeleteVolumeInput{DryRun: aws.Bool(true), VolumeId: aws.String(t.attached.ID)})
	},
}

// dryRunTime is how long one dry run may take, with its repeats.
const dryRunTime = 10 * time.Second

func tryDry[In, Out any](ctx context.Context, c *Client, action string, do func(context.Context, *In, ...func(*ec2.Options)) (*Out, error), in *In) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dryRunTime)
	defer cancel()
	_, err := invoke(ctx, c, action, do, in)
	return "", err
}

// judge tells what the answer to a dry run says of the permission.
func (c *Client) judge(err error) (verdict cloud.Verdict, text, fix string) {
	if hasCode(err, "DryRunOperation") {
		return cloud.OK, "allowed", ""
	}
	if err == nil {
		return cloud.Warning, "allowed, by an endpoint that has not treated it as a dry run", "see which endpoint AWS_ENDPOINT_URL names"
	}
	m, detail := c.interpret(ref{}, err)
	if detail != "" {
		detail = " (" + detail + ")"
	}
	switch m.kind {
	case cloud.ErrDenied:
		return cloud.Bad, m.cause + detail, policyFix
	case cloud.ErrUnavailable, cloud.ErrThrottled, cloud.ErrCredentials, cloud.ErrConfig:
		return cloud.Unknown, m.cause + detail, m.advice
	}
	return cloud.Unknown, "EC2 has looked at something else first" + detail, ""
}

// always are the permissions of docs/iam-policy.json. The others belong to policies that are a choice.
var always = map[string]bool{
	"DescribeVolumes": true, "DescribeInstances": true, "DescribeInstanceStatus": true, "DescribeInstanceTypes": true,
	"CreateVolume": true, "CreateTags": true, "AttachVolume": true, "DetachVolume": true, "DeleteVolume": true, "DeleteTags": true,
}

// onlyForFencing are in docs/iam-fencing.json, and not needed elsewhere.
var onlyForFencing = map[string]bool{"StopInstances": true, "DescribeInstanceAttribute": true}

func (c *Client) examinePermissions(ctx context.Context, vols []cloud.Volume) []cloud.Finding {
	const describe = "DescribeVolumes"
	var list []cloud.Finding
	note := func(action string, verdict cloud.Verdict, text, fix string) {
		list = append(list, cloud.Finding{Check: "permission", Subject: "ec2:" + action, Verdict: verdict, Text: text, Fix: fix})
	}
	t := targets{}
	a, err := c.getAPI(ctx)
	if err == nil {
		t.host, err = c.Host(ctx)
	}
	if err == nil {
		_, err = tryDry(ctx, c, describe, a.DescribeVolumes, &ec2.DescribeVolumesInput{DryRun: aws.Bool(true), MaxResults: aws.Int32(5)})
	}
	honoured := hasCode(err, "DryRunOperation")
	verdict, text, fix := c.judge(err)
	note(describe, verdict, text, fix)
	for i := range vols {
		v := &vols[i]
		if v.Newer != nil {
			continue
		}
		t.any = v
		switch {
		case len(v.Attachments) > 0 && v.Attachments[0].State == cloud.Attached:
			t.attached = v
		case len(v.Attachments) == 0 && v.State == cloud.Available && v.Zone == t.host.Zone:
			t.free = v
		}
	}
	for i := range reflect.TypeFor[api]().NumMethod() {
		action := reflect.TypeFor[api]().Method(i).Name
		try, known := dryRuns[action]
		switch {
		case action == describe:
		case onlyForFencing[action]:
			note(action, cloud.Unknown, "not tried; only fencing=impaired and blockvol detach --stop-instance need it (docs/iam-fencing.json)", "")
		case action == "DeleteTags":
			note(action, cloud.Unknown, "not tried; bringing removed volumes back, adopting volumes and taking tags away need it", "")
		case !known:
			note(action, cloud.Unknown, "only its use can tell", "")
		case !honoured:
			note(action, cloud.Unknown, "not tried: the endpoint has not shown that it honours dry runs", "")
		default:
			why, err := try(ctx, c, a, t)
			if why != "" {
				note(action, cloud.Unknown, why, "")
				continue
			}
			verdict, text, fix := c.judge(err)
			if verdict == cloud.Bad && !always[action] {
				verdict, fix = cloud.Warning, "if snapshots, copies, growth or the Recycle Bin are wanted: docs/iam-snapshots.json"
			}
			note(action, verdict, text, fix)
		}
	}
	return list
}

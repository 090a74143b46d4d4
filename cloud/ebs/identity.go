package ebs

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

var (
	instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,32}$`)
	snapshotID = regexp.MustCompile(`^snap-[0-9a-f]{8,32}$`)
	volumeID   = regexp.MustCompile(`^vol-[0-9a-f]{8,32}$`)
	zoneRegion = regexp.MustCompile(`^([a-z]{2,}(?:-[a-z]+)+-[0-9]+)`)
)

// regionOfZone returns the region a zone's name starts with: eu-central-1 of eu-central-1a, us-west-2 of us-west-2-lax-1a.
func regionOfZone(zone string) string { return zoneRegion.FindString(zone) }

// Host tells which instance this is: from the settings, or from the instance identity document of IMDSv2. It makes no EC2 call.
func (c *Client) Host(ctx context.Context) (cloud.Host, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	host, err := c.identity.get(ctx, c.timing.Lookup, c.loadHost)
	if err != nil {
		return cloud.Host{}, c.explain("find out which instance this is", ref{}, err)
	}
	if m, ok := c.machine.peek(); ok && host.Type == "" {
		host.Type = m.kind
	}
	return host, nil
}

func (c *Client) loadHost(ctx context.Context) (cloud.Host, error) {
	loaded, err := c.loadSDK(ctx)
	if err != nil {
		return cloud.Host{}, err
	}
	host := cloud.Host{ID: c.cfg.InstanceID, Zone: c.cfg.Zone, Region: loaded.Region}
	if host.Region == "" {
		host.Region = regionOfZone(host.Zone)
	}
	if host.ID != "" && host.Zone != "" && host.Region != "" {
		return host, nil
	}
	document, err := c.metadata(loaded).GetInstanceIdentityDocument(ctx, &imds.GetInstanceIdentityDocumentInput{})
	if err != nil {
		return cloud.Host{}, &cloud.Error{Kind: cloud.ErrConfig, Cause: err, Text: fmt.Sprintf("the instance metadata service (IMDSv2) gave no answer: %s; "+
			"on EC2, see that it is enabled and that its hop limit lets this process reach it "+
			"(aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled --http-put-response-hop-limit 2); "+
			"elsewhere, set INSTANCE_ID, AVAILABILITY_ZONE and AWS_REGION", lastLine(err))}
	}
	if loaded.Region != "" && loaded.Region != document.Region {
		return cloud.Host{}, cloud.Errorf(cloud.ErrConfig, "the region is set to %s but this instance is in %s: volumes of one region cannot be attached in another; "+
			"set AWS_REGION to %s, or leave it unset", loaded.Region, document.Region, document.Region)
	}
	for _, known := range []struct {
		field *string
		value string
	}{
		{&host.ID, document.InstanceID},
		{&host.Zone, document.AvailabilityZone},
		{&host.Region, document.Region},
	} {
		if *known.field == "" {
			*known.field = known.value
		}
	}
	if host.ID == document.InstanceID {
		host.Type, host.Account = document.InstanceType, document.AccountID
	}
	return host, nil
}

// machine is what EC2 says of the instance that Attach must know.
type machine struct {
	kind   string // the instance type
	nitro  bool
	max    int  // attachments the type can hold; 0 if unknown
	shared bool // network interfaces count as attachments too
}

// getMachine looks at the instance and its type once.
func (c *Client) getMachine(ctx context.Context) (machine, error) {
	m, err := c.machine.get(ctx, c.timing.Lookup, func(ctx context.Context) (machine, error) {
		kind, err := c.lookAtInstance(ctx)
		if err != nil {
			return machine{}, err
		}
		ec2api, err := c.getAPI(ctx)
		if err != nil {
			return machine{}, err
		}
		out, err := invoke(ctx, c, "DescribeInstanceTypes", ec2api.DescribeInstanceTypes,
			&ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{types.InstanceType(kind)}})
		if err != nil {
			return machine{}, err
		}
		if len(out.InstanceTypes) != 1 {
			return machine{}, cloud.Errorf(cloud.ErrHost, "EC2 does not know the instance type %s", kind)
		}
		return toMachine(kind, out.InstanceTypes[0]), nil
	})
	if err != nil {
		return machine{}, c.explain("look up this instance", ref{}, err)
	}
	return m, nil
}

func toMachine(kind string, info types.InstanceTypeInfo) machine {
	m := machine{kind: kind}
	// DescribeInstances says xen for Nitro instances too; the type tells, and says nothing for bare metal, which has Nitro cards.
	m.nitro = info.Hypervisor == types.InstanceTypeHypervisorNitro
	if info.EbsInfo != nil {
		if aws.ToBool(info.BareMetal) && info.EbsInfo.NvmeSupport != types.EbsNvmeSupportUnsupported {
			m.nitro = true
		}
		m.max = int(aws.ToInt32(info.EbsInfo.MaximumEbsAttachments))
		m.shared = info.EbsInfo.AttachmentLimitType == types.AttachmentLimitTypeShared
	}
	return m
}

// lookAtInstance reads which device names are taken and returns the instance type.
func (c *Client) lookAtInstance(ctx context.Context) (string, error) {
	host, err := c.Host(ctx)
	if err != nil {
		return "", err
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return "", err
	}
	asked := c.now()
	out, err := invoke(ctx, c, "DescribeInstances", ec2api.DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{host.ID}})
	if err != nil {
		return "", err
	}
	for _, reservation := range out.Reservations {
		for _, instance := range reservation.Instances {
			if aws.ToString(instance.InstanceId) != host.ID {
				continue
			}
			taken := map[string]string{}
			for _, mapping := range instance.BlockDeviceMappings {
				volume := ""
				if mapping.Ebs != nil {
					volume = aws.ToString(mapping.Ebs.VolumeId)
				}
				taken[aws.ToString(mapping.DeviceName)] = volume
			}
			// The root disk takes a place, even at an endpoint that does not list it.
			if root := aws.ToString(instance.RootDeviceName); taken[root] == "" && instance.RootDeviceType == types.DeviceTypeEbs {
				taken[root] = "root"
			}
			c.names.replace(asked, taken, len(instance.NetworkInterfaces))
			return string(instance.InstanceType), nil
		}
	}
	return "", cloud.Errorf(cloud.ErrConfig, "EC2 does not know the instance %s in region %s: check INSTANCE_ID and AWS_REGION", host.ID, host.Region)
}

// refreshNames reads again which device names are taken.
func (c *Client) refreshNames(ctx context.Context) error {
	_, err := c.refresh.get(ctx, c.timing.Lookup, func(ctx context.Context) (struct{}, error) {
		_, err := c.lookAtInstance(ctx)
		return struct{}{}, err
	})
	c.refresh.forget()
	return err
}

// lastLine shortens a chain of wrapped errors to its innermost cause, which is what says something.
func lastLine(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 && strings.Count(text, ": ") > 3 {
		parts := strings.Split(text, ": ")
		text = strings.Join(parts[len(parts)-3:], ": ")
	}
	return text
}

package ebs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// Retag changes attributes and tags of a volume, and waits until EC2 shows it.
func (c *Client) Retag(ctx context.Context, id string, change cloud.Retag) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	err := c.explain("change the tags of", c.refer(id), c.retag(ctx, id, change))
	var told *cloud.Error
	var f *failure
	if errors.As(err, &told) && errors.As(err, &f) && f.action == "DeleteTags" {
		told.Text = strings.Replace(told.Text, "docs/iam-policy.json", "docs/iam-snapshots.json", 1)
	}
	return err
}

func (c *Client) retag(ctx context.Context, id string, change cloud.Retag) error {
	set, drop, err := retagged(id, change)
	if err != nil || len(set)+len(drop) == 0 {
		return err
	}
	if err := c.prove(ctx, id, c.known.proven(id, c.timing.TagTime)); err != nil {
		return err
	}
	if len(set) > 0 {
		if err := c.tag(ctx, id, set); err != nil {
			return err
		}
	}
	if len(drop) > 0 {
		ec2api, err := c.getAPI(ctx)
		if err != nil {
			return err
		}
		var gone []types.Tag // without a value: whatever it is
		for _, key := range drop {
			gone = append(gone, types.Tag{Key: aws.String(key)})
		}
		err = c.throughWindow(ctx, id, func() error {
			_, err := invoke(ctx, c, "DeleteTags", ec2api.DeleteTags, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: gone})
			return err
		}, "InvalidVolume.NotFound", "InvalidID")
		if err != nil {
			return err
		}
	}
	return c.confirmTags(ctx, id, set, drop)
}

// retagged are the tags of a change, by their keys in EC2.
func retagged(id string, change cloud.Retag) (set map[string]string, drop []string, err error) {
	set = map[string]string{}
	refuse := func(err error) error {
		return cloud.Errorf(cloud.ErrInvalid, "cannot change the tags of volume %s: %v", id, err)
	}
	user := func(key, value string) error {
		if key == tagConsole || strings.HasPrefix(strings.ToLower(key), prefix) {
			return fmt.Errorf("the tag %q is blockvol's own", key)
		}
		return checkTag(key, value)
	}
	for attr, value := range change.Attrs {
		if err := checkAttr(attr, value); err != nil {
			return nil, nil, refuse(err)
		}
		set[prefix+attr] = value
	}
	for key, value := range change.Tags {
		if err := user(key, value); err != nil {
			return nil, nil, refuse(err)
		}
		set[key] = value
	}
	for _, attr := range change.DropAttrs {
		if err := checkAttr(attr, ""); err != nil {
			return nil, nil, refuse(err)
		}
		drop = append(drop, prefix+attr)
	}
	for _, key := range change.DropTags {
		if err := user(key, ""); err != nil {
			return nil, nil, refuse(err)
		}
		drop = append(drop, key)
	}
	if schema := schemaFor(change.Attrs); schema != schemaFirst {
		set[tagSchema] = schema
	}
	slices.Sort(drop)
	return set, drop, nil
}

// confirmTags waits until EC2 shows tags as they were set, and none that was taken away.
func (c *Client) confirmTags(ctx context.Context, id string, set map[string]string, drop []string) error {
	var every time.Duration
	for {
		raw, err := c.raw(ctx, id)
		switch {
		case err != nil && !temporary(err):
			return err
		case err != nil || raw == nil: // an answer older than the volume
		default:
			has := map[string]string{}
			for _, tag := range raw.Tags {
				has[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
			}
			if shows(has, set, drop) {
				return nil
			}
		}
		every = c.timing.grow(every)
		if err := sleep(ctx, every); err != nil {
			return fmt.Errorf("EC2 has accepted the new tags of %s and does not show them yet: %w", id, err)
		}
	}
}

func shows(has, set map[string]string, drop []string) bool {
	for key, value := range set {
		if now, ok := has[key]; !ok || now != value {
			return false
		}
	}
	return !slices.ContainsFunc(drop, func(key string) bool { _, still := has[key]; return still })
}

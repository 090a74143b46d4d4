package ebs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/blockvol/blockvol/cloud"
)

// prove makes sure that a volume carries our tags, and that no newer blockvol has made it, before it is changed: it was seen so lately
// enough, or it is looked up now.
func (c *Client) prove(ctx context.Context, id string, proven bool) error {
	if proven {
		return nil
	}
	v, err := c.lookByID(ctx, id)
	if err != nil {
		return err
	}
	return v.Newer
}

// Delete deletes a volume that is attached nowhere.
func (c *Client) Delete(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("delete", c.refer(id), c.delete(ctx, id))
}

func (c *Client) delete(ctx context.Context, id string) error {
	// A tag can be taken away to keep a volume from blockvol, so only what was seen just now is deleted.
	if !c.known.proven(id, c.timing.Proof) {
		v, err := c.lookTwice(ctx, id)
		if err != nil {
			return err
		}
		if v.Newer != nil {
			return v.Newer
		}
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	end := c.now().Add(c.timing.Consistency)
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		_, err = invoke(ctx, c, "DeleteVolume", ec2api.DeleteVolume, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
		if !hasCode(err, "InvalidVolume.NotFound") || repeated(err) || !c.now().Before(end) {
			break
		}
		// To take a volume for gone that is only new would leave it behind for ever.
		if _, lookErr := c.lookByID(ctx, id); errors.Is(lookErr, cloud.ErrNotFound) {
			break
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return sleepErr
		}
	}
	switch {
	case err == nil:
	case hasCode(err, "InvalidVolume.NotFound"):
		c.deleted(id)
		if repeated(err) {
			return nil // the first attempt did it and its answer was lost
		}
		return err
	case hasCode(err, "VolumeInUse", "IncorrectState"):
		v, lookErr := c.lookTwice(ctx, id)
		switch {
		case errors.Is(lookErr, cloud.ErrNotFound):
			c.deleted(id)
			return lookErr
		case lookErr != nil:
			return err
		case ending(v.State):
		case len(v.Attachments) > 0:
			a := v.Attachments[0]
			return &cloud.HolderError{Volume: v.Name, ID: id, Host: a.Host, State: a.State}
		default:
			return err
		}
	default:
		return err
	}
	c.deleted(id)
	return nil
}

// lookTwice looks a volume up, and again somewhat later if it is not there: one answer may be older than the volume, and whoever is told that it
// is gone leaves it behind for ever.
func (c *Client) lookTwice(ctx context.Context, id string) (cloud.Volume, error) {
	v, err := c.lookByID(ctx, id)
	if !errors.Is(err, cloud.ErrNotFound) {
		return v, err
	}
	if err := sleep(ctx, c.timing.Vanish); err != nil {
		return cloud.Volume{}, err
	}
	return c.lookByID(ctx, id)
}

// deleted takes note that a volume is gone: its name may be created again with the next token.
func (c *Client) deleted(id string) {
	var name, bound string
	c.known.change(id, func(r *record, now time.Time) { name, bound, r.deleted = r.name, r.boundBy, now })
	if name != "" && bound == "" {
		n, _ := c.tokens.current(name)
		c.tokens.burn(name, n)
	}
}

// SetAttrs changes tags with our prefix.
func (c *Client) SetAttrs(ctx context.Context, id string, attrs map[string]string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("change the tags of", c.refer(id), c.setAttrs(ctx, id, attrs))
}

func (c *Client) setAttrs(ctx context.Context, id string, attrs map[string]string) error {
	if len(attrs) == 0 {
		return nil
	}
	tags := map[string]string{}
	for attr, value := range attrs {
		if err := checkAttr(attr, value); err != nil {
			return cloud.Errorf(cloud.ErrInvalid, "cannot change the tags of volume %s: %v", id, err)
		}
		tags[prefix+attr] = value
	}
	if schema := schemaFor(attrs); schema != schemaFirst {
		tags[tagSchema] = schema
	}
	if err := c.prove(ctx, id, c.known.proven(id, c.timing.TagTime)); err != nil {
		return err
	}
	return c.tag(ctx, id, tags)
}

// throughWindow repeats a call that EC2 answers with one of the codes although the volume was just seen: not every part of EC2 knows of
// a new volume, or of a volume's new state, at once.
func (c *Client) throughWindow(ctx context.Context, id string, try func() error, codes ...string) error {
	end := c.now().Add(c.timing.Consistency)
	pause := c.timing.PollMin
	for {
		err := try()
		if !hasCode(err, codes...) || !c.now().Before(end) {
			return err
		}
		if _, lookErr := c.lookByID(ctx, id); errors.Is(lookErr, cloud.ErrNotFound) && !c.known.proven(id, c.timing.Consistency) {
			return lookErr
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return err
		}
		pause = c.timing.grow(pause)
	}
}

func checkAttr(attr, value string) error {
	if attr == "" || reserved(attr) {
		return fmt.Errorf("the attribute %q is not for callers", attr)
	}
	return checkTag(prefix+attr, value)
}

func checkTag(key, value string) error {
	switch {
	case key == "" || utf8.RuneCountInString(key) > maxTagKey:
		return fmt.Errorf("the tag key %q must have 1 to %d characters", key, maxTagKey)
	case utf8.RuneCountInString(value) > maxTagValue:
		return fmt.Errorf("the value of the tag %q has %d characters; EC2 allows %d", key, utf8.RuneCountInString(value), maxTagValue)
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return fmt.Errorf("the tag %q: keys that start with aws: belong to AWS", key)
	}
	return nil
}

// repeated reports whether the call was made more than once.
func repeated(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.repeats > 0
}

// refer names a volume for the user.
func (c *Client) refer(id string) ref { return ref{id: id, name: c.known.get(id).name} }

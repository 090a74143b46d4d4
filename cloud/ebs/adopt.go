package ebs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

// EC2 has no compare-and-swap on tags, and two hosts may want one volume at the same moment. So each first writes a claim, under a key of its
// own that nobody overwrites, and looks again after as long as EC2's answers may be old. Whoever finds a claim before its own backs off.
// Those that wrote theirs at the same time see each other's at the second look, and the one with the lowest key goes on. It binds the
// volume by one change of all its tags, and the claim is taken away. A claim to delete the volume for good (Purge) steps back for every other,
// and every other for it, so that at most one of them is carried out. Between look and change only so much time may pass that this
// holds; whoever was held up begins anew. At the end the volume is looked at once more, and only what EC2 then shows is true.
const (
	claimPrefix = prefix + "claim:"
	claimLife   = time.Minute // what a host that died has left behind
)

// claims returns the claims on a volume that still count, by their keys, without the one with my value.
func (c *Client) claims(v types.Volume, mine string) map[string]string {
	found := map[string]string{}
	for _, tag := range v.Tags {
		key, value := aws.ToString(tag.Key), aws.ToString(tag.Value)
		at, _, _ := strings.Cut(value, " ")
		when, err := time.Parse(time.RFC3339, at)
		age := c.ec2Now().Sub(when)
		if strings.HasPrefix(key, claimPrefix) && value != mine && err == nil && age < claimLife && age > -claimLife {
			found[key] = value
		}
	}
	return found
}

// Adoptable lists the volumes that Adopt would take now in this host's zone, the smallest first.
func (c *Client) Adoptable(ctx context.Context, tags map[string]string, minGiB int64) ([]string, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	host, err := c.Host(ctx)
	if err != nil {
		return nil, err
	}
	filters := []types.Filter{filter("status", "available"), filter("availability-zone", host.Zone)}
	for key, value := range tags {
		filters = append(filters, filter("tag:"+key, value))
	}
	found := map[string]int32{}
	err = c.pages(ctx, filters, func(v types.Volume) {
		if id := aws.ToString(v.VolumeId); int64(aws.ToInt32(v.Size)) >= minGiB && tagOf(v, tagCluster) == "" && c.adoptable(v, host) == nil {
			found[id] = aws.ToInt32(v.Size)
		}
	})
	if err != nil {
		return nil, c.explain("look for", ref{}, err)
	}
	var ids []string
	for id := range found {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(a, b int) bool {
		if found[ids[a]] != found[ids[b]] {
			return found[ids[a]] < found[ids[b]]
		}
		return ids[a] < ids[b]
	})
	return ids, nil
}

// adoptable tells why a volume cannot be adopted; nil if it can.
func (c *Client) adoptable(v types.Volume, host cloud.Host) error {
	id := aws.ToString(v.VolumeId)
	no := func(kind error, format string, args ...any) error {
		return cloud.Errorf(kind, "volume %s cannot be adopted: %s", id, fmt.Sprintf(format, args...))
	}
	name, cluster := tagOf(v, tagName), tagOf(v, tagCluster)
	_, gone := former(name)
	schema := tagOf(v, tagSchema)
	switch {
	case aws.ToString(v.AvailabilityZone) != host.Zone:
		return no(cloud.ErrZone, "it is in %s, and this host (%s) is in %s; a volume can only be used in its own zone: adopt it on a host there", aws.ToString(v.AvailabilityZone), host.ID, host.Zone)
	case cluster != "" && cluster != c.cfg.Cluster:
		return no(cloud.ErrState, "it belongs to the blockvol cluster %q, and this host to %q; whoever owns it gives it up by removing it there (reclaim=retain) and taking its tags blockvol:... off", cluster, c.cfg.Cluster)
	case schema != "" && schema != schemaFirst && schema != schemaLatest:
		return no(cloud.ErrState, "its tag %s is %s, and this version knows %s: upgrade the plugin on this host", tagSchema, schema, schemaLatest)
	case cluster != "" && name != "" && !gone:
		return no(cloud.ErrState, "it is the volume %q of this cluster already: use it under that name, or remove it first (only with reclaim=retain that keeps its data)", name)
	case aws.ToBool(v.MultiAttachEnabled):
		return no(cloud.ErrState, "it has multi-attach enabled: two hosts could mount it at once, which destroys a filesystem; disable multi-attach first")
	}
	for _, a := range v.Attachments {
		if a.State != types.VolumeAttachmentStateDetached {
			return no(cloud.ErrInUse, "it is %s to %s (%s): unmount and detach it there first", a.State, aws.ToString(a.InstanceId), aws.ToString(a.Device))
		}
	}
	if v.State != types.VolumeStateAvailable {
		return no(cloud.ErrState, "it is in state %s, and must be available", v.State)
	}
	return nil
}

// Adopt binds a volume that blockvol did not make, or has given up, to a name.
func (c *Client) Adopt(ctx context.Context, a cloud.Adoption) (cloud.Volume, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	v, err := c.adoptAs(ctx, a)
	if err == nil {
		return v, nil
	}
	err = c.explain("adopt", ref{id: a.ID, name: a.Name}, err)
	var told *cloud.Error
	if errors.As(err, &told) && told.Kind == cloud.ErrDenied {
		told.Text = strings.Replace(told.Text, "docs/iam-policy.json", "docs/iam-adopt.json", 1)
	}
	return cloud.Volume{}, err
}

// errLate says that a step took so long that what was seen before it proves nothing.
var errLate = errors.New("it took too long")

func (c *Client) adoptAs(ctx context.Context, a cloud.Adoption) (cloud.Volume, error) {
	for attempt := 1; ; attempt++ {
		v, err := c.claimAndBind(ctx, a)
		switch {
		case !errors.Is(err, errLate):
			return v, err
		case attempt == 5 || ctx.Err() != nil:
			return cloud.Volume{}, cloud.Errorf(cloud.ErrClaimed, "volume %s is not adopted: EC2 or this host is so slow that another host could have taken it at the same moment; try again", a.ID)
		}
	}
}

func (c *Client) claimAndBind(ctx context.Context, a cloud.Adoption) (bound cloud.Volume, err error) {
	host, err := c.Host(ctx)
	if err != nil {
		return cloud.Volume{}, err
	}
	look := func() (types.Volume, error) {
		v, err := c.rawLive(ctx, a.ID, host)
		if err != nil {
			return types.Volume{}, err
		}
		if _, ok := c.toGivenUp(v); a.Back && !ok {
			return types.Volume{}, cloud.Errorf(cloud.ErrNotFound, "volume %s is none that this cluster has given up (its tag %s is %q)", a.ID, tagName, tagOf(v, tagName))
		}
		return v, c.adoptable(v, host)
	}
	check := func(v types.Volume) error {
		if a.Check == nil {
			return nil
		}
		seen, _ := toVolume(c.cfg.Cluster, v)
		return a.Check(seen)
	}
	err = c.withClaim(ctx, a.ID, c.cfg.Cluster+"/"+a.Name, look, check, func(v types.Volume, claim claim) (bool, error) {
		// Another volume may have come to the name since the caller looked.
		if other, err := c.lookByName(ctx, a.Name); err == nil && !ending(other.State) {
			bound = other
			return false, nil
		} else if err != nil && !errors.Is(err, cloud.ErrNotFound) {
			return false, err
		}
		if err := claim.late(); err != nil {
			return false, err
		}
		tags := map[string]string{tagCluster: c.cfg.Cluster, tagName: a.Name, tagSchema: schemaLatest, tagBound: claim.act}
		attrs := a.Attrs
		if tagOf(v, tagCluster) == c.cfg.Cluster { // it was given up, and knows what it is
			delete(tags, tagCluster) // the policy lets nobody change it
			attrs = a.Given
			if at, _, retired := strings.Cut(tagOf(v, tagReleasedAt), " "); retired {
				tags[tagReleasedAt] = at // what was meant for it is over
			}
		}
		for attr, value := range attrs {
			tags[prefix+attr] = value
		}
		maps.Copy(tags, a.Tags)
		if err := c.tag(ctx, a.ID, tags); err != nil {
			return false, err
		}
		bound, err = c.confirmBound(ctx, a, claim.act)
		return false, err
	})
	return bound, err
}

// claim is a claim on a volume that stands against all others.
type claim struct {
	act    string            // which no other has
	others map[string]string // claims that have lost against it, by their keys
	late   func() error      // errLate once so much time has passed that another host may have come to the same result
}

// rawLive returns a volume as EC2 has it, whosever it is, or ErrNotFound.
func (c *Client) rawLive(ctx context.Context, id string, host cloud.Host) (types.Volume, error) {
	v, err := c.raw(ctx, id)
	if err != nil {
		return types.Volume{}, err
	}
	if v == nil || v.State == types.VolumeStateDeleting || v.State == types.VolumeStateDeleted {
		return types.Volume{}, cloud.Errorf(cloud.ErrNotFound, "there is no volume %s in %s", id, host.Region)
	}
	return *v, nil
}

// withClaim claims a volume for what is said, and does it once no other claim can stand against that any more. look reads the volume and tells
// whether it is as it must be; check looks at the first answer. do tells whether the claim is to stay for its time.
func (c *Client) withClaim(ctx context.Context, id, what string, look func() (types.Volume, error), check func(types.Volume) error, do func(types.Volume, claim) (stays bool, err error)) error {
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	began := c.now()
	v, err := look()
	if err != nil {
		return err
	}
	if err := check(v); err != nil {
		return err
	}
	act := fmt.Sprintf("%s %s %s", c.ec2Now().UTC().Format(time.RFC3339), host.ID, strings.ToLower(rand.Text()[:12]))
	key, mine := claimPrefix+host.ID, act+" "+what
	for other, said := range c.claims(v, mine) {
		if other != key || !strings.HasSuffix(said, " "+what) { // else this host was killed here a moment ago
			return claimed(id, other, said)
		}
	}
	if err := c.tag(ctx, id, map[string]string{key: mine}); err != nil {
		return err
	}
	withdraw := func() {
		// A claim that stays is no harm after its time.
		free, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timing.Attempt)
		defer cancel()
		if err := c.untag(free, id, key, mine); err != nil {
			c.log.WithField("volume", id).Warnf("taking the tag %s away: %v", key, err)
		}
	}
	stays := false
	defer func() {
		if !stays {
			withdraw()
		}
	}()
	late := func() error {
		if c.now().Sub(began) > c.timing.Late {
			return errLate
		}
		return nil
	}
	if err := late(); err != nil {
		return err
	}
	if err := sleep(ctx, c.timing.Consistency+c.timing.Late); err != nil {
		return err
	}
	began = c.now()
	if v, err = look(); err != nil {
		return err
	}
	if tagOf(v, key) != mine {
		return claimed(id, key, tagOf(v, key))
	}
	others := c.claims(v, mine)
	for other, said := range others {
		if other < key || strings.HasSuffix(said, " "+purgePurpose) {
			return claimed(id, other, said)
		}
	}
	stays, err = do(v, claim{act: act, others: others, late: late})
	return err
}

// confirmBound waits until EC2 shows whom the volume belongs to.
func (c *Client) confirmBound(ctx context.Context, a cloud.Adoption, bound string) (cloud.Volume, error) {
	var every time.Duration
	for end := c.now().Add(2*c.timing.Consistency + c.timing.Late); ; {
		raw, err := c.raw(ctx, a.ID)
		if err != nil && !temporary(err) {
			return cloud.Volume{}, err
		}
		if err == nil && raw != nil && tagOf(*raw, tagBound) == bound && tagOf(*raw, tagName) == a.Name {
			return c.lookByID(ctx, a.ID)
		}
		every = c.timing.grow(every)
		if c.now().After(end) {
			return cloud.Volume{}, cloud.Errorf(cloud.ErrClaimed, "volume %s was bound to the name %q, and EC2 does not show it: another host may have bound it at the same moment; try again", a.ID, a.Name)
		}
		if err := sleep(ctx, every); err != nil {
			return cloud.Volume{}, err
		}
	}
}

func claimed(id, key, said string) error {
	fields := strings.SplitN(said, " ", 4)
	who := strings.TrimPrefix(key, claimPrefix)
	if len(fields) == 4 {
		who += " for " + fields[3]
	}
	return cloud.Errorf(cloud.ErrClaimed, "volume %s is being claimed by %s at this moment: try again in a minute", id, who)
}

// untag takes a tag away if it has this value.
func (c *Client) untag(ctx context.Context, id, key, value string) error {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	_, err = invoke(ctx, c, "DeleteTags", ec2api.DeleteTags, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: toTags(map[string]string{key: value})})
	return err
}

package ebs

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/blockvol/blockvol/cloud"
)

const (
	filterValues = 200 // EC2's limit per filter
	pageSize     = 500 // volumes per answer; EC2 takes 5 to 1000 and throttles what is not paginated sooner
)

// ByName returns the cluster's volume of that name. A volume that is being deleted counts only when there is no other.
func (c *Client) ByName(ctx context.Context, name string) (cloud.Volume, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	v, err := c.lookByName(ctx, name)
	if err != nil {
		return cloud.Volume{}, c.explain("look up", ref{name: name}, err)
	}
	return v, nil
}

func (c *Client) lookByName(ctx context.Context, name string) (cloud.Volume, error) {
	found, err := c.byName.get(ctx, name)
	if err != nil {
		return cloud.Volume{}, err
	}
	if live(found) > 1 {
		// One of them may be the last sight of a volume that another host just deleted.
		if err := sleep(ctx, c.timing.PollMin*2); err != nil {
			return cloud.Volume{}, err
		}
		if found, err = c.byName.get(ctx, name); err != nil {
			return cloud.Volume{}, err
		}
	}
	return pick(name, found)
}

// live counts the volumes that are not on their way out.
func live(found []cloud.Volume) int {
	n := 0
	for _, s := range found {
		if !ending(s.State) {
			n++
		}
	}
	return n
}

func ending(s cloud.State) bool { return s == cloud.Deleting || s == cloud.Deleted }

// pick chooses the volume of a name.
func pick(name string, found []cloud.Volume) (cloud.Volume, error) {
	var chosen cloud.Volume
	var ids []string
	for _, s := range found {
		if !ending(s.State) {
			ids = append(ids, s.ID)
		}
		switch {
		case chosen.ID == "":
			chosen = s
		case ending(chosen.State) && !ending(s.State):
			chosen = s
		case ending(chosen.State) == ending(s.State) && s.Created.After(chosen.Created):
			chosen = s
		}
	}
	if len(ids) > 1 {
		return cloud.Volume{}, &cloud.AmbiguousError{Name: name, IDs: ids}
	}
	if chosen.ID == "" {
		return cloud.Volume{}, notFound(ref{name: name})
	}
	return chosen, nil
}

// ByID returns the cluster's volume with that ID.
func (c *Client) ByID(ctx context.Context, id string) (cloud.Volume, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	v, err := c.lookByID(ctx, id)
	if err != nil {
		return cloud.Volume{}, c.explain("look up", ref{id: id}, err)
	}
	return v, nil
}

func (c *Client) lookByID(ctx context.Context, id string) (cloud.Volume, error) {
	if !volumeID.MatchString(id) {
		return cloud.Volume{}, notFound(ref{id: id})
	}
	found, err := c.byID.get(ctx, id)
	if err != nil {
		return cloud.Volume{}, err
	}
	if len(found) == 0 {
		return cloud.Volume{}, notFound(ref{id: id, name: c.known.get(id).name})
	}
	return found[0], nil
}

// List returns all volumes of the cluster.
func (c *Client) List(ctx context.Context) ([]cloud.Volume, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	found, err := c.describe(ctx, filter("tag:"+tagCluster, c.cfg.Cluster))
	if err != nil {
		return nil, c.explain("list the volumes of the cluster", ref{}, err)
	}
	return found, nil
}

func filter(name string, values ...string) types.Filter {
	escaped := make([]string, len(values))
	for i, value := range values {
		escaped[i] = escape(value)
	}
	return types.Filter{Name: aws.String(name), Values: escaped}
}

// describe asks for volumes by filters, never by VolumeIds [one missing ID fails the whole call], and returns those of the cluster.
func (c *Client) describe(ctx context.Context, filters ...types.Filter) ([]cloud.Volume, error) {
	var found []cloud.Volume
	at := map[string]int{} // a volume may be on two pages if the list changes between them
	err := c.pages(ctx, filters, func(v types.Volume) {
		volume, ours := toVolume(c.cfg.Cluster, v)
		if !ours {
			c.known.foreign(volume.ID)
			return
		}
		volume = c.known.saw(volume) // this is the proof that it may be changed
		if i, twice := at[volume.ID]; twice {
			found[i] = volume
			return
		}
		at[volume.ID] = len(found)
		found = append(found, volume)
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// pages asks for volumes by filters and hands on each of the answer, whosever it is.
func (c *Client) pages(ctx context.Context, filters []types.Filter, each func(types.Volume)) error {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	in := &ec2.DescribeVolumesInput{Filters: filters, MaxResults: aws.Int32(pageSize)}
	for {
		out, err := invoke(ctx, c, "DescribeVolumes", ec2api.DescribeVolumes, in)
		if err != nil {
			return err
		}
		c.clock.heard(out.ResultMetadata, c.now())
		for _, v := range out.Volumes {
			each(v)
		}
		if aws.ToString(out.NextToken) == "" {
			return nil
		}
		in.NextToken = out.NextToken
	}
}

// describeIDs asks for volumes by ID. It does not filter by tag, so that its answer does not wait for the index of tags.
func (c *Client) describeIDs(ctx context.Context, ids []string) (map[string]cloud.Volume, error) {
	found := make(map[string]cloud.Volume, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), filterValues)
		some, err := c.describe(ctx, filter("volume-id", ids[:n]...))
		if err != nil {
			return nil, err
		}
		for _, s := range some {
			found[s.ID] = s
		}
		ids = ids[n:]
	}
	return found, nil
}

// newBatcher makes a batcher that looks up our volumes by a filter: the tag with their name, or their ID.
func (c *Client) newBatcher(by string) *batcher {
	return &batcher{gather: c.timing.Gather, limit: c.timing.Lookup, ask: func(ctx context.Context, keys []string) (map[string][]cloud.Volume, error) {
		found, err := c.describe(ctx, filter("tag:"+tagCluster, c.cfg.Cluster), filter(by, keys...))
		if err != nil {
			return nil, err
		}
		answer := map[string][]cloud.Volume{}
		for _, s := range found {
			key := s.ID
			if by == "tag:"+tagName {
				key = s.Name
			}
			answer[key] = append(answer[key], s)
		}
		return answer, nil
	}}
}

// batcher joins look-ups. A caller that finds none in flight goes at once; those that come meanwhile go together as soon as it is
// back, or after gather, so that a slow answer holds nobody up. Nobody gets an answer to a question older than his own.
type batcher struct {
	ask    func(ctx context.Context, keys []string) (map[string][]cloud.Volume, error)
	gather time.Duration
	limit  time.Duration

	mu       sync.Mutex
	inFlight int
	next     *batch
}

type batch struct {
	ctx     context.Context
	cancel  context.CancelFunc
	keys    map[string]struct{}
	waiting int
	done    chan struct{}
	answer  map[string][]cloud.Volume
	err     error
}

func (b *batcher) get(ctx context.Context, key string) ([]cloud.Volume, error) {
	b.mu.Lock()
	mine := b.next
	if mine == nil {
		mine = &batch{keys: map[string]struct{}{}, done: make(chan struct{})}
		mine.ctx, mine.cancel = context.WithCancel(context.WithoutCancel(ctx))
		b.next = mine
	}
	first := len(mine.keys) == 0
	mine.keys[key] = struct{}{}
	mine.waiting++
	switch {
	case b.inFlight == 0 || len(mine.keys) == filterValues:
		b.launch(mine)
	case first:
		time.AfterFunc(b.gather, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.launch(mine)
		})
	}
	b.mu.Unlock()

	select {
	case <-mine.done:
		return mine.answer[key], mine.err
	case <-ctx.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		if mine.waiting--; mine.waiting == 0 && b.next != mine {
			mine.cancel()
		}
		return nil, ctx.Err()
	}
}

// launch sends the batch if it still is the one that gathers. The caller holds the lock.
func (b *batcher) launch(m *batch) {
	if b.next != m {
		return
	}
	b.next = nil
	if m.waiting == 0 {
		m.cancel()
		return
	}
	b.inFlight++
	keys := make([]string, 0, len(m.keys))
	for key := range m.keys {
		keys = append(keys, key)
	}
	go func() {
		defer m.cancel()
		ctx, cancel := context.WithTimeout(m.ctx, b.limit)
		defer cancel()
		m.answer, m.err = b.ask(ctx, keys)
		close(m.done)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.inFlight--
		if b.inFlight == 0 && b.next != nil {
			b.launch(b.next)
		}
	}()
}

package ec2sim

import (
	"maps"
	"strings"
	"unicode/utf8"
)

// EC2's limits of tags.
const (
	maxTags     = 50 // per resource, without aws: tags
	maxTagKey   = 128
	maxTagValue = 256
	maxTagged   = 1000 // resources in one CreateTags
)

// parseTags reads Tag.N.Key and Tag.N.Value.
func parseTags(p params) (map[string]string, error) {
	tags := map[string]string{}
	for _, t := range p.structs("Tag") {
		key, value := t["Key"], t["Value"]
		switch {
		case key == "":
			return nil, errorf(400, "InvalidParameterValue", "Tag key cannot be null or empty")
		case utf8.RuneCountInString(key) > maxTagKey:
			return nil, errorf(400, "InvalidParameterValue", "Tag key exceeds the maximum length of %d characters", maxTagKey)
		case utf8.RuneCountInString(value) > maxTagValue:
			return nil, errorf(400, "InvalidParameterValue", "Tag value exceeds the maximum length of %d characters", maxTagValue)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, errorf(400, "InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		}
		if _, twice := tags[key]; twice {
			return nil, errorf(400, "InvalidParameterValue", "Duplicate tag key '%s' specified.", key)
		}
		tags[key] = value
	}
	return tags, nil
}

// tagSpecification reads the tags of a new resource.
func tagSpecification(p params, resource string) (map[string]string, error) {
	tags := map[string]string{}
	for _, spec := range p.structs("TagSpecification") {
		if spec["ResourceType"] != resource {
			return nil, errorf(400, "InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", spec["ResourceType"])
		}
		some, err := parseTags(spec)
		if err != nil {
			return nil, err
		}
		maps.Copy(tags, some)
	}
	if len(tags) > maxTags {
		return nil, errTooManyTags()
	}
	return tags, nil
}

func errTooManyTags() *apiError {
	return errorf(400, "TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
}

// taggable is a resource whose tags can be changed.
type taggable struct {
	id, kind string
	tags     *map[string]string
	changed  func()
}

// taggables finds the resources of ResourceId.N.
func (s *Sim) taggables(c *call) ([]taggable, error) {
	ids := c.params.list("ResourceId")
	if len(ids) == 0 {
		return nil, errorf(400, "MissingParameter", "The request must contain the parameter resourceIdSet")
	}
	if len(ids) > maxTagged {
		return nil, errorf(400, "InvalidParameterValue", "At most %d resources can be tagged at once", maxTagged)
	}
	var out []taggable
	for _, id := range ids {
		switch {
		case strings.HasPrefix(id, "vol-"):
			if err := checkVolumeID(id); err != nil {
				return nil, err
			}
			v := s.state.Volumes[id]
			if v == nil {
				return nil, errNoVolume(id)
			}
			out = append(out, taggable{id, "volume", &v.Tags, func() { s.touch(v); v.past.freeze(c, s.now()) }})
		case strings.HasPrefix(id, "snap-"):
			if err := checkSnapshotID(id); err != nil {
				return nil, err
			}
			n := s.state.Snapshots[id]
			if n == nil {
				return nil, errNoSnapshot(id)
			}
			out = append(out, taggable{id, "snapshot", &n.Tags, func() { s.touchSnapshot(n); n.past.freeze(c, s.now()) }})
		case strings.HasPrefix(id, "i-"):
			i := s.state.Instances[id]
			if i == nil {
				return nil, errNoInstance(id)
			}
			out = append(out, taggable{id, "instance", &i.Tags, func() { s.dirty = true }})
		default:
			return nil, errorf(400, "InvalidID", "The ID '%s' is not valid", id)
		}
	}
	return out, nil
}

func (s *Sim) createTags(c *call) (any, error) {
	tags, err := parseTags(c.params)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, errorf(400, "MissingParameter", "The request must contain the parameter tagSet")
	}
	resources, err := s.taggables(c)
	if err != nil {
		return nil, err
	}
	merged := make([]map[string]string, len(resources))
	for n, r := range resources {
		merged[n] = map[string]string{}
		maps.Copy(merged[n], *r.tags)
		maps.Copy(merged[n], tags)
		if len(merged[n]) > maxTags {
			return nil, errTooManyTags()
		}
	}
	if c.dryRun {
		return nil, nil
	}
	for n, r := range resources {
		*r.tags = merged[n]
		r.changed()
	}
	return returned{true}, nil
}

// deleteTags removes the tags that are named; with a value (an empty one too) only if they have it, and without any name all.
func (s *Sim) deleteTags(c *call) (any, error) {
	resources, err := s.taggables(c)
	if err != nil {
		return nil, err
	}
	if c.dryRun {
		return nil, nil
	}
	named := c.params.structs("Tag")
	for _, r := range resources {
		kept := map[string]string{}
		for k, v := range *r.tags {
			gone := len(named) == 0
			for _, t := range named {
				value, only := t["Value"]
				gone = gone || (t["Key"] == k && (!only || value == v))
			}
			if !gone {
				kept[k] = v
			}
		}
		*r.tags = kept
		r.changed()
	}
	return returned{true}, nil
}

// tagLine is one tag of one resource, as DescribeTags lists them.
type tagLine struct {
	ResourceID   string `xml:"resourceId"`
	ResourceType string `xml:"resourceType"`
	Key          string `xml:"key"`
	Value        string `xml:"value"`
}

type tagsDescribed struct {
	Tags      set[tagLine] `xml:"tagSet"`
	NextToken string       `xml:"nextToken,omitempty"`
}

var tagFilters = filterTable[tagLine]{
	"key":           func(t tagLine) []string { return []string{t.Key} },
	"value":         func(t tagLine) []string { return []string{t.Value} },
	"resource-id":   func(t tagLine) []string { return []string{t.ResourceID} },
	"resource-type": func(t tagLine) []string { return []string{t.ResourceType} },
}

func (s *Sim) describeTags(c *call) (any, error) {
	// Here tag:KEY means a tag of that key whose value matches.
	match, err := compileFilters(c.params, tagFilters, func(t tagLine) map[string]string { return map[string]string{t.Key: t.Value} })
	if err != nil {
		return nil, err
	}
	var lines []tagLine
	add := func(id, kind string, tags map[string]string) {
		for k, v := range tags {
			if line := (tagLine{id, kind, k, v}); match(line) {
				lines = append(lines, line)
			}
		}
	}
	for _, v := range unhidden(c, s.seenVolumes()) {
		add(v.ID, "volume", v.Tags)
	}
	for _, n := range unhidden(c, s.seenSnapshots()) {
		add(n.ID, "snapshot", n.Tags)
	}
	for _, i := range s.state.Instances {
		add(i.ID, "instance", i.Tags)
	}
	lines, next, err := page(s, c, lines, func(t tagLine) string { return t.ResourceID + "\x00" + t.Key }, nil)
	if err != nil {
		return nil, err
	}
	return tagsDescribed{set[tagLine]{lines}, next}, nil
}

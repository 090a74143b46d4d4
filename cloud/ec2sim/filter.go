package ec2sim

import "strings"

// A filterTable says which values a resource has under each name of a filter. No value at all means that nothing matches.
type filterTable[T any] map[string]func(T) []string

// filterTags is what a filterTable needs to answer tag:KEY and tag-key; nil for resources without tags.
type filterTags[T any] func(T) map[string]string

// maxFilterValues is EC2's limit of values in one filter.
const maxFilterValues = 200

// compileFilters reads Filter.N.Name and Filter.N.Value.M into one test: all filters must match, each by any of its values.
func compileFilters[T any](p params, table filterTable[T], tags filterTags[T]) (func(T) bool, error) {
	var tests []func(T) bool
	for _, f := range p.structs("Filter") {
		name := f["Name"]
		if name == "" {
			return nil, errorf(400, "InvalidParameterValue", "The filter 'null' is invalid")
		}
		values := f.list("Value")
		if len(values) > maxFilterValues {
			return nil, errorf(400, "FilterLimitExceeded", "The maximum length for filter value list is %d", maxFilterValues)
		}
		get := table[name]
		if tags != nil {
			if key, ok := strings.CutPrefix(name, "tag:"); ok {
				get = func(r T) []string {
					if v, ok := tags(r)[key]; ok {
						return []string{v}
					}
					return nil
				}
			} else if name == "tag-key" {
				get = func(r T) []string {
					var keys []string
					for k := range tags(r) {
						keys = append(keys, k)
					}
					return keys
				}
			}
		}
		if get == nil {
			return nil, errorf(400, "InvalidParameterValue", "The filter '%s' is invalid", name)
		}
		if len(values) == 0 {
			return nil, errorf(400, "InvalidParameterValue", "The filter '%s' has no values", name)
		}
		tests = append(tests, func(r T) bool {
			for _, have := range get(r) {
				for _, pattern := range values {
					if wildcardMatch(pattern, have) {
						return true
					}
				}
			}
			return false
		})
	}
	return func(r T) bool {
		for _, test := range tests {
			if !test(r) {
				return false
			}
		}
		return true
	}, nil
}

// wildcardMatch compares as EC2's filters do: case counts, * stands for any text, ? for one character or none, and a backslash
// takes the meaning from what follows it.
func wildcardMatch(pattern, text string) bool {
	t := []rune(text)
	// reach[i] tells whether the pattern read so far can match the first i characters of the text.
	reach := make([]bool, len(t)+1)
	reach[0] = true
	escaped := false
	for _, c := range pattern {
		next := make([]bool, len(t)+1)
		switch {
		case !escaped && c == '\\':
			escaped = true
			continue
		case !escaped && c == '*':
			on := false
			for i := range reach {
				on = on || reach[i]
				next[i] = on
			}
		case !escaped && c == '?':
			for i := range reach {
				next[i] = reach[i] || (i > 0 && reach[i-1])
			}
		default:
			for i := 1; i < len(reach); i++ {
				next[i] = reach[i-1] && t[i-1] == c
			}
		}
		escaped = false
		reach = next
	}
	return reach[len(t)]
}

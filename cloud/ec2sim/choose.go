package ec2sim

import (
	"sort"
	"strings"
)

// choose returns the resources that have one of the IDs, or all when no ID is given, and that match. One missing ID fails the whole
// call and names all that are missing, as EC2 does.
func choose[T any](all map[string]T, ids []string, match func(T) bool, code, noun string) ([]T, error) {
	var missing []string
	wanted := map[string]bool{}
	for _, id := range ids {
		if _, ok := all[id]; !ok && !wanted[id] {
			missing = append(missing, id)
		}
		wanted[id] = true
	}
	sort.Strings(missing)
	switch {
	case len(missing) == 1:
		return nil, errorf(400, code, "The %s '%s' does not exist.", noun, missing[0])
	case len(missing) > 1:
		return nil, errorf(400, code, "The %ss '%s' do not exist.", noun, strings.Join(missing, ", "))
	}
	var out []T
	for id, r := range all {
		if (len(ids) == 0 || wanted[id]) && match(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/blockvol/blockvol/driver"
	"github.com/spf13/cobra"
)

// filters choose volumes, as Docker's --filter does: of several of one key one is enough, but for tags, which all have to be there; all keys
// have to fit.
type filters struct {
	given []string
	byKey map[string][]string
}

// filterKeys are the keys that --filter knows, and what of a volume each compares.
var filterKeys = map[string]func(v driver.VolumeRow, want string) bool{
	"name":    func(v driver.VolumeRow, want string) bool { return strings.Contains(v.Name, want) }, // as docker volume ls has it
	"id":      func(v driver.VolumeRow, want string) bool { return v.ID == want },
	"status":  func(v driver.VolumeRow, want string) bool { return strings.EqualFold(v.Status, want) },
	"type":    func(v driver.VolumeRow, want string) bool { return strings.EqualFold(v.Type, want) },
	"zone":    func(v driver.VolumeRow, want string) bool { return v.Zone == want },
	"host":    func(v driver.VolumeRow, want string) bool { return v.Host == want },
	"reclaim": func(v driver.VolumeRow, want string) bool { return strings.EqualFold(v.Reclaim, want) },
	"profile": func(v driver.VolumeRow, want string) bool { return v.Profile == want },
	"tag": func(v driver.VolumeRow, want string) bool {
		key, value, given := strings.Cut(want, "=")
		got, ok := v.Tags[key]
		return ok && (!given || got == value)
	},
}

// filterHelp tells what --filter understands.
const filterHelp = "show only volumes that fit: name=PART, id=ID, status=WORD, type=TYPE, zone=ZONE, host=INSTANCE, reclaim=RULE, profile=NAME, tag=KEY or tag=KEY=VALUE; may be given many times"

func (f *filters) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.given, "filter", "f", nil, filterHelp)
}

// check is to be called before anything is done.
func (f *filters) check() error {
	f.byKey = map[string][]string{}
	for _, g := range f.given {
		key, value, ok := strings.Cut(g, "=")
		if !ok || value == "" {
			return usagef("--filter %s is not KEY=VALUE", g)
		}
		if filterKeys[key] == nil {
			return usagef("--filter %s: %q is not known: use name, id, status, type, zone, host, reclaim, profile or tag", g, key)
		}
		f.byKey[key] = append(f.byKey[key], value)
	}
	return nil
}

func (f *filters) fits(v driver.VolumeRow) bool {
	for key, wanted := range f.byKey {
		fits := func(want string) bool { return filterKeys[key](v, want) }
		misses := func(want string) bool { return !fits(want) }
		if key == "tag" && slices.ContainsFunc(wanted, misses) || key != "tag" && !slices.ContainsFunc(wanted, fits) {
			return false
		}
	}
	return true
}

// choose returns the volumes that fit.
func (f *filters) choose(all []driver.VolumeRow) []driver.VolumeRow {
	chosen := []driver.VolumeRow{}
	for _, v := range all {
		if f.fits(v) {
			chosen = append(chosen, v)
		}
	}
	return chosen
}

// byNameOrID returns the volume that is meant by a name or an ID.
func byNameOrID(all []driver.VolumeRow, nameOrID string) (driver.VolumeRow, error) {
	for _, v := range all {
		if v.Name == nameOrID || v.ID != "" && v.ID == nameOrID {
			return v, nil
		}
	}
	return driver.VolumeRow{}, fmt.Errorf("there is no volume %q in this cluster", nameOrID)
}

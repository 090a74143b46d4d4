package options

import "fmt"

// Inherited is the part of a volume's attributes that belongs to its data: a volume that is made of that data, now or later, needs it in order to be
// mounted in the same way. It is what a snapshot keeps.
func Inherited(attrs map[string]string) map[string]string {
	kept := map[string]string{}
	for _, name := range append([]string{attrFS}, layoutNames...) {
		if value, ok := attrs[name]; ok {
			kept[name] = value
		}
	}
	return kept
}

// CheckTags refuses tags that EC2 or blockvol does not allow. The first that is wrong is told, in the order of the keys.
func CheckTags(tags map[string]string) error {
	for _, key := range sortedTags(tags) {
		if err := checkTag(key, tags[key]); err != nil {
			return fmt.Errorf("tag %s: %w", quote(key), err)
		}
	}
	return nil
}

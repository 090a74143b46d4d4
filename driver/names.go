package driver

import (
	"fmt"
	"regexp"
)

// validName is Docker's own rule for names of local volumes, with an upper bound; dockerd checks nothing for plugins, and hostile
// names ("../x", newlines) reach them as they were typed.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`)

// checkName tells whether a volume can have that name at all. Names are compared exactly: Data and data are two volumes.
func checkName(name string) error {
	if validName.MatchString(name) {
		return nil
	}
	if len(name) > 140 {
		name = name[:140] + "..."
	}
	return fmt.Errorf("volume name %q is not allowed: use 2 to 128 letters, digits, '_', '.' and '-', beginning with a letter or digit", name)
}

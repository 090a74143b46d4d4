//go:build faultpoints

package main

import (
	"github.com/blockvol/blockvol/driver"
	"github.com/blockvol/blockvol/driver/faultpoint"
)

// faultPoints makes the process die at the step that the file crash-at in the state folder names.
func faultPoints(state string) func(driver.Step, int) {
	p := &faultpoint.Points{Dir: state}
	return func(s driver.Step, tool int) { p.Reach(s.String(), tool) }
}

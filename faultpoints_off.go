//go:build !faultpoints

package main

import "github.com/blockvol/blockvol/driver"

// faultPoints is nil: this build dies nowhere on purpose.
func faultPoints(string) func(driver.Step, int) { return nil }

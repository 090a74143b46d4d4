//go:build race

package driver

// underRace: what only computes takes six times as long.
const underRace = true

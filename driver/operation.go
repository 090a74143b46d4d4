package driver

import (
	"context"
	"strings"

	"github.com/blockvol/blockvol/cloud"
)

// The operations that nobody asks for. Those that somebody does are named in operationOf.
const (
	OpStart    = "start"    // finding out which host this is, and what is on it
	OpSweep    = "sweep"    // looking for what nobody uses, at start and once a minute
	OpLetGo    = "let-go"   // unmounting and detaching after the last use, and after each sweep what nobody uses
	OpPurge    = "purge"    // deleting for good what was removed, once its time is over
	OpHealth   = "health"   // a question to EC2 for the sake of health alone
	OpSchedule = "schedule" // making and deleting the snapshots of a schedule
	OpShutdown = "shutdown" // letting go at the end
)

// operationOf names what a request is for, by its path: create, get, mount, ... for Docker's calls, verb-detach, verb-list, ... for those
// of `blockvol VERB`, and unknown for all others. The names are few whatever is asked.
func operationOf(path string) string {
	if _, call, ok := strings.Cut(path, "/VolumeDriver."); ok {
		return strings.ToLower(call)
	}
	if _, verb, ok := strings.Cut(path, AdminPath("")); ok {
		return "verb-" + strings.ToLower(verb)
	}
	if path == "/Plugin.Activate" {
		return "activate"
	}
	return "unknown"
}

// as returns ctx for an operation.
func as(ctx context.Context, op string) context.Context { return cloud.WithOperation(ctx, op) }

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// The exit codes of all verbs.
const (
	ExitDone    = 0
	ExitFailed  = 1 // it was tried, or could not be
	ExitUsage   = 2 // the command line is wrong
	ExitRefused = 3 // nothing was done, because it is not proven that nothing is lost by it
)

// ExitHelp tells the exit codes, for the help of the commands.
const ExitHelp = "Exit status: 0 done; 1 failed; 2 the command line is wrong; 3 refused, because it is not proven to be safe."

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error of the command line.
func usagef(format string, args ...any) error {
	return &exitError{code: ExitUsage, err: fmt.Errorf(format, args...)}
}

// Execute runs the command, tells its error, and returns the exit code.
func Execute(ctx context.Context, root *cobra.Command) int {
	// What fails before this hook runs is the command line.
	began := false
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	fmt.Fprintln(os.Stderr, "blockvol:", err)
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case !began:
		return ExitUsage
	}
	return ExitFailed
}

package cloud

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The errors of a provider, for errors.Is. What a provider returns wraps one of them with a text for the user.
var (
	ErrNotFound    = errors.New("no such volume")                            // a fact, as of the provider's answer
	ErrAmbiguous   = errors.New("several volumes have this name")            // a fact; see AmbiguousError
	ErrInUse       = errors.New("volume is attached to another host")        // see HolderError
	ErrClaimed     = errors.New("another host is taking the volume")         // Adopt
	ErrBusy        = errors.New("the host has not let go of the device")     // detach cannot complete
	ErrState       = errors.New("volume is not in a state that allows this") // creating, deleting, error
	ErrZone        = errors.New("volume is in another zone")
	ErrLimit       = errors.New("host cannot take more volumes")
	ErrQuota       = errors.New("account limit reached")
	ErrHost        = errors.New("host is not supported")
	ErrDenied      = errors.New("not permitted")
	ErrCredentials = errors.New("no valid credentials")
	ErrThrottled   = errors.New("request rate exceeded")
	ErrCapacity    = errors.New("provider has no room for such a volume at the moment")
	ErrInvalid     = errors.New("invalid request")
	ErrKMS         = errors.New("encryption key cannot be used")
	ErrVanished    = errors.New("volume vanished while it was being created")
	ErrTooSoon     = errors.New("volume cannot be modified again yet") // see TooSoonError
	ErrUnavailable = errors.New("provider cannot be reached")          // network, time-out, 5xx: nothing is known
	ErrConfig      = errors.New("blockvol is not configured")          // a setting is missing or wrong
)

// AmbiguousError says that several volumes of the cluster have one name. None of them is used or deleted until a person decides.
type AmbiguousError struct {
	Name string
	IDs  []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("volume %q exists %d times in this cluster (%s): blockvol uses none of them; keep one and delete or retag the others",
		e.Name, len(e.IDs), strings.Join(e.IDs, ", "))
}

// Is makes errors.Is(err, ErrAmbiguous) true.
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }

// HolderError says that another host has the volume.
type HolderError struct {
	Volume, ID string // the volume's name and ID
	Host       string // the holder's ID; empty if the provider did not say
	State      AttachState
}

func (e *HolderError) Error() string {
	holder := e.Host
	if holder == "" {
		holder = "another instance"
	}
	how := "attached to"
	if e.State != "" && e.State != Attached {
		how = string(e.State) + " on"
	}
	return fmt.Sprintf("volume %q (%s) is %s %s: stop the containers that use it there; it is released when the last one has ended", e.Volume, e.ID, how, holder)
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *HolderError) Is(target error) bool { return target == ErrInUse }

// TooSoonError says that a volume was modified so lately, or so often, that it cannot be modified now.
type TooSoonError struct {
	Volume, ID string
	Last       Modification // the latest one
	Next       time.Time    // when the provider allows the next one; zero: when the latest one is completed
	Cause      error        // what the provider said
}

func (e *TooSoonError) Error() string {
	text := fmt.Sprintf("volume %q (%s) cannot be modified yet: ", e.Volume, e.ID)
	if !e.Next.IsZero() {
		return text + fmt.Sprintf("the provider allows only some modifications of one volume a day, and the next one from %s on", e.Next.UTC().Format(time.RFC3339))
	}
	text += fmt.Sprintf("the modification of %s is still %s", e.Last.Started.UTC().Format(time.RFC3339), e.Last.State)
	if e.Last.State == ModifyOptimizing {
		text += fmt.Sprintf(" (%d %%; the volume has its new size already)", e.Last.Progress)
	}
	return text + "; try again when it is completed, which takes minutes to hours with the size of the volume"
}

// Is makes errors.Is(err, ErrTooSoon) true.
func (e *TooSoonError) Is(target error) bool { return target == ErrTooSoon }

// Unwrap returns what the provider said.
func (e *TooSoonError) Unwrap() error { return e.Cause }

// Error is a provider's refusal told for the user: Text is the whole sentence, Kind the sentinel, Cause what the provider said.
type Error struct {
	Kind  error
	Text  string
	Cause error
}

func (e *Error) Error() string { return e.Text }

// Unwrap makes errors.Is and errors.As see both the sentinel and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// Errorf makes an Error without a cause.
func Errorf(kind error, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

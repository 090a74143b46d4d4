package ec2sim

import "fmt"

// apiError is an error as EC2 answers it: an HTTP status, a code that programs read, and a message for people.
// Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
type apiError struct {
	Status  int
	Code    string
	Message string
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

func errorf(status int, code, format string, args ...any) *apiError {
	return &apiError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// The errors that several actions give.

func errNoVolume(id string) *apiError {
	return errorf(400, "InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
}

func errNoSnapshot(id string) *apiError {
	return errorf(400, "InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
}

func errNoInstance(id string) *apiError {
	return errorf(400, "InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
}

func errState(id, state string) *apiError {
	return errorf(400, "IncorrectState", "Volume '%s' is in the '%s' state.", id, state)
}

func errDryRun() *apiError {
	return errorf(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
}

func errShutDown() *apiError {
	return errorf(503, "Unavailable", "The simulator is shutting down.")
}

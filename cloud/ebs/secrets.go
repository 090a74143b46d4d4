package ebs

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// credentials marks a failure to get credentials, which the SDK otherwise reports as any other failure of the call, and remembers
// what must never be told.
type credentials struct {
	aws.CredentialsProvider
	secrets *secrets
}

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// Retrieve gets the credentials for one request.
func (p *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := p.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, &credentialsError{err}
	}
	p.secrets.used.Store(&found)
	return found, nil
}

// secrets are the credentials used last. An endpoint or a proxy may answer with what it was sent.
type secrets struct {
	used atomic.Pointer[aws.Credentials]
}

// redact takes the secrets out of a text.
func (s *secrets) redact(text string) string {
	used := s.used.Load()
	if used == nil {
		return text
	}
	for _, secret := range []string{used.SecretAccessKey, used.SessionToken} {
		if len(secret) >= 8 {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return text
}

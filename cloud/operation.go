package cloud

import "context"

type operationKey struct{}

// WithOperation returns a context whose calls are made for the operation of that name, e.g. mount. A provider may tell it to its own log:
// EBS tells it in the user agent, which CloudTrail shows.
func WithOperation(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, operationKey{}, name)
}

// Operation returns the name of the operation that ctx is for, or "".
func Operation(ctx context.Context) string {
	name, _ := ctx.Value(operationKey{}).(string)
	return name
}

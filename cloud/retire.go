package cloud

import (
	"context"
	"time"
)

// Retirer gives volumes up that are to be deleted, so that this can be undone for a while.
type Retirer interface {
	// Retire is Release for a volume that is to be deleted for good once delay has passed, by the provider's clock. Until then Adopt brings it
	// back, under its name or another.
	Retire(ctx context.Context, id string, delay time.Duration) error

	// GivenUp returns the volumes that the cluster has given up and that still exist, in no order: retired ones, and those that Release keeps.
	GivenUp(ctx context.Context) ([]GivenUp, error)

	// Purge deletes a retired volume for good. ErrState while its time is not over, or when it is to be kept; ErrInUse when something has it;
	// ErrClaimed when somebody brings it back or deletes it at this moment; ErrNotFound when it is gone, or the cluster's again.
	Purge(ctx context.Context, id string) error
}

// GivenUp is a volume that the cluster has given up.
type GivenUp struct {
	Volume                // its Name is the one that it had
	Since   time.Time     // when it was given up; zero if that is not known
	Retired bool          // it is to be deleted for good; else it is kept
	Until   time.Time     // of a retired one: before that it is not deleted
	Left    time.Duration // until then, by the provider's clock; nothing or less: it may be deleted
}

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

	// RetireToSnapshot is Retire for a volume that is to be deleted for good once there is a snapshot of it, which Preserve makes.
	RetireToSnapshot(ctx context.Context, id string) error

	// Preserve makes the snapshot of a volume that was retired to one, or finds it; its slot is set. It returns when the provider has accepted: the
	// snapshot may be pending. ErrState when the volume was not retired to a snapshot.
	Preserve(ctx context.Context, id string, spec SnapshotSpec) (Snapshot, error)

	// GivenUp returns the volumes that the cluster has given up and that still exist, in no order: retired ones, and those that Release keeps.
	GivenUp(ctx context.Context) ([]GivenUp, error)

	// Purge deletes a retired volume for good. ErrState while its time is not over or its snapshot not completed, or when it is to be kept; ErrInUse when something has it;
	// ErrClaimed when somebody brings it back or deletes it at this moment; ErrNotFound when it is gone, or the cluster's again.
	Purge(ctx context.Context, id string) error

	// Discard is Purge for any volume that the cluster has given up, whatever was meant to become of it. It is for a person who has decided so.
	Discard(ctx context.Context, id string) error
}

// RemovalSlot begins the slots of the snapshots that Preserve makes.
const RemovalSlot = "removed:"

// GivenUp is a volume that the cluster has given up.
type GivenUp struct {
	Volume                 // its Name is the one that it had
	Since    time.Time     // when it was given up; zero if that is not known
	Retired  bool          // it is to be deleted for good; else it is kept
	Snapshot bool          // of a retired one: as soon as a snapshot of it is completed
	Until    time.Time     // of any other retired one: not before that
	Left     time.Duration // until then, by the provider's clock; nothing or less: it may be deleted
}

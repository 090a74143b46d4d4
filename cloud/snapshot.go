package cloud

import (
	"context"
	"time"
)

// Snapshotter keeps the data of volumes at moments. Snapshots of other clusters, and those that blockvol did not make, do not exist for it,
// with one exception: a Spec may name any snapshot as the source of a new volume.
type Snapshotter interface {
	// CreateSnapshot keeps the volume as it is at a moment within the call: what was written to the device before is in it, what a filesystem has not
	// written yet is not. It returns when the provider has accepted; the snapshot may still be pending, and writes do not harm it any more.
	// With a slot it makes at most one: if a snapshot of the same volume and slot is there, that is returned. So it may be repeated after any
	// failure. ErrThrottled when the last snapshot of the volume is only seconds old.
	CreateSnapshot(ctx context.Context, spec SnapshotSpec) (Snapshot, error)

	// SnapshotByID returns the cluster's snapshot with that ID, or ErrNotFound.
	SnapshotByID(ctx context.Context, id string) (Snapshot, error)

	// AnySnapshot returns a snapshot of any owner that volumes can be made of, also of another cluster, or ErrNotFound.
	AnySnapshot(ctx context.Context, id string) (Snapshot, error)

	// Snapshots returns the cluster's snapshots, in no order: all, or those of one volume, by ID, which may be gone.
	Snapshots(ctx context.Context, volumeID string) ([]Snapshot, error)

	// WaitSnapshot waits until the snapshot is completed, so that volumes can be made of it. It fails when the snapshot has failed or is gone.
	WaitSnapshot(ctx context.Context, id string) error

	// DeleteSnapshot deletes a snapshot, also a pending one; ErrNotFound when it was gone already, ErrState when something uses it.
	DeleteSnapshot(ctx context.Context, id string) error
}

// SnapshotSpec is a snapshot to be made.
type SnapshotSpec struct {
	VolumeID    string
	Slot        string // what makes this one unlike others of the volume, such as the hour of a schedule; empty: like no other
	Description string // for the provider's console, at most 255 characters
	Attrs       map[string]string
	Tags        map[string]string
}

// SnapshotState is the life of a snapshot.
type SnapshotState string

// The states of a snapshot.
const (
	SnapshotPending   SnapshotState = "pending"
	SnapshotCompleted SnapshotState = "completed"
	SnapshotFailed    SnapshotState = "error"
)

// Snapshot is what the provider says of one snapshot.
type Snapshot struct {
	ID          string
	Cluster     string // that it belongs to; empty: blockvol did not make it
	VolumeID    string // of the volume that it was made of; may be gone
	Volume      string // the Docker volume's name at that time
	Slot        string // see SnapshotSpec
	Description string
	SizeGiB     int64 // of the volume; a volume that is made of it has at least this size
	Bytes       int64 // of data, 0 if not known (yet)
	State       SnapshotState
	Progress    int // percent
	Started     time.Time
	Encrypted   bool
	KMSKeyID    string

	// Newer is as in Volume.
	Newer error

	Attrs map[string]string // as in Volume
	Tags  map[string]string // as in Volume
}

// Modifier changes the form of volumes that exist.
type Modifier interface {
	// Modify asks the provider to change size, type or performance, in one step, also of a volume that is in use, and returns as soon as that is
	// accepted. What the volume has already is not asked for; if nothing is left, nothing happens. A repeated call finds the first
	// one. ErrInvalid for what is not possible, such as a smaller size; *TooSoonError when the provider does not allow it yet.
	Modify(ctx context.Context, id string, change Form) (Modification, error)

	// LastModification returns the volume's latest modification; its State is empty if there never was one.
	LastModification(ctx context.Context, id string) (Modification, error)

	// WaitModified waits until the latest modification has taken effect: the volume has its new form, and hosts see its new size. It fails when the
	// modification has failed.
	WaitModified(ctx context.Context, id string) (Modification, error)
}

// Form is what can be changed of a volume. In a change, 0 and "" mean: as it is.
type Form struct {
	SizeGiB    int64
	Type       string
	IOPS       int64
	Throughput int64 // MiB/s
}

// ModifyState is the life of a modification.
type ModifyState string

// The states of a modification. From ModifyOptimizing on the volume has its new form; until ModifyCompleted it may be slower, and no other
// modification can begin.
const (
	ModifyNone       ModifyState = ""
	ModifyModifying  ModifyState = "modifying"
	ModifyOptimizing ModifyState = "optimizing"
	ModifyCompleted  ModifyState = "completed"
	ModifyFailed     ModifyState = "failed"
)

// Modification is a change of a volume's form.
type Modification struct {
	State    ModifyState
	Progress int // percent
	From, To Form
	Message  string // of a failure, in the provider's words
	Started  time.Time
	Ended    time.Time
}

// InEffect tells whether the volume has its new form.
func (m Modification) InEffect() bool {
	return m.State == ModifyOptimizing || m.State == ModifyCompleted
}

// RecycleBin gives back what was deleted, where the account has set that up.
type RecycleBin interface {
	// RecycledVolumes lists what is in the bin, in no order. The provider does not tell whose they are: these are all of the account and region.
	RecycledVolumes(ctx context.Context) ([]Recycled, error)

	// RestoreVolume brings a deleted volume of the cluster back, with its ID, name and attributes, and returns it when it can be attached. ErrNotFound
	// when it is not in the bin. ErrState when it had been given up before it was deleted: it is given up again, and kept. If another volume has its name by now, both exist, and neither can be used until one of them is gone.
	RestoreVolume(ctx context.Context, id string) (Volume, error)

	// RecycledSnapshots is RecycledVolumes for snapshots.
	RecycledSnapshots(ctx context.Context) ([]Recycled, error)

	// RestoreSnapshot is RestoreVolume for snapshots.
	RestoreSnapshot(ctx context.Context, id string) (Snapshot, error)
}

// Recycled is something that was deleted and can be restored.
type Recycled struct {
	ID       string
	VolumeID string // of a snapshot: the volume that it was made of
	Form     Form   // of a volume
	Zone     string // of a volume
	Text     string // of a snapshot: its description
	Entered  time.Time
	Exit     time.Time // when it is gone for good
}

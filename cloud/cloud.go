// Package cloud is the contract between blockvol and a provider of networked block storage.
//
// What lives here: the words of the domain (Volume, Attachment, Host, Spec), the Cloud interface that every provider meets, and
// the errors a provider may answer with. What may be called from outside: everything. What it must never know about: Docker,
// filesystems, and any one provider. Providers are the folders below (ebs).
package cloud

import (
	"context"
	"time"
)

// Cloud is one account, region and cluster of a provider, as seen from one host. Volumes of other clusters, and volumes that
// blockvol did not make or has given up, do not exist for it: no method returns, changes or deletes one.
//
// Every method is safe for concurrent use, honours its context, and returns errors that wrap one of the sentinels of this
// package where one fits. The text of an error is made for the user: it names the volume, the cause and the way out.
type Cloud interface {
	// Host tells which host this is. It is looked up once and remembered after the first success.
	Host(ctx context.Context) (Host, error)

	// Warm looks up ahead what the first Attach will need. Its failure costs nothing but that time.
	Warm(ctx context.Context) error

	// ByName returns the cluster's volume of exactly that name, in any zone of the region and any state. No such volume (at the
	// moment of the provider's answer) is ErrNotFound; more than one is an *AmbiguousError. Concurrent calls share requests.
	ByName(ctx context.Context, name string) (Volume, error)

	// ByID returns the cluster's volume with that ID. ErrNotFound when the provider says that there is none, or that it is not ours.
	// Concurrent calls share requests; another volume's absence never shows here.
	ByID(ctx context.Context, id string) (Volume, error)

	// List returns all volumes of the cluster in the region, in no order.
	List(ctx context.Context) ([]Volume, error)

	// Create makes the volume that spec describes, or finds the one that an earlier or concurrent Create of the same name made,
	// and returns when it can be attached. One name is one volume: Create may be repeated after any failure, and after a Delete.
	// A volume of that name which differs from spec is returned together with no error when it was already there: the caller
	// compares. Create never deletes a volume.
	Create(ctx context.Context, spec Spec) (Volume, error)

	// Delete deletes a volume that is attached nowhere. It returns when the provider has accepted; ErrNotFound when it was gone
	// already, ErrInUse when it is attached.
	Delete(ctx context.Context, id string) error

	// Release gives up a volume that is attached nowhere, and keeps it: with its data it leaves the cluster's volumes, and its name is free at
	// once. It returns when the provider has confirmed; ErrNotFound when it was gone or given up already, ErrInUse when a host has it or
	// took it meanwhile: then it is the cluster's as before.
	Release(ctx context.Context, id string) error

	// Adopt brings a volume that blockvol did not make, or that this cluster has given up, to a name, and returns when the provider has
	// confirmed. Of several hosts that want it at the same moment one gets it; the others get ErrClaimed, as those do that come while it is
	// being decided. A volume that came to the name meanwhile is returned instead: the caller compares. A volume that cannot be adopted is
	// ErrNotFound, ErrZone, ErrInUse or ErrState, and left as it is. It is never formatted or deleted by that.
	Adopt(ctx context.Context, a Adoption) (Volume, error)

	// Adoptable returns the IDs of the volumes in this host's zone that Adopt would take at this moment, that have these tags, are no
	// volumes of any cluster, and have at least this size; the smallest first.
	Adoptable(ctx context.Context, tags map[string]string, minGiB int64) ([]string, error)

	// SetAttrs changes attributes (see Volume.Attrs) and returns when the provider has confirmed. Others keep their values.
	SetAttrs(ctx context.Context, id string, attrs map[string]string) error

	// Retag changes attributes and tags, as a user wants them, and returns when the provider shows it. Others keep their values. What is set goes
	// first. It may be repeated after any failure.
	Retag(ctx context.Context, id string, change Retag) error

	// Attach asks the provider to attach v to this host and returns as soon as that is accepted, without waiting for the device. v
	// is what ByName or ByID returned recently. Already attached or attaching to this host is success. ErrInUse (a *HolderError)
	// when another host has it, ErrZone when it lies in another zone, ErrLimit when this host can take no more volumes,
	// ErrHost when this kind of host is not supported.
	Attach(ctx context.Context, v Volume) error

	// Detach asks the provider to detach the volume from this host, never from another, never by force, and returns as soon as that is
	// accepted. Not attached to this host is success.
	Detach(ctx context.Context, id string) error

	// HostState tells what became of another host, for the decision whether a volume that it holds may be taken. A host that the provider does
	// not know is an error: it proves nothing.
	HostState(ctx context.Context, host string) (HostState, error)

	// HostHealth is HostState with what the provider's own checks say of the host, and whether it can be stopped.
	HostHealth(ctx context.Context, host string) (HostHealth, error)

	// StopHost asks the provider to stop another host, keeping nothing of its memory, and returns as soon as that is accepted. A host that is
	// stopping or stopped is success.
	StopHost(ctx context.Context, host string) error

	// DetachFrom asks the provider to detach the volume from another host, which the caller has proved to be dead; never by force. Not
	// attached to that host is success.
	DetachFrom(ctx context.Context, id, host string) error

	// ForceDetach asks the provider to detach the volume from a host that may still write to it, which loses what that host has not written
	// yet and may damage the filesystem. It is for a person who has decided so. Not attached to that host is success.
	ForceDetach(ctx context.Context, id, host string) error

	// WaitAttached waits until the volume's attachment to this host is complete, as the provider sees it; it fails when the attachment
	// has ended or was never there. Waits of many volumes share requests.
	WaitAttached(ctx context.Context, id string) error

	// WaitDetached waits until the volume has no attachment to this host. Waits of many volumes share requests. An attachment that
	// the provider reports as busy (the host has not let go) is ErrBusy as soon as it is seen.
	WaitDetached(ctx context.Context, id string) error

	Retirer
	Snapshotter
	Modifier
	RecycleBin
}

// Host is the machine blockvol runs on.
type Host struct {
	ID      string // the provider's name of the machine, e.g. i-0123456789abcdef0
	Type    string // e.g. m5.large
	Zone    string // e.g. eu-central-1a
	Region  string // e.g. eu-central-1
	Account string // the provider's name of the account that owns the machine, e.g. 123456789012; empty if unknown
}

// Power is whether a host runs.
type Power string

// The states of a host. Only Stopped and Terminated mean that nothing on it can write any more.
const (
	Pending      Power = "pending"
	Running      Power = "running"
	Stopping     Power = "stopping"
	Stopped      Power = "stopped"
	ShuttingDown Power = "shutting-down"
	Terminated   Power = "terminated"
)

// HostState is what the provider says of a host.
type HostState struct {
	ID         string
	Power      Power
	Hibernated bool   // stopped with its memory kept, or not certainly otherwise: it will resume with its filesystems mounted
	Reason     string // of the last change, in the provider's words
}

// Dead tells whether nothing on the host can write to a volume any more, now or after a start.
func (h HostState) Dead() bool {
	return h.Power == Terminated || h.Power == Stopped && !h.Hibernated
}

// HostHealth is what the provider's own checks say of a host, and whether it can be stopped.
type HostHealth struct {
	HostState
	System   Check  // of the machine below it
	Instance Check  // of its own system
	NoStop   string // why it must not or cannot be stopped; empty: nothing is known against it
}

// Check is one of the provider's checks of a host that runs.
type Check struct {
	Status string        // in the provider's words; see the constants
	Since  time.Time     // of CheckImpaired, as the provider tells it; else zero
	For    time.Duration // since Since, by the provider's clock where it tells the time
}

// The results of a check that decisions are made by. There are others; they prove nothing.
const (
	CheckOK           = "ok"
	CheckImpaired     = "impaired"
	CheckInitializing = "initializing"
)

// ImpairedFor tells how long one of the checks has been failing without a break: 0 while both pass, and while one has just begun, because a
// host that starts is not ill.
func (h HostHealth) ImpairedFor() time.Duration {
	if h.Power != Running || h.System.Status == CheckInitializing || h.Instance.Status == CheckInitializing {
		return 0
	}
	return max(h.System.impairedFor(), h.Instance.impairedFor())
}

func (c Check) impairedFor() time.Duration {
	if c.Status != CheckImpaired || c.Since.IsZero() {
		return 0
	}
	return c.For
}

// State is the life of a volume.
type State string

// The states of a volume. Attached or not is told by Volume.Attachments alone [EC2 shows in-use as soon as an attach begins].
const (
	Creating  State = "creating"
	Available State = "available"
	InUse     State = "in-use"
	Deleting  State = "deleting"
	Deleted   State = "deleted"
	Failed    State = "error"
)

// AttachState is the life of an attachment.
type AttachState string

// The states of an attachment. Busy is a detach that cannot complete because the host still uses the device.
const (
	Attaching AttachState = "attaching"
	Attached  AttachState = "attached"
	Detaching AttachState = "detaching"
	Busy      AttachState = "busy"
)

// Attachment is one host's hold on a volume.
type Attachment struct {
	Host   string // Host.ID of the holder
	Device string // the name that was asked for, e.g. /dev/xvdaa; says nothing about the name the kernel gives
	State  AttachState
	Since  time.Time
}

// Volume is what the provider says of one volume.
type Volume struct {
	ID          string
	Name        string // the Docker volume's name
	Serial      string // what the kernel of a host shows as the serial of the volume's device; never empty
	SizeGiB     int64
	Type        string // gp3, io2, ...
	IOPS        int64  // provisioned or baseline, 0 if the type has none
	Throughput  int64  // MiB/s, 0 if the type has none
	Encrypted   bool
	KMSKeyID    string
	Zone        string
	State       State
	SnapshotID  string // the snapshot or volume it was made from; if not empty the volume was never blank
	MultiAttach bool
	Created     time.Time
	Attachments []Attachment // without those that have ended

	// Newer is not nil when a newer blockvol has made the volume, in a way that this version does not know; its text says so. Such a volume
	// exists and is told of like any other, and can be detached from this host. Every other change is refused with this error.
	Newer error

	// Attrs is what blockvol itself keeps with the volume (see package driver), without the provider's prefix for it. Kept by the provider
	// as tags with the prefix "blockvol:", so that every host of the cluster reads the same.
	Attrs map[string]string
	// Tags are all other tags, as the user and the company set them.
	Tags map[string]string
}

// On returns the volume's attachment to the host with that ID.
func (v Volume) On(host string) (Attachment, bool) {
	for _, a := range v.Attachments {
		if a.Host == host {
			return a, true
		}
	}
	return Attachment{}, false
}

// Elsewhere returns an attachment to any other host than the one with that ID.
func (v Volume) Elsewhere(host string) (Attachment, bool) {
	for _, a := range v.Attachments {
		if a.Host != host {
			return a, true
		}
	}
	return Attachment{}, false
}

// Spec is a volume to be made. Two hosts that are asked for the same volume must build equal Specs, but for Zone: nothing in it
// may depend on a host or on the time.
type Spec struct {
	Name       string
	SizeGiB    int64  // 0 with one of the two below: as large as that
	SnapshotID string // a snapshot that the volume is made of, of any owner; it must be completed
	SourceID   string // a volume of the cluster that it becomes a copy of, as that is during the Create; where the provider cannot copy, by way of a snapshot
	Type       string
	IOPS       int64 // 0: the type's default
	Throughput int64 // MiB/s; 0: the type's default
	Encrypted  bool  // false: the account's default
	KMSKeyID   string
	Zone       string
	Attrs      map[string]string
	Tags       map[string]string

	// Taken, if not nil, is called once the data are those of a moment that has passed: what is written to SourceID from then on is not in the copy.
	// It is not called if that never came.
	Taken func()
}

// Retag is a change of what is written on a volume.
type Retag struct {
	Attrs, Tags         map[string]string // get these values
	DropAttrs, DropTags []string          // go; one that is not there is gone already
}

// Adoption is a volume to be brought to a name.
type Adoption struct {
	ID    string            // the provider's
	Name  string            // of the Docker volume
	Attrs map[string]string // of a volume that blockvol did not make
	Given map[string]string // of one that this cluster has given up: its other attributes stay
	Tags  map[string]string
	Back  bool               // only a volume that this cluster has given up; any other is ErrNotFound
	Check func(Volume) error // told of the volume before anything is done with it; an error refuses it; nil: it fits
}

// Package driver is blockvol on one host: the Docker volume API on one side, the life of each volume on this host on the other.
//
// The way through it: Server (server.go, api.go) decodes a request and calls the Manager; the Manager (manager.go) has one record per
// volume (volume.go) and brings together what the cloud says (lookup.go), what the kernel says (package disk) and what Docker asked for
// (mount.go, settle.go, create.go, remove.go). settle.go is the only code that unmounts or detaches, for requests and in the background
// alike. ledger.go keeps what must outlive the process.
//
// Three truths, in this order: the kernel says what is mounted and in use here; the cloud says which volumes exist, whose they are and
// where they are attached; the ledger of mount IDs is a hint, and never a reason to touch what the first two say is in use.
//
// It must never know which provider it talks to (package cloud is the contract) nor how a filesystem is made (package disk).
package driver

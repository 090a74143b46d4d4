// Package ec2sim is a simulator of Amazon EC2, of its instance metadata service, and of the block devices that a host gets when a
// volume is attached to it.
//
// What lives here: the EC2 query API over HTTP (form-encoded requests, XML answers) for volumes, snapshots, attachments, tags and instances;
// IMDSv2; volumes and snapshots as sparse files; attachments as loop devices, shown to each simulated host as NVMe devices in a folder of its
// own; faults that can be asked for by name; the command `blockvol sim`. What may be called from outside: Sim and the types it
// takes and returns, Command. What it must never know about: the AWS SDK, and anything of blockvol. It is judged by the AWS CLI and the SDK.
//
// The way of a request: Handler (api.go) -> the table of actions (actions.go) -> state (state.go) -> the scheduler (schedule.go),
// which lets states change later -> devices (plug.go, loop.go).
package ec2sim

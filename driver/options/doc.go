// Package options understands what a user writes after -o in docker volume create.
//
// What lives here: the one table of options (names, aliases, defaults, meanings), their parsing, the limits of EBS volume types, the
// texts made from the table (help, docs/options.md), and the way from options to a cloud.Spec, to the attributes that are stored with
// a volume, and back from there to a Layout on another host. What may be called from outside: everything exported. What it must
// never know about: Docker's protocol, the host it runs on, EC2's API, devices, and how a filesystem is made or mounted.
//
// Nothing here waits, reads a file or depends on time: the same arguments give the same answer on every host.
package options

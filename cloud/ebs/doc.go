// Package ebs is Amazon EBS behind the contract of package cloud, on the AWS SDK for Go v2.
//
// What lives here: which volumes are ours (tags), idempotent creation, device names and attach limits, shared look-ups and waits, and
// the translation of EC2's errors into sentences for the user. EC2 is the only state; what a Client remembers makes calls
// unnecessary or orders them, and may be lost at any time.
//
// What may be called from outside: New, and the methods of Client. What it must never know about: Docker, filesystems, block devices of
// the kernel. A name such as /dev/xvdaa is only an argument of AttachVolume here.
package ebs

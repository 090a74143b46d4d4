package driver

// Step is a place on a volume's way at which the process may die. Each must leave a world from which the next process goes on without loss;
// the tests kill the process at every one.
type Step int

// The steps, in the order in which a volume's life passes them. Every one has a row in Steps.
const (
	StepCreate Step = iota
	StepCreateSent
	StepCreateNoted
	StepStop
	StepStopSent
	StepTake
	StepTakeSent
	StepAttach
	StepAttachSent
	StepDevice
	StepProbe
	StepProbed
	StepMarked
	StepMkfs
	StepMade
	StepTagged
	StepFsck
	StepChecked
	StepMountpoint
	StepMounted
	StepRoot
	StepGrown
	StepMountNoted
	StepUnmountNoted
	StepUnmount
	StepUnmounted
	StepFree
	StepGrace
	StepDetach
	StepDetachSent
	StepDetached
	StepRemove
	StepRemoveSent
	StepRemoveNoted
	StepRelease
	StepReleaseSent
	StepRetire
	StepRetireSent
	StepPreserve
	StepPreserved
	StepPurge
	StepPurged
	StepAdopt
	StepAdopted
	StepRecognised
	StepFreeze
	StepFrozen
	StepSnapshotSent
	StepThawed
	StepModify
	StepModifySent
	StepEnlarged
	StepEnlargeNoted
	stepCount
)

// Steps is what each step is called, which request passes it, and where the world then stands. Requests: create, mount, format (a mount
// that makes the filesystem), take (a mount that takes the volume from a dead host), stop (one that has an ill host stopped first), unmount,
// remove, release (a remove of a volume that is kept), retire (a remove that can be undone for a while), purge (the end of that while, for which
// nobody waits), preserve (the snapshot of a volume that is removed to become one), adopt (a create that takes a volume that exists), adopted (the first mount of such a
// volume), snapshot (of a volume that is mounted here), update (a change of the size of a volume that is mounted here).
var Steps = [stepCount]struct{ Name, Of, Means string }{
	StepCreate:       {"create", "create", "the name was looked up and is free; CreateVolume is about to be sent"},
	StepCreateSent:   {"create-sent", "create", "CreateVolume was accepted; nothing of it is written down here"},
	StepCreateNoted:  {"create-noted", "create", "the ledger names the volume; Docker has no answer"},
	StepStop:         {"stop", "stop", "the host that has the volume has been ill for long enough, twice; StopInstances is about to be sent for it"},
	StepStopSent:     {"stop-sent", "stop", "that StopInstances was accepted; its end is waited for"},
	StepTake:         {"take", "take", "the host that has the volume is dead, twice; DetachVolume is about to be sent for it"},
	StepTakeSent:     {"take-sent", "take", "that DetachVolume was accepted; its end is waited for"},
	StepAttach:       {"attach", "mount", "the volume is free; AttachVolume is about to be sent"},
	StepAttachSent:   {"attach-sent", "mount", "AttachVolume was accepted; the device is waited for"},
	StepDevice:       {"device", "mount", "the device is here"},
	StepProbe:        {"probe", "mount", "the device is proven free and locked; it is about to be read"},
	StepProbed:       {"probed", "format", "the device was found to be blank and the volume's tag allows a format"},
	StepMarked:       {"marked", "format", "the tag says formatting, and EC2 has confirmed it"},
	StepMkfs:         {"mkfs", "format", "mkfs is writing to the device"},
	StepMade:         {"made", "format", "the filesystem is complete; the tag still says formatting"},
	StepTagged:       {"tagged", "format", "the tag names the filesystem: from here on it is never formatted again"},
	StepFsck:         {"fsck", "mount", "e2fsck is working on the device"},
	StepChecked:      {"checked", "mount", "the filesystem is sound; no mountpoint exists"},
	StepMountpoint:   {"mountpoint", "mount", "the mountpoint was made; nothing is mounted on it"},
	StepMounted:      {"mounted", "mount", "the filesystem is mounted; the folder for containers may be missing"},
	StepRoot:         {"root", "mount", "the folder for containers is there; the filesystem has not been grown"},
	StepGrown:        {"grown", "mount", "the filesystem is as large as the device; no use is written down"},
	StepMountNoted:   {"mount-noted", "mount", "the ledger names the use; Docker has no answer"},
	StepUnmountNoted: {"unmount-noted", "unmount", "the ledger says that the use has ended; the filesystem is mounted"},
	StepUnmount:      {"unmount", "unmount", "nobody uses the volume; it is about to be unmounted"},
	StepUnmounted:    {"unmounted", "unmount", "it is unmounted; the empty mountpoint is there"},
	StepFree:         {"free", "unmount", "the device is proven free, and claimed"},
	StepGrace:        {"grace", "unmount", "the volume stays attached for a while, in case the container comes back"},
	StepDetach:       {"detach", "unmount", "the grace is over and the device is free; DetachVolume is about to be sent"},
	StepDetachSent:   {"detach-sent", "unmount", "DetachVolume was accepted; its end is waited for"},
	StepDetached:     {"detached", "unmount", "EC2 says that the volume is free; nothing of it is written down here"},
	StepRemove:       {"remove", "remove", "the volume is proven unused and free; DeleteVolume is about to be sent"},
	StepRemoveSent:   {"remove-sent", "remove", "DeleteVolume was accepted; the ledger still names the volume"},
	StepRemoveNoted:  {"remove-noted", "remove", "the ledger has forgotten the volume; Docker has no answer"},
	StepRelease:      {"release", "release", "the volume is proven unused and free, and is to be kept; the tags that give it up are about to be sent"},
	StepReleaseSent:  {"release-sent", "release", "EC2 shows that the volume is given up; the ledger still names it"},
	StepRetire:       {"retire", "retire", "the volume is proven unused and free; the tags that give it up until its time is over are about to be sent"},
	StepRetireSent:   {"retire-sent", "retire", "EC2 shows that the volume is given up; the ledger still names it"},
	StepPreserve:     {"preserve", "preserve", "a volume is removed that is to become a snapshot; that is about to be looked for, and made"},
	StepPreserved:    {"preserved", "preserve", "CreateSnapshot was accepted; the snapshot is pending or completed, and the volume is there"},
	StepPurge:        {"purge", "purge", "the time of a removed volume is over; it is about to be claimed and deleted for good"},
	StepPurged:       {"purged", "purge", "DeleteVolume was accepted for it"},
	StepAdopt:        {"adopt", "adopt", "the name was looked up and is free; the volume that exists is about to be claimed and bound to it"},
	StepAdopted:      {"adopted", "adopt", "EC2 shows that the volume has the name; nothing of it is written down here"},
	StepFreeze:       {"freeze", "snapshot", "the volume is mounted here and has a filesystem, which is about to be frozen"},
	StepFrozen:       {"frozen", "snapshot", "the filesystem is frozen; CreateSnapshot is about to be sent"},
	StepSnapshotSent: {"snapshot-sent", "snapshot", "CreateSnapshot was accepted; the filesystem is frozen"},
	StepThawed:       {"thawed", "snapshot", "the filesystem is thawed; nobody has been told of the snapshot"},
	StepRecognised:   {"recognised", "adopted", "the filesystem of the adopted volume was found, and its tags name it"},
	StepModify:       {"modify", "update", "what is to be changed is checked; ModifyVolume is about to be sent"},
	StepModifySent:   {"modify-sent", "update", "ModifyVolume was accepted; its effect is waited for"},
	StepEnlarged:     {"enlarged", "update", "the kernel shows the new size of the device; the filesystem has the old one"},
	StepEnlargeNoted: {"enlarge-noted", "update", "the filesystem is as large as the device; nobody was told"},
}

// String is the step's name.
func (s Step) String() string { return Steps[s].Name }

// toolSteps are the steps that happen inside a filesystem tool.
var toolSteps = map[string]Step{"mkfs.ext4": StepMkfs, "mkfs.xfs": StepMkfs, "e2fsck": StepFsck}

// step tells whoever wants to know that a step is reached.
func (m *Manager) step(s Step) {
	if m.cfg.Step != nil {
		m.cfg.Step(s, 0)
	}
}

// toolStep is step for what happens inside a filesystem tool, while the tool runs.
func (m *Manager) toolStep(tool string, pid int) {
	if s, ok := toolSteps[tool]; ok {
		m.cfg.Step(s, pid)
	}
}

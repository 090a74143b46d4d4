package ec2sim

// An action is one verb of the EC2 API.
type action struct {
	do       func(*Sim, *call) (any, error) // called with s.mu held; returns the fields of the answer
	mutating bool
	bucket   string // see Limits.Throttle
	params   string // besides Action, Version and DryRun; any other is refused
}

// Buckets of calls, for throttling. EC2 keeps one bucket per action; these name the default size.
const (
	bucketRead  = "read"
	bucketWrite = "write"
)

// actions is the one table of what the simulator can do.
var actions = map[string]action{
	"CreateVolume": {(*Sim).createVolume, true, bucketWrite,
		"AvailabilityZone AvailabilityZoneId ClientToken Encrypted Iops KmsKeyId MultiAttachEnabled Size SnapshotId TagSpecification Throughput VolumeType"},
	"DeleteVolume":    {(*Sim).deleteVolume, true, bucketWrite, "VolumeId"},
	"DescribeVolumes": {(*Sim).describeVolumes, false, bucketRead, "Filter MaxResults NextToken VolumeId"},
	"AttachVolume":    {(*Sim).attachVolume, true, bucketWrite, "Device InstanceId VolumeId"},
	"DetachVolume":    {(*Sim).detachVolume, true, bucketWrite, "Device Force InstanceId VolumeId"},
	"CreateTags":      {(*Sim).createTags, true, bucketWrite, "ResourceId Tag"},
	"DeleteTags":      {(*Sim).deleteTags, true, bucketWrite, "ResourceId Tag"},
	"DescribeTags":    {(*Sim).describeTags, false, bucketRead, "Filter MaxResults NextToken"},

	"CopyVolumes": {(*Sim).copyVolumes, true, bucketWrite,
		"ClientToken Encrypted Iops KmsKeyId MultiAttachEnabled Size SourceVolumeId TagSpecification Throughput VolumeType"},
	"ModifyVolume":                 {(*Sim).modifyVolume, true, bucketWrite, "Iops MultiAttachEnabled Size Throughput VolumeId VolumeType"},
	"DescribeVolumesModifications": {(*Sim).describeModifications, false, bucketRead, "Filter MaxResults NextToken VolumeId"},
	"DescribeVolumeStatus":         {(*Sim).describeVolumeStatus, false, bucketRead, "Filter MaxResults NextToken VolumeId"},
	"ListVolumesInRecycleBin":      {(*Sim).listRecycledVolumes, false, bucketRead, "MaxResults NextToken VolumeId"},
	"RestoreVolumeFromRecycleBin":  {(*Sim).restoreVolume, true, bucketWrite, "VolumeId"},

	"CreateSnapshot":                {(*Sim).createSnapshot, true, bucketWrite, "Description TagSpecification VolumeId"},
	"DeleteSnapshot":                {(*Sim).deleteSnapshot, true, bucketWrite, "SnapshotId"},
	"DescribeSnapshots":             {(*Sim).describeSnapshots, false, bucketRead, "Filter MaxResults NextToken Owner RestorableBy SnapshotId"},
	"ListSnapshotsInRecycleBin":     {(*Sim).listRecycledSnapshots, false, bucketRead, "MaxResults NextToken SnapshotId"},
	"RestoreSnapshotFromRecycleBin": {(*Sim).restoreSnapshot, true, bucketWrite, "SnapshotId"},

	"DescribeInstances":         {(*Sim).describeInstances, false, bucketRead, "Filter InstanceId MaxResults NextToken"},
	"DescribeInstanceStatus":    {(*Sim).describeInstanceStatus, false, bucketRead, "Filter IncludeAllInstances InstanceId MaxResults NextToken"},
	"DescribeInstanceTypes":     {(*Sim).describeInstanceTypes, false, bucketRead, "Filter InstanceType MaxResults NextToken"},
	"DescribeInstanceAttribute": {(*Sim).describeInstanceAttribute, false, bucketRead, "Attribute InstanceId"},
	"ModifyInstanceAttribute": {(*Sim).modifyInstanceAttribute, true, bucketWrite,
		"Attribute BlockDeviceMapping DisableApiStop DisableApiTermination InstanceId Value"},
	"RunInstances": {(*Sim).runInstances, true, bucketWrite,
		"ClientToken DisableApiStop DisableApiTermination HibernationOptions ImageId InstanceMarketOptions InstanceType MaxCount MinCount Placement TagSpecification"},
	"StartInstances":     {(*Sim).startInstances, true, bucketWrite, "InstanceId"},
	"StopInstances":      {(*Sim).stopInstances, true, bucketWrite, "Force Hibernate InstanceId SkipOsShutdown"},
	"RebootInstances":    {(*Sim).rebootInstances, true, bucketWrite, "InstanceId"},
	"TerminateInstances": {(*Sim).terminateInstances, true, bucketWrite, "Force InstanceId SkipOsShutdown"},

	"DescribeAvailabilityZones": {(*Sim).describeZones, false, bucketRead, "AllAvailabilityZones Filter ZoneId ZoneName"},
}

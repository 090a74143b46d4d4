package ec2sim

// instanceType is what the simulator knows of an instance type.
type instanceType struct {
	hypervisor     string // nitro or xen
	arch           string
	vcpus          int
	memoryMiB      int
	maxAttachments int  // with the root disk
	shared         bool // network interfaces count too
	burstable      bool
}

// instanceTypes is a small choice. Numbers as DescribeInstanceTypes gives them in EbsInfo; Xen's is the documented recommendation.
var instanceTypes = map[string]instanceType{
	"m5.large":     {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 8192, maxAttachments: 27, shared: true},
	"m5.xlarge":    {hypervisor: "nitro", arch: "x86_64", vcpus: 4, memoryMiB: 16384, maxAttachments: 27, shared: true},
	"m6i.large":    {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 8192, maxAttachments: 27, shared: true},
	"m7i.large":    {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 8192, maxAttachments: 32},
	"m7i.48xlarge": {hypervisor: "nitro", arch: "x86_64", vcpus: 192, memoryMiB: 786432, maxAttachments: 128},
	"t3.micro":     {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 1024, maxAttachments: 27, shared: true, burstable: true},
	"t3.medium":    {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 4096, maxAttachments: 27, shared: true, burstable: true},
	"t4g.micro":    {hypervisor: "nitro", arch: "arm64", vcpus: 2, memoryMiB: 1024, maxAttachments: 27, shared: true, burstable: true},
	"c5.large":     {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 4096, maxAttachments: 27, shared: true},
	"c7g.medium":   {hypervisor: "nitro", arch: "arm64", vcpus: 1, memoryMiB: 2048, maxAttachments: 27, shared: true},
	"c7g.large":    {hypervisor: "nitro", arch: "arm64", vcpus: 2, memoryMiB: 4096, maxAttachments: 27, shared: true},
	"r5.large":     {hypervisor: "nitro", arch: "x86_64", vcpus: 2, memoryMiB: 16384, maxAttachments: 27, shared: true},
	"m5.metal":     {hypervisor: "nitro", arch: "x86_64", vcpus: 96, memoryMiB: 393216, maxAttachments: 31, shared: true},
	"t2.micro":     {hypervisor: "xen", arch: "x86_64", vcpus: 1, memoryMiB: 1024, maxAttachments: 39, burstable: true},
	"m4.large":     {hypervisor: "xen", arch: "x86_64", vcpus: 2, memoryMiB: 8192, maxAttachments: 39},
}

// limitType is EC2's word for whether network interfaces count.
func (t instanceType) limitType() string {
	if t.shared {
		return "shared"
	}
	return "dedicated"
}

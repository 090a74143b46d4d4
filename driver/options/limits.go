package options

import (
	"fmt"
	"strings"
)

// limits is what EC2 allows for one volume type. EC2 remains the judge: some regions and zones allow less.
type limits struct {
	name             string
	minGiB, maxGiB   int64
	minIOPS, maxIOPS int64 // both 0: IOPS cannot be chosen
	iopsPerGiB       int64 // a volume gets at most this many IOPS for each GiB ...
	baseIOPS         int64 // ... but always this many, which is also what it has when nobody asks; 0: IOPS must be asked for
	minMiBs, maxMiBs int64 // throughput in MiB/s; both 0: it cannot be chosen
	iopsPerMiBs      int64 // IOPS that each MiB/s of throughput needs
}

// types is the only list of volume types and their limits. Sizes, IOPS and throughput: doc comments of CreateVolumeInput and
// ModifyVolumeInput in aws-sdk-go-v2/service/ec2 v1.344.0. Ratios of IOPS to size and of throughput to IOPS: the pages on General
// Purpose and Provisioned IOPS volumes of the Amazon EBS User Guide (gp3 500 IOPS per GiB and 0.25 MiB/s per IOPS, io1 50, io2 1000).
var types = []limits{
	{name: "gp3", minGiB: 1, maxGiB: 65536, minIOPS: 3000, maxIOPS: 80000, iopsPerGiB: 500, baseIOPS: 3000, minMiBs: 125, maxMiBs: 2000, iopsPerMiBs: 4},
	{name: "gp2", minGiB: 1, maxGiB: 16384},
	{name: "io1", minGiB: 4, maxGiB: 16384, minIOPS: 100, maxIOPS: 64000, iopsPerGiB: 50},
	{name: "io2", minGiB: 4, maxGiB: 65536, minIOPS: 100, maxIOPS: 256000, iopsPerGiB: 1000},
	{name: "st1", minGiB: 125, maxGiB: 16384},
	{name: "sc1", minGiB: 125, maxGiB: 16384},
	{name: "standard", minGiB: 1, maxGiB: 1024},
}

func typeNames() string {
	var names []string
	for _, l := range types {
		names = append(names, l.name)
	}
	return strings.Join(names, ", ")
}

// typesWith names the types for which something is allowed, for error texts.
func typesWith(has func(limits) bool) string {
	var names []string
	for _, l := range types {
		if has(l) {
			names = append(names, l.name)
		}
	}
	return strings.Join(names, ", ")
}

func limitsOf(name string) (limits, bool) {
	for _, l := range types {
		if l.name == name {
			return l, true
		}
	}
	return limits{}, false
}

// topIOPS is the most IOPS that a volume of that size can have.
func (l limits) topIOPS(gib int64) int64 {
	return max(min(l.iopsPerGiB*gib, l.maxIOPS), l.baseIOPS)
}

// check returns every way in which a volume would be outside the limits, as sentences. iops and mibs are 0 if nobody asked.
func (l limits) check(gib, iops, mibs int64) []string {
	var bad []string
	sizeOK := gib >= l.minGiB && gib <= l.maxGiB
	if !sizeOK {
		text := fmt.Sprintf("size is %d GiB: volumes of type %s have %d to %d GiB", gib, l.name, l.minGiB, l.maxGiB)
		if gib > 1<<20 {
			text += " (a number without a unit counts GiB)"
		}
		bad = append(bad, text)
	}
	switch {
	case l.maxIOPS == 0:
		if iops != 0 {
			bad = append(bad, fmt.Sprintf("iops cannot be chosen for type %s: leave it out, or use one of %s", l.name,
				typesWith(func(l limits) bool { return l.maxIOPS > 0 })))
		}
	case iops == 0:
		if l.baseIOPS == 0 {
			text := fmt.Sprintf("type %s needs iops=N: %d to %d, at most %d per GiB", l.name, l.minIOPS, l.maxIOPS, l.iopsPerGiB)
			if sizeOK {
				text = fmt.Sprintf("type %s needs iops=N: %d to %d for %d GiB (%d per GiB)", l.name, l.minIOPS, l.topIOPS(gib), gib, l.iopsPerGiB)
			}
			bad = append(bad, text)
		}
	case iops < l.minIOPS || iops > l.maxIOPS:
		bad = append(bad, fmt.Sprintf("iops is %d: volumes of type %s have %d to %d IOPS", iops, l.name, l.minIOPS, l.maxIOPS))
	case sizeOK && iops > l.topIOPS(gib):
		need := (iops + l.iopsPerGiB - 1) / l.iopsPerGiB
		bad = append(bad, fmt.Sprintf("iops is %d: a %s volume of %d GiB has at most %d IOPS (%d per GiB); ask for less or for size=%dGiB",
			iops, l.name, gib, l.topIOPS(gib), l.iopsPerGiB, need))
	}
	switch {
	case mibs == 0:
	case l.maxMiBs == 0:
		bad = append(bad, fmt.Sprintf("throughput cannot be chosen for type %s: leave it out, or use %s", l.name,
			typesWith(func(l limits) bool { return l.maxMiBs > 0 })))
	case mibs < l.minMiBs || mibs > l.maxMiBs:
		bad = append(bad, fmt.Sprintf("throughput is %d MiB/s: volumes of type %s have %d to %d MiB/s", mibs, l.name, l.minMiBs, l.maxMiBs))
	default:
		have, said := iops, ""
		if have == 0 {
			have, said = l.baseIOPS, " (the default)"
		}
		if mibs*l.iopsPerMiBs > have {
			bad = append(bad, fmt.Sprintf("throughput is %d MiB/s: with %d IOPS%s at most %d MiB/s are possible; ask for less or for iops=%d",
				mibs, have, said, have/l.iopsPerMiBs, mibs*l.iopsPerMiBs))
		}
	}
	return bad
}

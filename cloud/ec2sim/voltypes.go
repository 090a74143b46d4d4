package ec2sim

import "math"

// volumeType is what one type of EBS volume allows. Sizes in GiB, throughput in MiB/s.
// Source: the documentation of CreateVolume and ModifyVolume in the EC2 API reference (2026).
type volumeType struct {
	minSize, maxSize             int64
	minIOPS, maxIOPS             int64 // 0: IOPS cannot be chosen
	iopsPerGiB                   int64 // at most
	needsIOPS                    bool
	minThroughput, maxThroughput int64 // 0: throughput cannot be chosen
	defaultIOPS                  func(size int64) int64
	defaultThroughput            int64
	multiAttach                  bool
}

// maxThroughputPerIOPS is gp3's limit in MiB/s for each provisioned operation per second.
const maxThroughputPerIOPS = 0.25

func noIOPS(int64) int64          { return 0 }
func gp2Baseline(gib int64) int64 { return max(100, min(16_000, 3*gib)) }
func gp3Baseline(int64) int64     { return 3000 }

var volumeTypes = map[string]volumeType{
	"gp3":      {minSize: 1, maxSize: 65_536, minIOPS: 3000, maxIOPS: 80_000, iopsPerGiB: 500, minThroughput: 125, maxThroughput: 2000, defaultIOPS: gp3Baseline, defaultThroughput: 125},
	"gp2":      {minSize: 1, maxSize: 16_384, defaultIOPS: gp2Baseline},
	"io1":      {minSize: 4, maxSize: 16_384, minIOPS: 100, maxIOPS: 64_000, iopsPerGiB: 50, needsIOPS: true, defaultIOPS: noIOPS, multiAttach: true},
	"io2":      {minSize: 4, maxSize: 65_536, minIOPS: 100, maxIOPS: 256_000, iopsPerGiB: 1000, needsIOPS: true, defaultIOPS: noIOPS, multiAttach: true},
	"st1":      {minSize: 125, maxSize: 16_384, defaultIOPS: noIOPS},
	"sc1":      {minSize: 125, maxSize: 16_384, defaultIOPS: noIOPS},
	"standard": {minSize: 1, maxSize: 1024, defaultIOPS: noIOPS},
}

// fit checks a volume's numbers against its type and fills in what was not asked for.
func (v *volume) fit() error {
	t, ok := volumeTypes[v.Type]
	if !ok {
		return errorf(400, "UnknownVolumeType", "Unknown volume type '%s'", v.Type)
	}
	invalid := func(format string, args ...any) error { return errorf(400, "InvalidParameterValue", format, args...) }
	if v.SizeGiB < t.minSize {
		return invalid("Volume of %dGiB is too small for volume type %s; minimum is %dGiB.", v.SizeGiB, v.Type, t.minSize)
	}
	if v.SizeGiB > t.maxSize {
		return invalid("Volume of %dGiB is too large for volume type %s; maximum is %dGiB.", v.SizeGiB, v.Type, t.maxSize)
	}
	switch {
	case v.IOPS != 0 && t.maxIOPS == 0:
		return errorf(400, "InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", v.Type)
	case v.IOPS == 0 && t.needsIOPS:
		return errorf(400, "MissingParameter", "The parameter iops must be specified for %s volumes.", v.Type)
	case v.IOPS == 0:
		v.IOPS = t.defaultIOPS(v.SizeGiB)
	case v.IOPS < t.minIOPS:
		return invalid("Volume iops of %d is too low; minimum is %d.", v.IOPS, t.minIOPS)
	case v.IOPS > t.maxIOPS:
		return invalid("Volume iops of %d is too high; maximum is %d.", v.IOPS, t.maxIOPS)
	case v.IOPS > t.minIOPS && v.IOPS > t.iopsPerGiB*v.SizeGiB:
		return invalid("Iops to volume size ratio of %f is too high; maximum is %d", float64(v.IOPS)/float64(v.SizeGiB), t.iopsPerGiB)
	}
	switch {
	case v.Throughput != 0 && t.maxThroughput == 0:
		return errorf(400, "InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", v.Type)
	case v.Throughput == 0:
		v.Throughput = t.defaultThroughput
	case v.Throughput < t.minThroughput:
		return invalid("Throughput of %d MiBps is too low; minimum is %d MiBps.", v.Throughput, t.minThroughput)
	case v.Throughput > t.maxThroughput:
		return invalid("Throughput of %d MiBps is too high; maximum is %d MiBps.", v.Throughput, t.maxThroughput)
	}
	if ratio := float64(v.Throughput) / math.Max(1, float64(v.IOPS)); t.maxThroughput > 0 && ratio > maxThroughputPerIOPS {
		return invalid("Throughput (MiBps) to iops ratio of %f is too high; maximum is %f MiBps per iops", ratio, maxThroughputPerIOPS)
	}
	if v.MultiAttach && !t.multiAttach {
		return errorf(400, "InvalidParameterCombination", "The parameter multiAttachEnabled is not supported for %s volumes.", v.Type)
	}
	return nil
}

package options

import (
	"strconv"
	"testing"
)

func TestTheLimitsOfEachTypeAreThoseOfEC2(t *testing.T) {
	// Written out once more, so that a slip in the table shows. Each row is a pair of neighbours: accepted and refused.
	for _, c := range []struct{ typ, option, good, bad string }{
		{"gp3", "size", "1", ""}, {"gp3", "size", "65536", "65537"},
		{"gp2", "size", "1", ""}, {"gp2", "size", "16384", "16385"},
		{"st1", "size", "125", "124"}, {"st1", "size", "16384", "16385"},
		{"sc1", "size", "125", "124"}, {"sc1", "size", "16384", "16385"},
		{"standard", "size", "1", ""}, {"standard", "size", "1024", "1025"},
		{"io1", "size", "4", "3"}, {"io1", "size", "16384", "16385"},
		{"io2", "size", "4", "3"}, {"io2", "size", "65536", "65537"},
	} {
		with := func(v string) m {
			r := m{"type": c.typ, c.option: v}
			if c.typ == "io1" || c.typ == "io2" {
				r["iops"] = "100"
			}
			return r
		}
		accept(t, with(c.good), nil)
		if c.bad != "" {
			l, _ := limitsOf(c.typ)
			refuse(t, with(c.bad), nil, "size is "+c.bad+" GiB", "type "+c.typ, strconv.FormatInt(l.minGiB, 10)+" to "+strconv.FormatInt(l.maxGiB, 10)+" GiB")
		}
	}
}

func TestIOPSAndThroughputHaveLimitsOnBothSides(t *testing.T) {
	for _, c := range []struct {
		good, bad m
		part      string
	}{
		{m{"iops": "3000", "size": "1"}, m{"iops": "2999", "size": "1"}, "3000 to 80000"},
		{m{"iops": "3000", "size": "5"}, m{"iops": "3001", "size": "5"}, "at most 3000 IOPS (500 per GiB)"},
		{m{"iops": "3000", "size": "6"}, m{"iops": "3001", "size": "6"}, "size=7GiB"},
		{m{"iops": "3500", "size": "7"}, m{"iops": "3501", "size": "7"}, "at most 3500 IOPS"},
		{m{"iops": "80000", "size": "160"}, m{"iops": "80000", "size": "159"}, "at most 79500 IOPS"},
		{m{"iops": "80000", "size": "65536"}, m{"iops": "80001", "size": "65536"}, "3000 to 80000"},
		{m{"type": "io1", "size": "4", "iops": "100"}, m{"type": "io1", "size": "4", "iops": "99"}, "100 to 64000"},
		{m{"type": "io1", "size": "4", "iops": "200"}, m{"type": "io1", "size": "4", "iops": "201"}, "at most 200 IOPS (50 per GiB)"},
		{m{"type": "io1", "size": "1280", "iops": "64000"}, m{"type": "io1", "size": "1279", "iops": "64000"}, "size=1280GiB"},
		{m{"type": "io1", "size": "9999", "iops": "64000"}, m{"type": "io1", "size": "9999", "iops": "64001"}, "100 to 64000"},
		{m{"type": "io2", "size": "4", "iops": "100"}, m{"type": "io2", "size": "4", "iops": "99"}, "100 to 256000"},
		{m{"type": "io2", "size": "4", "iops": "4000"}, m{"type": "io2", "size": "4", "iops": "4001"}, "at most 4000 IOPS (1000 per GiB)"},
		{m{"type": "io2", "size": "256", "iops": "256000"}, m{"type": "io2", "size": "999", "iops": "256001"}, "100 to 256000"},
		{m{"throughput": "125"}, m{"throughput": "124"}, "125 to 2000 MiB/s"},
		{m{"throughput": "750"}, m{"throughput": "751"}, "with 3000 IOPS (the default) at most 750 MiB/s"},
		{m{"throughput": "751", "iops": "3004"}, m{"throughput": "752", "iops": "3004"}, "iops=3008"},
		{m{"throughput": "2000", "iops": "8000"}, m{"throughput": "2001", "iops": "80000", "size": "160"}, "125 to 2000 MiB/s"},
	} {
		accept(t, c.good, nil)
		refuse(t, c.bad, nil, c.part)
	}
}

func TestIOPSAndThroughputOnlyWhereTheTypeHasThem(t *testing.T) {
	for _, typ := range []string{"gp2", "st1", "sc1", "standard"} {
		accept(t, m{"type": typ, "size": "200"}, nil)
		refuse(t, m{"type": typ, "size": "200", "iops": "3000"}, nil, "iops cannot be chosen for type "+typ, "gp3, io1, io2")
	}
	for _, typ := range []string{"gp2", "io1", "io2", "st1", "sc1", "standard"} {
		refuse(t, m{"type": typ, "size": "200", "iops": "3000", "throughput": "250"}, nil, "throughput cannot be chosen for type "+typ, "gp3")
	}
	refuse(t, m{"type": "io1"}, nil, "type io1 needs iops=N: 100 to 800 for 16 GiB (50 per GiB)", "by default: size=16GiB")
	refuse(t, m{"type": "io2", "size": "1000"}, nil, "type io2 needs iops=N: 100 to 256000 for 1000 GiB")
}

func TestALimitSaysWhichPartTheUserDidNotWrite(t *testing.T) {
	refuse(t, m{"type": "st1"}, nil, "size is 16 GiB", "125 to 16384", "by default: size=16GiB")
	refuse(t, m{"size": "20000"}, m{"type": "gp2"}, "from DEFAULT_OPTIONS: type")
}

func TestABrokenValueCausesNoSecondComplaint(t *testing.T) {
	for _, r := range []m{{"size": "x", "type": "st1"}, {"type": "st2"}, {"iops": "x", "type": "io1"}, {"fstype": "btrfs", "mkfs-options": "-Z"}} {
		_, err := Parse(r, nil)
		if e, ok := err.(*Error); !ok || len(e.Problems) != 1 {
			t.Errorf("%v: %v", r, err)
		}
	}
}

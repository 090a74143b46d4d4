package options

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

var (
	quantity = regexp.MustCompile(`^(\d+)(?:\.(\d+))?\s*([A-Za-z/]*)$`)
	gib      = big.NewInt(1 << 30)
)

// ParseSize reads a size as the option size has it, and returns GiB.
func ParseSize(value string) (int64, error) { return parseSize(value) }

// parseSize returns GiB, rounded up. A bare number counts GiB; every suffix is binary, as Docker reads sizes elsewhere.
func parseSize(value string) (int64, error) {
	if strings.HasPrefix(value, "-") {
		return 0, fmt.Errorf("%s is negative", quote(value))
	}
	m := quantity.FindStringSubmatch(strings.TrimPrefix(value, "+"))
	if m == nil || len(value) > 64 {
		return 0, fmt.Errorf("%s is not a size: write 100 (GiB), 100GiB, 1.5TiB or 500MiB", quote(value))
	}
	shift, ok := map[string]uint{"": 30, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}[sizeUnit(m[3])]
	if !ok {
		return 0, fmt.Errorf("%s has the unknown unit %s: use MiB, GiB or TiB, or no unit for GiB", quote(value), quote(m[3]))
	}
	bytes, ok := new(big.Rat).SetString(m[1] + "." + m[2] + "0")
	if !ok {
		return 0, fmt.Errorf("%s is not a size", quote(value))
	}
	bytes.Mul(bytes, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	if bytes.Sign() == 0 {
		return 0, fmt.Errorf("%s is no size: it must be more than 0", quote(value))
	}
	up := new(big.Int).Mul(bytes.Denom(), gib)
	n := new(big.Int).Add(bytes.Num(), up)
	n.Sub(n, big.NewInt(1)).Div(n, up)
	// EC2 takes 32 bits; more is a mistake in the unit, and would overflow what is computed from it.
	if n.BitLen() > 31 {
		return 0, fmt.Errorf("%s is far more than any volume can have (a number without a unit counts GiB)", quote(value))
	}
	return n.Int64(), nil
}

// sizeUnit reduces G, Gi, GB and GiB in any letter case to G. What is not of that form comes back unchanged.
func sizeUnit(unit string) string {
	u := strings.ToUpper(unit)
	u = strings.TrimSuffix(u, "B")
	if u == "" && unit != "" {
		return unit // A lone B: a size in bytes is always a mistake here.
	}
	if len(u) == 2 {
		u = strings.TrimSuffix(u, "I")
	}
	if len(u) > 1 {
		return unit
	}
	return u
}

var throughputUnits = []string{"", "m", "mi", "mb", "mib", "m/s", "mi/s", "mb/s", "mib/s"}

// parseThroughput returns MiB/s.
func parseThroughput(value string) (int64, error) {
	m := quantity.FindStringSubmatch(value)
	known := false
	if m != nil && m[2] == "" {
		for _, u := range throughputUnits {
			known = known || strings.ToLower(m[3]) == u
		}
	}
	if !known {
		return 0, fmt.Errorf("%s is not a throughput: write a whole number of MiB/s, such as 250 or 250MiB/s", quote(value))
	}
	return parseCount(m[1], "MiB/s")
}

// parseCount reads a positive whole number.
func parseCount(value, what string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	switch {
	case err != nil && digits(value):
		return 0, fmt.Errorf("%s is far more %s than any volume can have", quote(value), what)
	case err != nil:
		return 0, fmt.Errorf("%s is not a whole number of %s", quote(value), what)
	case n <= 0:
		return 0, fmt.Errorf("%s is not possible: it must be more than 0 %s", quote(value), what)
	}
	return n, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// quote shows what the user wrote on one line, and not all of it when it is long.
func quote(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return strconv.Quote(s)
}

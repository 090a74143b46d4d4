package ec2sim

import (
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// params are the parameters of one request of the EC2 query protocol, where lists and structures are flattened into names such as
// Filter.1.Value.2.
type params map[string]string

// flatten takes the first value of each name, as EC2 does.
func flatten(form url.Values) params {
	p := make(params, len(form))
	for name, values := range form {
		if len(values) > 0 {
			p[name] = values[0]
		}
	}
	return p
}

// has tells whether the parameter was sent with a value.
func (p params) has(name string) bool { return p[name] != "" }

// indexes returns the numbers that follow prefix and a dot, in order.
func (p params) indexes(prefix string) []int {
	seen := map[int]bool{}
	for name := range p {
		rest, ok := strings.CutPrefix(name, prefix+".")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(number); err == nil {
			seen[n] = true
		}
	}
	out := make([]int, 0, len(seen))
	for n := range seen {
		out = append(out, n)
	}
	sort.Ints(out)
	return out
}

// list returns prefix.1, prefix.2, ...
func (p params) list(prefix string) []string {
	var out []string
	for _, n := range p.indexes(prefix) {
		if v, ok := p[prefix+"."+strconv.Itoa(n)]; ok {
			out = append(out, v)
		}
	}
	return out
}

// structs returns the structures prefix.1.*, prefix.2.*, ... with their own names of fields.
func (p params) structs(prefix string) []params {
	var out []params
	for _, n := range p.indexes(prefix) {
		start := prefix + "." + strconv.Itoa(n) + "."
		one := params{}
		for name, value := range p {
			if rest, ok := strings.CutPrefix(name, start); ok {
				one[rest] = value
			}
		}
		out = append(out, one)
	}
	return out
}

// integer returns a number, and whether it was sent.
func (p params) integer(name string) (int64, bool, error) {
	v := p[name]
	if v == "" {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, false, errorf(400, "InvalidParameterValue", "Invalid value '%s' for %s. Must be an integer.", v, lowerFirst(name))
	}
	return n, true, nil
}

// boolean returns a truth value; not sent is false.
func (p params) boolean(name string) (bool, error) {
	switch strings.ToLower(p[name]) {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, errorf(400, "InvalidParameterValue", "Invalid value '%s' for boolean.", p[name])
}

// need refuses a request that lacks one of the parameters.
func (p params) need(names ...string) error {
	for _, name := range names {
		if !p.has(name) {
			return errorf(400, "MissingParameter", "The request must contain the parameter %s", lowerFirst(name))
		}
	}
	return nil
}

// known refuses parameters that an action does not have. EC2 itself does; it also finds spelling mistakes and everything that the
// simulator does not model, which must not be ignored in silence.
func (p params) known(names string) error {
	allowed := map[string]bool{"Action": true, "Version": true, "DryRun": true}
	for _, n := range strings.Fields(names) {
		allowed[n] = true
	}
	var unknown []string
	for name := range p {
		if top, _, _ := strings.Cut(name, "."); !allowed[top] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Strings(unknown)
	return errorf(400, "UnknownParameter", "The parameter %s is not recognized", unknown[0])
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

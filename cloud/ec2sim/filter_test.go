package ec2sim

import "testing"

func TestFiltersMatchAsEC2Says(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"db", "db", true}, {"db", "DB", false}, {"db", "db1", false}, {"", "", true}, {"", "x", false},
		{"db*", "db", true}, {"db*", "db-1", true}, {"*b", "db", true}, {"*", "", true}, {"d*b*", "dxxbyy", true}, {"d*b", "dxxbyy", false},
		{"d?b", "dxb", true}, {"d?b", "db", true}, {"d?b", "dxxb", false}, {"??", "", true}, {"??", "abc", false},
		{`a\*`, "a*", true}, {`a\*`, "ab", false}, {`a\?`, "a?", true}, {`a\?`, "a", false}, {`a\\b`, `a\b`, true},
		{"gr\u00fc?e", "gr\u00fc\u00dfe", true}, {"[ab]", "a", false}, {"[ab]", "[ab]", true},
	} {
		if got := wildcardMatch(c.pattern, c.text); got != c.want {
			t.Errorf("pattern %q, text %q: %v", c.pattern, c.text, got)
		}
	}
}

func TestFiltersAreAllNeededAndValuesAreAlternatives(t *testing.T) {
	table := filterTable[map[string]string]{"color": func(r map[string]string) []string { return []string{r["color"]} }}
	tags := func(r map[string]string) map[string]string { return map[string]string{"Name": r["name"]} }
	red, blue := map[string]string{"color": "red", "name": "a"}, map[string]string{"color": "blue", "name": "b"}
	for _, c := range []struct {
		p         params
		red, blue bool
	}{
		{params{}, true, true},
		{params{"Filter.1.Name": "color", "Filter.1.Value.1": "red"}, true, false},
		{params{"Filter.1.Name": "color", "Filter.1.Value.1": "red", "Filter.1.Value.2": "blue"}, true, true},
		{params{"Filter.1.Name": "color", "Filter.1.Value.1": "red", "Filter.2.Name": "tag:Name", "Filter.2.Value.1": "b"}, false, false},
		{params{"Filter.1.Name": "color", "Filter.1.Value.1": "blue", "Filter.2.Name": "tag:Name", "Filter.2.Value.1": "b"}, false, true},
		{params{"Filter.1.Name": "tag-key", "Filter.1.Value.1": "Name"}, true, true},
		{params{"Filter.1.Name": "tag:name", "Filter.1.Value.1": "*"}, false, false},
		{params{"Filter.3.Name": "color", "Filter.3.Value.7": "blue"}, false, true},
	} {
		match, err := compileFilters(c.p, table, tags)
		if err != nil {
			t.Fatal(err)
		}
		if match(red) != c.red || match(blue) != c.blue {
			t.Errorf("%v: red %v, blue %v", c.p, match(red), match(blue))
		}
	}
}

func TestFiltersThatEC2DoesNotHaveAreRefused(t *testing.T) {
	many := params{"Filter.1.Name": "color"}
	for n := range maxFilterValues + 1 {
		many["Filter.1.Value."+itoa(int64(n+1))] = "x"
	}
	table := filterTable[int]{"color": func(int) []string { return nil }}
	for _, c := range []struct {
		p    params
		want string
	}{
		{params{"Filter.1.Name": "colour", "Filter.1.Value.1": "red"}, "InvalidParameterValue"},
		{params{"Filter.1.Name": "Color", "Filter.1.Value.1": "red"}, "InvalidParameterValue"},
		{params{"Filter.1.Value.1": "red"}, "InvalidParameterValue"},
		{params{"Filter.1.Name": "color"}, "InvalidParameterValue"},
		{params{"Filter.1.Name": "tag:x", "Filter.1.Value.1": "red"}, "InvalidParameterValue"}, // This resource has no tags.
		{many, "FilterLimitExceeded"},
	} {
		_, err := compileFilters(c.p, table, nil)
		if api, ok := err.(*apiError); !ok || api.Code != c.want {
			t.Errorf("%v: %v, want %s", c.p, err, c.want)
		}
	}
}

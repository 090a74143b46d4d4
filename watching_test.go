package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/driver/metrics"
)

var metricName = regexp.MustCompile(`\bblockvol_[a-z0-9_]+`)

// unknownMetrics returns the names in a text that no metric has.
func unknownMetrics(text string) (unknown []string, known map[string]bool) {
	names, known := map[string]bool{}, map[string]bool{}
	for _, m := range metrics.Table {
		if m.Kind != metrics.Histogram {
			names[m.Name] = true
			continue
		}
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			names[m.Name+part] = true
		}
	}
	for _, n := range metricName.FindAllString(text, -1) {
		if !names[n] {
			unknown = append(unknown, n)
		}
		known[n] = true
	}
	return unknown, known
}

func TestTheDashboardAsksForMetricsThatExist(t *testing.T) {
	b, err := os.ReadFile("docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	if board.Title == "" || len(board.Panels) < 20 || len(board.Templating.List) == 0 {
		t.Fatalf("this is no dashboard: %q with %d panels", board.Title, len(board.Panels))
	}
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range board.Templating.List {
		variables[v.Name] = true
	}
	ids, places := map[int]bool{}, map[[2]int]bool{}
	for _, p := range board.Panels {
		if p.Title == "" || ids[p.ID] || places[[2]int{p.GridPos.X, p.GridPos.Y}] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q has no title, no place or no number of its own", p.ID, p.Title)
		}
		ids[p.ID], places[[2]int{p.GridPos.X, p.GridPos.Y}] = true, true
		if (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			unknown, known := unknownMetrics(target.Expr)
			if len(unknown) > 0 || len(known) == 0 {
				t.Errorf("panel %q asks for %s: there is no metric %v", p.Title, target.Expr, unknown)
			}
			for _, v := range regexp.MustCompile(`\$([a-z_]+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !variables[v[1]] {
					t.Errorf("panel %q uses the variable %s, which the dashboard does not have", p.Title, v[1])
				}
			}
		}
	}
}

func TestTheAlertRulesAskForMetricsThatExistAndSayWhatToDo(t *testing.T) {
	b, err := os.ReadFile("docs/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules := strings.Split(string(b), "- alert: ")[1:]
	if len(rules) < 10 {
		t.Fatalf("only %d rules", len(rules))
	}
	tests, err := os.ReadFile("e2e/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		name, _, _ := strings.Cut(r, "\n")
		if unknown, _ := unknownMetrics(r); len(unknown) > 0 {
			t.Errorf("%s: there is no metric %v", name, unknown)
		}
		for _, part := range []string{"expr:", "severity: ", "summary: ", "description: "} {
			if !strings.Contains(r, part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
		if !strings.Contains(string(tests), name) {
			t.Errorf("no test sees %s fire", name)
		}
	}
}

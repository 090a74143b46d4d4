package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestTheAlertRulesFireWhenTheyShouldAndNotBefore(t *testing.T) {
	t.Parallel()
	promtool := filepath.Join(buildDir, "prometheus", "usr", "bin", "promtool")
	if _, err := os.Stat(promtool); err != nil {
		t.Fatalf("%v: scripts/deps machine unpacks it there", err)
	}
	for _, args := range [][]string{{"check", "rules", "../docs/alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

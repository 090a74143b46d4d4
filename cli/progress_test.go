package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestHowMuchIsDoneIsABarOnATerminalAndLinesAtLargeStepsElsewhere(t *testing.T) {
	say := func(p *progress) {
		p.say("copying vol-1: 0 %")
		for n := 1; n < 100; n++ {
			p.say(fmt.Sprintf("copying vol-1: %d %%", n))
		}
		p.say("copying vol-1: 100 %")
		p.say("copying vol-2: 7 %")
		p.say("growing vol-2")
		p.end()
	}
	var b bytes.Buffer
	say(&progress{out: &b})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 13 || lines[0] != "copying vol-1: 0 %" || lines[3] != "copying vol-1: 30 %" || lines[10] != "copying vol-1: 100 %" || lines[12] != "growing vol-2" {
		t.Errorf("elsewhere: %q", lines)
	}
	b.Reset()
	say(&progress{out: &b, width: 80})
	got := b.String()
	for _, want := range []string{"copying vol-1 [....................]   0 % (0s)", "copying vol-1 [#########...........]  45 % (0s)", "copying vol-1 [####################] 100 % (", "growing vol-2 ("} {
		if !strings.Contains(got, want) {
			t.Errorf("on a terminal %q is missing in %q", want, got)
		}
	}
	if strings.Count(got, "\n") != 3 {
		t.Errorf("on a terminal there are %d lines, want 3: %q", strings.Count(got, "\n"), got)
	}
	b.Reset()
	say(&progress{out: &b, width: 24})
	for _, line := range strings.Split(strings.ReplaceAll(b.String(), "\n", clearLine), clearLine) {
		if len([]rune(line)) >= 24 && !strings.HasSuffix(line, "s)") || strings.Contains(line, "#") {
			t.Errorf("on a narrow terminal: %q", line)
		}
	}
}

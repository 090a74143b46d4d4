package e2e

import "testing"

// try is a test of an engine that it has to itself.
type try struct {
	name string
	do   func(t *testing.T, e *Engine)
}

// oneByOne runs tests that steer the simulator, count its calls, or look at everything there is: one after the other on an engine of their own.
func oneByOne(t *testing.T, tries ...try) {
	t.Parallel()
	e := PrivateEngine(t)
	e.Install(t, "blockvol", "BACKEND=sim", "LOG_LEVEL=debug")
	for _, one := range tries {
		t.Run(one.name, func(t *testing.T) { one.do(t, e) })
	}
}

func TestBadInputAndWhateverEC2RefusesIsToldAndLeavesNothing(t *testing.T) {
	oneByOne(t,
		try{"a wrong option is refused in one sentence that tells the way out", wrongOptions},
		try{"help is answered with the table of options and makes nothing", help},
		try{"a hostile name is refused and reaches no file or call", hostileNames},
		try{"a disk with foreign data is refused and not one byte of it changes", foreignData},
		try{"a refused create", refusedCreates},
		try{"a refused attach", refusedAttaches},
		try{"a refused delete, and the volume stays", refusedDeletes},
		try{"a refused detach is told by inspect and tried again", refusedDetaches},
		try{"what EC2 cannot do for now is told in time and done later", notForNow},
	)
}

func TestALookUpThatFailsAndADeadPluginDoNoHarm(t *testing.T) {
	oneByOne(t,
		try{"a look-up that fails loses no labels and deletes nothing", failingLookUps},
		try{"pgbench does not notice that the plugin is killed", pgbenchWhileThePluginIsKilled},
		try{"a volume in use is not removed, and pruning leaves volumes alone", volumesInUse},
		try{"the first use of a volume takes these calls and no others", firstUse},
		try{"what concerns an attached volume takes no call", attachedVolume},
	)
}

package e2e

import (
	"testing"
)

func TestAProfileIsChosenByNameAndChangedWhileThePluginRuns(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	p := e.Install(t, "blockvol", append(plain, `PROFILES=gold: type=io2 size=4 iops=200 "tag.Team=a; b"; silver*: type=gp2 size=2`, "MAX_SIZE=8GiB")...)
	shows := func(v string, want map[string]any) {
		t.Helper()
		st := e.Inspect(t, v).Status
		for key, value := range want {
			if st[key] != value {
				t.Errorf("%s: docker volume inspect shows %s as %v, want %v", v, key, st[key], value)
			}
		}
	}
	one, two := e.NewVolume(t, "profile=gold"), e.NewVolume(t)
	shows(one, map[string]any{"profile": "gold", "type": "io2", "size": "4 GiB", "iops": 200.0})
	shows(two, map[string]any{"profile": "silver", "type": "gp2", "size": "2 GiB"})
	if v := p.Sim().Volumes(t, one); len(v) != 1 || v[0].Tags["Team"] != "a; b" || v[0].Tags["blockvol:profile"] != "gold" {
		t.Errorf("EC2 has %+v", v)
	}
	readable(t, e.refusesToCreate(t, e.VolumeName(t), "profile=platinum"), `"platinum"`, "gold, silver, none")
	readable(t, e.refusesToCreate(t, e.VolumeName(t), "profile=gold", "size=9"), "MAX_SIZE", "9 GiB", "8 GiB")
	readable(t, e.refusesToCreate(t, e.VolumeName(t), "access-mode=ReadWriteMany"), "ReadWriteMany", "EFS")

	e.verb(t, verbDone, []string{"gold is set on i-"}, "", "profile", "set", "gold", "type=gp3", "size=3")
	e.verb(t, verbDone, nil, "", "profile", "set", "--default", "bronze", "type=standard", "size=1")
	p.Restart(t)
	e.verb(t, verbDone, []string{"size=3 type=gp3", "this host, over setting", "bronze", "silver"}, "", "profile", "ls")
	shows(one, map[string]any{"profile": "gold", "type": "io2", "size": "4 GiB"})
	shows(e.NewVolume(t), map[string]any{"profile": "bronze", "type": "standard"})
	three := e.VolumeName(t)
	e.Docker(t, "run", "--rm", "--mount", e.on(three, "/data", "volume-opt=profile=gold"), busybox, "sh", "-c", "echo row >/data/row")
	shows(three, map[string]any{"profile": "gold", "type": "gp3", "size": "3 GiB", "filesystem": "ext4"})
	e.verb(t, verbFailed, []string{"tpye", "did you mean type?"}, "", "profile", "set", "gold", "tpye=gp3")
	e.verb(t, verbDone, []string{"the one of the setting PROFILES counts again"}, "", "profile", "rm", "gold")
	e.verb(t, verbRefused, []string{"gold", "PROFILES"}, "", "profile", "rm", "gold")
	shows(e.NewVolume(t, "profile=gold"), map[string]any{"profile": "gold", "type": "io2"})
}

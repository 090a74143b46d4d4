package e2e

import (
	"fmt"
	"testing"
)

func firstUse(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	v := e.VolumeName(t)
	for _, step := range []struct {
		want string
		do   func()
	}{
		{"CreateVolume 1, DescribeVolumes 2", func() { e.Docker(t, "volume", "create", "-d", e.driver(), "-o", "size=1GiB", v) }},
		// The two tags say that it is being formatted, and that it is. The second look is whether another host has removed it meanwhile.
		{"AttachVolume 1, CreateTags 2, DescribeVolumes 2", func() { e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "exec sleep 1000") }},
	} {
		if got := counted(callsOf(t, s, step.do)); got != step.want {
			t.Errorf("it took the calls %q, not %q", got, step.want)
		}
	}
}

func attachedVolume(t *testing.T, e *Engine) {
	s := e.Plugin.Sim()
	v := e.NewVolume(t, "size=1GiB")
	first := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "exec sleep 1000")
	plugin := e.Plugin.Socket(t)
	for what, do := range map[string]func(){
		"a second container, and its end": func() { e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo here >/data/file") },
		"docker restart":                  func() { e.Docker(t, "restart", "-t", "0", first) },
		"docker volume inspect": func() {
			if got := e.Inspect(t, v); got.Mountpoint == "" || got.Status["state"] != "mounted" {
				t.Errorf("docker volume inspect of a volume in use: mountpoint %q, status %v", got.Mountpoint, got.Status)
			}
		},
		"Capabilities and Path": func() {
			var can struct{ Capabilities struct{ Scope string } }
			var path struct{ Mountpoint string }
			for call, out := range map[string]any{"Capabilities": &can, "Path": &path} {
				if refusal, err := plugin.Ask(call, map[string]string{"Name": v}, out); refusal != "" || err != nil {
					t.Errorf("%s: %s %v", call, refusal, err)
				}
			}
			if can.Capabilities.Scope != "global" || path.Mountpoint == "" {
				t.Errorf("the plugin answers %s", fmt.Sprint(can, path))
			}
		},
	} {
		if got := counted(callsOf(t, s, do)); got != "" {
			t.Errorf("%s took calls: %s", what, got)
		}
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// pluginOf makes a copy of the plugin that is another version: its binary says so, and its root filesystem has another file. Its manifest has
// the host's folder of devices: dockerd forgets the source of a mount when it upgrades a plugin, whatever docker plugin inspect shows.
func pluginOf(t *testing.T, version, dev string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "plugin")
	binary := filepath.Join(dir, "rootfs", "blockvol")
	for _, args := range [][]string{
		{"cp", "-a", filepath.Join(buildDir, "plugin"), dir},
		{"rm", binary},
		{"go", "build", "-C", repo, "-buildvcs=false", "-trimpath", "-ldflags", "-s -w -X main.version=" + version, "-o", binary, "."},
	} {
		if err := command(5*time.Minute, []string{"CGO_ENABLED=0"}, "", args[0], args[1:]...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(dir, "config.json")
	was, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	now := strings.Replace(string(was), `"source": "/dev"`, fmt.Sprintf(`"source": %q`, dev), 1)
	now = strings.Replace(now, `"env": [`, `"env": [{"name": "ADDED_IN_`+version[:1]+`", "description": "A setting of this version alone", "settable": ["value"]},`, 1)
	for file, content := range map[string]string{filepath.Join(dir, "rootfs", "etc", "of-version"): version, manifest: now} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil || now == string(was) {
			t.Fatal("making another version:", err)
		}
	}
	return dir
}

// An upgrade with a volume in use, a cluster of two versions, and the way back.
func TestAPluginIsUpgradedUnderAContainerAndWorksBesideAnOlderOne(t *testing.T) {
	t.Parallel()
	registry := startRegistry(t)
	a, b := PrivateEngine(t), PrivateEngine(t)
	s := a.aloneSim(t, "--instance", "", "--instance", "", "--delay-attach", "300ms", "--delay-detach", "300ms")
	older, later := registry+"/blockvol:1.0.0", registry+"/blockvol:2.0.0"
	for ref, version := range map[string]string{older: "1.0.0", later: "2.0.0"} {
		dir := pluginOf(t, version, s.Instances[0].DevDir)
		env := append(a.env(), "BUILD="+buildDir, "FITTED=1", "PLUGIN_DIR="+dir)
		if err := command(2*time.Minute, env, "", filepath.Join(repo, "scripts", "plugin"), "push", ref).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for n, e := range []*Engine{a, b} {
		i := s.Instances[n]
		e.Docker(t, "plugin", "install", "--alias", "blockvol", "--grant-all-permissions", older, "CLUSTER=versions", "LOG_LEVEL=debug",
			"dev.source="+i.DevDir, "AWS_ENDPOINT_URL="+s.Endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+i.Metadata)
		p, err := e.adopt("blockvol")
		if err != nil {
			t.Fatal(err)
		}
		e.Plugin = p
	}
	w := a.newWriter(t, s)
	to := func(t *testing.T, ref string) {
		a.Docker(t, "plugin", "disable", "-f", "blockvol")
		w.writes(t)
		a.Docker(t, "plugin", "upgrade", "--skip-remote-check", "--grant-all-permissions", "blockvol", ref)
		w.writes(t)
		if ref == later {
			a.Docker(t, "plugin", "set", "blockvol", "ADDED_IN_2=yes")
		}
		a.Docker(t, "plugin", "enable", "blockvol")
		if got := a.Docker(t, "plugin", "inspect", "-f", "{{.Enabled}} {{.PluginReference}} {{.ID}} {{.Settings.Env}}", "blockvol"); !strings.HasPrefix(got, "true "+ref+" "+a.Plugin.ID) ||
			!strings.Contains(got, "CLUSTER=versions") {
			t.Errorf("docker plugin inspect: %s", got)
		}
		w.intact(t)
		w.livedOn(t)
	}
	moves := func(t *testing.T) {
		v := a.NewVolume(t, "size=1GiB")
		for n, e := range []*Engine{a, b, a} {
			Eventually(t, letGo, func() error {
				return e.Try("run", "--rm", "--mount", e.on(v, "/data"), busybox, "sh", "-c", fmt.Sprintf("[ $(cat /data/rows | wc -l) = %d ] && echo row >>/data/rows", n)).Err()
			})
		}
		a.Docker(t, "volume", "rm", v)
		Eventually(t, letGo, func() error { return b.Try("volume", "rm", "-f", v).Err() }) // it believes it after two looks
		b.DockerFails(t, []string{w.volume, s.Instances[0].ID}, "run", "--rm", "--mount", b.on(w.volume, "/data"), busybox, "true")
		w.livedOn(t)
	}
	t.Run("upgraded", func(t *testing.T) {
		to(t, later)
		if !strings.Contains(a.Log(), "version=2.0.0") {
			t.Error("the new version does not tell its number")
		}
	})
	t.Run("two versions in one cluster", moves)
	t.Run("what a newer version has made is refused by name", func(t *testing.T) { newerVolume(t, b, s) })
	t.Run("downgraded", func(t *testing.T) { to(t, older) })
	t.Run("the same version again", moves)
	if n := w.once(t); n != 1 {
		t.Errorf("the volume was attached %d times while its container lived", n)
	}
	w.gone(t)
	Eventually(t, letGo, func() error { return b.Try("volume", "rm", "-f", w.volume).Err() })
}

// newerVolume meets a volume whose tags say that a newer version has made it.
func newerVolume(t *testing.T, e *Engine, s *AloneSim) {
	v := e.VolumeName(t)
	id, _ := s.Import(t, "", 1, map[string]string{"blockvol:cluster": "versions", "blockvol:name": v, "blockvol:schema": "3", "blockvol:fs": "none",
		"blockvol:fstype": "ext4", "blockvol:subdir": "data"})
	words := []string{v, id, "blockvol:schema is 3", "knows 2", "upgrade the plugin"}
	if said := fmt.Sprint(e.Inspect(t, v).Status["error"]); !strings.Contains(said, words[2]) || !strings.Contains(said, words[4]) {
		t.Errorf("docker volume inspect: %s", said)
	}
	if ls := e.Docker(t, "volume", "ls", "-q"); !strings.Contains(ls, v) {
		t.Errorf("docker volume ls does not show it: %s", ls)
	}
	e.DockerFails(t, words, "run", "--rm", "--mount", e.on(v, "/data"), busybox, "true")
	e.DockerFails(t, append(words, "not removed"), "volume", "rm", v)
	if there := s.Volumes(t, v); len(there) != 1 || len(there[0].Attachments) != 0 || there[0].Tags["blockvol:fs"] != "none" {
		t.Errorf("it was touched: %+v", there)
	}
	for _, c := range s.Calls(t) {
		if c.Params["VolumeId"] == id || c.Params["ResourceId.1"] == id {
			t.Errorf("it was touched: %+v", c)
		}
	}
	// Somebody gives it back to this version.
	client := ec2.New(ec2.Options{Region: "us-sim-1", BaseEndpoint: &s.Endpoint, Credentials: credentials.NewStaticCredentialsProvider(s.Env["AWS_ACCESS_KEY_ID"], s.Env["AWS_SECRET_ACCESS_KEY"], "")})
	if _, err := client.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("blockvol:schema"), Value: aws.String("1")}}}); err != nil {
		t.Fatal(err)
	}
	e.Docker(t, "run", "--rm", "--mount", e.on(v, "/data"), busybox, "true")
	e.Docker(t, "volume", "rm", v)
}

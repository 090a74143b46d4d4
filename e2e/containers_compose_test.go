package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// compose runs docker-compose in a project of its own, made of one file.
type compose struct {
	e            *Engine
	project, dir string
}

func newCompose(t *testing.T, e *Engine, file string) compose {
	t.Helper()
	c := compose{e: e, project: strings.ReplaceAll(name(t), "-", ""), dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.dir, "docker-compose.yml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.try("down", "-v", "-t", "1").Err(); err != nil {
			t.Errorf("a project is left: %v", err)
		}
	})
	return c
}

func (c compose) try(args ...string) Result {
	args = append([]string{"-p", c.project, "--project-directory", c.dir, "-f", filepath.Join(c.dir, "docker-compose.yml")}, args...)
	return command(commandTime, c.e.env(), "", "docker-compose", args...)
}

func (c compose) run(t *testing.T, args ...string) {
	t.Helper()
	if err := c.try(args...).Err(); err != nil {
		t.Fatal(err)
	}
}

// composeFile has one service that writes and one that reads, on a volume with options.
func composeFile(driver, options string) string {
	return fmt.Sprintf(`
version: "3.4"
services:
  writer:
    image: %[1]s
    network_mode: none
    command: sh -c "echo up >>/data/starts; trap 'exit 0' TERM; sleep 1000 & wait"
    volumes: ["data:/data"]
  reader:
    image: %[1]s
    network_mode: none
    command: sh -c "trap 'exit 0' TERM; sleep 1000 & wait"
    volumes: ["data:/data:ro"]
volumes:
  data:
    driver: %[2]s
    labels:
      team: blue
    driver_opts:
%[3]s
`, busybox, driver, options)
}

func TestComposeDownKeepsTheVolumeAndDownWithVDeletesIt(t *testing.T) {
	t.Parallel()
	e := shared
	// Compose 1 compares the driver's name with what dockerd says.
	c := newCompose(t, e, composeFile(e.driver()+":latest", `      size: "8"
      type: gp3
      iops: "4000"
      mode: "0750"
      encrypted: "false"
      tag.Team: red`))
	v := c.project + "_data"
	c.run(t, "up", "-d")
	made := e.cloudVolume(t, v)
	if made.Size != 8 || made.IOPS != 4000 || made.Tags["Team"] != "red" {
		t.Errorf("the volume has %d GiB, %d IOPS and the tag Team=%s: %+v", made.Size, made.IOPS, made.Tags["Team"], made)
	}
	for k, value := range made.Tags {
		if k == "team" || value == "blue" || strings.Contains(k, "compose") {
			t.Errorf("a label has reached the cloud: %s=%s", k, value)
		}
	}
	if got := e.Inspect(t, v).Labels; got["team"] != "blue" {
		t.Errorf("docker shows the labels %v", got)
	}
	exec := func(service, script string) string {
		t.Helper()
		r := c.try("exec", "-T", service, "sh", "-c", script)
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		return r.Stdout
	}
	if got := exec("reader", "cat /data/starts; stat -c %a /data; touch /data/new 2>&1 || true"); !strings.HasPrefix(got, "up\n750\n") || !strings.Contains(got, "Read-only") {
		t.Errorf("the reader says:\n%s", got)
	}
	c.run(t, "down", "-t", "1")
	e.Detached(t, v)
	c.run(t, "up", "-d")
	if got := e.cloudVolume(t, v); got.ID != made.ID {
		t.Errorf("the second up made another volume, %s after %s", got.ID, made.ID)
	}
	if got := exec("reader", "cat /data/starts"); got != "up\nup" {
		t.Errorf("after down and up the volume holds:\n%s", got)
	}
	c.run(t, "down", "-v", "-t", "1")
	Eventually(t, settled, func() error {
		if vs := e.Plugin.Sim().Volumes(t, v); len(vs) != 0 || len(deviceFiles(made.ID)) != 0 {
			return fmt.Errorf("after down -v: %+v, devices %v", vs, deviceFiles(made.ID))
		}
		return nil
	})
}

func TestComposeIsToldWhatIsWrongWithItsOptions(t *testing.T) {
	t.Parallel()
	e := shared
	for _, test := range []struct{ options, said string }{
		{"      mode: 0750", "488"},
		{"      size: 2\n      siez: 3", "siez"},
		{"      encrypted: true", "encrypted"}, // by Compose itself
		{"      type: nfs\n      device: \":/srv\"", "local"},
	} {
		c := newCompose(t, e, composeFile(e.driver()+":latest", test.options))
		r := c.try("up", "-d")
		if r.Code == 0 || !strings.Contains(r.Stderr, test.said) {
			t.Errorf("with\n%s\ncompose says without %q (status %d):\n%s", test.options, test.said, r.Code, r.Stderr)
		}
		if vs := e.Plugin.Sim().Volumes(t, c.project+"_data"); len(vs) != 0 {
			t.Errorf("with\n%s\na volume was made: %+v", test.options, vs)
		}
		// With a file that Compose itself refuses it cannot clean up either.
		if err := os.WriteFile(filepath.Join(c.dir, "docker-compose.yml"), []byte(composeFile(e.driver()+":latest", `      size: "2"`)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInspectTellsWhatAPersonWantsToKnowOfAVolume(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=7GiB", "type=gp3", "iops=3500", "throughput=200", "tag.Team=red")
	made := e.cloudVolume(t, v)
	free := e.Inspect(t, v)
	for key, want := range map[string]any{
		"id": made.ID, "size": "7 GiB", "type": "gp3", "iops": 3500.0, "throughput": 200.0, "encrypted": false, "zone": made.Zone, "state": "free",
		"filesystem": "none", "simulated": "local files, not EBS",
	} {
		if got := free.Status[key]; got != want {
			t.Errorf("before the first use: Status.%s is %v (%[2]T), not %v", key, got, want)
		}
	}
	for _, key := range []string{"attachedTo", "device", "usedBytes", "freeBytes", "users", "error", "doing"} {
		if got, ok := free.Status[key]; ok {
			t.Errorf("before the first use there is Status.%s: %v", key, got)
		}
	}
	if tags, _ := free.Status["tags"].(map[string]any); len(tags) != 1 || tags["Team"] != "red" {
		t.Errorf("Status.tags is %v", free.Status["tags"])
	}
	if made, err := time.Parse(time.RFC3339, free.CreatedAt); err != nil || time.Since(made) > time.Hour || time.Since(made) < -time.Minute {
		t.Errorf("CreatedAt is %q %v", free.CreatedAt, err)
	}
	if free.Mountpoint != "" || free.Scope != "global" {
		t.Errorf("Mountpoint %q, Scope %q", free.Mountpoint, free.Scope)
	}

	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "dd if=/dev/zero of=/data/file bs=1M count=50 2>/dev/null && sync && touch /data/done && sleep 1000")
	Eventually(t, 60*time.Second, func() error { return e.Try("exec", c, "test", "-e", "/data/done").Err() })
	used := e.Inspect(t, v)
	for key, want := range map[string]any{"id": made.ID, "state": "mounted", "filesystem": "ext4", "attachedTo": e.cloudVolume(t, v).Attachments[0].Instance} {
		if got := used.Status[key]; got != want {
			t.Errorf("in use: Status.%s is %v, not %v", key, got, want)
		}
	}
	if dev, _ := used.Status["device"].(string); !strings.Contains(dev, "/dev/nvme") {
		t.Errorf("in use: Status.device is %q", dev)
	}
	if users, _ := used.Status["users"].([]any); len(users) != 1 {
		t.Errorf("in use: Status.users is %v", used.Status["users"])
	}
	usedBytes, _ := used.Status["usedBytes"].(float64)
	freeBytes, _ := used.Status["freeBytes"].(float64)
	if usedBytes < 50<<20 || usedBytes > 200<<20 || freeBytes < 6<<30 || freeBytes > 7<<30 {
		t.Errorf("in use: usedBytes %.0f, freeBytes %.0f with a file of 50 MiB on 7 GiB", usedBytes, freeBytes)
	}
	if !strings.HasSuffix(used.Mountpoint, "/"+made.ID+"/data") {
		t.Errorf("in use: Mountpoint is %q", used.Mountpoint)
	}
	e.Docker(t, "rm", "-f", c)
	e.Detached(t, v)
	// The plugin learns of the end of the detachment a moment after it.
	Eventually(t, settled, func() error {
		if got := e.Inspect(t, v); got.Status["state"] != "free" || got.Status["attachedTo"] != nil || got.Status["device"] != nil || got.Mountpoint != "" || got.CreatedAt != free.CreatedAt {
			return fmt.Errorf("after use docker volume inspect tells: %+v", got)
		}
		return nil
	})
}

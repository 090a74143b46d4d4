package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// installCommand is how the documents tell to install docker blockvol, into the client's own folder.
const installCommand = `$(docker info -f '{{.DockerRootDir}}')/plugins/$(docker plugin inspect -f '{{.Id}}' blockvol)/rootfs/blockvol install-cli --dir "$DOCKER_CONFIG/cli-plugins"`

func TestDockersOwnCommandShowsTheWorldAsItIs(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	s := e.aloneSim(t, "--instance", "")
	const secret = "a-secret-canary"
	s.install(t, e, "CLUSTER=prod", "LOG_LEVEL=debug", "AWS_ACCESS_KEY_ID=AKIACANARY", "AWS_SECRET_ACCESS_KEY="+secret)
	host := s.Instances[0].ID
	at := func(env []string, args ...string) Result {
		return e.Inside(slices.Concat([]string{"env"}, e.env(), env, args)...)
	}
	docker := func(code int, args ...string) string {
		t.Helper()
		r := at(nil, append([]string{"docker", "blockvol"}, args...)...)
		if r.Code != code {
			t.Fatalf("docker blockvol %s: exit status %d, want %d\n  stdout: %s\n  stderr: %s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
		}
		return r.Stdout
	}
	has := func(text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("without %q:\n%s", w, text)
			}
		}
	}

	readme, err := os.ReadFile(filepath.Join(repo, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	has(string(readme), strings.TrimSuffix(installCommand, ` --dir "$DOCKER_CONFIG/cli-plugins"`))
	if err := at(nil, "sh", "-c", installCommand).Err(); err != nil {
		t.Fatal(err)
	}
	has(docker(verbDone, "version"), "CLUSTER=prod")

	used, free := e.NewVolume(t, "size=2GiB", "tag.team=db"), e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(used, "/data")}, "echo row >/data/rows; sync; touch /synced; exec sleep 1000")
	Eventually(t, 60*time.Second, func() error { return e.Try("exec", c, "test", "-e", "/synced").Err() })
	has(docker(verbDone, "ls"), "NAME", "USED", used, free, "mounted", host, "available")
	if got := docker(verbDone, "ls", "--filter", "tag=team=db", "--format", "{{.Name}} {{.Status}} {{.Host}} {{.Size}}"); got != used+" mounted "+host+" 2GiB" {
		t.Errorf("ls: %q", got)
	}
	if got := docker(verbDone, "ls", "-q", "--filter", "status=available"); got != free {
		t.Errorf("ls -q: %q", got)
	}
	var inspected []struct {
		Name string
		Here struct {
			Uses      int
			UsedBytes int64
		}
	}
	if err := json.Unmarshal([]byte(docker(verbDone, "inspect", used)), &inspected); err != nil || len(inspected) != 1 || inspected[0].Here.Uses != 1 || inspected[0].Here.UsedBytes == 0 {
		t.Errorf("inspect: %v, %+v", err, inspected)
	}
	has(docker(verbDone, "explain", used), "attached to "+host, "kernel, cloud and ledger agree")
	has(docker(verbDone, "df"), "all (2)", "3GiB", "unattached (1)")
	has(docker(verbDone, "drain", "--dry-run"), used, "wait")
	docker(verbRefused, "detach", used)
	if r := at(nil, "docker", "__complete", "blockvol", "inspect", ""); r.Code != 0 || !strings.Contains(r.Stdout, free+"\n") {
		t.Errorf("completion: %+v", r)
	}

	mistyped := strings.ToUpper(free)
	e.Docker(t, "volume", "create", mistyped)
	bundle := filepath.Join(e.Dir, "bundle.tgz")
	has(docker(verbDone, "doctor", "--bundle", bundle), "permission ec2:AttachVolume: allowed", "1 attached volumes", "local volumes "+mistyped, "0 bad")
	e.Docker(t, "volume", "rm", mistyped)
	packed := command(commandTime, nil, "", "tar", "-xzOf", bundle)
	if strings.Contains(packed.Stdout, secret) {
		t.Error("the archive for support holds a secret")
	}
	has(packed.Stdout, "AWS_SECRET_ACCESS_KEY", used, "serving on", `"ready": true`)

	// From a machine with credentials alone, by a program that finds no plugin.
	env := []string{}
	for name, value := range s.Env {
		env = append(env, name+"="+value)
	}
	r := command(commandTime, append(env, "BLOCKVOL_SOCKET="), "", filepath.Join(buildDir, "blockvol"), "ls", "--cluster", "prod", "--format", "{{.Name}} {{.Status}} {{.Host}}", "--filter", "host="+host)
	if r.Code != 0 || r.Stdout != used+" attached "+host || !strings.Contains(r.Stderr, "EC2 itself") {
		t.Errorf("ls --cluster: %+v", r)
	}
	e.Docker(t, "rm", "-f", c)
}

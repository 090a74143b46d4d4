package e2e

import (
	"slices"
	"strings"
	"testing"
)

// plain are settings with which the plugin works; an empty value is like none.
var plain = []string{"BACKEND=sim", "CLUSTER=", "DEFAULT_OPTIONS=", "PROFILES=", "MAX_SIZE=", "DETACH_GRACE=", "DELETE_DELAY=0", "INSTANCE_ID=", "AVAILABILITY_ZONE=", "LOG_LEVEL=debug", "LOG_FORMAT=",
	"METRICS_ADDR=", "AWS_ENDPOINT_URL=", "AWS_EC2_METADATA_SERVICE_ENDPOINT=", "AWS_REGION="}

func TestAWrongSettingIsToldAtEveryRequestAndThePluginEnablesAllTheSame(t *testing.T) {
	t.Parallel()
	e := PrivateEngine(t)
	p := e.Install(t, "blockvol", plain...)
	for _, wrong := range []struct{ settings, words []string }{
		{[]string{"BACKEND=ebs", "CLUSTER="}, []string{"CLUSTER is not set", "development and production", "docker plugin set blockvol CLUSTER=prod"}},
		{[]string{"BACKEND=", "CLUSTER="}, []string{"CLUSTER is not set"}}, // ebs is the default: the simulator is never chosen silently
		{[]string{"BACKEND=gcp"}, []string{"BACKEND=gcp", "use ebs or sim"}},
		{[]string{"CLUSTER=a*b"}, []string{"CLUSTER=", "a*b", "at most 100 characters"}},
		{[]string{"DEFAULT_OPTIONS=sise=10"}, []string{"DEFAULT_OPTIONS", `"sise"`, "did you mean size?"}},
		{[]string{"DEFAULT_OPTIONS=size=10 type=st1"}, []string{"DEFAULT_OPTIONS", "10 GiB", "st1", "125"}},
		{[]string{"DEFAULT_OPTIONS=mkfs-options='-O"}, []string{"DEFAULT_OPTIONS", "quote", "not closed"}},
		{[]string{"PROFILES=gold: tpye=io2"}, []string{"PROFILES", "gold", "did you mean type?"}},
		{[]string{"MAX_SIZE=much"}, []string{"MAX_SIZE", `"much"`, "100GiB"}},
		{[]string{"DETACH_GRACE=soon"}, []string{"DETACH_GRACE=soon", "write 2s"}},
		{[]string{"DELETE_DELAY=1w"}, []string{"DELETE_DELAY=1w", "write 24h, 7d"}},
		{[]string{"DETACH_GRACE=-1s"}, []string{"DETACH_GRACE=-1s", "from 0 to 10m"}},
		{[]string{"LOG_LEVEL=loud"}, []string{"LOG_LEVEL=loud", "use error, warn, info or debug"}},
		{[]string{"LOG_FORMAT=xml"}, []string{"LOG_FORMAT=xml", "use text or json"}},
		{[]string{"INSTANCE_ID=web-1", "AVAILABILITY_ZONE=us-sim-1a"}, []string{"INSTANCE_ID=web-1", "i-0123456789abcdef0"}},
		{[]string{"AVAILABILITY_ZONE=us-sim-1a"}, []string{"INSTANCE_ID and AVAILABILITY_ZONE go together"}},
		// All that is wrong is told at once.
		{[]string{"DETACH_GRACE=soon", "LOG_LEVEL=loud"}, []string{"DETACH_GRACE=soon", "LOG_LEVEL=loud"}},
	} {
		t.Run(strings.Join(wrong.settings, ","), func(t *testing.T) {
			p.Restart(t, slices.Concat(plain, wrong.settings)...)
			if got := e.Docker(t, "plugin", "inspect", "-f", "{{.Enabled}}", p.Name); got != "true" {
				t.Errorf("the plugin is enabled: %s", got)
			}
			e.everyRequestSays(t, wrong.words)
		})
	}
	p.servesMetricsOverTCP(t)
	v := e.NewVolume(t, "size=1GiB")
	e.Busybox(t, []string{"--mount", e.on(v, "/data")}, "echo the settings are right again >/data/file")
}

// everyRequestSays makes each request that a user can cause, and fails the test unless each is refused in these words.
func (e *Engine) everyRequestSays(t testing.TB, words []string) {
	t.Helper()
	plugin := e.Plugin.Socket(t)
	const v = "unlucky"
	for call, in := range map[string]map[string]string{
		"Create": {"Name": v}, "Get": {"Name": v}, "List": {}, "Mount": {"Name": v, "ID": "one"}, "Unmount": {"Name": v, "ID": "one"}, "Remove": {"Name": v},
	} {
		refusal, err := plugin.Ask(call, in, nil)
		if err != nil {
			t.Errorf("%s has no answer: %v", call, err)
			continue
		}
		if refusal == "" {
			t.Errorf("%s is not refused", call)
			continue
		}
		readable(t, refusal, words...)
	}
	for _, command := range [][]string{
		{"volume", "create", "-d", e.driver(), v},
		{"run", "--rm", "--mount", e.on(v, "/data"), busybox, "true"},
	} {
		said := e.DockerFails(t, nil, command...)
		readable(t, said, append(words, v)...)
	}
}

// The secret is in the settings, where docker plugin inspect shows it to those who may change it. It is told nowhere else: neither by the
// plugin, nor by what an endpoint answers with.
func TestTheSecretKeyIsNeverTold(t *testing.T) {
	t.Parallel()
	const secret, session = "canary-TWEETTWEETTWEETTWEET-secret", "canary-TWEETTWEETTWEETTWEET-session"
	e := PrivateEngine(t)
	s := e.aloneSim(t)
	p := s.install(t, e, "CLUSTER=canary", "LOG_LEVEL=debug", "AWS_ACCESS_KEY_ID=AKIACANARY", "AWS_SECRET_ACCESS_KEY="+secret, "AWS_SESSION_TOKEN="+session)
	silent := func(where, text string) {
		t.Helper()
		if i := strings.Index(text, "TWEET"); i >= 0 {
			t.Errorf("%s tells the secret: %s", where, text[max(0, i-200):min(len(text), i+200)])
		}
	}
	v := e.NewVolume(t, "size=1GiB")
	c := e.RunDetached(t, []string{"--mount", e.on(v, "/data")}, "exec sleep 1000")
	silent("docker volume inspect", e.Docker(t, "volume", "inspect", v))
	silent("docker inspect", e.Docker(t, "inspect", c))
	silent("the container", e.Docker(t, "exec", c, "sh", "-c", "env; cat /proc/1/environ; find /data"))
	e.Docker(t, "rm", "-f", c)
	for _, f := range []Fault{
		{Kind: "error", Code: "SignatureDoesNotMatch", Message: "You signed with " + secret + " and " + session, Status: 403},
		{Kind: "error", Code: "AuthFailure", Status: 401},
		{Kind: "error", Code: "UnauthorizedOperation", Message: "token " + session, Status: 403},
	} {
		f.Action, f.Times = "CreateVolume", -1
		s.Inject(t, f)
		said := e.refusesToCreate(t, e.VolumeName(t), "size=1GiB")
		readable(t, said, f.Code)
		silent("an error", said)
		s.ClearFaults(t)
	}
	e.Docker(t, "volume", "rm", v)
	for _, line := range strings.Split(e.Log(), "\n") {
		silent("the log", line)
	}
	silent("the plugin's folder", e.Inside("grep", "-r", "TWEET", p.StateDir()).Stdout)
}

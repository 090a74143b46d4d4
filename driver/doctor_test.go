package driver

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// diagnosed are the plugin's findings on one subject of a check.
func (r *rig) diagnosed(check, subject string) []cloud.Finding {
	r.t.Helper()
	var f Findings
	r.askFor("Doctor", NoRequest{}, &f)
	var some []cloud.Finding
	for _, found := range f.Findings {
		if found.Text == "" || found.Verdict == cloud.Bad && found.Fix == "" {
			r.t.Errorf("says too little: %+v", found)
		}
		if found.Check == check && found.Subject == subject {
			some = append(some, found)
		}
	}
	return some
}

// verdict checks that there is one finding on a subject, with that verdict and these words.
func (r *rig) verdict(check, subject string, want cloud.Verdict, words ...string) {
	r.t.Helper()
	got := r.diagnosed(check, subject)
	if len(got) != 1 || got[0].Verdict != want {
		r.t.Errorf("%s %s: %+v, want %s", check, subject, got, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(got[0].Text+got[0].Fix, w) {
			r.t.Errorf("%s %s: %+v does not say %q", check, subject, got[0], w)
		}
	}
}

func TestTheDoctorFindsNothingOnAHealthyHostAndNamesItsVolumes(t *testing.T) {
	r := newRig(t)
	r.create("db")
	r.mount("db", "c1")
	var f Findings
	r.askFor("Doctor", NoRequest{}, &f)
	for _, found := range f.Findings {
		if found.Verdict != cloud.OK && found.Verdict != cloud.Unknown {
			t.Errorf("%+v", found)
		}
	}
	if len(f.Volumes) != 1 || f.Volumes[0] != "db" {
		t.Errorf("volumes %q", f.Volumes)
	}
	r.verdict("devices", "", cloud.OK, "1 attached")
	r.verdict("leftovers", "", cloud.OK)
	r.verdict("ledger", "", cloud.OK, "1 volumes")
	r.verdict("health", "", cloud.OK)
	r.verdict("permission", "ec2:CreateVolume", cloud.OK)
	r.unmount("db", "c1")
}

func TestTheDoctorFindsWhatIsLeftBehind(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Grace, t.Stuck, t.Drain = 10*time.Minute, -10*time.Minute, 0 })
	r.create("held")
	release := r.hold(r.mount("held", "c1"))
	r.create("idle")
	r.mount("idle", "c2")
	r.unmount("held", "c1")
	r.unmount("idle", "c2")
	r.eventually("draining and unused", func() bool {
		return r.status("held")["state"] == string(phaseDraining) && r.status("idle")["state"] == string(phaseAttached)
	})
	r.verdict("leftovers", "held", cloud.Warning, "still has it", "docker ps -a --filter volume=held")
	r.verdict("leftovers", "idle", cloud.Warning, "unused", "blockvol detach idle")
	if got := r.diagnosed("leftovers", ""); got != nil {
		t.Errorf("and yet %+v", got)
	}
	if err := r.sim.Inject(ec2sim.Fault{Kind: "error", Action: "AttachVolume", Code: "UnauthorizedOperation", Times: -1}); err != nil {
		t.Fatal(err)
	}
	r.create("other")
	r.verdict("permission", "ec2:AttachVolume", cloud.Bad, "docs/iam-policy.json")
	r.sim.ClearFaults()
	release()
}

func TestTheDoctorTellsADeviceThatIsNotThere(t *testing.T) {
	r := newRig(t, func(t *Timing) { t.Sweep = time.Hour }) // which would let go of it
	r.create("db")
	if err := r.sim.Inject(ec2sim.Fault{Kind: "no-device"}); err != nil {
		t.Fatal(err)
	}
	id := r.status("db")["id"].(string)
	vol, err := r.manager.cloud.ByID(t.Context(), id)
	if err == nil {
		err = r.manager.cloud.Attach(t.Context(), vol)
	}
	if err == nil {
		err = r.manager.cloud.WaitAttached(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.verdict("devices", "db", cloud.Bad, id, "dmesg")
}

func TestAnArchiveForSupportHoldsNoSecret(t *testing.T) {
	r := newRig(t)
	r.create("db")
	env := map[string]string{"AWS_SECRET_ACCESS_KEY": "secret-canary", "AWS_SESSION_TOKEN": "token-canary", "HTTPS_PROXY": "http://ann:proxy-canary@proxy:3128",
		"AWS_ENDPOINT_URL": "https://ann:url-canary@ec2.example.com", "CLUSTER": "prod", "LOG_LEVEL": "debug",
		"AWS_CA_BUNDLE": "file://ann:@nowhere"}
	r.server.Getenv = func(name string) string { return env[name] }
	r.server.RecentLog = func() []byte {
		return []byte("begin secret-canary token-canary proxy-canary url-canary end")
	}
	var s Support
	r.askFor("Support", NoRequest{}, &s)
	all, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(all), "canary") {
		t.Errorf("a secret is shown: %s", all)
	}
	for _, w := range []string{`"AWS_SECRET_ACCESS_KEY","value":"(set)"`, `"CLUSTER","value":"prod"`, "redacted@proxy:3128", "redacted@ec2.example.com", "begin [secret]", `"db"`} {
		if !strings.Contains(string(all), w) {
			t.Errorf("%s is missing in %s", w, all)
		}
	}
	if len(s.Settings) != len(env) {
		t.Errorf("settings %+v", s.Settings)
	}
}

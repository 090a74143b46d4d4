package options

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/blockvol/blockvol/cloud"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestASchedulesTimesAreThoseOfCronInUTCOrInItsZone(t *testing.T) {
	for _, c := range []struct{ schedule, kept, now, last, next string }{
		{"0 3 * * *", "", "2026-11-21T02:59:59Z", "2026-11-20T03:00:00Z", "2026-11-21T03:00:00Z"},
		{"0 3 * * *", "", "2026-11-21T03:00:00Z", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"},
		{"0 3 * * *", "", "2026-11-21T04:00:00+02:00", "2026-11-20T03:00:00Z", "2026-11-21T03:00:00Z"},
		{" 0  3 *\t* * ", "0 3 * * *", "2026-11-21T12:00:00Z", "2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"},
		{"@Daily", "@daily", "2026-11-21T12:00:00Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"},
		{"@hourly", "", "2026-11-21T12:10:00Z", "2026-11-21T12:00:00Z", "2026-11-21T13:00:00Z"},
		{"*/15 * * * *", "", "2026-11-21T12:29:00Z", "2026-11-21T12:15:00Z", "2026-11-21T12:30:00Z"},
		{"0 */6 * * MON-FRI", "", "2026-11-22T12:00:00Z", "2026-11-20T18:00:00Z", "2026-11-23T00:00:00Z"},
		{"0 0 29 2 *", "", "2026-11-21T12:00:00Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"@yearly", "", "2026-11-21T12:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"CRON_TZ=Europe/Berlin 0 3 * * *", "", "2026-07-21T12:00:00Z", "2026-07-21T01:00:00Z", "2026-07-22T01:00:00Z"},
		{"TZ=Europe/Berlin 0 3 * * *", "CRON_TZ=Europe/Berlin 0 3 * * *", "2026-11-21T12:00:00Z", "2026-11-21T02:00:00Z", "2026-11-22T02:00:00Z"},
		{"CRON_TZ=UTC @Weekly", "CRON_TZ=UTC @weekly", "2026-11-21T12:00:00Z", "2026-11-15T00:00:00Z", "2026-11-22T00:00:00Z"},
		// A time that clocks leave out is moved, one that they show twice counts once.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "", "2026-03-29T12:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "", "2026-10-25T12:00:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "", "2026-10-25T00:45:00Z", "2026-10-24T00:30:00Z", "2026-10-25T01:30:00Z"},
		// Midnight that is not there, as on the first day of summer time in Santiago.
		{"CRON_TZ=America/Santiago 0 0 * * *", "", "2026-09-06T12:00:00Z", "2026-09-06T03:00:00Z", "2026-09-07T03:00:00Z"},
	} {
		s, err := ParseSchedule(c.schedule)
		if err != nil {
			t.Errorf("%q: %v", c.schedule, err)
			continue
		}
		if c.kept == "" {
			c.kept = c.schedule
		}
		again, err := ParseSchedule(s.String())
		if s.String() != c.kept || err != nil || again.String() != c.kept {
			t.Errorf("%q is kept as %q, which is read as %q, %v", c.schedule, s, again, err)
		}
		now := at(t, c.now)
		for _, s := range []Schedule{s, again} {
			if got := s.Last(now).Format(time.RFC3339); got != c.last {
				t.Errorf("%q at %s: the last was %s, want %s", c.schedule, c.now, got, c.last)
			}
			if got := s.Next(now).Format(time.RFC3339); got != c.next {
				t.Errorf("%q at %s: the next is %s, want %s", c.schedule, c.now, got, c.next)
			}
		}
	}
	if never := (Schedule{}); !never.Last(time.Now()).IsZero() || !never.Next(time.Now()).IsZero() {
		t.Error("no schedule has times")
	}
}

func TestASchedulesThatCannotBeMeantIsRefusedWithTheReason(t *testing.T) {
	for value, parts := range map[string][]string{
		"":                                {"no value"},
		"daily":                           {"five fields", "0 3 * * *"},
		"@dayly":                          {"@dayly", "@daily"},
		"@reboot":                         {"@reboot"},
		"@every 6h":                       {"when it begins", "0 */6 * * *"},
		"every 6h":                        {"0 */6 * * *"},
		"rate(1 day)":                     {"when it begins"},
		"cron(0 3 * * ? *)":               {"without seconds and year"},
		"0 0 3 * * *":                     {"without seconds and year"},
		"0 3 * *":                         {"minute hour day month weekday"},
		"60 3 * * *":                      {"60", "0 3 * * *"},
		"0 3 * * 7":                       {"7"},
		"0 3 * * FOO":                     {"FOO"},
		"0 3 30 2 *":                      {"no such day"},
		"* * * * *":                       {"every 1 minutes", "at least 15 minutes", "quota"},
		"*/10 * * * *":                    {"every 10 minutes"},
		"0,50 * * * *":                    {"every 10 minutes"},
		"0,55 0,23 * * *":                 {"every 5 minutes"}, // over midnight
		"0,14 0 29 2 *":                   {"every 14 minutes"},
		"CRON_TZ=Nowhere/City 0 3 * * *":  {"Nowhere/City", "Europe/Berlin"},
		"CRON_TZ=Local 0 3 * * *":         {"time zone"},
		"CRON_TZ= 0 3 * * *":              {"time zone"},
		"CRON_TZ=Europe/Berlin":           {"no time"},
		"TZ=":                             {"time zone"},
		"CRON_TZ=UTC TZ=":                 {"wrong place"},
		"CRON_TZ=UTC CRON_TZ=UTC @daily":  {"wrong place"},
		"CRON_TZ=../../etc/passwd @daily": {"time zone"},
		"0 3 * * * CRON_TZ=Europe/Berlin": {"wrong place"},
		"\"0 3 * * *\"":                   {"0 3 * * *"},
		strings.TrimSuffix(strings.Repeat("0,", 200), ",") + " 3 * * *": {"characters", "256"},
	} {
		refuse(t, m{"snapshot-schedule": value}, nil, append(parts, "snapshot-schedule")...)
	}
	for value, parts := range map[string][]string{
		"0": {"keeps nothing"}, "0d": {"keeps nothing"}, "-1": {"neither"}, "1.5d": {"neither"}, "7 days": {"neither"}, "d": {"neither"}, "7dd": {"neither"},
		"forever": {"neither", "14", "7d"}, "1001": {"at most 1000 snapshots"}, "99999999999999999999": {"too much"}, "4000d": {"3660 days"}, "2147483647w": {"too much"},
		"7d,min=3": {"neither"}, "٧": {"neither"}, "+7": {"neither"},
	} {
		refuse(t, m{"snapshot-schedule": "@daily", "snapshot-keep": value}, nil, append(parts, "snapshot-keep")...)
	}
	refuse(t, m{"snapshot-keep": "7d"}, nil, "no schedule", "snapshot-schedule=@daily")
	refuse(t, m{"snapshot-keep": "7d", "snapshot-schedule": "none"}, m{"snapshot-schedule": "@daily"}, "no schedule")
}

// Wherever one begins to count, the times are the same: hosts that look at different moments mean the same slots. Also where clocks are changed.
func TestTheTimesOfAScheduleDoNotDependOnWhenOneLooks(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	zones := []string{"", "CRON_TZ=Europe/Berlin ", "CRON_TZ=America/Santiago ", "CRON_TZ=Australia/Lord_Howe ", "CRON_TZ=Asia/Kathmandu ", "CRON_TZ=Africa/Cairo "}
	whens := []string{"0 0 * * *", "30 2 * * *", "*/15 * * * *", "15 0,1,2,3 * * *", "0 0 * * SUN", "45 23 28-31 * *", "0 0 1 * *", "59 * * * *"}
	for range 400 {
		text := zones[rng.IntN(len(zones))] + whens[rng.IntN(len(whens))]
		s, err := ParseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1767225600+rng.Int64N(3*365*86400), rng.Int64N(1e9))
		next := s.Next(now)
		if last := s.Last(next); !last.Equal(next) {
			t.Fatalf("seed %d: %q: %s comes next after %s, and is not the last at itself but %s", seed, text, next, now, last)
		}
		if last := s.Last(next.Add(-time.Nanosecond)); !last.Equal(s.Last(now)) || last.After(now) {
			t.Fatalf("seed %d: %q: between %s and %s there is %s", seed, text, now, next, last)
		}
		if between := now.Add(time.Duration(rng.Int64N(int64(next.Sub(now))))); !s.Next(between).Equal(next) {
			t.Fatalf("seed %d: %q: after %s comes %s, but after %s comes %s", seed, text, now, next, between, s.Next(between))
		}
	}
}

func TestAScheduleGoesWithTheVolumeAsTagsAndComesBack(t *testing.T) {
	o := accept(t, m{"snapshot-schedule": "CRON_TZ=Europe/Berlin 0 3 * * *", "snapshot-keep": "07D"}, nil)
	attrs := o.Spec("v", "z").Attrs
	if attrs["snapshot-schedule"] != "CRON_TZ=Europe/Berlin 0 3 * * *" || attrs["snapshot-keep"] != "7d" {
		t.Errorf("the attributes are %v", attrs)
	}
	s, k, err := ScheduleOf(attrs)
	if err != nil || !reflect.DeepEqual(s, o.Schedule) || k != o.Keep || k.Age != 7*24*time.Hour || k.Count != 0 {
		t.Errorf("read back %v %+v, %v", s, k, err)
	}
	if _, k, err := ScheduleOf(map[string]string{"snapshot-schedule": "@daily", "snapshot-keep": "14"}); err != nil || k.Count != 14 || k.Age != 0 {
		t.Errorf("%+v, %v", k, err)
	}
	for _, none := range []map[string]string{nil, {"snapshot-schedule": "none", "snapshot-keep": "7d"}, {"snapshot-schedule": ""}, {"snapshot-keep": "7d"}} {
		if s, k, err := ScheduleOf(none); err != nil || s.String() != "" || k != (Keep{}) {
			t.Errorf("%v: %v %v %v", none, s, k, err)
		}
	}
	for _, bad := range []map[string]string{{"snapshot-schedule": "* * * * *"}, {"snapshot-schedule": "@daily", "snapshot-keep": "x"}} {
		if _, _, err := ScheduleOf(bad); err == nil || !strings.Contains(err.Error(), "blockvol:snapshot-") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	attrs = accept(t, nil, nil).Attrs()
	if _, ok := attrs["snapshot-schedule"]; ok || len(attrs) != 2 {
		t.Errorf("without a schedule the attributes are %v", attrs)
	}
}

func TestAScheduleOfAProfileIsOverriddenAndTakenAway(t *testing.T) {
	profiles, err := ParseProfiles(`gold*: "snapshot-schedule=0 3 * * *" snapshot-keep=7d`, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		request                 m
		wantSchedule, wantKeeps string
	}{
		{nil, "0 3 * * *", "7d"},
		{m{"snapshot-schedule": "@hourly"}, "@hourly", "7d"},
		{m{"snapshot-keep": "all"}, "0 3 * * *", ""},
		{m{"snapshot-schedule": "none"}, "", ""},
		{m{"profile": "none"}, "", ""},
		{m{"profile": "none", "snapshot-schedule": "@daily"}, "@daily", "30d"}, // of the administrator
	} {
		o, err := Resolve(c.request, m{"snapshot-keep": "30d"}, profiles)
		if err != nil || o.Schedule.String() != c.wantSchedule || o.Keep.String() != c.wantKeeps {
			t.Errorf("%v: schedule %q, keep %q, %v", c.request, o.Schedule, o.Keep, err)
		}
	}
	if _, err := ParseDefaults(`"snapshot-schedule=* * * * *"`); err == nil || !strings.Contains(err.Error(), "at least 15 minutes") {
		t.Errorf("a default that is too frequent: %v", err)
	}
}

func TestAScheduleThatAVolumeHasNotIsADifference(t *testing.T) {
	o := accept(t, m{"snapshot-schedule": "@daily", "snapshot-keep": "14"}, nil)
	v := cloud.Volume{ID: "vol-1", SizeGiB: 16, Type: "gp3", Attrs: o.Attrs()}
	if got := o.Differences(v); len(got) != 0 {
		t.Errorf("the volume as it was made differs: %v", got)
	}
	v.Attrs = map[string]string{"fstype": "ext4", "subdir": "data", "snapshot-schedule": "0 3 * * *"}
	got := strings.Join(o.Differences(v), "\n")
	for _, want := range []string{"snapshot-schedule is 0 3 * * *, asked for @daily", "snapshot-keep is not set, asked for 14"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

func TestAScheduleOfAVolumeThatExistsIsChanged(t *testing.T) {
	v := cloud.Volume{ID: "vol-1", SizeGiB: 16, Type: "gp3", Attrs: map[string]string{"fstype": "ext4", "subdir": "data"}}
	if _, err := ParseChange(v, m{"snapshot-keep": "7d"}, nil); err == nil || !strings.Contains(err.Error(), "no schedule") {
		t.Errorf("what is to be kept without a schedule: %v", err)
	}
	c, err := ParseChange(v, m{"snapshot-keep": "7d", "snapshot-schedule": "@daily"}, nil)
	if want := map[string]string{"snapshot-keep": "7d", "snapshot-schedule": "@daily"}; err != nil || !reflect.DeepEqual(c.Attrs, want) {
		t.Errorf("a schedule and what is to be kept: %v, %v", c.Attrs, err)
	}
	v.Attrs["snapshot-schedule"] = "@daily"
	if c, err := ParseChange(v, m{"snapshot-keep": "14"}, nil); err != nil || c.Attrs["snapshot-keep"] != "14" {
		t.Errorf("what is to be kept: %v, %v", c.Attrs, err)
	}
	for _, change := range []struct {
		set   m
		unset []string
	}{{set: m{"snapshot-schedule": "none"}}, {unset: []string{"snapshot-schedule"}}} {
		if c, err := ParseChange(v, change.set, change.unset); err != nil || !reflect.DeepEqual(c.DropAttrs, []string{"snapshot-schedule"}) {
			t.Errorf("%v: %v, %v", change, c, err)
		}
	}
	for _, bad := range []m{{"snapshot-schedule": "* * * * *"}, {"snapshot-schedule": "none", "snapshot-keep": "7d"}} {
		if c, err := ParseChange(v, bad, nil); err == nil {
			t.Errorf("%v is accepted: %+v", bad, c)
		}
	}
}

// Whatever the zone does with its clocks, a schedule of every day has one time each day.
func TestADailyScheduleHasOneTimeOnEveryDay(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Cairo", "America/New_York", "Asia/Kathmandu"} {
		for _, when := range []string{"0 0 * * *", "15 0 * * *", "30 1 * * *", "10 2 * * *", "30 2 * * *", "45 23 * * *"} {
			s, err := ParseSchedule("CRON_TZ=" + zone + " " + when)
			if err != nil {
				t.Fatal(err)
			}
			n, at := 0, time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
			for end := at.AddDate(1, 0, 0); ; n++ {
				next := s.Next(at)
				if next.After(end) {
					break
				}
				if gap := next.Sub(at); n > 0 && (gap < 22*time.Hour || gap > 26*time.Hour) {
					t.Errorf("%s: %s comes after %s", s, next, at)
				}
				at = next
			}
			if n != 365 {
				t.Errorf("%s: %d times in a year", s, n)
			}
		}
	}
}

func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"0 3 * * *", "@daily", "CRON_TZ=Europe/Berlin 0 3 * * *", "TZ=", "*/0 * * * *", "1-59/9223372036854775807 * * * *", "0 0 31 2-6/2 ?", "5/ * * * *",
		"@every 1s", "59-1 * * * *", "*-* * * * *", "0 0 L * *", "18446744073709551615 0 0 0 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		if again, err := ParseSchedule(s.String()); err != nil || again.String() != s.String() {
			t.Fatalf("%q is kept as %q, which is read as %q, %v", text, s, again, err)
		}
		now := time.Unix(1795258800, 0)
		if last, next := s.Last(now), s.Next(now); last.After(now) || !next.IsZero() && !next.After(now) {
			t.Fatalf("%q: last %s, next %s at %s", text, last, next, now)
		}
	})
}

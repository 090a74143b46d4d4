package options

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the plugin's own files have no time zones

	"github.com/blockvol/blockvol/cloud"
	"github.com/robfig/cron/v3"
)

const (
	nameSchedule = "snapshot-schedule"
	nameKeep     = "snapshot-keep"

	// noSchedule is what the option says to have none, also where a profile has one.
	noSchedule = "none"
	// keepAll is what the option says to delete none, also where a profile says otherwise.
	keepAll = "all"

	// minBetween is how close two snapshots of one volume may be. EC2 makes the snapshots of a volume one after the other, each as long as its
	// changes need, allows five pending ones (one for st1 and sc1), and all of an account share one quota (100,000 in a region as it comes):
	// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html (ConcurrentSnapshotLimitExceeded).
	minBetween = 15 * time.Minute

	maxKeepCount = 1000
	maxKeepAge   = 3660 * 24 * time.Hour
)

// Schedule is when snapshots of a volume are made. The zero value is never.
type Schedule struct {
	text string
	cron *cron.SpecSchedule // in UTC, where its days have no holes
	zone *time.Location     // whose clocks are meant
}

// cronFields reads what crontab(5) has, and the names for the usual ones.
var cronFields = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseSchedule reads five fields of cron, or a name such as @daily, behind CRON_TZ=ZONE if it is not UTC that they mean.
func ParseSchedule(value string) (Schedule, error) {
	text := strings.Join(strings.Fields(value), " ")
	zone, in, fields := time.UTC, "", text
	if prefix, rest, ok := strings.Cut(text, "="); ok && (strings.EqualFold(prefix, "CRON_TZ") || strings.EqualFold(prefix, "TZ")) {
		name, when, _ := strings.Cut(rest, " ")
		var err error
		if zone, err = time.LoadLocation(name); err != nil || name == "" || name == "Local" {
			return Schedule{}, fmt.Errorf("%s is not a time zone, such as Europe/Berlin: write CRON_TZ=Europe/Berlin 0 3 * * *", quote(name))
		}
		in, fields = "CRON_TZ="+name+" ", when
	}
	switch lower := strings.ToLower(fields); {
	case fields == "":
		return Schedule{}, errors.New("it says no time: write five fields, minute hour day month weekday (0 3 * * *), or @daily")
	case strings.Contains(fields, "TZ="): // the library falls over it
		return Schedule{}, fmt.Errorf("%s has the time zone in the wrong place: write CRON_TZ=Europe/Berlin 0 3 * * *", quote(text))
	case strings.HasPrefix(lower, "@every"), strings.HasPrefix(lower, "every "), strings.HasPrefix(lower, "rate("):
		return Schedule{}, fmt.Errorf("%s does not say when it begins: write the times themselves, every six hours is 0 */6 * * *", quote(text))
	case strings.HasPrefix(fields, "@"):
		fields = lower
	case strings.HasPrefix(lower, "cron(") || len(strings.Fields(fields)) != 5:
		return Schedule{}, fmt.Errorf("%s does not have the five fields of cron: minute hour day month weekday, without seconds and year (0 3 * * *)", quote(text))
	}
	parsed, err := cronFields.Parse(fields)
	if err != nil {
		return Schedule{}, fmt.Errorf("%s is not a time in the way of cron (minute hour day month weekday, such as 0 3 * * *, or @daily): %s", quote(text), quote(err.Error()))
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Schedule{}, fmt.Errorf("%s is not a fixed time: write five fields, minute hour day month weekday", quote(text))
	}
	spec.Location = time.UTC
	if err := notTooOften(spec); err != nil {
		return Schedule{}, err
	}
	return Schedule{text: in + fields, cron: spec, zone: zone}, nil
}

// notTooOften refuses a schedule that never comes, or whose times are too close. Which times are compared does not depend on the day.
func notTooOften(spec *cron.SpecSchedule) error {
	at := spec.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Second))
	if at.IsZero() {
		return errors.New("there is no such day: look at the day and the month")
	}
	for range 500 { // the fields repeat: an hour, a day and a year of them show all that there is
		next := spec.Next(at)
		if next.IsZero() {
			return nil
		}
		if gap := next.Sub(at); gap < minBetween {
			return fmt.Errorf("snapshots every %d minutes are too close: at least %d minutes must be between two, because EC2 makes those of a volume one after "+
				"the other and the account's quota of snapshots is soon used up; a database is kept up to the minute by its own log", int(gap.Minutes()), int(minBetween.Minutes()))
		}
		at = next
	}
	return nil
}

// String is the schedule as it is kept with the volume; empty for never.
func (s Schedule) String() string { return s.text }

// Next returns the first time of the schedule after t, in UTC, or the zero time if there is none within years. A time that the zone's clocks
// leave out on a day counts an hour later or earlier, and one that they show twice counts once: so every day has all of its snapshots. The
// library would have the times of such days depend on t, and then two hosts would not mean the same.
func (s Schedule) Next(t time.Time) time.Time {
	if s.cron == nil {
		return time.Time{}
	}
	const shift = 3 * time.Hour // more than any clock is put forward or back
	best := time.Time{}
	for w := s.cron.Next(s.shown(t).Add(-shift)); !w.IsZero(); w = s.cron.Next(w) {
		if !best.IsZero() && w.Sub(s.shown(best)) > shift {
			break
		}
		at := time.Date(w.Year(), w.Month(), w.Day(), w.Hour(), w.Minute(), 0, 0, s.zone).UTC()
		if at.After(t) && (best.IsZero() || at.Before(best)) {
			best = at
		}
	}
	return best
}

// shown is what the zone's clocks show at t, as if that were UTC.
func (s Schedule) shown(t time.Time) time.Time {
	t = t.In(s.zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// Last returns the latest time of the schedule that is not after t, in UTC, or the zero time if there was none within ten years.
func (s Schedule) Last(t time.Time) time.Time {
	if s.cron == nil {
		return time.Time{}
	}
	const day = 24 * time.Hour
	for _, back := range []time.Duration{time.Hour, day, 32 * day, 370 * day, 3660 * day} {
		last := time.Time{}
		for at := s.Next(t.Add(-back)); !at.IsZero() && !at.After(t); at = s.Next(at) {
			last = at
		}
		if !last.IsZero() {
			return last
		}
	}
	return time.Time{}
}

// Keep is which of the snapshots that a schedule has made are kept. The zero value keeps all.
type Keep struct {
	Count int           // so many, the latest
	Age   time.Duration // those that are at most so much older than the latest
	text  string
}

// String is the rule as it is kept with the volume; empty for all.
func (k Keep) String() string { return k.text }

// ParseKeep reads a number of snapshots (14), an age (48h, 7d, 4w), or all.
func ParseKeep(value string) (Keep, error) {
	text := strings.ToLower(value)
	if text == keepAll {
		return Keep{}, nil
	}
	bad := fmt.Errorf("%s is neither a number of snapshots, such as 14, nor an age, such as 48h, 7d or 4w, nor all", quote(value))
	number := strings.TrimRight(text, "hdw")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || len(text)-len(number) > 1 {
		if digits(number) && len(text)-len(number) <= 1 {
			return Keep{}, fmt.Errorf("%s is too much: at most %d snapshots, or %d days", quote(value), maxKeepCount, int(maxKeepAge.Hours()/24))
		}
		return Keep{}, bad
	}
	unit := map[string]time.Duration{"": 0, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}[text[len(number):]]
	text = strconv.FormatUint(n, 10) + text[len(number):]
	switch {
	case n == 0:
		return Keep{}, fmt.Errorf("%s keeps nothing: write a number of snapshots from 1 to %d, or an age from 1h on", quote(value), maxKeepCount)
	case unit == 0 && n > maxKeepCount, unit > 0 && n > uint64(maxKeepAge/unit):
		return Keep{}, fmt.Errorf("%s is too much: at most %d snapshots, or %d days", quote(value), maxKeepCount, int(maxKeepAge.Hours()/24))
	case unit == 0:
		return Keep{Count: int(n), text: text}, nil
	}
	return Keep{Age: time.Duration(n) * unit, text: text}, nil
}

func setSchedule(o *Options, value string) (err error) {
	if strings.EqualFold(value, noSchedule) {
		o.Schedule = Schedule{}
		return nil
	}
	if o.Schedule, err = ParseSchedule(value); err == nil && len(o.Schedule.text) > maxTagValue {
		err = fmt.Errorf("it has %d characters: it is kept in a tag of the volume, which holds %d", len(o.Schedule.text), maxTagValue)
	}
	return err
}

func setKeep(o *Options, value string) (err error) {
	o.Keep, err = ParseKeep(value)
	return err
}

// forSchedule drops a rule for snapshots that are not made, and refuses it where the request itself names it.
func (o *Options) forSchedule(broken map[string]bool) (problems []string) {
	if o.Schedule.text != "" || broken[nameSchedule] || broken[nameKeep] {
		return nil
	}
	if o.given[nameKeep] {
		problems = append(problems, fmt.Sprintf("%s: there is no schedule whose snapshots could be kept: add %s, such as %s=@daily", nameKeep, nameSchedule, nameSchedule))
	}
	o.Keep = Keep{}
	return problems
}

// keepsNothing is forSchedule for a change of a volume.
func (o Options) keepsNothing(vol cloud.Volume, gone map[string]bool) (problems []string) {
	has := vol.Attrs[nameSchedule] != "" && !gone[nameSchedule]
	if o.given[nameSchedule] {
		has = o.Schedule.text != ""
	}
	if o.given[nameKeep] && o.Keep.text != "" && !has {
		problems = append(problems, fmt.Sprintf("%s: the volume has no schedule whose snapshots could be kept: add %s, such as %s=@daily", nameKeep, nameSchedule, nameSchedule))
	}
	return problems
}

// ScheduleOf reads from a volume's attributes when snapshots of it are made and which of them are kept. Attributes are tags, which people can
// change: what would not be accepted as an option is an error.
func ScheduleOf(attrs map[string]string) (Schedule, Keep, error) {
	var o Options
	for _, name := range scheduleNames {
		value, ok := attrs[name]
		if !ok || value == "" {
			continue
		}
		opt, _, _ := lookup(name)
		if err := (entry{opt: opt, key: name, value: value}).apply(&o); err != nil {
			return Schedule{}, Keep{}, fmt.Errorf("the volume's tag blockvol:%s cannot be used: %w", name, err)
		}
	}
	if o.Schedule.text == "" {
		return Schedule{}, Keep{}, nil
	}
	return o.Schedule, o.Keep, nil
}

// scheduleNames are the attributes of the schedule, which are options of the same name.
var scheduleNames = []string{nameSchedule, nameKeep}

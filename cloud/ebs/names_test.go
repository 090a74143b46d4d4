package ebs

import (
	"regexp"
	"testing"
	"time"
)

func newTestAllocator() (*allocator, *time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := &now
	return newAllocator(func() time.Time { return *clock }, 4*time.Second), clock
}

func TestDeviceNamesAreDistinctAndOnesThatEC2Takes(t *testing.T) {
	t.Parallel()
	good := regexp.MustCompile(`^/dev/(sd[b-z]|xvd[b-z]|xvd[abd][a-z])$`)
	seen := map[string]bool{}
	for _, name := range deviceNames() {
		if seen[name] || !good.MatchString(name) {
			t.Errorf("%s", name)
		}
		seen[name] = true
	}
	if len(seen) < 120 {
		t.Errorf("%d names", len(seen))
	}
}

func TestANameIsNotUsedAgainSoonerThanItMust(t *testing.T) {
	t.Parallel()
	a, _ := newTestAllocator()
	seen := map[string]bool{}
	for range a.names {
		name, full := a.reserve("vol-1", machine{})
		if full || seen[name] {
			t.Fatalf("got %q again, full %v", name, full)
		}
		seen[name] = true
		a.release(name)
	}
	if _, full := a.reserve("vol-1", machine{}); full {
		t.Error("released names are not free")
	}
}

func TestAVolumeTakesOnePlace(t *testing.T) {
	t.Parallel()
	a, _ := newTestAllocator()
	for range 5 { // attached again and again without anybody telling of the detachments
		name, full := a.reserve("vol-1", machine{max: 2})
		if full {
			t.Fatal("full of one volume")
		}
		a.attached(name, "vol-1")
		if n := a.volumes(); n != 1 {
			t.Fatalf("%d places taken", n)
		}
	}
}

func TestNetworkInterfacesCountWhereTheLimitIsShared(t *testing.T) {
	t.Parallel()
	a, clock := newTestAllocator()
	a.replace(*clock, map[string]string{"/dev/xvda": "vol-root"}, 3)
	for _, c := range []struct {
		m    machine
		want int
	}{
		{machine{max: 27, shared: true}, 25}, // the type's number allows for one interface
		{machine{max: 32}, 32},
		{machine{}, 0},
		{machine{max: 2, shared: true}, 1},
	} {
		if got := a.limit(c.m); got != c.want {
			t.Errorf("%+v: %d, want %d", c.m, got, c.want)
		}
	}
}

func TestARefreshKeepsWhatItCannotKnow(t *testing.T) {
	t.Parallel()
	a, clock := newTestAllocator()
	old, _ := a.reserve("vol-old", machine{})
	a.attached(old, "vol-old")
	refused, _ := a.reserve("vol-x", machine{})
	a.refused(refused)
	*clock = clock.Add(time.Minute)
	fresh, _ := a.reserve("vol-fresh", machine{})
	a.attached(fresh, "vol-fresh")
	flying, _ := a.reserve("vol-flying", machine{})
	a.replace(clock.Add(time.Second), map[string]string{"/dev/sdb": "vol-other"}, 1)
	for name, want := range map[string]bool{old: false, refused: true, fresh: true, flying: true, "/dev/sdb": true} {
		if _, taken := a.taken[name]; taken != want {
			t.Errorf("%s (%+v): taken %v, want %v", name, a.taken[name], taken, want)
		}
	}
	*clock = clock.Add(time.Hour)
	a.replace(*clock, map[string]string{}, 1)
	if _, taken := a.taken[refused]; taken {
		t.Error("a name that was refused an hour ago is never tried again")
	}
	if _, taken := a.taken[flying]; !taken {
		t.Error("a name in flight was given away")
	}
}

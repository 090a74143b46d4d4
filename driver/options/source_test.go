package options

import (
	"maps"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cloud"
)

// ownSource is a snapshot that blockvol made.
func ownSource() Source {
	return Source{What: `snapshot snap-1 of volume "db"`, SnapshotID: "snap-1", SizeGiB: 100, Attrs: m{"fs": "xfs", "fstype": "xfs", "subdir": "pg", "uid": "70", "mode": "0700",
		"mount-options": "noatime", "mkfs-options": "-m reflink=0", "consistency": "frozen", "reclaim": "retain", "profile": "gold"}}
}

func TestAVolumeTakesOverWhatBelongsToItsData(t *testing.T) {
	profile := m{"fstype": "ext4", "mkfs-options": "-m 0", "mount-options": "nosuid", "size": "5", "subdir": "other", "uid": "1"}
	inherited := m{"fs": "xfs", "fstype": "xfs", "subdir": "pg", "uid": "70", "mode": "0700", "mount-options": "noatime", "mkfs-options": "-m reflink=0"}
	with := func(more m) m {
		all := maps.Clone(inherited)
		maps.Copy(all, more)
		return all
	}
	foreign := Source{What: "snapshot snap-1", SnapshotID: "snap-1", SizeGiB: 100}
	volume := ownSource()
	volume.SnapshotID, volume.VolumeID = "", "vol-1"
	for _, c := range []struct {
		request m
		src     Source
		size    int64
		want    m
	}{
		{m{"snapshot-id": "snap-0123456789abcdef0"}, ownSource(), 0, with(m{"snapshot-id": "snap-0123456789abcdef0"})},
		{m{"snapshot-id": "latest:db", "size": "200", "mount-options": "nosuid,allocsize=1m", "subdir": "/", "fstype": "xfs", "reclaim": "retain"}, ownSource(), 200,
			with(m{"snapshot-id": "latest:db", "mount-options": "nosuid,allocsize=1m", "subdir": "/", "reclaim": "retain"})},
		{m{"from": "db"}, volume, 0, with(m{"from": "db"})},
		{m{"snapshot-id": "latest:db"}, foreign, 0, m{"fs": "adopted", "subdir": "/", "mount-options": "nosuid", "uid": "1", "snapshot-id": "latest:db"}},
		{m{"snapshot-id": "latest:db", "subdir": "data", "fstype": "ext4"}, foreign, 0,
			m{"fs": "adopted", "fstype": "ext4", "subdir": "data", "mount-options": "nosuid", "uid": "1", "snapshot-id": "latest:db"}},
	} {
		o := accept(t, c.request, profile)
		spec, err := o.CopySpec("copy", "z", c.src)
		if err != nil || !maps.Equal(spec.Attrs, c.want) || spec.SizeGiB != c.size || spec.SnapshotID != c.src.SnapshotID || spec.SourceID != c.src.VolumeID {
			t.Errorf("%v: %+v, %v\nwant %v", c.request, spec, err, c.want)
			continue
		}
		// Asked for once more it is the same, also when there is a newer snapshot.
		made := cloud.Volume{SizeGiB: max(spec.SizeGiB, c.src.SizeGiB), Type: spec.Type, Zone: "z", Attrs: spec.Attrs, SnapshotID: "snap-0123456789abcdef0"}
		if diff := o.Differences(made); len(diff) > 0 {
			t.Errorf("%v: made anew it differs: %v", c.request, diff)
		}
	}
}

func TestAVolumeOfOtherDataIsNotWhatWasAskedFor(t *testing.T) {
	v := cloud.Volume{SnapshotID: "snap-0123456789abcdef0", Attrs: m{"fs": "ext4", "fstype": "ext4", "subdir": "data", "snapshot-id": "latest:db"}}
	empty := cloud.Volume{Attrs: m{"fs": "ext4", "fstype": "ext4", "subdir": "data"}}
	for _, c := range []struct {
		request m
		volume  cloud.Volume
		want    string
	}{
		{m{"snapshot-id": "latest:db"}, v, ""},
		{m{"snapshot-id": "snap-0123456789abcdef0"}, v, ""},
		{m{}, v, ""},
		{m{"snapshot-id": "snap-00000000"}, v, "snapshot-id is latest:db, asked for snap-00000000"},
		{m{"snapshot-id": "latest:web"}, v, "snapshot-id is latest:db, asked for latest:web"},
		{m{"from": "db"}, v, "from is not set, asked for db"},
		{m{"snapshot-id": "latest:db"}, empty, "snapshot-id is not set, asked for latest:db"},
	} {
		if got := strings.Join(accept(t, c.request, nil).Differences(c.volume), "; "); got != c.want {
			t.Errorf("%v: %q, want %q", c.request, got, c.want)
		}
	}
}

func TestWhatContradictsTheDataIsRefused(t *testing.T) {
	for _, c := range []struct {
		request m
		words   []string
	}{
		{m{"snapshot-id": "snap-xyz"}, []string{"snap-xyz", "latest:NAME"}},
		{m{"snapshot-id": "latest:"}, []string{"latest:"}},
		{m{"snapshot-id": "latest:../x"}, []string{"latest:../x"}},
		{m{"from": "a b"}, []string{"from", "a b"}},
		{m{"from": "db", "snapshot-id": "latest:db"}, []string{"snapshot-id and from"}},
		{m{"from": "db", "volume-id": "vol-0123456789abcdef0"}, []string{"volume-id", "from"}},
		{m{"snapshot-id": "latest:db", "selector": "a=b"}, []string{"selector", "snapshot-id"}},
		{m{"snapshot-id": "latest:db", "mkfs-options": "-m 0"}, []string{"mkfs-options", "never formatted"}},
	} {
		refuse(t, c.request, nil, c.words...)
	}
	for _, name := range []string{"snapshot-id", "snapshot"} {
		if _, err := ParseDefaults(name + "=latest:db"); err == nil || !strings.Contains(err.Error(), "said for each") {
			t.Errorf("%s stands in the defaults: %v", name, err)
		}
	}
	never := ownSource()
	never.Attrs["fs"] = "none"
	half := ownSource()
	half.Attrs["fs"] = "formatting:i-1"
	for _, c := range []struct {
		request m
		src     Source
		words   []string
	}{
		{m{"size": "50"}, ownSource(), []string{"size", "snap-1", "100 GiB", "50 GiB"}},
		{m{"type": "standard", "size": "2000"}, Source{What: "snapshot snap-1", SizeGiB: 2000}, []string{"standard", "2000"}},
		{m{"type": "standard"}, Source{What: "snapshot snap-1", SizeGiB: 2000}, []string{"standard", "snap-1 has 2000 GiB"}},
		{m{"fstype": "ext4"}, ownSource(), []string{"fstype", "has xfs"}},
		{m{"mount-options": "data=ordered"}, ownSource(), []string{"mount-options", "data"}},
		{m{}, never, []string{"no filesystem", "none"}},
		{m{}, half, []string{"no filesystem", "formatting:i-1"}},
	} {
		request := maps.Clone(c.request)
		request["snapshot-id"] = "latest:db"
		o, err := Parse(request, nil)
		if err == nil {
			_, err = o.CopySpec("copy", "z", c.src)
		}
		if err == nil {
			t.Errorf("%v was accepted", request)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: %q does not say %q", request, err, w)
			}
		}
	}
}

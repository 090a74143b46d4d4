package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/blockvol/blockvol/cloud/ec2sim"
)

// there makes a volume of 1 GiB that blockvol did not make, and returns its ID.
func (r *rig) there(image string, tags map[string]string) string {
	r.t.Helper()
	id, err := r.sim.Import(ec2sim.ImportSpec{Image: image, SizeGiB: 1, Zone: r.host.Zone, Tags: tags})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// foreign makes an image with a file in its root and one below data, as REX-Ray left its volumes.
func foreign(t *testing.T, mkfs ...string) string {
	t.Helper()
	path := image(t, func(p string) { run(t, mkfs[0], append(mkfs[1:], p)...) })
	at := t.TempDir()
	run(t, "mount", "-o", "loop", path, at)
	defer run(t, "umount", at)
	write(t, filepath.Join(at, "top"), "old")
	if err := os.Mkdir(filepath.Join(at, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, "data", "row"), "42")
	return path
}

// remove waits until a volume can be removed, and removes it.
func (r *rig) remove(name string) {
	r.t.Helper()
	r.eventually("it is removed", func() bool { _, err := r.try("Remove", m{"Name": name}); return err == nil })
}

func TestAnAdoptedVolumeIsUsedAsItIsOnEveryHostAndKeptWhenItIsRemoved(t *testing.T) {
	r := newRig(t)
	two := r.twin()
	for _, fs := range []string{"ext4", "xfs"} {
		id := r.there(foreign(t, "mkfs."+fs, "-q"), map[string]string{"Name": "theirs"})
		name := "db-" + fs
		adopt := m{"Name": name, "Opts": m{"volume-id": id, "mount-options": "noatime", "tag.by": "hand"}}
		r.must("Create", adopt)
		r.must("Create", adopt)   // once more
		two.must("Create", adopt) // and elsewhere
		r.refused("Create", m{"Name": name, "Opts": m{"volume-id": "vol-0123456789abcdef0"}}, name, id, "vol-0123456789abcdef0")
		r.refused("Create", m{"Name": "second", "Opts": m{"volume-id": id}}, "second", id, name, "already")
		if st := r.status(name); st["id"] != id || st["reclaim"] != "retain" || st["filesystem"] != "adopted" {
			t.Errorf("inspect shows %v", st)
		}
		path := r.mount(name, "c1")
		if read(t, filepath.Join(path, "top")) != "old" || read(t, filepath.Join(path, "data", "row")) != "42" {
			t.Error("the container does not get the root of the volume")
		}
		write(t, filepath.Join(path, "new"), "too")
		if st := r.status(name); st["filesystem"] != fs {
			t.Errorf("inspect shows %v", st)
		}
		r.unmount(name, "c1")
		r.eventually("detached", func() bool { return r.attached() == 0 })
		two.eventually("mounted elsewhere", func() bool { _, err := two.try("Mount", m{"Name": name, "ID": "c2"}); return err == nil })
		two.unmount(name, "c2")
		two.remove(name)
		if got := r.given(name); len(got) != 1 || got[0] != id {
			t.Errorf("kept are %v", got)
		}
		// What was given up can be taken again, under another name and with another folder.
		r.must("Create", m{"Name": "again-" + fs, "Opts": m{"volume-id": id, "subdir": "data", "reclaim": "delete"}})
		path = r.mount("again-"+fs, "c3")
		// This host has not heard of the removal: what it still has under the old name must not be taken away from the new one.
		for _, far := range []reach{keepAttached, atOnce} {
			if _, err := r.manager.release(t.Context(), r.manager.record(name), far); err != nil {
				t.Error(err)
			}
		}
		if got := read(t, filepath.Join(path, "row")); got != "42" {
			t.Errorf("data/row holds %q", got)
		}
		r.unmount("again-"+fs, "c3")
		r.remove("again-" + fs)
		r.eventually("deleted, as was asked for", func() bool {
			out, err := r.person().DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
			return err == nil && len(out.Volumes) == 0
		})
	}
}

func TestAVolumeIsNotMountedWhileItIsLetGoOfUnderAnotherName(t *testing.T) {
	r := newRig(t)
	id := r.there(foreign(t, "mkfs.ext4", "-q"), nil)
	r.must("Create", m{"Name": "old", "Opts": m{"volume-id": id}})
	r.mount("old", "c1")
	done, err := r.manager.letGoOf(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	mounted := make(chan error, 1)
	go func() {
		_, _, err := r.manager.Mount(t.Context(), "old", "c2")
		mounted <- err
	}()
	select {
	case err := <-mounted:
		done()
		t.Fatalf("it was mounted meanwhile: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.manager.release(soon, r.manager.record("other"), atOnce); err != nil {
		t.Errorf("a name without a volume waits: %v", err)
	}
	other := r.manager.record("other")
	_, seen := r.manager.record("old").known()
	other.set(func() { other.id, other.seen = id, seen })
	if _, err := r.manager.release(soon, other, atOnce); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two names let go of it at once: %v", err)
	}
	other.set(func() { other.id, other.seen = "", nil })
	done()
	if err := <-mounted; err != nil {
		t.Error(err)
	}
	r.unmount("old", "c1")
	r.unmount("old", "c2")
}

func TestAnAdoptedVolumeIsNeverFormattedAndWhatIsOnItIsNamed(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name  string
		image string
		opts  m
		words []string
	}{
		{"blank", "", nil, []string{"blank", "mkfs.ext4"}},
		{"vfat", image(t, func(p string) { run(t, "mkfs.vfat", p) }), nil, []string{"vfat"}},
		{"table", image(t, func(p string) {
			put(t, p, 446, []byte("\x80\x01\x01\x00\x83\xff\xff\xff\x00\x08\x00\x00\x00\xf8\x1f\x00"))
			put(t, p, 510, []byte{0x55, 0xaa})
		}), nil, []string{"partition table", "dos"}},
		{"luks", image(t, func(p string) { put(t, p, 0, append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 4088)...)) }), nil, []string{"LUKS"}},
		{"other", image(t, func(p string) { run(t, "mkfs.xfs", "-q", p) }), m{"fstype": "ext4"}, []string{"ext4", "xfs"}},
	} {
		id := r.there(c.image, nil)
		before := digest(t, r.sim.BackingFile(id))
		opts := m{"volume-id": id}
		for k, v := range c.opts {
			opts[k] = v
		}
		r.must("Create", m{"Name": c.name, "Opts": opts})
		r.refused("Mount", m{"Name": c.name, "ID": "c1"}, append(c.words, c.name, id, "left as it is")...)
		r.eventually("detached", func() bool { return r.attached() == 0 })
		if digest(t, r.sim.BackingFile(id)) != before {
			t.Errorf("%s: its bytes were changed", c.name)
		}
		r.remove(c.name)
	}
	for _, c := range []struct {
		opts  m
		words []string
	}{
		{m{"volume-id": "vol-1"}, []string{"volume-id", "vol-1"}},
		{m{"volume-id": "vol-0123456789abcdef0", "selector": "a=b"}, []string{"volume-id and selector"}},
		{m{"volume-id": "vol-0123456789abcdef0", "mkfs-options": "-m 0"}, []string{"mkfs-options", "never formatted"}},
		{m{"volume-id": "vol-0123456789abcdef0", "mount-options": "commit=30"}, []string{"commit"}},
		{m{"volume-id": "vol-0123456789abcdef0"}, []string{"there is no volume vol-0123456789abcdef0"}},
		{m{"volume-id": r.there("", nil), "size": "2"}, []string{"size is 1 GiB, asked for 2 GiB"}},
		{m{"selector": "team"}, []string{"selector", "KEY=VALUE"}},
		{m{"selector": "blockvol:cluster=x"}, []string{"selector", "blockvol:"}},
		{m{"selector-fallback": "create"}, []string{"selector-fallback"}},
	} {
		r.refused("Create", m{"Name": "no", "Opts": c.opts}, c.words...)
	}
	if n := r.calls()["CreateVolume"]; n != 0 {
		t.Errorf("%d volumes were made", n)
	}
}

func TestASelectorClaimsTheSmallestVolumeThatFits(t *testing.T) {
	r := newRig(t)
	two := r.twin()
	image := foreign(t, "mkfs.ext4", "-q")
	var ids []string
	for range 3 {
		ids = append(ids, r.there(image, map[string]string{"team": "db", "tier": "gold"}))
	}
	r.there(image, map[string]string{"team": "web", "tier": "gold"})
	// Both hosts want one each at the same moment, and one for the same name.
	var all sync.WaitGroup
	for n, host := range []*rig{r, two} {
		all.Go(func() {
			for _, name := range []string{fmt.Sprint("own", n), "both"} {
				host.eventually("claimed", func() bool {
					_, err := host.try("Create", m{"Name": name, "Opts": m{"selector": "tier=gold,team=db", "size": "1"}})
					return err == nil
				})
			}
		})
	}
	all.Wait()
	seen := map[string]string{}
	for _, v := range r.volumes() {
		if other, twice := seen[v.ID]; twice {
			t.Errorf("%s is %s and %s", v.ID, other, v.Name)
		}
		seen[v.ID] = v.Name
	}
	if len(seen) != 3 || seen[ids[0]]+seen[ids[1]]+seen[ids[2]] == "" {
		t.Errorf("claimed are %v of %v", seen, ids)
	}
	if got := read(t, filepath.Join(r.mount("both", "c1"), "top")); got != "old" {
		t.Errorf("it holds %q", got)
	}
	r.unmount("both", "c1")
	r.refused("Create", m{"Name": "more", "Opts": m{"selector": "team=db,tier=gold"}}, "more", "no volume matches", r.host.Zone, "selector-fallback=create")
	r.refused("Create", m{"Name": "more", "Opts": m{"selector": "team=web,tier=gold", "size": "5"}}, "at least 5 GiB")
	r.refused("Create", m{"Name": "more", "Opts": m{"selector": "team=web,tier=gold", "type": "gp2"}}, "type is gp3, asked for gp2")
	for range 2 {
		r.must("Create", m{"Name": "more", "Opts": m{"selector": "team=db,tier=gold", "selector-fallback": "create", "size": "2"}})
	}
	if st := r.status("more"); st["size"] != "2 GiB" || st["reclaim"] != "delete" {
		t.Errorf("made was %v", st)
	}
	r.mount("more", "c1")
	r.unmount("more", "c1")
}

func TestVolumesOfREXRayAreTakenOverByTheirName(t *testing.T) {
	r := newRig(t)
	image := foreign(t, "mkfs.ext4", "-q")
	id := r.there(image, map[string]string{"Name": "pgdata"})
	for range 2 { // once more is no harm
		var got AdoptedVolume
		r.askFor("Adopt", AdoptRequest{Name: "pgdata", FromREXRay: true}, &got)
		if got.ID != id || got.Name != "pgdata" {
			t.Errorf("%+v, want %s", got, id)
		}
	}
	if got := read(t, filepath.Join(r.mount("pgdata", "c1"), "row")); got != "42" {
		t.Errorf("data/row holds %q", got)
	}
	r.unmount("pgdata", "c1")
	other := r.there(image, nil)
	r.askFor("Adopt", AdoptRequest{Name: "other", VolumeID: other, Options: m2s("Sub_Dir", "/")}, new(AdoptedVolume))
	if got := read(t, filepath.Join(r.mount("other", "c1"), "top")); got != "old" {
		t.Errorf("top holds %q", got)
	}
	r.unmount("other", "c1")
	twins := []string{r.there(image, map[string]string{"Name": "twins"}), r.there(image, map[string]string{"Name": "twins"})}
	for _, c := range []struct {
		req   AdoptRequest
		words []string
	}{
		{AdoptRequest{Name: "twins", FromREXRay: true}, append(twins, "2 volumes", "adopt VOLUME-ID twins")},
		{AdoptRequest{Name: "nowhere", FromREXRay: true}, []string{"Name=nowhere", r.host.Zone, "detached"}},
		{AdoptRequest{Name: "a/b", VolumeID: other}, []string{"a/b"}},
		{AdoptRequest{Name: "second", VolumeID: other}, []string{other, `"other"`, "already"}},
		{AdoptRequest{Name: "second", VolumeID: twins[0], Options: m2s("colour", "red")}, []string{"colour"}},
	} {
		a, err := r.ask(t.Context(), "Adopt", c.req)
		if err != nil || a.Error == "" {
			t.Errorf("%+v: %+v %v", c.req, a, err)
		}
		for _, w := range c.words {
			if !strings.Contains(a.Error, w) {
				t.Errorf("%+v: %q is missing in %q", c.req, w, a.Error)
			}
		}
	}
}

// Whatever EC2 answers while a volume is adopted: the next try ends it, there is one volume of the name, and its data is there.
func TestFaultsWhileAVolumeIsAdoptedBindItOnceOrNotAtAll(t *testing.T) {
	t.Parallel()
	image := foreign(t, "mkfs.ext4", "-q")
	for _, f := range []ec2sim.Fault{
		{Kind: "lost-answer", Action: "CreateTags"},
		{Kind: "lost-answer", Action: "CreateTags", Times: 2},
		{Kind: "hang", Action: "CreateTags"},
		{Kind: "error", Action: "CreateTags", Code: "UnauthorizedOperation", Status: 403},
		{Kind: "error", Action: "CreateTags", Code: "TagLimitExceeded"},
		{Kind: "invisible", Action: "CreateTags", Duration: time.Second},
		{Kind: "error", Action: "DeleteTags", Code: "UnauthorizedOperation", Status: 403, Times: -1},
		{Kind: "error", Action: "DescribeVolumes", Code: "InternalError", Status: 500},
		{Kind: "invisible", Action: "DescribeVolumes"},
	} {
		t.Run(fmt.Sprint(f.Kind, "-", f.Action, "-", f.Code, f.Times), func(t *testing.T) {
			t.Parallel()
			r := newMachine(t)
			r.ebs.Attempt, r.ebs.MaxBackoff = time.Second, 300*time.Millisecond
			r.start()
			id := r.there(image, nil)
			if err := r.sim.Inject(f); err != nil {
				t.Fatal(err)
			}
			r.eventually("it is adopted", func() bool { _, err := r.try("Create", m{"Name": "db", "Opts": m{"volume-id": id}}); return err == nil })
			r.sim.ClearFaults()
			r.eventually("it is mounted", func() bool { _, err := r.try("Mount", m{"Name": "db", "ID": "c1"}); return err == nil })
			if got := read(t, filepath.Join(r.mount("db", "c1"), "top")); got != "old" {
				t.Errorf("it holds %q", got)
			}
			if all := r.volumes(); len(all) != 1 || all[0].ID != id || r.calls()["CreateVolume"] != 0 {
				t.Errorf("there are %+v", all)
			}
			r.unmount("db", "c1")
		})
	}
}

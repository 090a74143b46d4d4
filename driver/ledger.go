package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// ledgerSchema is the version of the ledger's format that this build writes. A newer one is set aside, not guessed at.
const ledgerSchema = 1

// entry is what the ledger says of one volume.
type entry struct {
	ID    string   `json:"id"`
	Users []string `json:"users,omitempty"` // mount IDs that Docker has not given back
}

// ledgerFile is the format on disk.
type ledgerFile struct {
	Schema   int              `json:"schema"`
	Boot     string           `json:"boot"`
	Identity identity         `json:"identity"`
	Lost     bool             `json:"lost,omitempty"` // an earlier ledger was lost: Docker may know volumes that are not named here; see complete
	Volumes  map[string]entry `json:"volumes"`
}

// ledger keeps, across restarts of the plugin, which volumes Docker knows from here and which mount IDs it has not given back. It is a
// hint: losing it costs nothing but a detour through the kernel and the cloud. What the volumes belong to is kept a second time, beside it.
type ledger struct {
	path    string
	beside  string // the file with the identity
	log     logrus.FieldLogger
	trusted bool // it was read whole, and written during this boot: what it does not name was not handed to a container

	mu      sync.Mutex
	file    ledgerFile
	pending *identity // what the settings say, as long as nothing shows that the volumes of a lost ledger belong to it
	wrote   string    // the last content written, so that unchanged content costs no write
	failed  bool      // the last write has failed
}

// staleSuffix is added to the name of a ledger whose successor could not be written. It still tells which volumes Docker knows from here.
const staleSuffix = ".stale"

// openLedger reads dir/ledger.json. One that is missing starts empty; one that cannot be understood is set aside under another name and
// said in the log. Mount IDs from before a reboot are dropped: no container has outlived it. One that is stale, or lies where nothing can be
// written, is not trusted: it may not name what was handed out last.
func openLedger(dir, bootID string, log logrus.FieldLogger) *ledger {
	l := &ledger{path: filepath.Join(dir, "ledger.json"), beside: filepath.Join(dir, "identity.json"), log: log}
	l.file = ledgerFile{Schema: ledgerSchema, Boot: bootID, Volumes: map[string]entry{}}
	removeTemps(l.path)
	removeTemps(l.beside)
	path, stale := l.path, false
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		path, stale = path+staleSuffix, true
		data, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		l.lose()
		return l
	}
	var f ledgerFile
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err == nil && f.Schema != ledgerSchema {
		err = fmt.Errorf("it has schema %d, this version knows %d", f.Schema, ledgerSchema)
	}
	if err != nil {
		aside := fmt.Sprintf("%s.unreadable-%d", l.path, time.Now().Unix())
		log.WithError(err).Warnf("the ledger %s cannot be used and is set aside as %s; mounts are taken from the kernel instead", path, aside)
		if err := os.Rename(path, aside); err != nil {
			log.WithError(err).Warn("setting the ledger aside failed")
		}
		l.file.Lost = true
		l.lose()
		return l
	}
	if f.Volumes == nil {
		f.Volumes = map[string]entry{}
	}
	l.trusted = bootID != "" && !f.Lost && !stale
	if l.trusted {
		if err := replaceFile(path, data); err != nil {
			log.WithError(err).Warnf("nothing can be written to %s, so the ledger there is not trusted", hostPath(dir))
			l.trusted, l.failed = false, true
		}
	}
	if f.Boot != bootID || bootID == "" {
		for name, e := range f.Volumes {
			e.Users = nil
			f.Volumes[name] = e
		}
		f.Boot = bootID
	}
	l.file = f
	return l
}

// lose takes up a ledger that cannot be read: what its volumes belonged to is in the file beside it. Where that file is, there was a ledger.
func (l *ledger) lose() {
	id, err := readIdentity(l.beside)
	switch {
	case err == nil:
		l.file.Identity = id
	case errors.Is(err, fs.ErrNotExist) && !l.file.Lost:
		return // a new host
	default:
		l.log.WithError(err).Warnf("%s cannot be read either: no volume is said not to exist until the cluster shows one", l.beside)
	}
	l.file.Lost = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writeLocked()
}

// entries returns a copy of what is known.
func (l *ledger) entries() map[string]entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]entry, len(l.file.Volumes))
	for n, e := range l.file.Volumes {
		out[n] = e
	}
	return out
}

// errStrangers marks the error of settings that the volumes known here do not belong to.
var errStrangers = errors.New("the known volumes belong to other settings")

// belongsTo records id as the ledger's identity, or tells that its volumes belong to another one.
func (l *ledger) belongsTo(id identity) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.knowsLocked() && l.file.Identity == (identity{}) {
		l.pending = &id
		return nil
	}
	if l.knowsLocked() && !l.file.Identity.sameAs(id) {
		which := fmt.Sprintf("the %d volumes known on this host", len(l.file.Volumes))
		if l.file.Lost {
			which = "the volumes known on this host (the list of them was lost)"
		}
		return fmt.Errorf("the settings now say %s, but %s belong to %s: "+
			"set the old values again, or remove the plugin's state if those volumes are really to be forgotten", id, which, l.file.Identity)
	}
	if id.Account == "" {
		id.Account = l.file.Identity.Account
	}
	l.acceptLocked(id)
	return nil
}

// acceptLocked writes down what the volumes belong to, the ledger first: an identity without a ledger means that one was lost.
func (l *ledger) acceptLocked(id identity) {
	l.file.Identity, l.pending = id, nil
	if l.writeLocked() {
		if err := id.write(l.beside); err != nil {
			l.log.WithError(err).Warnf("%s cannot be written", l.beside)
		}
	}
}

// confirm takes note that the cluster of the settings has volumes: then they are what the lost ledger was about.
func (l *ledger) confirm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil {
		l.acceptLocked(*l.pending)
	}
}

// lost tells whether Docker may know volumes that the ledger does not name, because an earlier ledger was lost.
func (l *ledger) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Lost
}

// complete makes a ledger whole again whose predecessor was lost: it names each volume of the cluster, by name, so that Docker can know no
// other one that exists. It is for a time when every use that the lost one may have named has long reached its container. Until it is certain what
// the volumes belong to it does nothing.
func (l *ledger) complete(ids map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.file.Lost || l.pending != nil {
		return
	}
	for name, id := range ids {
		if _, ok := l.file.Volumes[name]; !ok {
			l.file.Volumes[name] = entry{ID: id}
		}
	}
	l.file.Lost = false
	if l.writeLocked() {
		l.log.Infof("the ledger is whole again: it names the %d volumes of the cluster", len(ids))
	}
}

// doubted tells why the absence of a volume is no fact, if nobody knows what the volumes on this host belong to.
func (l *ledger) doubted() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return nil
	}
	return fmt.Errorf("ledger.json and identity.json could not be read, and %s shows no volume: if those settings are right, remove both files from %s and restart the plugin",
		l.pending, filepath.Dir(l.path))
}

// knows tells whether Docker may have a record of any volume from here.
func (l *ledger) knows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.knowsLocked()
}

func (l *ledger) knowsLocked() bool { return len(l.file.Volumes) > 0 || l.file.Lost }

// has tells whether Docker may have a record of that volume from here.
func (l *ledger) has(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.file.Volumes[name]
	return ok
}

// put records what is known of a volume.
func (l *ledger) put(name string, e entry) {
	sort.Strings(e.Users)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Volumes[name] = e
	if l.pending != nil {
		l.acceptLocked(*l.pending) // the volume belongs to it
	}
	l.writeLocked()
}

// forget drops a volume.
func (l *ledger) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.file.Volumes[name]; !ok {
		return
	}
	delete(l.file.Volumes, name)
	l.writeLocked()
}

// writeLocked replaces the file. A failure is logged and tried again by the sweep, and fails no request: what the ledger says is not needed to
// be safe, and a full disk must not stop a database from being mounted. For a Mount whose use cannot be written down: as long as
// this process lives it knows the use; the next one finds no ledger to trust, keeps what is mounted for 30 s, within which
// its container has it, and from then on the kernel tells that it is in use. For a Create or Remove: the cloud is asked by name and ID.
func (l *ledger) writeLocked() (written bool) {
	data, err := json.MarshalIndent(l.file, "", " ")
	if err == nil && string(data) == l.wrote {
		return true
	}
	if err == nil {
		err = replaceFile(l.path, data)
	}
	if err != nil {
		l.log.WithError(err).Warnf("the ledger %s cannot be written; after a restart of the plugin uses are taken from the kernel alone", hostPath(l.path))
		// An old ledger must not be trusted by the next process. If this fails too, that process cannot write either, and does not trust it.
		_ = os.Rename(l.path, l.path+staleSuffix)
		l.wrote, l.failed = "", true
		return false
	}
	if l.wrote == "" {
		_ = os.Remove(l.path + staleSuffix) // it is looked at only when the other is missing
	}
	if l.failed {
		l.log.Infof("the ledger %s can be written again", hostPath(l.path))
	}
	l.wrote, l.failed = string(data), false
	return true
}

// retry writes what could not be written before.
func (l *ledger) retry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.failed {
		return
	}
	if l.pending == nil && l.file.Identity != (identity{}) {
		l.acceptLocked(l.file.Identity) // and the file beside it
		return
	}
	l.writeLocked()
}

// replaceFile writes data to path so that after a crash either the old or the new content is there, whole.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// removeTemps removes what replaceFile leaves of path when the process dies in it.
func removeTemps(path string) {
	left, err := filepath.Glob(path + ".new-*")
	if err != nil {
		return
	}
	for _, p := range left {
		_ = os.Remove(p) // it is in nobody's way
	}
}

// bootID tells one run of this machine's kernel from another. Empty if the kernel does not say.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/blockvol/blockvol/cloud"
	"github.com/blockvol/blockvol/driver/options"
)

// profilesSchema is the version of the format of profiles.json that this build writes. A newer one is refused, not guessed at.
const profilesSchema = 1

// profilesFile is what `blockvol profile set` leaves in the plugin's state folder.
type profilesFile struct {
	Schema   int                     `json:"schema"`
	Profiles map[string]savedProfile `json:"profiles"`
}

type savedProfile struct {
	Default *bool             `json:"default,omitempty"` // nil: as the setting PROFILES says of that name
	Options map[string]string `json:"options"`
}

// profiles are those of the setting PROFILES and, on top, those that were set on this host while the plugin ran.
type profiles struct {
	path     string
	defaults map[string]string // of DEFAULT_OPTIONS
	setting  options.Profiles

	mu sync.Mutex // held from the reading of the file to its replacement
}

func openProfiles(dir string, s Settings) *profiles {
	p := &profiles{path: filepath.Join(dir, "profiles.json"), defaults: s.DefaultOptions, setting: s.Profiles}
	removeTemps(p.path)
	return p
}

// read reads the file anew each time: it is small, and a person who has repaired it need not restart the plugin.
func (p *profiles) read() (profilesFile, error) {
	f := profilesFile{Schema: profilesSchema}
	data, err := os.ReadFile(p.path)
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil && f.Schema != profilesSchema:
		err = fmt.Errorf("it has schema %d, this version knows %d", f.Schema, profilesSchema)
	}
	if err != nil {
		return f, cloud.Errorf(cloud.ErrConfig, "the profiles that were set on this host cannot be read, and which options a new volume gets is not guessed: "+
			"repair or remove %s: %v", hostPath(p.path), err)
	}
	if f.Profiles == nil {
		f.Profiles = map[string]savedProfile{}
	}
	return f, nil
}

// merged lays those of the file over those of the setting. A default that was set here wins over that of the setting.
func (p *profiles) merged(f profilesFile) options.Profiles {
	all := options.Profiles{}
	elsewhere := false // a default was set here
	for _, saved := range f.Profiles {
		elsewhere = elsewhere || saved.Default != nil && *saved.Default
	}
	for name, one := range p.setting {
		one.Default = one.Default && !elsewhere
		all[name] = one
	}
	for name, saved := range f.Profiles {
		one := options.Profile{Name: name, Options: saved.Options, Default: all[name].Default}
		if saved.Default != nil {
			one.Default = *saved.Default
		}
		all[name] = one
	}
	return all
}

// current are the profiles that a volume is created by.
func (p *profiles) current() (options.Profiles, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := p.read()
	return p.merged(f), err
}

// change lets edit change what was set on this host and writes it.
func (p *profiles) change(edit func(*profilesFile) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := p.read()
	if err == nil {
		err = edit(&f)
	}
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(f, "", " ")
	if err == nil {
		err = replaceFile(p.path, data)
	}
	if err != nil {
		return fmt.Errorf("the profiles cannot be written to %s, and are as they were: %w", hostPath(p.path), err)
	}
	return nil
}

// ProfileRow is what `blockvol profile` tells of a profile.
type ProfileRow struct {
	Name    string            `json:"name"`
	Default bool              `json:"default,omitempty"`
	From    string            `json:"from"` // where it was made: see the constants
	Options map[string]string `json:"options"`
}

// Where a profile was made.
const (
	FromSetting = "setting"                 // PROFILES
	FromHost    = "this host"               // blockvol profile set
	FromBoth    = "this host, over setting" // likewise; without it that of the setting counts
)

// ProfileRows is the answer to the verbs of profiles: all profiles, as they are now.
type ProfileRows struct {
	Instance string       `json:"instance,omitempty"` // this host
	Profiles []ProfileRow `json:"profiles"`
}

// SetProfileRequest makes or replaces a profile on this host.
type SetProfileRequest struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options"`
	Default *bool             `json:"default,omitempty"` // nil: as it was
}

// RemoveProfileRequest removes what was set on this host under a name.
type RemoveProfileRequest struct {
	Name string `json:"name"`
}

func (m *Manager) listProfiles(context.Context, NoRequest, Say) (ProfileRows, error) {
	out := ProfileRows{Instance: m.self().ID, Profiles: []ProfileRow{}}
	if m.cfg.SettingsErr != nil {
		return out, m.cfg.SettingsErr
	}
	m.profiles.mu.Lock()
	defer m.profiles.mu.Unlock()
	f, err := m.profiles.read()
	if err != nil {
		return out, err
	}
	all := m.profiles.merged(f)
	for _, name := range all.Names() {
		row := ProfileRow{Name: name, Default: all[name].Default, From: FromSetting, Options: all[name].Options}
		if _, here := f.Profiles[name]; here {
			row.From = FromHost
			if _, below := m.profiles.setting[name]; below {
				row.From = FromBoth
			}
		}
		out.Profiles = append(out.Profiles, row)
	}
	return out, nil
}

func (m *Manager) setProfile(ctx context.Context, req SetProfileRequest, say Say) (ProfileRows, error) {
	if m.cfg.SettingsErr != nil {
		return ProfileRows{}, m.cfg.SettingsErr
	}
	one, err := options.NewProfile(req.Name, req.Options, m.profiles.defaults)
	if err != nil {
		return ProfileRows{}, err
	}
	err = m.profiles.change(func(f *profilesFile) error {
		saved := savedProfile{Default: req.Default, Options: one.Options}
		if req.Default == nil {
			saved.Default = f.Profiles[one.Name].Default
		}
		if saved.Default != nil && *saved.Default { // there is one default
			for name, other := range f.Profiles {
				if other.Default != nil && *other.Default {
					no := false
					other.Default = &no
					f.Profiles[name] = other
				}
			}
		}
		f.Profiles[one.Name] = saved
		return nil
	})
	if err != nil {
		return ProfileRows{}, err
	}
	m.log.WithField("profile", one.Name).Infof("set: %v", one.Options)
	return m.listProfiles(ctx, NoRequest{}, say)
}

func (m *Manager) removeProfile(ctx context.Context, req RemoveProfileRequest, say Say) (ProfileRows, error) {
	if m.cfg.SettingsErr != nil {
		return ProfileRows{}, m.cfg.SettingsErr
	}
	err := m.profiles.change(func(f *profilesFile) error {
		if _, here := f.Profiles[req.Name]; here {
			delete(f.Profiles, req.Name)
			return nil
		}
		if _, below := m.profiles.setting[req.Name]; below {
			return refuse("profile %q is from the setting PROFILES, and only there it can be removed; `blockvol profile set %s KEY=VALUE ...` lays another one over it", req.Name, req.Name)
		}
		return fmt.Errorf("there is no profile %q; `blockvol profile ls` shows those that there are", req.Name)
	})
	if err != nil {
		return ProfileRows{}, err
	}
	m.log.WithField("profile", req.Name).Info("removed")
	return m.listProfiles(ctx, NoRequest{}, say)
}

// resolve reads the options of a request as they count on this host now.
func (m *Manager) resolve(opts map[string]string) (options.Options, error) {
	if m.cfg.SettingsErr != nil { // what they would add is not known
		return options.Parse(opts, nil)
	}
	all, err := m.profiles.current()
	if err != nil {
		return options.Options{}, err
	}
	return options.Resolve(opts, m.cfg.Settings.DefaultOptions, all)
}

// Keys returns the names of the profile's options in order.
func (r ProfileRow) Keys() []string { return slices.Sorted(maps.Keys(r.Options)) }

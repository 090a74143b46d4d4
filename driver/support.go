package driver

import (
	"context"
	"net/url"
	"strings"
)

// SettingValue is a setting as it may be shown to others.
type SettingValue struct {
	Name  string `json:"name"`
	Value string `json:"value"` // of a secret only whether it is set
}

// Support is what the plugin adds to an archive for support. No secret is in it.
type Support struct {
	Settings []SettingValue `json:"settings"`
	Ledger   ledgerFile     `json:"ledger"`
	Log      string         `json:"log,omitempty"` // the last lines, if they are kept
}

// support collects what helps somebody who cannot look at this host.
func (s *Server) support(context.Context, NoRequest, Say) (Support, error) {
	get := s.Getenv
	if get == nil {
		get = func(string) string { return "" }
	}
	out := Support{Settings: []SettingValue{}}
	var secrets []string
	for _, setting := range SettingsTable() {
		value := get(setting.Name)
		if value == "" {
			continue
		}
		shown := value
		if u, err := url.Parse(value); err == nil && u.User != nil {
			if password, _ := u.User.Password(); password != "" {
				secrets = append(secrets, password)
			}
			u.User = url.User("redacted")
			shown = u.String()
		}
		if setting.Secret {
			secrets = append(secrets, value)
			shown = "(set)"
		}
		out.Settings = append(out.Settings, SettingValue{setting.Name, shown})
	}
	if s.RecentLog != nil {
		out.Log = string(s.RecentLog())
	}
	for _, secret := range secrets {
		out.Log = strings.ReplaceAll(out.Log, secret, "[secret]")
	}
	l := s.Manager.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	out.Ledger = l.file
	out.Ledger.Volumes = map[string]entry{}
	for name, e := range l.file.Volumes {
		out.Ledger.Volumes[name] = e
	}
	return out, nil
}

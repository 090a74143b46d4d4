package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/blockvol/blockvol/driver/metrics"
)

// VersionHeader carries the version of the command in a request of `blockvol VERB`, and that of the plugin in the answer.
const VersionHeader = "Blockvol-Version"

// AdminPath is the path of a verb's request on the plugin's socket.
func AdminPath(verb string) string { return "/Blockvol." + verb }

// AdminLine is one line of the answer to a verb. Lines with Say come while the work goes on; the last line has Result or Error.
type AdminLine struct {
	Say     string          `json:"say,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   string          `json:"error,omitempty"`
	Refused bool            `json:"refused,omitempty"` // with Error: nothing was done, because it is not proven that nothing is lost by it
}

// Refusal is the error of a verb that does nothing because it is not proven that nothing is lost by it.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return r.Text }

func refuse(format string, args ...any) error { return &Refusal{Text: fmt.Sprintf(format, args...)} }

// Say tells the person who waits for a verb what is being done. It may be called at any time, also when nobody listens any more. A text that
// ends in how much of it is done (": 42 %"), said again with each new number, is shown as a bar.
type Say func(format string, args ...any)

// verb is one call of `blockvol VERB`. It may take as long as it needs; ctx ends when the caller goes or the plugin shuts down.
type verb func(ctx context.Context, body []byte, say Say) (any, error)

// verbs are the calls for people and scripts, beside those of Docker and on the same socket. The request is a JSON object, the answer is
// lines of AdminLine.
func (s *Server) verbs() map[string]verb {
	return map[string]verb{
		"About":   takes(s.about),
		"List":    takes(s.Manager.listVolumes),
		"Health":  takes(func(ctx context.Context, _ NoRequest, _ Say) (Health, error) { return s.Manager.Health(ctx), nil }),
		"Explain": takes(s.Manager.explain),
		"Holder":  takes(s.Manager.holder),
		"Detach":  takes(s.Manager.detachFor),
		"Doctor":  takes(s.Manager.doctor),
		"Support": takes(s.support),
		"Drain":   takes(s.Manager.drain),

		"Adopt":  takes(s.Manager.adoptFor),
		"Update": takes(s.Manager.update),

		"GivenUp":  takes(s.Manager.listGivenUp),
		"Undelete": takes(s.Manager.undelete),
		"Prunable": takes(s.Manager.prunable),
		"Prune":    takes(s.Manager.prune),

		"Snapshots":      takes(s.Manager.listSnapshots),
		"CreateSnapshot": takes(s.Manager.createSnapshot),
		"RemoveSnapshot": takes(s.Manager.removeSnapshot),
		"Copy":           takes(s.Manager.copyFor),

		"Profiles":      takes(s.Manager.listProfiles),
		"SetProfile":    takes(s.Manager.setProfile),
		"RemoveProfile": takes(s.Manager.removeProfile),
	}
}

// takes makes a verb of a function with a typed request.
func takes[Req, Res any](do func(ctx context.Context, req Req, say Say) (Res, error)) verb {
	return func(ctx context.Context, body []byte, say Say) (any, error) {
		var req Req
		if err := json.Unmarshal(body, &req); err != nil {
			return nil, fmt.Errorf("the request body is not the JSON object that this call takes: %w", err)
		}
		return do(ctx, req, say)
	}
}

// admin serves a verb.
func (s *Server) admin(name string, do verb) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(VersionHeader, s.Version)
		log := s.Log.WithField("verb", name)
		if theirs := r.Header.Get(VersionHeader); theirs != "" && theirs != s.Version {
			log.Infof("asked by a blockvol command of version %s; this plugin is version %s", theirs, s.Version)
		}
		var body json.RawMessage
		if !decode(w, r, &body) {
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.ending(), cancel)()
		w.Header().Set("Content-Type", "application/jsonl")
		out := &adminLines{w: w}
		res, err := do(ctx, body, out.say)
		if err != nil && s.ending().Err() != nil {
			err = fmt.Errorf("the plugin is shutting down: %w", err)
		}
		if err != nil {
			log.Warn(err)
		}
		if a, ok := w.(*answered); ok && err != nil {
			a.result = metrics.ResultError
			if refused := new(Refusal); errors.As(err, &refused) {
				a.result = metrics.ResultRefused
			}
		}
		out.last(res, err)
	}
}

// adminLines writes the answer to a verb. An error of writing means that the caller is gone, which ends the request's context.
type adminLines struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	ended bool // what work that goes on says now, it says to nobody
}

func (l *adminLines) say(format string, args ...any) {
	l.write(AdminLine{Say: fmt.Sprintf(format, args...)})
}

func (l *adminLines) last(res any, err error) {
	line := AdminLine{}
	if err == nil {
		line.Result, err = json.Marshal(res)
	}
	if err != nil {
		var refused *Refusal
		line = AdminLine{Error: err.Error(), Refused: errors.As(err, &refused)}
	}
	l.write(line)
}

func (l *adminLines) write(line AdminLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = line.Say == ""
	_ = json.NewEncoder(l.w).Encode(line)
	_ = http.NewResponseController(l.w).Flush()
}

// NoRequest is the request of verbs that need to be told nothing.
type NoRequest struct{}

// About tells which plugin it is that answers.
type About struct {
	Version  string `json:"version"`
	Cluster  string `json:"cluster"`
	Backend  string `json:"backend"`
	Instance string `json:"instance"` // empty while that is not known yet
	Data     string `json:"data"`     // the plugin's folder, as the host sees it
	Program  string `json:"program"`  // the plugin's own program, as the host sees it
}

func (s *Server) about(context.Context, NoRequest, Say) (About, error) {
	m := s.Manager
	return About{Version: s.Version, Cluster: m.cfg.Settings.Cluster, Backend: m.cfg.Settings.Backend, Instance: m.self().ID, Data: hostPath(m.cfg.StateDir), Program: program()}, nil
}

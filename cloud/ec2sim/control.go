package ec2sim

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"path/filepath"
	"slices"
)

// addControl adds the simulator's own API, JSON over HTTP, for what the Go API does in process.
func (s *Sim) addControl(mux *http.ServeMux) {
	for pattern, do := range map[string]func(raw []byte, r *http.Request) (any, error){
		"GET /_sim/calls":    func([]byte, *http.Request) (any, error) { return s.Calls(), nil },
		"DELETE /_sim/calls": func([]byte, *http.Request) (any, error) { s.ResetCalls(); return nil, nil },
		"GET /_sim/faults":   func([]byte, *http.Request) (any, error) { return s.Faults(), nil },
		"POST /_sim/faults":  s.controlInject,
		"DELETE /_sim/faults": func(_ []byte, r *http.Request) (any, error) {
			if id := r.URL.Query().Get("id"); id == "" {
				s.ClearFaults()
			} else if !s.RemoveFault(id) {
				return nil, fmt.Errorf("no fault has the ID %q", id)
			}
			return nil, nil
		},
		"GET /_sim/fault-kinds": func([]byte, *http.Request) (any, error) { return FaultKinds(), nil },
		"GET /_sim/delays":      func([]byte, *http.Request) (any, error) { return s.Delays(), nil },
		"PUT /_sim/delays": func(raw []byte, _ *http.Request) (any, error) {
			d := s.Delays()
			if err := json.Unmarshal(raw, &d); err != nil {
				return nil, err
			}
			s.SetDelays(d)
			return d, nil
		},
		"GET /_sim/limits": func([]byte, *http.Request) (any, error) { return s.Limits(), nil },
		"PUT /_sim/limits": func(raw []byte, _ *http.Request) (any, error) {
			l := s.Limits()
			if err := strictJSON(raw, &l); err != nil {
				return nil, err
			}
			s.SetLimits(l)
			return s.Limits(), nil
		},
		"GET /_sim/instances": func([]byte, *http.Request) (any, error) { return s.Instances(), nil },
		"POST /_sim/instances": func(raw []byte, _ *http.Request) (any, error) {
			var i Instance
			if err := strictJSON(raw, &i); err != nil {
				return nil, err
			}
			return s.AddInstance(i)
		},
		"PUT /_sim/instances/{id}/state": func(raw []byte, r *http.Request) (any, error) {
			var state string
			if err := strictJSON(raw, &state); err != nil {
				return nil, err
			}
			return nil, s.SetInstanceState(r.PathValue("id"), state)
		},
		"PUT /_sim/instances/{id}/status": func(raw []byte, r *http.Request) (any, error) {
			var change StatusChange
			if err := strictJSON(raw, &change); err != nil {
				return nil, err
			}
			return nil, s.SetInstanceStatus(r.PathValue("id"), change)
		},
		"PUT /_sim/volumes/{id}/status": func(raw []byte, r *http.Request) (any, error) {
			var status string
			if err := strictJSON(raw, &status); err != nil {
				return nil, err
			}
			return nil, s.SetVolumeStatus(r.PathValue("id"), status)
		},
		"POST /_sim/volumes": func(raw []byte, _ *http.Request) (any, error) {
			var spec ImportSpec
			if err := strictJSON(raw, &spec); err != nil {
				return nil, err
			}
			id, err := s.Import(spec)
			return map[string]string{"volumeId": id, "file": s.BackingFile(id)}, err
		},
		"GET /_sim/state": func([]byte, *http.Request) (any, error) { return s.controlState(), nil },
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { serveControl(w, r, do) })
	}
	mux.HandleFunc("/_sim/", http.NotFound)
}

func serveControl(w http.ResponseWriter, r *http.Request, do func([]byte, *http.Request) (any, error)) {
	fail := func(status int, err error) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
	}
	// A web page that a browser on this machine shows must not be able to steer the simulator.
	if r.Header.Get("Origin") != "" {
		fail(http.StatusForbidden, fmt.Errorf("requests of web pages are refused"))
		return
	}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			fail(http.StatusUnsupportedMediaType, fmt.Errorf("the Content-Type must be application/json"))
			return
		}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(http.StatusBadRequest, err)
		return
	}
	answer, err := do(raw, r)
	if err != nil {
		fail(http.StatusBadRequest, err)
		return
	}
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer) // An error means that the client has gone.
}

func (s *Sim) controlInject(raw []byte, _ *http.Request) (any, error) {
	var f Fault
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	if f.ID == "" {
		f.ID = newID("fault")
	}
	return f, s.Inject(f)
}

// stateView is what GET /_sim/state shows: the truth, without delays, for debugging.
type stateView struct {
	Dir        string         `json:"dir"`
	Region     string         `json:"region"`
	Account    string         `json:"account"`
	Instances  []Instance     `json:"instances"`
	Volumes    []volumeView   `json:"volumes"`
	Snapshots  []snapshotView `json:"snapshots"`
	RecycleBin recycled       `json:"recycleBin"`
	Events     []event        `json:"events"`
	Delays     Delays         `json:"delays"`
	Limits     Limits         `json:"limits"`
	Faults     []Fault        `json:"faults"`
}

type volumeView struct {
	*volume
	File    string   `json:"file"`
	Devices []string `json:"devices,omitempty"` // on the hosts
}

type snapshotView struct {
	*snapshot
	File string `json:"file"`
}

// recycled is what is in the Recycle Bin.
type recycled struct {
	Volumes   []volumeView   `json:"volumes"`
	Snapshots []snapshotView `json:"snapshots"`
}

func (s *Sim) controlState() stateView {
	out := stateView{Dir: s.cfg.Dir, Region: s.cfg.Region, Account: s.cfg.Account, Instances: s.Instances(), Delays: s.Delays(), Limits: s.Limits(), Faults: s.Faults()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.sortedVolumes() {
		view := volumeView{volume: v.clone(), File: s.BackingFile(v.ID)}
		for _, a := range v.Attachments {
			if a.Plug.Node > 0 && s.cfg.Bus == nil {
				view.Devices = append(view.Devices, filepath.Join(s.DevDir(a.Instance), a.Plug.name()))
			}
		}
		out.Volumes = append(out.Volumes, view)
	}
	snapshots := func(all map[string]*snapshot) (views []snapshotView) {
		for _, id := range slices.Sorted(maps.Keys(all)) {
			views = append(views, snapshotView{all[id].clone(), s.SnapshotFile(id)})
		}
		return views
	}
	out.Snapshots, out.RecycleBin.Snapshots = snapshots(s.state.Snapshots), snapshots(s.state.Bin.Snapshots)
	for _, id := range slices.Sorted(maps.Keys(s.state.Bin.Volumes)) {
		out.RecycleBin.Volumes = append(out.RecycleBin.Volumes, volumeView{volume: s.state.Bin.Volumes[id].clone(), File: s.BackingFile(id)})
	}
	for _, e := range s.state.Events {
		out.Events = append(out.Events, *e)
	}
	return out
}

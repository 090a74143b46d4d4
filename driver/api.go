package driver

import (
	"errors"
	"net/http"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
)

func callPath(name string) string { return "/VolumeDriver." + name }

// calls are the eight calls of the protocol, and the handshake of plugins that are found by their socket.
func (s *Server) calls() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/Plugin.Activate":       s.activate,
		callPath("Capabilities"): s.capabilities,
		callPath("Create"):       s.create,
		callPath("Get"):          s.get,
		callPath("List"):         s.list,
		callPath("Mount"):        s.mount,
		callPath("Unmount"):      s.unmount,
		callPath("Remove"):       s.remove,
		callPath("Path"):         s.path,
	}
}

func (s *Server) activate(w http.ResponseWriter, r *http.Request) {
	answer(w, map[string][]string{"Implements": {"VolumeDriver"}})
}

// capabilities ignores its body, as list does: dockerd's retries come without one, and both are safe to answer.
func (s *Server) capabilities(w http.ResponseWriter, r *http.Request) {
	answer(w, volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: "global"}})
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var req volume.CreateRequest
	if !decode(w, r, &req) {
		return
	}
	s.done(w, "create", req.Name, s.Manager.Create(r.Context(), req.Name, req.Options))
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	var req volume.GetRequest
	if !decode(w, r, &req) {
		return
	}
	info, err := s.Manager.Get(r.Context(), req.Name)
	if err != nil {
		s.fail(w, "look up", req.Name, err)
		return
	}
	answer(w, volume.GetResponse{Volume: wire(info)})
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	infos, err := s.Manager.List(r.Context())
	if err != nil {
		s.fail(w, "list volumes", "", err)
		return
	}
	vols := make([]*volume.Volume, len(infos))
	for i, info := range infos {
		vols[i] = wire(info)
	}
	answer(w, volume.ListResponse{Volumes: vols})
}

func (s *Server) mount(w http.ResponseWriter, r *http.Request) {
	var req volume.MountRequest
	if !decode(w, r, &req) {
		return
	}
	path, undo, err := s.Manager.Mount(r.Context(), req.Name, req.ID)
	if err != nil {
		s.fail(w, "mount", req.Name, err)
		return
	}
	// dockerd never sends Unmount for a Mount whose answer it did not get.
	if r.Context().Err() != nil || !delivered(w, volume.MountResponse{Mountpoint: path}) {
		undo()
	}
}

func (s *Server) unmount(w http.ResponseWriter, r *http.Request) {
	var req volume.UnmountRequest
	if !decode(w, r, &req) {
		return
	}
	s.done(w, "unmount", req.Name, s.Manager.Unmount(r.Context(), req.Name, req.ID))
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	var req volume.RemoveRequest
	if !decode(w, r, &req) {
		return
	}
	s.done(w, "remove", req.Name, s.Manager.Remove(r.Context(), req.Name))
}

func (s *Server) path(w http.ResponseWriter, r *http.Request) {
	var req volume.PathRequest
	if !decode(w, r, &req) {
		return
	}
	answer(w, volume.PathResponse{Mountpoint: s.Manager.Path(req.Name)})
}

// done answers a call that has nothing to say but that it worked.
func (s *Server) done(w http.ResponseWriter, verb, name string, err error) {
	if err != nil {
		s.fail(w, verb, name, err)
		return
	}
	answer(w, struct{}{})
}

// fail tells Docker and the log about an error, or cuts the connection where an answer would be taken for a fact.
func (s *Server) fail(w http.ResponseWriter, verb, name string, err error) {
	log := s.Log.WithField("volume", name)
	s.Manager.noteRefused(name, verb, err)
	if errors.Is(err, errUndecided) {
		log.Warnf("%s: %v; the connection is cut, so that Docker does not take this for an answer", verb, err)
		panic(http.ErrAbortHandler)
	}
	if errors.Is(err, errQuiet) {
		log.Debugf("%s: %v", verb, err)
	} else {
		log.Warnf("%s: %v", verb, err)
	}
	answerError(w, http.StatusInternalServerError, err.Error())
}

// wire puts a volume's information into the protocol's words. CreatedAt must be RFC 3339 or absent: dockerd takes anything else for a
// volume that does not exist.
func wire(i Info) *volume.Volume {
	v := &volume.Volume{Name: i.Name, Mountpoint: i.Mountpoint, Status: i.Status}
	if !i.Created.IsZero() {
		v.CreatedAt = i.Created.UTC().Format(time.RFC3339)
	}
	return v
}

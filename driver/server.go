package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/blockvol/blockvol/driver/metrics"
	"github.com/docker/go-plugins-helpers/sdk"
	"github.com/docker/go-plugins-helpers/volume"
	"github.com/sirupsen/logrus"
)

const (
	// bodyLimit is the size of the largest request body that is read.
	bodyLimit = 1 << 20
	// shutdownBudget is how long SIGTERM may take; dockerd kills the plugin after 10 s.
	shutdownBudget = 8 * time.Second
)

// errUndecided says that it cannot be told whether a volume exists. It is never sent: dockerd takes any error that it can read from Get
// for "does not exist" and then forgets the volume's labels and users. The connection is cut instead, which dockerd takes for
// "cannot tell".
var errUndecided = errors.New("cannot be decided now")

// Server serves the Docker volume plugin protocol on a unix socket.
type Server struct {
	Manager *Manager
	Log     logrus.FieldLogger
	Version string // told to those who ask by `blockvol VERB`

	// For archives for support; nil: there is nothing to tell.
	Getenv    func(string) string // the settings as they were given
	RecentLog func() []byte       // the last lines of the log

	once     sync.Once
	http     *http.Server
	ends     context.Context // ends when Shutdown begins
	mu       sync.Mutex
	inFlight int
}

// httpServer is made once, so that a Shutdown that comes before Serve is not lost.
func (s *Server) httpServer() *http.Server {
	s.once.Do(func() {
		s.http = &http.Server{
			Handler:           s.Handler(),
			ReadHeaderTimeout: 10 * time.Second,
			// No idle time-out (zero would be the ReadTimeout): closing a connection that dockerd is about to reuse makes it retry with an empty body.
			IdleTimeout: -1,
			// A body that does not arrive must not hold a request for ever.
			ReadTimeout: s.Manager.timing.Request,
		}
		ends, end := context.WithCancel(context.Background())
		s.ends = ends
		s.http.RegisterOnShutdown(end)
	})
	return s.http
}

// ending returns the context that ends when Shutdown begins.
func (s *Server) ending() context.Context {
	s.httpServer()
	return s.ends
}

// Listen opens the socket. dockerd disables a plugin whose socket does not accept within 9.5 s, so this comes first of all.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the plugin socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("the plugin socket %s is in use by another process: only one blockvol serves it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the stale plugin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the plugin socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("restricting the plugin socket: %w", err)
	}
	return l, nil
}

// Serve answers requests until Shutdown; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.httpServer().Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting requests, lets those in flight end, and lets the Manager let go of what nobody uses, all within 8 s.
func (s *Server) Shutdown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, shutdownBudget)
	defer cancel()
	drain, stop := context.WithTimeout(ctx, shutdownBudget*5/8)
	defer stop()
	if err := s.httpServer().Shutdown(drain); err != nil {
		s.Log.Warnf("%d requests did not end in time and are cut", s.InFlight())
		s.httpServer().Close()
	}
	s.Manager.Close(ctx)
}

// InFlight is the number of requests being answered.
func (s *Server) InFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlight
}

// Handler is the plugin protocol.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, h := range s.calls() {
		mux.Handle(path, s.guard(path, s.Manager.timing.Request, h))
	}
	for name, do := range s.verbs() {
		mux.Handle(AdminPath(name), s.guard(AdminPath(name), 0, s.admin(name, do)))
	}
	for path, h := range s.healthCalls() {
		mux.HandleFunc("GET "+path, h)
	}
	mux.Handle("GET /metrics", s.Metrics())
	mux.Handle("/", s.guard("", s.Manager.timing.Request, func(w http.ResponseWriter, r *http.Request) {
		answerError(w, http.StatusNotFound, UnknownCall(r.URL.Path))
	}))
	return mux
}

// UnknownCall is the answer to a request that blockvol does not know.
func UnknownCall(path string) string {
	return fmt.Sprintf("%q is not a call of the Docker volume plugin protocol", path)
}

// guard puts around every call what all of them need: the deadline (limit; 0 is none), the body limit, the accounting, and that a panic is
// an answer.
func (s *Server) guard(path string, limit time.Duration, h http.HandlerFunc) http.Handler {
	op := operationOf(path)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		s.mu.Lock()
		s.inFlight++
		s.mu.Unlock()
		told := &answered{ResponseWriter: w, result: metrics.ResultOK}
		w = told
		defer func() {
			s.mu.Lock()
			s.inFlight--
			s.mu.Unlock()
			defer func() { s.Manager.metrics.Operation(op, told.result, time.Since(began)) }()
			if d := time.Since(began); d > 10*time.Second && limit > 0 {
				s.Log.WithField("call", path).Warnf("the call took %s", d.Round(100*time.Millisecond))
			}
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				told.result = metrics.ResultCut
				panic(p) // a connection that is cut on purpose
			}
			s.Log.WithField("call", path).Errorf("panic: %v\n%s", p, debug.Stack())
			if path == callPath("Get") {
				told.result = metrics.ResultCut
				panic(http.ErrAbortHandler)
			}
			answerError(w, http.StatusInternalServerError, fmt.Sprintf("blockvol failed unexpectedly (%v): please report this with the plugin's log", p))
		}()
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			answerError(w, http.StatusMethodNotAllowed, "the Docker volume plugin protocol uses POST only")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		r = r.WithContext(as(r.Context(), op))
		if limit > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			r = r.WithContext(ctx)
		}
		h(w, r)
	})
}

// answered remembers how a request ended.
type answered struct {
	http.ResponseWriter
	result string
}

// WriteHeader takes what is no success for an error.
func (a *answered) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		a.result = metrics.ResultError
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// decode reads the request body into req. An empty body is dockerd's retry of a request whose connection broke (a plugin that was killed):
// what was asked for is unknown, and whether it was carried out too. dockerd would go on for 15 s and then say "EOF"; it is told at once
// instead. Only Get is cut: dockerd would take what it is told for "does not exist".
func decode(w http.ResponseWriter, r *http.Request, req any) bool {
	d := json.NewDecoder(r.Body)
	err := d.Decode(req)
	switch {
	case errors.Is(err, io.EOF) && r.URL.Path == callPath("Get"):
		panic(http.ErrAbortHandler)
	case errors.Is(err, io.EOF):
		answerError(w, http.StatusBadRequest, "the connection to blockvol broke before it could answer (it was restarted), so it is not known whether "+
			"the request was carried out; nothing is lost, try again")
	case err == nil:
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return true
		}
		answerError(w, http.StatusBadRequest, "the request body has something behind its JSON object")
	default:
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			answerError(w, http.StatusRequestEntityTooLarge, "the request body is larger than 1 MiB")
		} else {
			answerError(w, http.StatusBadRequest, "the request body is not the JSON object that this call takes: "+err.Error())
		}
	}
	return false
}

func answer(w http.ResponseWriter, res any) {
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	// An error here means that the client is gone; the caller learns that from the request's context.
	_ = json.NewEncoder(w).Encode(res)
}

// delivered answers, and tells whether the answer was taken from us. That the client then closes the connection says nothing.
func delivered(w http.ResponseWriter, res any) bool {
	body, err := json.Marshal(res)
	if err != nil {
		return false
	}
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		return false
	}
	return http.NewResponseController(w).Flush() == nil
}

func answerError(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(volume.NewErrorResponse(text))
}

package podwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Server serves the enrolment interface of a [Manager].
type Server struct {
	manager *Manager
	log     *slog.Logger
	ln      net.Listener
	mux     *http.ServeMux
	http    *http.Server
}

// maxBody bounds a request: a snapshot of maxPods uids fits.
const maxBody = 1 << 20

// Listen binds the Unix socket at path, for root alone, in place of one that a
// former agent left.
func Listen(path string, m *Manager, log *slog.Logger) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("enrolment socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("enrolment socket %s: another agent answers on it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("enrolment socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("enrolment socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("enrolment socket: %w", err)
	}
	s := &Server{manager: m, log: log, ln: ln, mux: http.NewServeMux()}
	mux := s.mux
	mux.HandleFunc("PUT /v1/pods/{uid}", s.put)
	mux.HandleFunc("DELETE /v1/pods/{uid}", s.remove)
	mux.HandleFunc("GET /v1/pods", s.list)
	mux.HandleFunc("PUT /v1/snapshot", s.snapshot)
	s.http = &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	return s, nil
}

// Serve answers until ctx ends, then lets calls in flight finish for 5 s.
func (s *Server) Serve(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() { stopped <- s.http.Serve(s.ln) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("enrolment interface: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(grace)
	<-stopped
	return err
}

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	var p Pod
	if !decode(w, r, &p) {
		return
	}
	if p.UID != r.PathValue("uid") {
		answer(w, http.StatusBadRequest, failure(fmt.Errorf("uid %q differs from the path's %q", p.UID, r.PathValue("uid"))))
		return
	}
	if err := p.Validate(); err != nil {
		answer(w, http.StatusBadRequest, failure(err))
		return
	}
	st, err := s.manager.Put(r.Context(), p)
	if err != nil {
		s.log.Error("pod not enrolled", "pod", p.Key(), "uid", p.UID, "err", err)
		answer(w, http.StatusInternalServerError, failure(err))
		return
	}
	answer(w, http.StatusOK, st)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	if err := s.manager.Delete(r.Context(), r.PathValue("uid")); err != nil {
		answer(w, http.StatusInternalServerError, failure(err))
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.manager.Pods())
}

func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) {
	var snap Snapshot
	if !decode(w, r, &snap) {
		return
	}
	if snap.UIDs == nil {
		answer(w, http.StatusBadRequest, failure(errors.New("uids is missing: an empty list means that there are no pods")))
		return
	}
	if err := s.manager.Prune(r.Context(), snap.UIDs); err != nil {
		answer(w, http.StatusInternalServerError, failure(err))
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		answer(w, http.StatusBadRequest, failure(fmt.Errorf("request body: %w", err)))
		return false
	}
	return true
}

func failure(err error) any {
	return struct {
		Error string `json:"error"`
	}{err.Error()}
}

// answer writes v; the peer having gone away is its own affair.
func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

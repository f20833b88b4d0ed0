package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/lobby"
)

// Options configure a [Server]. An empty address leaves that listener out.
type Options struct {
	// AdminAddress should be on loopback: it shows and changes everything.
	AdminAddress string
	// MetricsAddress and ReadinessAddress are meant for all addresses.
	MetricsAddress   string
	ReadinessAddress string

	Registry  *prometheus.Registry // must be non-nil where MetricsAddress is set
	Readiness *Readiness           // must be non-nil where ReadinessAddress is set
	// Dump returns what /config_dump shows; nil leaves the page out.
	Dump func() (any, error)
	// Pages are further pages of the admin listener, by path.
	Pages map[string]http.HandlerFunc
	// Level is what /logging shows and sets; nil leaves the page out.
	Level *level.Levels
	// Quit ends the process in good order; nil leaves /quitquitquit out.
	Quit   func()
	Logger *slog.Logger // must be non-nil
}

// places bounds the connections of a listener: metrics and readiness are open to everybody,
// and connections that nobody ends are files that others need.
const places = 64

// Server serves up to three listeners.
type Server struct {
	log     *slog.Logger
	servers []*http.Server
	listens []net.Listener
	names   []string
	initial slog.Level
}

// Listen binds the addresses. The caller runs [Server.Run] or closes.
func Listen(o Options) (*Server, error) {
	if o.Logger == nil {
		return nil, errors.New("admin: Options.Logger is nil")
	}
	s := &Server{log: o.Logger}
	if o.Level != nil {
		s.initial = o.Level.Level()
	}
	for _, l := range []struct {
		name, address string
		handler       func() http.Handler
	}{
		{"admin", o.AdminAddress, func() http.Handler { return s.admin(o) }},
		{"metrics", o.MetricsAddress, func() http.Handler { return metrics(o.Registry) }},
		{"readiness", o.ReadinessAddress, func() http.Handler { return readiness(o.Readiness) }},
	} {
		if l.address == "" {
			continue
		}
		if err := s.bind(l.name, l.address, l.handler()); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) bind(name, address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s address %s: %w", name, address, err)
	}
	listener = lobby.Listen(listener, places)
	s.listens = append(s.listens, listener)
	s.names = append(s.names, name)
	s.servers = append(s.servers, &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	})
	return nil
}

// Addr is the bound address of "admin", "metrics" or "readiness", or nil.
func (s *Server) Addr(name string) net.Addr {
	for i, n := range s.names {
		if n == name {
			return s.listens[i].Addr()
		}
	}
	return nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, len(s.servers))
	for i, server := range s.servers {
		go func() {
			if err := server.Serve(s.listens[i]); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s on %s: %w", s.names[i], s.listens[i].Addr(), err)
			}
		}()
	}
	defer s.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// Close closes the listeners and what is connected to them.
func (s *Server) Close() {
	for i, server := range s.servers {
		_ = server.Close()
		_ = s.listens[i].Close()
	}
}

func metrics(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	h := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second})
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /stats/prometheus", h)
	return mux
}

func readiness(r *Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz/ready", r)
	return mux
}

func (s *Server) admin(o Options) http.Handler {
	mux := http.NewServeMux()
	pages := []string{"/debug/pprof/"}
	add := func(path string, h http.HandlerFunc) {
		mux.HandleFunc(path, h)
		pages = append(pages, path)
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	if o.Dump != nil {
		add("/config_dump", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, o.Dump) })
	}
	if o.Level != nil {
		add("/logging", func(w http.ResponseWriter, r *http.Request) { s.logging(w, r, o.Level) })
	}
	if o.Quit != nil {
		add("/quitquitquit", func(w http.ResponseWriter, r *http.Request) { quit(w, r, o.Quit) })
	}
	for path, h := range o.Pages {
		add(path, h)
	}
	slices.Sort(pages)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { index(w, pages) })
	return mux
}

func writeJSON(w http.ResponseWriter, dump func() (any, error)) {
	v, err := dump()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the reader has gone
}

// logging shows the level, or sets it: ?level=debug|info|warn|error, ?reset. With ?about=
// it is that of lines about a workload: see [level.Levels].
func (s *Server) logging(w http.ResponseWriter, r *http.Request, levels *level.Levels) {
	query := r.URL.Query()
	if query.Has("about") {
		levels.ServeHTTP(w, r)
		return
	}
	want := query.Get("level")
	if query.Has("reset") || want == "reset" {
		want = s.initial.String()
	}
	if want != "" {
		if r.Method != http.MethodPost {
			http.Error(w, "changing the level needs POST", http.StatusMethodNotAllowed)
			return
		}
		var l slog.Level
		if err := l.UnmarshalText([]byte(want)); err != nil {
			http.Error(w, fmt.Sprintf("level %q: want debug, info, warn or error", want), http.StatusBadRequest)
			return
		}
		levels.Set(l)
		s.log.Info("log level changed", "level", l.String())
	}
	fmt.Fprintf(w, "current log level is %s\n", strings.ToLower(levels.Level().String()))
}

func quit(w http.ResponseWriter, r *http.Request, quit func()) {
	if r.Method != http.MethodPost {
		http.Error(w, "quitting needs POST", http.StatusMethodNotAllowed)
		return
	}
	_, _ = w.Write([]byte("shutting down\n"))
	quit()
}

func index(w http.ResponseWriter, pages []string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html><title>Fairlead</title><h1>Fairlead</h1><ul>")
	for _, p := range pages {
		fmt.Fprintf(w, "<li><a href=%q>%s</a>", p, p)
	}
	fmt.Fprint(w, "</ul>")
}

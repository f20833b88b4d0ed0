package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// api is what the lab's socket serves: to this machine's root only, by the
// permissions of the directory it is in.
type api struct {
	lab      *Lab
	listener net.Listener
}

func (l *Lab) listenAPI() (*api, error) {
	listener, err := net.Listen("unix", l.place.socket())
	if err != nil {
		return nil, fmt.Errorf("serve the lab's commands: %w", err)
	}
	return &api{lab: l, listener: listener}, nil
}

func (a *api) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	in := func(pattern string, handle func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var out any
			var err error
			if lerr := a.lab.ask(r.Context(), func() { out, err = handle(r) }); lerr != nil {
				err = lerr
			}
			reply(w, out, err)
		})
	}
	in("GET /v1/lab", func(*http.Request) (any, error) { return a.lab.view(), nil })
	in("GET /v1/entrance", func(r *http.Request) (any, error) {
		return a.lab.entrance(r.FormValue("target"), r.FormValue("container"))
	})
	in("GET /v1/find", func(r *http.Request) (any, error) {
		p, err := a.lab.find(r.FormValue("target"))
		if err != nil {
			return nil, err
		}
		return a.lab.podView(p), nil
	})
	in("POST /v1/kill", func(r *http.Request) (any, error) {
		d, err := a.lab.daemon(r.FormValue("target"))
		if err != nil {
			return nil, err
		}
		sig := syscall.SIGKILL
		if r.FormValue("signal") == "TERM" {
			sig = syscall.SIGTERM
		}
		return nil, d.kill(sig)
	})
	in("POST /v1/start", func(r *http.Request) (any, error) {
		d, err := a.lab.daemon(r.FormValue("target"))
		if err == nil {
			d.resume()
		}
		return nil, err
	})
	in("DELETE /v1/pod", func(r *http.Request) (any, error) {
		p, err := a.lab.find(r.FormValue("target"))
		if err != nil {
			return nil, err
		}
		a.lab.deletePod(p)
		return a.lab.podView(p), nil
	})
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, nil, nil)
		a.lab.stop()
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the lab's commands: %w", err)
	}
	return nil
}

// failure is the body of an answer that is no success.
type failure struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		out = failure{err.Error()}
	}
	_ = json.NewEncoder(w).Encode(out) // who asked may be gone
}

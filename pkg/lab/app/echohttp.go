package app

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// echoHTTP tells a caller what arrived, and where.
type echoHTTP struct {
	env   Env
	conns *connListener
	behaviour
}

// echoed is the answer to any path.
type echoed struct {
	Pod       string              `json:"pod"`
	Namespace string              `json:"namespace,omitempty"`
	Version   string              `json:"version,omitempty"`
	Client    string              `json:"client"`
	Local     string              `json:"local"`
	Method    string              `json:"method"`
	Path      string              `json:"path"`
	Host      string              `json:"host"`
	Headers   map[string][]string `json:"headers"`
	BodyBytes int64               `json:"bodyBytes"`
}

// maxBytes bounds what /bytes sends.
const maxBytes = 1 << 30

func (h *echoHTTP) mux() http.Handler {
	mux := http.NewServeMux()
	healthy := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/delay/{duration}", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.PathValue("duration"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		wait(r.Context(), d)
		h.echo(w, r)
	})
	mux.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 || n > maxBytes {
			http.Error(w, "want a number of bytes up to 1 GiB", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.CopyN(w, zeros{}, n)
	})
	mux.HandleFunc("/", h.echo)
	outer := http.NewServeMux()
	outer.HandleFunc("/health", healthy)
	outer.HandleFunc("/healthz", healthy)
	h.asked(outer)
	outer.Handle("/", h.behaving(mux))
	return outer
}

func (h *echoHTTP) echo(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "" && r.ProtoMajor == 1:
		upgrade(w, r)
		return
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		echoGRPC(w, r)
		return
	}
	n, _ := io.Copy(io.Discard, r.Body)
	local := ""
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ String() string }); ok {
		local = a.String()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(echoed{
		Pod: hostname(), Namespace: h.env.Getenv("POD_NAMESPACE"), Version: h.env.Getenv("VERSION"),
		Client: r.RemoteAddr, Local: local, Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Headers: r.Header, BodyBytes: n,
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

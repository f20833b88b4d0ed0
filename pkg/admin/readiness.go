package admin

import (
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Readiness knows what a part still waits for. The zero value is ready.
type Readiness struct {
	mu      sync.Mutex
	pending []string
}

// Wait adds something to wait for, by a name an operator understands, and
// returns the function that says it is here. Call that as often as you like.
func (r *Readiness) Wait(what string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = append(r.pending, what)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pending = slices.DeleteFunc(r.pending, func(p string) bool { return p == what })
	}
}

// Set makes what pending, or not; for a condition that comes and goes.
func (r *Readiness) Set(what string, pending bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.DeleteFunc(r.pending, func(p string) bool { return p == what })
	if pending {
		r.pending = append(r.pending, what)
	}
}

// Pending lists what is still awaited.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pending)
}

// ServeHTTP answers 200 "ready", or 500 with what is pending.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if pending := r.Pending(); len(pending) > 0 {
		http.Error(w, "not ready, pending: "+strings.Join(pending, ", "), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

package app

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// behaviour is how a server answers until it is told to do otherwise, and what it has
// seen. Both are for who is in the pod: they are asked for from its loopback address.
type behaviour struct {
	// mu guards below.
	mu   sync.Mutex
	now  misbehaviour
	what Seen
}

// misbehaviour of a share of the requests.
type misbehaviour struct {
	share  float64
	status int           // answered in place of the usual; 0 is the usual
	delay  time.Duration // before the answer
	silent bool          // no answer until the client goes
}

// Seen is what /seen tells, since the last /behave.
type Seen struct {
	Requests                 int     `json:"requests"`
	InFlight                 int     `json:"inFlight"`
	MaxInFlight              int     `json:"maxInFlight"`
	Connections              int     `json:"connections"`
	MaxRequestsPerConnection int     `json:"maxRequestsPerConnection"`
	ArrivalsMS               []int64 `json:"arrivalsMs"`

	started time.Time
}

// maxArrivals bounds the arrivals that are kept.
const maxArrivals = 1000

// connRequests counts the requests of a connection, in its context.
type connRequests struct{ n int }

type connKey struct{}

func (b *behaviour) connContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &connRequests{})
}

// begin notes a request and says what becomes of it.
func (b *behaviour) begin(r *http.Request) misbehaviour {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.what
	if s.started.IsZero() {
		s.started = time.Now()
	}
	s.Requests++
	s.InFlight++
	s.MaxInFlight = max(s.MaxInFlight, s.InFlight)
	if len(s.ArrivalsMS) < maxArrivals {
		s.ArrivalsMS = append(s.ArrivalsMS, time.Since(s.started).Milliseconds())
	}
	if c, ok := r.Context().Value(connKey{}).(*connRequests); ok {
		if c.n++; c.n == 1 {
			s.Connections++
		}
		s.MaxRequestsPerConnection = max(s.MaxRequestsPerConnection, c.n)
	}
	if rand.Float64() >= b.now.share { //nolint:gosec // G404: a share of failures, not a secret
		return misbehaviour{}
	}
	return b.now
}

func (b *behaviour) end() {
	b.mu.Lock()
	b.what.InFlight--
	b.mu.Unlock()
}

func (b *behaviour) behaving(usual http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := b.begin(r)
		defer b.end()
		if m.silent {
			<-r.Context().Done()
			return
		}
		if m.delay > 0 {
			wait(r.Context(), m.delay)
		}
		if m.status != 0 {
			w.WriteHeader(m.status)
			return
		}
		usual.ServeHTTP(w, r)
	})
}

// asked adds the two paths.
func (b *behaviour) asked(mux *http.ServeMux) {
	mux.HandleFunc("POST /behave", b.change)
	mux.HandleFunc("GET /seen", b.seen)
}

// change is POST /behave: status=503, delay=2s, silent=true, of a share=0.5 of the
// requests; without any of them, the usual. What was seen is forgotten.
func (b *behaviour) change(w http.ResponseWriter, r *http.Request) {
	if !local(w, r) {
		return
	}
	m, err := parseBehaviour(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.now, b.what = m, Seen{InFlight: b.what.InFlight, MaxInFlight: b.what.InFlight}
	b.mu.Unlock()
}

func parseBehaviour(q url.Values) (m misbehaviour, err error) {
	m.share = 1
	for key, values := range q {
		v := values[0]
		switch key {
		case "share":
			m.share, err = strconv.ParseFloat(v, 64)
		case "status":
			if m.status, err = strconv.Atoi(v); err == nil && (m.status < 200 || m.status > 599) {
				err = fmt.Errorf("%d is no status", m.status)
			}
		case "delay":
			m.delay, err = time.ParseDuration(v)
		case "silent":
			m.silent, err = strconv.ParseBool(v)
		default:
			err = fmt.Errorf("want share, status, delay or silent")
		}
		if err != nil {
			return m, fmt.Errorf("%s: %w", key, err)
		}
	}
	return m, nil
}

func (b *behaviour) seen(w http.ResponseWriter, r *http.Request) {
	if !local(w, r) {
		return
	}
	b.mu.Lock()
	s := b.what
	s.ArrivalsMS = append([]int64{}, s.ArrivalsMS...)
	b.mu.Unlock()
	answer(w, http.StatusOK, s)
}

// local lets those in who ask from the pod's loopback address.
func local(w http.ResponseWriter, r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		http.Error(w, "ask from inside of the pod: fairlead lab exec POD -- curl localhost:PORT/...", http.StatusForbidden)
		return false
	}
	return true
}

// upgrade sends back what a client sends after it has left HTTP.
func upgrade(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
	w.Header().Set("Connection", "Upgrade")
	w.WriteHeader(http.StatusSwitchingProtocols)
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.Copy(c, buffered)
}

// echoGRPC sends each message of a call back, as it comes, and says that all is well.
func echoGRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	flush := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil || flush.Flush() != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	w.Header().Set("Grpc-Status", "0")
}

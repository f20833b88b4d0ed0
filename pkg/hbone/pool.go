package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	// idleTimeout is how long an unused tunnel is kept.
	idleTimeout = 5 * time.Minute
	// busyStreams is when another tunnel of a pair is worth its handshake.
	busyStreams = 4
)

// Key names the tunnels that may be shared: between one source and one socket,
// proving one of the same identities.
type Key struct {
	Source      mesh.Identity
	Destination netip.AddrPort
	// Expected are the SPIFFE IDs that may answer, joined by commas, sorted.
	Expected string
}

// PoolOptions are those of a [Pool].
type PoolOptions struct {
	// Dial connects to a tunnel's other end. It must be non-nil.
	Dial func(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error)
	// TLS is the client's configuration for a key. It must be non-nil.
	TLS   func(Key) *tls.Config
	HTTP2 h2.Config
	// MaxStreams bounds the streams of one tunnel, beside the peer's own limit;
	// zero is 1,000.
	MaxStreams int
}

// Pool opens streams for one pod.
type Pool struct {
	o PoolOptions

	// mu guards below.
	mu      sync.Mutex
	tunnels map[Key]*group
	closed  bool
}

// group is the tunnels of one key.
type group struct {
	conns []*tunnel
	// connecting closes when the connection under way has succeeded or failed.
	connecting chan struct{}
	err        error // of the last attempt
}

type tunnel struct {
	conn *h2.Conn
	peer *tls.ConnectionState
	used time.Time
}

// NewPool returns a pool without tunnels.
func NewPool(o PoolOptions) (*Pool, error) {
	if o.Dial == nil || o.TLS == nil {
		return nil, errors.New("hbone: Dial and TLS must be set")
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 1_000
	}
	return &Pool{o: o, tunnels: map[Key]*group{}}, nil
}

// Stages of a failure, for the caller to tell apart.
var (
	// ErrDial: the other end could not be reached.
	ErrDial = errors.New("connect to the tunnel's port")
	// ErrTLS: the handshake failed.
	ErrTLS = errors.New("TLS handshake")
	// ErrHTTP2: the tunnel broke.
	ErrHTTP2 = errors.New("tunnel")
	// ErrClosed: the pool was closed.
	ErrClosed = errors.New("the pod's tunnels are closed")
)

// StatusError is an answer other than 200.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	switch e.Status {
	case 401, 403:
		return fmt.Sprintf("the destination refused: %d (denied by its policy)", e.Status)
	case 503:
		return "the destination refused: 503 (its application cannot be reached)"
	}
	return fmt.Sprintf("the destination refused: %d", e.Status)
}

// Headers of a CONNECT.
type Headers struct {
	Authority   Authority
	Baggage     string
	Forwarded   string
	TraceParent string
}

// Stream is an accepted CONNECT.
type Stream struct {
	stream *h2.Stream
	// Peer is the tunnel's state: who answers.
	Peer *tls.ConnectionState
	// Baggage is what the other side says of itself.
	Baggage []string
}

// Relay carries bytes between the stream and conn; see [h2.Stream.Relay].
func (s *Stream) Relay(conn *net.TCPConn, sent, received *atomic.Uint64, done func(error)) {
	s.stream.Relay(conn, sent, received, done)
}

// Conn is the tunnel as a connection, whose addresses are those of the outer one.
func (s *Stream) Conn() *h2.Stream { return s.stream }

// Abort ends the stream abruptly.
func (s *Stream) Abort() { s.stream.Reset(h2.CodeConnect) }

// Open sends a CONNECT over a tunnel of key, making one if needed, and waits for
// its answer.
func (p *Pool) Open(ctx context.Context, key Key, h Headers) (*Stream, error) {
	fields := make([]h2.Field, 0, 5)
	fields = append(fields, h2.Field{Name: ":method", Value: "CONNECT"}, h2.Field{Name: ":authority", Value: h.Authority.String()})
	for _, f := range []h2.Field{{Name: "baggage", Value: h.Baggage}, {Name: "forwarded", Value: h.Forwarded}, {Name: "traceparent", Value: h.TraceParent}} {
		if f.Value != "" {
			fields = append(fields, f)
		}
	}
	// A tunnel may end between being chosen and being used, or while it is made, as
	// the agent at its other end is replaced: then another is made. The third time it
	// is an error of the other side's.
	for attempt := 0; ; attempt++ {
		t, err := p.get(ctx, key)
		if broken(err) && ctx.Err() == nil && attempt < 2 {
			continue
		}
		if err != nil {
			return nil, err
		}
		stream, err := p.open(ctx, t, fields)
		if err == nil {
			return stream, nil
		}
		if ctx.Err() != nil || attempt == 2 || !h2.Retryable(err) {
			return nil, err
		}
	}
}

// broken reports whether a handshake ended without a word of why.
func broken(err error) bool {
	return errors.Is(err, ErrTLS) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

func (p *Pool) open(ctx context.Context, t *tunnel, fields []h2.Field) (*Stream, error) {
	s, err := t.conn.Open(fields, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHTTP2, err)
	}
	response, err := s.Response(ctx)
	if err != nil {
		s.Reset(h2.CodeCancel)
		return nil, fmt.Errorf("%w: %w", ErrHTTP2, err)
	}
	out := &Stream{stream: s, Peer: t.peer}
	status := 0
	for _, f := range response {
		switch f.Name {
		case ":status":
			status, _ = strconv.Atoi(f.Value)
		case "baggage":
			out.Baggage = append(out.Baggage, f.Value)
		}
	}
	if status != 200 {
		s.Reset(h2.CodeNo)
		return nil, &StatusError{status}
	}
	return out, nil
}

// get returns a tunnel of key with room. One goroutine connects, the others wait.
func (p *Pool) get(ctx context.Context, key Key) (*tunnel, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, ErrClosed
		}
		g := p.tunnels[key]
		if g == nil {
			g = &group{}
			p.tunnels[key] = g
		}
		best := p.bestLocked(g)
		wanted := best == nil
		if best != nil {
			best.used = time.Now()
			open, _ := best.conn.Load()
			more := open >= busyStreams && len(g.conns) < runtime.GOMAXPROCS(0) && g.connecting == nil
			if more {
				g.connecting = make(chan struct{})
				go p.connect(key, g)
			}
			p.mu.Unlock()
			return best, nil
		}
		if wanted && g.connecting == nil {
			g.connecting = make(chan struct{})
			go p.connect(key, g)
		}
		connecting := g.connecting
		p.mu.Unlock()
		select {
		case <-connecting:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrDial, ctx.Err())
		}
		p.mu.Lock()
		err := g.err
		usable := p.bestLocked(g) != nil
		p.mu.Unlock()
		if err != nil && !usable {
			return nil, err
		}
	}
}

// bestLocked is the tunnel with the fewest streams that has room; those that are
// over are dropped.
func (p *Pool) bestLocked(g *group) (best *tunnel) {
	least := 0
	live := g.conns[:0]
	for _, t := range g.conns {
		open, limit := t.conn.Load()
		if limit == 0 {
			continue // it drains, or is over
		}
		live = append(live, t)
		if limit = min(limit, p.o.MaxStreams); open >= limit {
			continue
		}
		if best == nil || open < least {
			best, least = t, open
		}
	}
	clear(g.conns[len(live):])
	g.conns = live
	return best
}

// connectTimeout bounds TCP and TLS together.
const connectTimeout = 10 * time.Second

func (p *Pool) connect(key Key, g *group) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	t, err := p.handshake(ctx, key)
	p.mu.Lock()
	defer p.mu.Unlock()
	g.err = err
	close(g.connecting)
	g.connecting = nil
	if err != nil {
		return
	}
	if p.closed {
		go t.conn.Close()
		return
	}
	g.conns = append(g.conns, t)
	go p.expire(key, g, t)
}

func (p *Pool) handshake(ctx context.Context, key Key) (*tunnel, error) {
	conn, err := p.o.Dial(ctx, key.Destination)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008")
		}
		return nil, fmt.Errorf("%w %s: %w", ErrDial, key.Destination, err)
	}
	w, err := newWire(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w %s: %w", ErrDial, key.Destination, err)
	}
	t := tls.Client(w, p.o.TLS(key))
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w with %s: %w", ErrTLS, key.Destination, err)
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		conn.Close()
		return nil, fmt.Errorf("%w with %s: no agreement on h2", ErrTLS, key.Destination)
	}
	c, err := h2.Client(&tunnelConn{Conn: t, wire: w}, p.o.HTTP2)
	if err != nil {
		return nil, fmt.Errorf("%w with %s: %w", ErrHTTP2, key.Destination, err)
	}
	return &tunnel{conn: c, peer: &state, used: time.Now()}, nil
}

// expire ends a tunnel that was not used for long, and forgets one that is over.
func (p *Pool) expire(key Key, g *group, t *tunnel) {
	tick := time.NewTicker(idleTimeout / 5)
	defer tick.Stop()
	for {
		select {
		case <-t.conn.Done():
			p.mu.Lock()
			p.bestLocked(g)
			if len(g.conns) == 0 && g.connecting == nil && p.tunnels[key] == g {
				delete(p.tunnels, key)
			}
			p.mu.Unlock()
			return
		case <-tick.C:
			p.mu.Lock()
			open, _ := t.conn.Load()
			idle := open == 0 && time.Since(t.used) > idleTimeout
			p.mu.Unlock()
			if idle {
				t.conn.GoAway()
			}
		}
	}
}

// Tunnels is how many connections are open.
func (p *Pool) Tunnels() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.tunnels {
		n += len(g.conns)
	}
	return n
}

// Drain takes no new streams; tunnels end with their last stream.
func (p *Pool) Drain() { p.end((*h2.Conn).GoAway) }

// Close ends all tunnels and their streams.
func (p *Pool) Close() { p.end((*h2.Conn).Close) }

func (p *Pool) end(how func(*h2.Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, g := range p.tunnels {
		for _, t := range g.conns {
			go how(t.conn)
		}
	}
}

// JoinExpected makes a key's Expected; SplitExpected takes it apart.
func JoinExpected(ids []string) string { return strings.Join(ids, ",") }

// SplitExpected is the list that JoinExpected joined.
func SplitExpected(s string) []string { return strings.Split(s, ",") }

package hbone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// handshakeTimeout bounds a TLS handshake from accept to end.
const handshakeTimeout = 10 * time.Second

// ServerOptions are those of a [Server].
type ServerOptions struct {
	// TLS is asked for each listener's connections. It must be non-nil.
	TLS *tls.Config
	// Handle is called in a goroutine of its own for each CONNECT. It must call
	// Accept, AcceptStream or Reject. It must be non-nil.
	Handle func(*Request)
	// MaxConnections bounds the connections of the listener, those in their
	// handshake included; zero is 2,000. One peer's address may have half of them.
	MaxConnections int
	// Failed is told of handshakes that failed; or nil.
	Failed func(peer netip.AddrPort, err error)
	HTTP2  h2.Config
	Logger *slog.Logger // must be non-nil
}

// handshakes bounds the handshakes in flight in the whole process: they are what
// a stranger can make us compute.
var handshakes = make(chan struct{}, 4*runtime.GOMAXPROCS(0))

// Server takes the tunnels of one listener.
type Server struct {
	o ServerOptions

	// mu guards below.
	mu       sync.Mutex
	conns    map[net.Conn]*h2.Conn // nil before the first frame
	pending  map[net.Conn]struct{} // in their handshake
	peers    map[netip.Addr]int    // connections by address
	draining bool
	work     sync.WaitGroup
}

// NewServer returns a server; Serve it.
func NewServer(o ServerOptions) (*Server, error) {
	if o.TLS == nil || o.Handle == nil || o.Logger == nil {
		return nil, errors.New("hbone: TLS, Handle and Logger must be set")
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 2_000
	}
	if o.HTTP2.MaxStreams == 0 {
		o.HTTP2.MaxStreams = 1_000
	}
	return &Server{o: o, conns: map[net.Conn]*h2.Conn{}, pending: map[net.Conn]struct{}{}, peers: map[netip.Addr]int{}}, nil
}

// Serve accepts until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fmt.Errorf("accept tunnels: %w", err)
		}
		if !s.admit(conn) {
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
			continue
		}
		s.work.Go(func() { s.serve(conn.(*net.TCPConn)) })
	}
}

// Active is how many tunnels are open, those in their handshake included.
func (s *Server) Active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	peer := addrPort(conn.RemoteAddr()).Addr()
	if s.draining || len(s.conns) >= s.o.MaxConnections || s.peers[peer] >= max(1, s.o.MaxConnections/2) {
		return false
	}
	s.peers[peer]++
	if len(s.pending) >= s.o.MaxConnections/4 {
		// One of those who were not quick makes room: strangers who are slow must
		// not keep others out.
		for c := range s.pending {
			delete(s.pending, c)
			c.Close()
			break
		}
	}
	s.conns[conn] = nil
	s.pending[conn] = struct{}{}
	return true
}

func (s *Server) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	peer := addrPort(conn.RemoteAddr()).Addr()
	if s.peers[peer]--; s.peers[peer] <= 0 {
		delete(s.peers, peer)
	}
}

// settled notes that conn's handshake is over.
func (s *Server) settled(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, conn)
}

func (s *Server) serve(conn *net.TCPConn) {
	defer func() {
		s.leave(conn)
		conn.Close()
	}()
	local, peer := addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())
	tlsConn, err := s.handshake(conn)
	s.settled(conn)
	if err != nil {
		if s.o.Failed != nil {
			s.o.Failed(peer, err)
		}
		return
	}
	state := tlsConn.ConnectionState()
	err = h2.Server(tlsConn, s.o.HTTP2, func(stream *h2.Stream) {
		s.request(stream, &Request{stream: stream, TLS: &state, Local: local, Peer: peer})
	}, func(c *h2.Conn) {
		s.mu.Lock()
		s.conns[conn] = c
		draining := s.draining
		s.mu.Unlock()
		if draining {
			c.GoAway()
		}
	})
	s.o.Logger.Debug("tunnel ended", "peer", peer.String(), "reason", err)
}

func (s *Server) handshake(conn *net.TCPConn) (*tunnelConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	w, err := newWire(conn)
	if err != nil {
		return nil, err
	}
	// While the client is waited for, others compute: a silent peer holds a
	// connection, not a place.
	held := false
	leave := func() {
		if held {
			<-handshakes
			held = false
		}
	}
	w.waits = func(wait func() error) error {
		leave()
		if err := wait(); err != nil {
			return err
		}
		select {
		case handshakes <- struct{}{}:
			held = true
			return nil
		case <-ctx.Done():
			return errors.New("too many handshakes at once")
		}
	}
	defer func() {
		leave()
		w.waits = nil
	}()
	t := tls.Server(w, s.o.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if p := t.ConnectionState().NegotiatedProtocol; p != "h2" {
		return nil, fmt.Errorf("peer did not agree on h2 (%q)", p)
	}
	return &tunnelConn{Conn: t, wire: w}, nil
}

func (s *Server) request(stream *h2.Stream, r *Request) {
	for _, f := range stream.Fields() {
		switch f.Name {
		case ":method":
			r.Method = f.Value
		case ":authority":
			r.authority = f.Value
		case "baggage":
			r.Baggage = append(r.Baggage, f.Value)
		case "forwarded":
			r.Forwarded = f.Value
		case "traceparent":
			r.TraceParent = f.Value
		}
	}
	var err error
	if r.Method != "CONNECT" {
		r.Reject(400)
		return
	}
	if r.Authority, err = ParseAuthority(r.authority); err != nil {
		r.Reject(400)
		return
	}
	s.o.Handle(r)
}

// Drain takes no new connections and streams; it returns when the tunnels have
// ended, or closes them when ctx ends. A handshake under way is finished, so that
// its client hears of the end in a way that it can act on: all that wait for that
// tunnel would fail with it.
func (s *Server) Drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	for _, c := range s.conns {
		if c != nil {
			go c.GoAway()
		}
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	for conn, c := range s.conns {
		if c != nil {
			go c.Close()
		}
		conn.Close()
	}
	s.mu.Unlock()
	<-ended
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Request is one CONNECT.
type Request struct {
	// TLS is the tunnel's state: who calls.
	TLS *tls.ConnectionState
	// Local is the tunnel's own address, Peer the caller's.
	Local, Peer netip.AddrPort

	Method      string
	Authority   Authority
	Baggage     []string
	Forwarded   string
	TraceParent string

	authority string
	stream    *h2.Stream
	answered  atomic.Bool
}

// Accept answers 200 and carries bytes between the tunnel and conn until both
// have ended, of which it tells done; see [h2.Stream.Relay]. fromPeer and toPeer
// count. It must be called once, and not after Reject.
func (r *Request) Accept(conn *net.TCPConn, baggage string, fromPeer, toPeer *atomic.Uint64, done func(error)) {
	stream, err := r.AcceptStream(baggage)
	if err != nil {
		_ = conn.SetLinger(0)
		conn.Close()
		go done(err)
		return
	}
	stream.Relay(conn, toPeer, fromPeer, done)
}

// AcceptStream answers 200 and returns the tunnel as a connection, whose addresses
// are those of the outer one. It is reset when Handle returns before both its ends
// have ended, unless it is parked. It must be called once, and not after Reject.
func (r *Request) AcceptStream(baggage string) (*h2.Stream, error) {
	r.answered.Store(true)
	fields := []h2.Field{{Name: ":status", Value: "200"}}
	if baggage != "" {
		fields = append(fields, h2.Field{Name: "baggage", Value: baggage})
	}
	if err := r.stream.Respond(fields, 0); err != nil {
		return nil, err
	}
	return r.stream, nil
}

// Reject answers with an error's status.
func (r *Request) Reject(status int) {
	if !r.answered.Swap(true) {
		_ = r.stream.Respond([]h2.Field{{Name: ":status", Value: strconv.Itoa(status)}}, h2.End) // the peer may be gone
		r.stream.Reset(h2.CodeNo)
	}
}

// Aborter returns what ends an accepted request's tunnel abruptly. It does not
// hold the request.
func (r *Request) Aborter() func() {
	stream := r.stream
	return func() { stream.Reset(h2.CodeConnect) }
}

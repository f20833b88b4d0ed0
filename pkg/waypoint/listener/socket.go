package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// handshakeTimeout bounds a TLS handshake.
const handshakeTimeout = 10 * time.Second

// defaultMaxConnections bounds the connections of a socket.
const defaultMaxConnections = 20_000

// connections numbers the process's connections.
var connections atomic.Uint64

// SocketOptions are those of a listener for connections that are no tunnels.
type SocketOptions struct {
	// TLS is what a connection's chain begins with, or nil: plain.
	TLS *tls.Config
	// Table serves the connections. It must be non-nil.
	Table          func() *Table
	MaxConnections int          // zero: 20,000
	Guard          *guard.Guard // or nil
	Logger         *slog.Logger // must be non-nil
}

// Socket takes connections from a port.
type Socket struct {
	o      SocketOptions
	active atomic.Int64

	// mu guards below.
	mu    sync.Mutex
	conns map[codec.Conn]struct{}
	work  sync.WaitGroup
}

// NewSocket makes a listener; Serve it.
func NewSocket(o SocketOptions) *Socket {
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultMaxConnections
	}
	return &Socket{o: o, conns: map[codec.Conn]struct{}{}}
}

// Active is how many connections are open.
func (s *Socket) Active() int64 { return s.active.Load() }

// Serve accepts until l is closed.
func (s *Socket) Serve(l net.Listener) error {
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
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		t := conn.(*net.TCPConn)
		if s.active.Load() >= int64(s.o.MaxConnections) {
			codec.TCPConn{TCPConn: t}.Abort()
			continue
		}
		s.active.Add(1)
		s.work.Add(1)
		go s.serve(t)
	}
}

// serve serves a connection until it is over, or parks.
func (s *Socket) serve(t *net.TCPConn) {
	var conn codec.Conn
	var info *streaminfo.Connection
	carry(s.o.Guard, "a connection", func() (err error) {
		if conn, info = s.begin(t); conn == nil {
			return nil
		}
		table := s.o.Table()
		if table == nil {
			conn.Abort()
			return nil
		}
		return table.Serve(conn, info)
	}, func(err error) {
		if err != nil {
			s.o.Logger.Debug("connection ended", "peer", info.Remote.String(), "chain", info.Chain, "err", err)
		}
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		t.Close()
		s.active.Add(-1)
		s.work.Done()
	})
}

// begin makes a connection of a socket, or returns nil: its TLS handshake failed.
func (s *Socket) begin(t *net.TCPConn) (codec.Conn, *streaminfo.Connection) {
	info := &streaminfo.Connection{ID: connections.Add(1), Remote: streaminfo.AddrPort(t.RemoteAddr()), Local: streaminfo.AddrPort(t.LocalAddr())}
	info.DirectRemote = info.Remote
	parking := codec.NewParking(t)
	var conn codec.Conn = codec.TCPConn{TCPConn: t, Parking: parking}
	if s.o.TLS != nil {
		secured := tls.Server(t, s.o.TLS)
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		err := secured.HandshakeContext(ctx)
		cancel()
		if err != nil {
			s.o.Logger.Debug("TLS handshake failed", "peer", info.Remote.String(), "err", err)
			return nil, nil
		}
		state := secured.ConnectionState()
		info.TLS, info.ServerName = &state, state.ServerName
		if len(state.PeerCertificates) > 0 && len(state.PeerCertificates[0].URIs) > 0 {
			info.PeerURISAN = state.PeerCertificates[0].URIs[0].String()
		}
		conn = codec.TLSConn{Conn: secured, Parking: parking}
	}
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	return conn, info
}

// Drain waits for the connections to end, and aborts them when ctx ends.
func (s *Socket) Drain(ctx context.Context) {
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
	for c := range s.conns {
		c.Abort()
	}
	s.mu.Unlock()
	<-ended
}

package cluster

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// Connected is what is known of a connection to a host.
type Connected struct {
	// Remote is the socket's peer: with a tunnel, the tunnel's other end.
	Remote, Local netip.AddrPort
	// TLS is the state of the tunnel or the connection, or nil: plain.
	TLS *tls.ConnectionState
	// PeerURISAN is the SPIFFE id of who answers, or "".
	PeerURISAN string
	// Version is the connection's.
	Version message.Version
	// Duration is how long it took to make.
	Duration time.Duration
}

// Stream is one exchange with a host. Close must be called, once, by the goroutine
// that uses it; the stream must not be touched afterwards.
type Stream struct {
	codec.ClientStream
	// Connected is the connection's.
	Connected *Connected
	// Reused is true where the connection had carried an exchange before.
	Reused bool

	conn     *conn
	priority Priority
}

// begin starts a stream in a place of a connection; after an error the place is given
// back.
func (p *pool) begin(cn *conn, o *OpenOptions, reused bool) (*Stream, error) {
	p = cn.pool
	c := p.host.cluster
	b := &c.breakers[o.Priority]
	s := c.snap.Load()
	if l := &s.spec.limits[o.Priority]; !take(&b.requests, l.requests) {
		p.put(cn, false)
		c.stats.rqActiveOverflow.Add(1)
		return nil, ErrOverflow
	} else if l.budget != nil && l.budget.interval > 0 {
		b.arrivals.add(time.Now(), l.budget.interval)
	}
	out := &cn.stream
	if cn.http2 != nil {
		out = &Stream{ClientStream: cn.http2.Open()}
	} else {
		out.ClientStream = cn.http1.Open()
	}
	out.Connected, out.Reused, out.conn, out.priority = &cn.info, reused, cn, o.Priority
	p.host.active.Add(1)
	p.host.stats.rqTotal.Add(1)
	c.stats.rqTotal.Add(1)
	c.stats.rqActive.Add(1)
	return out, nil
}

// Host is who the exchange is with.
func (s *Stream) Host() *Host { return s.conn.pool.host }

// Close ends the exchange and gives the connection back.
func (s *Stream) Close() {
	cn := s.conn
	if cn == nil {
		return
	}
	s.conn = nil
	s.ClientStream.Close()
	broken := cn.http1 != nil && !cn.http1.Usable()
	c := cn.pool.host.cluster
	c.breakers[s.priority].requests.Add(-1)
	c.stats.rqActive.Add(-1)
	cn.pool.host.active.Add(-1)
	cn.pool.put(cn, broken)
}

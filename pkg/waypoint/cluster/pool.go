package cluster

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// pools are a host's connections, as long as how they are made stays the same.
type pools struct {
	link   *link
	socket *socket
	http1  pool
	http2  pool
	// agreed is the version that the last handshake agreed on, or 0.
	agreed atomic.Uint32
}

func newPools(h *Host, l *link) *pools {
	s := &pools{link: l, socket: l.sockets.of(h)}
	s.http1 = pool{host: h, set: s, version: message.HTTP11, streams: 1}
	s.http2 = pool{host: h, set: s, version: message.HTTP2, streams: l.maxStreams}
	return s
}

func (s *pools) drain() {
	s.http1.drain()
	s.http2.drain()
}

// pick is the pool for a request.
func (s *pools) pick(downstream message.Version) *pool {
	v, known := s.link.version(downstream)
	if agreed := message.Version(s.agreed.Load()); !known && agreed != 0 {
		v = agreed
	}
	if v == message.HTTP2 {
		return &s.http2
	}
	return &s.http1
}

// pool is a host's connections of one HTTP version, and who waits for one. HTTP/1 is
// a connection of one stream.
type pool struct {
	host    *Host
	set     *pools
	version message.Version
	streams int // per connection

	// mu guards below.
	mu sync.Mutex
	// ready have room for a stream; the last one was used last.
	ready []*conn
	all   map[*conn]struct{}
	// dialing is how many connections are being made, count those and all.
	dialing, count int
	waiters        []*waiter
	draining       bool
}

// conn is one connection.
type conn struct {
	pool     *pool
	raw      codec.Conn
	http1    *codec.HTTP1Client // or nil
	http2    *codec.HTTP2Client // or nil
	info     Connected
	born     time.Time
	priority Priority

	// The pool's mu guards below.
	streams, limit int
	served         uint64
	idle           time.Time // since when no stream is open
	closing        bool      // takes no more

	stream Stream // HTTP/1's, used again and again
}

// waiter is a request that waits for a connection.
type waiter struct {
	got      chan handoff
	priority Priority
}

// handoff is what a waiter gets: a stream's place on a connection, the turn to
// connect, or an error.
type handoff struct {
	conn *conn
	dial bool
	err  error
}

// take is a place on a connection that is there, or nil. The caller looks whether
// the connection still lives.
func (p *pool) takeLocked() *conn {
	for n := len(p.ready); n > 0; n = len(p.ready) {
		cn := p.ready[n-1]
		if cn.http2 != nil {
			open, limit := cn.http2.Load()
			cn.limit = min(p.streams, limit)
			if limit == 0 || cn.expired(time.Time{}) {
				cn.closing = true
			}
			if cn.closing || max(open, cn.streams) >= cn.limit {
				p.ready = p.ready[:n-1]
				continue
			}
		}
		cn.streams++
		cn.served++
		if cn.expired(time.Time{}) {
			cn.closing = true
		}
		if cn.streams >= cn.limit || cn.closing {
			p.ready[n-1] = nil
			p.ready = p.ready[:n-1]
		}
		return cn
	}
	return nil
}

// expired: the connection has served its requests, or is too old (now is not zero).
func (cn *conn) expired(now time.Time) bool {
	l := cn.pool.set.link
	stats := &cn.pool.host.cluster.stats
	switch {
	case l.maxRequests > 0 && cn.served >= l.maxRequests:
		if !cn.closing {
			stats.cxMaxRequests.Add(1)
		}
		return true
	case !now.IsZero() && l.maxDuration > 0 && now.Sub(cn.born) >= l.maxDuration:
		if !cn.closing {
			stats.cxMaxDuration.Add(1)
		}
		return true
	}
	return false
}

// put gives a stream's place back; broken is a connection that cannot be used again.
func (p *pool) put(cn *conn, broken bool) {
	p.mu.Lock()
	cn.streams--
	if broken || p.draining {
		cn.closing = true
	}
	if cn.closing {
		p.ready = remove(p.ready, cn)
		if cn.streams > 0 {
			p.mu.Unlock()
			return
		}
		p.forgetLocked(cn)
		p.mu.Unlock()
		cn.end()
		return
	}
	if len(p.waiters) > 0 {
		p.serveLocked(cn)
	}
	if cn.streams == 0 {
		cn.idle = time.Now()
	}
	if cn.streams < cn.limit && (cn.http2 == nil || !slices.Contains(p.ready, cn)) {
		p.ready = append(p.ready, cn)
	}
	p.mu.Unlock()
}

// serveLocked hands places on a connection to who waits, first come first served.
func (p *pool) serveLocked(cn *conn) {
	for len(p.waiters) > 0 && cn.streams < cn.limit && !cn.closing {
		cn.streams++
		cn.served++
		if cn.expired(time.Time{}) {
			cn.closing = true
		}
		p.nextLocked(handoff{conn: cn})
	}
}

func (p *pool) nextLocked(h handoff) {
	w := p.waiters[0]
	p.waiters = slices.Delete(p.waiters, 0, 1)
	w.got <- h
}

// forgetLocked takes a connection's place away; who waits may connect in its stead.
func (p *pool) forgetLocked(cn *conn) {
	if _, ok := p.all[cn]; !ok {
		return
	}
	delete(p.all, cn)
	p.ready = remove(p.ready, cn)
	p.host.disconnected()
	p.freeLocked(cn.priority)
}

// freeLocked gives a connection's place back, or to the first that waits.
func (p *pool) freeLocked(priority Priority) {
	p.count--
	c := p.host.cluster
	c.breakers[priority].connections.Add(-1)
	if len(p.waiters) > 0 && !p.covered() && c.connection(p.waiters[0].priority, p.count == 0) {
		p.count++
		p.dialing++
		p.nextLocked(handoff{dial: true})
	}
	if p.count == 0 {
		c.manager.connected.Delete(p)
	}
}

// covered: the connections being made are enough for who waits.
func (p *pool) covered() bool {
	return p.version == message.HTTP2 && p.dialing*p.streams > len(p.waiters)
}

// drain lets every connection end with its last stream.
func (p *pool) drain() {
	p.mu.Lock()
	p.draining = true
	var idle []*conn
	for cn := range p.all {
		cn.closing = true
		if cn.streams == 0 {
			idle = append(idle, cn)
		}
	}
	p.ready = nil
	for _, cn := range idle {
		p.forgetLocked(cn)
	}
	p.mu.Unlock()
	for _, cn := range idle {
		cn.end()
	}
}

// sweep closes connections that were idle for too long, are too old, or whose peer
// has closed them.
func (p *pool) sweep(now time.Time) {
	p.mu.Lock()
	l := p.set.link
	var over []*conn
	for cn := range p.all {
		gone := cn.http2 != nil && done(cn.http2.Done())
		if cn.expired(now) || gone {
			cn.closing = true
			p.ready = remove(p.ready, cn)
		}
		idle := cn.streams == 0
		if idle && (cn.closing || l.idle > 0 && now.Sub(cn.idle) >= l.idle || cn.http1 != nil && !cn.http1.Usable()) {
			if !cn.closing && l.idle > 0 && now.Sub(cn.idle) >= l.idle {
				p.host.cluster.stats.cxIdleTimeout.Add(1)
			}
			over = append(over, cn)
		}
	}
	for _, cn := range over {
		cn.closing = true
		p.forgetLocked(cn)
	}
	p.mu.Unlock()
	for _, cn := range over {
		cn.end()
	}
}

func done(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (cn *conn) end() {
	if cn.http2 != nil {
		cn.http2.Close()
	} else {
		cn.http1.Close()
	}
}

func remove(list []*conn, cn *conn) []*conn {
	if i := slices.Index(list, cn); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

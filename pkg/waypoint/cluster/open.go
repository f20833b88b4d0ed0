package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// OpenOptions say for what a connection is.
type OpenOptions struct {
	// Deadline bounds the wait for a connection, zero: connect_timeout alone.
	Deadline time.Time
	// Downstream is the client's HTTP version.
	Downstream message.Version
	// Priority is the route's.
	Priority Priority
	// Gone reports that the client left; or nil. A wait asks it a few times a second.
	Gone func() bool
	// Source and Destination are the client's connection, for the PROXY protocol.
	Source, Destination netip.AddrPort
	// ServerName is the name for auto_sni, the request's host without port.
	ServerName string
}

// gonePeriod is how often a wait looks whether its client is still there.
const gonePeriod = 250 * time.Millisecond

// Open is a stream to a host: on a connection that is there, on a new one, or after
// a wait in line where max_connections is reached. Errors are [ErrOverflow],
// [ErrTimeout], [ErrGone] and [*ConnectError]; after all of them nothing was sent.
func (c *Cluster) Open(h *Host, o OpenOptions) (*Stream, error) {
	for {
		set := c.poolsOf(h)
		s, again, err := set.pick(o.Downstream).open(&o)
		if !again {
			return s, err
		}
	}
}

// open may ask to be tried again: the handshake agreed on the other version.
func (p *pool) open(o *OpenOptions) (s *Stream, again bool, err error) {
	for {
		p.mu.Lock()
		cn := p.takeLocked()
		if cn == nil {
			return p.waitLocked(o)
		}
		p.mu.Unlock()
		if cn.http1 != nil && !cn.http1.Usable() {
			p.put(cn, true)
			continue
		}
		s, err := p.begin(cn, o, true)
		if errors.Is(err, codec.ErrRefused) {
			continue // this connection takes no more
		}
		return s, false, err
	}
}

// waitLocked is the slow way: connect, or wait. It unlocks.
func (p *pool) waitLocked(o *OpenOptions) (*Stream, bool, error) {
	c := p.host.cluster
	b := &c.breakers[o.Priority]
	if !take(&b.pending, c.snap.Load().spec.limits[o.Priority].pending) {
		p.mu.Unlock()
		c.stats.rqPendingOverflow.Add(1)
		return nil, false, ErrOverflow
	}
	c.stats.rqPendingTotal.Add(1)
	p.host.pending.Add(1)
	defer func() {
		b.pending.Add(-1)
		p.host.pending.Add(-1)
	}()
	if !p.covered() && c.connection(o.Priority, p.count == 0) {
		p.count++
		p.dialing++
		p.mu.Unlock()
		return p.connect(o)
	}
	w := &waiter{got: make(chan handoff, 1), priority: o.Priority}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	h := p.wait(w, o)
	switch {
	case h.err != nil:
		return nil, errors.Is(h.err, errAgain), h.err
	case h.dial:
		return p.connect(o)
	}
	s, err := p.begin(h.conn, o, true)
	return s, errors.Is(err, codec.ErrRefused), err
}

// connection takes a place among the cluster's connections; a host that has none
// gets its first one in any case, as Envoy does it, or its requests would never end.
func (c *Cluster) connection(priority Priority, first bool) bool {
	b := &c.breakers[priority]
	if take(&b.connections, c.snap.Load().spec.limits[priority].connections) {
		return true
	}
	c.stats.cxOverflow.Add(1)
	if first {
		b.connections.Add(1)
	}
	return first
}

func (p *pool) wait(w *waiter, o *OpenOptions) handoff {
	var deadline <-chan time.Time
	if !o.Deadline.IsZero() {
		t := time.NewTimer(time.Until(o.Deadline))
		defer t.Stop()
		deadline = t.C
	}
	var look <-chan time.Time
	if o.Gone != nil {
		t := time.NewTicker(gonePeriod)
		defer t.Stop()
		look = t.C
	}
	for {
		select {
		case h := <-w.got:
			return h
		case <-deadline:
			return p.leave(w, handoff{err: ErrTimeout})
		case <-look:
			if o.Gone() {
				return p.leave(w, handoff{err: ErrGone})
			}
		}
	}
}

// leave takes a waiter out of the line; what it was given meanwhile counts.
func (p *pool) leave(w *waiter, otherwise handoff) handoff {
	p.mu.Lock()
	i := slices.Index(p.waiters, w)
	if i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 {
		return <-w.got
	}
	p.host.cluster.stats.rqCancelled.Add(1)
	return otherwise
}

// connect makes a connection and takes a stream on it; dialing and count have it
// already.
func (p *pool) connect(o *OpenOptions) (*Stream, bool, error) {
	c := p.host.cluster
	p.host.connecting()
	if p.set.link.protocol != byALPN {
		p.countVersion(p.version)
	}
	cn, err := p.dial(o)
	if err != nil {
		p.host.disconnected()
		return nil, false, p.failed(o, err)
	}
	cn.priority = o.Priority
	to := p
	if v := cn.version(); v != p.version {
		// The handshake agreed on the other version: the connection moves.
		p.set.agreed.Store(uint32(v))
		to = p.other()
	}
	if to != p {
		p.mu.Lock()
		p.dialing--
		p.count--
		p.wakeLocked()
		if p.count == 0 {
			c.manager.connected.Delete(p)
		}
		p.mu.Unlock()
	}
	to.mu.Lock()
	if to != p {
		to.count++
	} else {
		to.dialing--
	}
	to.addLocked(cn)
	to.mu.Unlock()
	s, err := to.begin(cn, o, false)
	return s, errors.Is(err, codec.ErrRefused), err
}

func (p *pool) addLocked(cn *conn) {
	cn.pool = p
	cn.limit, cn.streams, cn.served = p.streams, 1, 1
	if cn.http2 != nil {
		if _, limit := cn.http2.Load(); limit > 0 {
			cn.limit = min(cn.limit, limit)
		}
	}
	cn.closing = p.draining || cn.expired(time.Time{}) || cn.single()
	if p.all == nil {
		p.all = map[*conn]struct{}{}
	}
	p.all[cn] = struct{}{}
	p.host.cluster.manager.connected.Store(p, struct{}{})
	p.serveLocked(cn)
	if cn.streams < cn.limit && !cn.closing {
		p.ready = append(p.ready, cn)
	}
}

// single: the PROXY protocol names one client, and an SNI of the request's one
// server, so nobody else gets the connection.
func (cn *conn) single() bool {
	set := cn.pool.set
	named := set.socket.secure != nil && set.socket.secure.namesSNI && cn.pool.host.cluster.snap.Load().spec.discovery != forward
	return set.socket.proxy != nil || named
}

// wakeLocked sends all who wait to look again.
func (p *pool) wakeLocked() {
	for len(p.waiters) > 0 {
		p.nextLocked(handoff{err: errAgain})
	}
}

// errAgain makes a waiter begin anew.
var errAgain = fmt.Errorf("the host speaks another version: %w", codec.ErrRefused)

func (p *pool) other() *pool {
	if p.version == message.HTTP2 {
		return &p.set.http1
	}
	return &p.set.http2
}

// failed gives the place of a connection that could not be had back. Over HTTP/2 all
// who waited for it fail with it, as in Envoy; over HTTP/1 the next one tries.
func (p *pool) failed(o *OpenOptions, err error) error {
	c := p.host.cluster
	var ce *ConnectError
	if errors.As(err, &ce) {
		c.stats.cxConnectFail.Add(1)
		p.host.stats.cxConnectFail.Add(1)
		if ce.Timeout {
			c.stats.cxConnectTimeout.Add(1)
		}
		c.stats.rqPendingFailureEject.Add(1)
	}
	p.mu.Lock()
	p.dialing--
	if p.version == message.HTTP2 && p.dialing == 0 && len(p.all) == 0 && ce != nil {
		for len(p.waiters) > 0 {
			p.nextLocked(handoff{err: err})
		}
	}
	p.freeLocked(o.Priority)
	p.mu.Unlock()
	return err
}

// dial connects within connect_timeout and the request's deadline.
func (p *pool) dial(o *OpenOptions) (*conn, error) {
	start := time.Now()
	bound := start.Add(p.set.link.connectTimeout)
	own := o.Deadline.IsZero() || bound.Before(o.Deadline)
	if !own {
		bound = o.Deadline
	}
	ctx, cancel := context.WithDeadline(context.Background(), bound)
	defer cancel()
	raw, info, err := p.host.cluster.dial(ctx, p.host, p.set, o)
	if err == nil {
		cn := &conn{pool: p, raw: raw, info: info, born: start, idle: start}
		cn.info.Duration = time.Since(start)
		p.host.cluster.stats.cxConnect.Observe(cn.info.Duration)
		if err = cn.speak(p); err == nil {
			return cn, nil
		}
		_ = raw.Close()
	}
	if ctx.Err() != nil && !own {
		return nil, ErrTimeout
	}
	ce := &ConnectError{Host: p.host.Address, Status: statusOf(err), Timeout: ctx.Err() != nil, Err: err}
	return nil, ce
}

// speak begins HTTP on a connection, in the version that was agreed on or that the
// pool is for.
func (cn *conn) speak(p *pool) (err error) {
	version := p.version
	if p.set.link.protocol == byALPN {
		version = message.HTTP11
		if cn.info.TLS != nil && cn.info.TLS.NegotiatedProtocol == "h2" {
			version = message.HTTP2
		}
	}
	c := p.host.cluster
	if version == message.HTTP2 {
		o := c.manager.o.Codec
		o.HTTP2 = p.set.link.http2.config(o.HTTP2)
		if cn.http2, err = codec.NewHTTP2Client(cn.raw, o); err != nil {
			return err
		}
	} else {
		cn.http1 = codec.NewHTTP1Client(cn.raw, c.manager.o.Codec)
	}
	if p.set.link.protocol == byALPN {
		p.countVersion(version)
	}
	cn.info.Version = version
	return nil
}

func (p *pool) countVersion(v message.Version) {
	if v == message.HTTP2 {
		p.host.cluster.stats.cxHTTP2.Add(1)
	} else {
		p.host.cluster.stats.cxHTTP1.Add(1)
	}
}

func (cn *conn) version() message.Version {
	if cn.http2 != nil {
		return message.HTTP2
	}
	return message.HTTP11
}

package codec

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// Options are of one connection's codec. Zero fields have the defaults named.
type Options struct {
	// Scheme is what requests say they came by; "" is "http".
	Scheme string
	// Limits of heads and trailers; Envoy's 60 KiB and 100 fields.
	Limits h1.Limits
	// HeadTimeout bounds the time from a head's first byte to its last; 0 is one
	// minute, negative is none. A client that is slower gets 408, by ErrSlowHead.
	HeadTimeout time.Duration
	// IdleTimeout bounds the wait for the next request; 0 is one hour, negative is
	// none.
	IdleTimeout time.Duration
	// MaxRequests is how many requests a connection carries; 0 is no limit.
	MaxRequests int
	// HTTP2 is of HTTP/2 connections; a header list that is not bounded there is by
	// Limits.
	HTTP2 h2.Config
	// Drain ends connections in order; or nil.
	Drain *Drain
	// Park lets a serve function return [*Parked] when an HTTP/1 connection has waited as
	// long as that for a request, where it can go on without a goroutine: a socket that
	// has a [Parking], or a tunnel's stream. 0 is never.
	Park time.Duration
	// Refused is told of each request that never became an exchange. Or nil.
	Refused func(r *Refusal)
}

func (o Options) withDefaults() Options {
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	o.Limits = o.Limits.WithDefaults()
	if o.HeadTimeout == 0 {
		o.HeadTimeout = time.Minute
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = time.Hour
	}
	return o
}

func (o Options) http2() h2.Config {
	c := o.HTTP2
	if c.MaxHeaderList == 0 {
		c.MaxHeaderList = uint32(o.Limits.Head)
	}
	return c
}

// Drain tells connections to end when their exchanges do. Its zero value is ready.
type Drain struct {
	// Parent is a drain that these connections are under as well, or nil. It is set
	// before the first of them.
	Parent *Drain

	begun, closing atomic.Bool

	// mu guards below.
	mu    sync.Mutex
	conns map[drainer]struct{}
}

// drainer is a connection. drain has it end with its next exchange, closeIdle at once
// if it has none. They may be called again, and must not wait.
type drainer interface {
	drain()
	closeIdle()
}

// Begin has connections end with their next exchange. Those that are idle go on, since
// a request may be on its way: see CloseIdle.
func (d *Drain) Begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun.Swap(true) {
		return
	}
	for c := range d.conns {
		c.drain()
	}
}

// CloseIdle ends the connections that have no exchange.
func (d *Drain) CloseIdle() {
	d.Begin()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Swap(true) {
		return
	}
	for c := range d.conns {
		c.closeIdle()
	}
}

// Begun reports whether Begin was called.
func (d *Drain) Begun() bool { return d != nil && d.begun.Load() }

// add registers c until remove. When Begin was called it ends with its first exchange.
func (d *Drain) add(c drainer) {
	if d == nil {
		return
	}
	d.Parent.add(c)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns == nil {
		d.conns = map[drainer]struct{}{}
	}
	d.conns[c] = struct{}{}
	if d.begun.Load() {
		c.drain()
	}
}

func (d *Drain) remove(c drainer) {
	if d == nil {
		return
	}
	d.Parent.remove(c)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

package ztunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Live is one live connection, as the admin page shows it.
type Live struct {
	Direction                telemetry.Direction
	Source, Original, Actual netip.AddrPort
	Protocol                 string // HBONE or TCP
}

// liveSet is a pod's live connections: what can be decided on again, and closed.
// A connection is added before it is decided on for the first time, so that a
// change in between is not missed.
type liveSet struct {
	mu  sync.Mutex
	all map[*liveConn]struct{}
}

// liveConn is one of them.
type liveConn struct {
	// Constant after add.
	Live
	set *liveSet
	// check decides again: an error closes the connection. Nil: never.
	check func(*view) error

	// Guarded by the set's mu.
	cancel context.CancelCauseFunc // of the setting up, or nil: it is over
	abort  func()                  // or nil: nothing is carried yet
	why    error                   // it was closed from here
	plain  *Plaintext              // or nil: not relayed without a tunnel
}

func newLiveSet() *liveSet { return &liveSet{all: map[*liveConn]struct{}{}} }

// add registers a connection. The context returned ends when it is closed.
func (s *liveSet) add(ctx context.Context, l Live, check func(*view) error) (*liveConn, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &liveConn{Live: l, set: s, check: check, cancel: cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[c] = struct{}{}
	return c, ctx
}

// carry notes how the connection's bytes are stopped. It returns why they must
// not start, if it was closed meanwhile.
func (c *liveConn) carry(abort func()) error {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	c.abort = abort
	return c.why
}

// relay carries between the client's end and the server's, in plain text. As carry,
// it returns why it must not.
func (c *liveConn) relay(client, server *net.TCPConn, record *telemetry.Record) (carrier, error) {
	r := relay.New(client, server, &record.ToServer, &record.ToClient)
	if err := c.carry(func() { relay.Reset(client, server) }); err != nil {
		return nil, err
	}
	c.set.mu.Lock()
	c.plain = &Plaintext{live: c, client: client, server: server, relay: r, record: record}
	c.set.mu.Unlock()
	return func(done func(error)) {
		go func() { done(r.Run()) }()
	}, nil
}

// end takes the connection out and returns its error: why it was closed from
// here, which explains err, or else err.
func (c *liveConn) end(err error) error {
	c.settled()
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	delete(c.set.all, c)
	if c.why != nil && !errors.Is(err, relay.ErrLeft) { // the next agent decides on what it has
		return c.why
	}
	return err
}

// until ends the connection when carry's end is told, or at once on an error.
func (c *liveConn) until(carry carrier, err error) (carrier, error) {
	if err != nil {
		return nil, c.end(err)
	}
	c.settled()
	return func(done func(error)) {
		carry(func(err error) { done(c.end(err)) })
	}, nil
}

// settled ends the context of the setting up, and forgets it.
func (c *liveConn) settled() {
	c.set.mu.Lock()
	cancel := c.cancel
	c.cancel = nil
	c.set.mu.Unlock()
	if cancel != nil {
		cancel(nil)
	}
}

// revise closes the connections that are not allowed any more.
func (s *liveSet) revise(v *view) {
	s.mu.Lock()
	var closing []*liveConn
	for c := range s.all {
		if c.check == nil || c.why != nil {
			continue
		}
		if err := c.check(v); err != nil {
			c.why = err
			closing = append(closing, c)
		}
	}
	s.mu.Unlock()
	closeThem(closing)
}

// closeAll closes them all.
func (s *liveSet) closeAll(why error) {
	s.mu.Lock()
	var closing []*liveConn
	for c := range s.all {
		if c.why == nil {
			c.why = why
			closing = append(closing, c)
		}
	}
	s.mu.Unlock()
	closeThem(closing)
}

// closeThem is called without the lock: an abort may wait for a writer.
func closeThem(closing []*liveConn) {
	for _, c := range closing {
		c.set.mu.Lock()
		cancel, abort := c.cancel, c.abort
		c.set.mu.Unlock()
		if cancel != nil {
			cancel(c.why)
		}
		if abort != nil {
			abort()
		}
	}
}

func (s *liveSet) list() []Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Live, 0, len(s.all))
	for c := range s.all {
		out = append(out, c.Live)
	}
	return out
}

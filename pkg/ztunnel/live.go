package ztunnel

import (
	"net/netip"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Live is one live connection, as the admin page shows it.
type Live struct {
	Direction                telemetry.Direction
	Source, Original, Actual netip.AddrPort
	Protocol                 string // HBONE or TCP
}

// liveSet is a pod's live connections: what can be decided on again, and closed.
type liveSet struct {
	mu   sync.Mutex
	next uint64
	all  map[uint64]*liveConn
}

type liveConn struct {
	Live
	conn  *authz.Conn // nil: not this pod's to decide on
	close func()
	why   error // it was closed
}

func newLiveSet() *liveSet { return &liveSet{all: map[uint64]*liveConn{}} }

// add registers a connection; done takes it out and returns why it was closed
// from here, or nil.
func (s *liveSet) add(l Live, conn *authz.Conn, closeIt func()) (done func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	id := s.next
	c := &liveConn{Live: l, conn: conn, close: closeIt}
	s.all[id] = c
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, id)
		return c.why
	}
}

// revise closes the connections that verdict has an error for.
func (s *liveSet) revise(verdict func(authz.Conn) error) {
	s.mu.Lock()
	var closing []func()
	for _, c := range s.all {
		if c.conn == nil || c.why != nil {
			continue
		}
		if err := verdict(*c.conn); err != nil {
			c.why = err
			closing = append(closing, c.close)
		}
	}
	s.mu.Unlock()
	for _, f := range closing {
		f()
	}
}

func (s *liveSet) closeAll(why error) {
	s.mu.Lock()
	var closing []func()
	for _, c := range s.all {
		c.why = why
		closing = append(closing, c.close)
	}
	s.mu.Unlock()
	for _, f := range closing {
		f()
	}
}

func (s *liveSet) list() []Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Live, 0, len(s.all))
	for _, c := range s.all {
		out = append(out, c.Live)
	}
	return out
}

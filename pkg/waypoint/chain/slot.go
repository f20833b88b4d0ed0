package chain

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Slot holds the chain of a name over changes of its configuration. Connections
// follow: a request is served by the chain of its moment, and a TCP connection that the
// new chain would refuse ends.
type Slot struct {
	current atomic.Pointer[Chain]
	drain   codec.Drain

	// mu guards below.
	mu   sync.Mutex
	live map[*connection]struct{}
}

type connection struct {
	conn codec.Conn
	info *streaminfo.Connection
}

// NewSlot holds c. Its HTTP connections are under a drain of its own and under all, or
// nil.
func NewSlot(c *Chain, all *codec.Drain) *Slot {
	s := &Slot{live: map[*connection]struct{}{}}
	s.drain.Parent = all
	s.current.Store(c)
	return s
}

// Chain is that of the moment.
func (s *Slot) Chain() *Chain { return s.current.Load() }

// Manager implements [hcm.Source].
func (s *Slot) Manager() *hcm.Manager { return s.current.Load().http }

// Drain implements [hcm.Source]. It is for a chain that is on its way out.
func (s *Slot) Drain() *codec.Drain { return &s.drain }

// Swap puts another chain in the place. Whether it reads requests may not change.
func (s *Slot) Swap(c *Chain) {
	s.current.Store(c)
	s.mu.Lock()
	var refused []codec.Conn
	for l := range s.live {
		if c.tcp == nil && c.refused != nil || c.Allow(l.info) != nil {
			refused = append(refused, l.conn)
		}
	}
	s.mu.Unlock()
	for _, conn := range refused {
		conn.Abort()
	}
}

// firstByteTimeout is how long a client of a chain that is refused may say nothing.
const firstByteTimeout = time.Minute

// Serve runs a connection that was admitted, until it ends or parks.
func (s *Slot) Serve(conn codec.Conn, info *streaminfo.Connection, protocol codec.Protocol) error {
	c := s.Chain()
	info.Chain = c.Name
	l := &connection{conn, info}
	s.mu.Lock()
	s.live[l] = struct{}{}
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		delete(s.live, l)
		s.mu.Unlock()
	}
	var parked *codec.Parked
	defer func() {
		if parked == nil {
			leave()
		}
	}()
	if s.Chain() != c { // it changed between being admitted and being listed
		if err := s.Chain().Allow(info); err != nil {
			conn.Abort()
			return err
		}
	}
	if c.tcp != nil {
		return c.tcp.Serve(conn, info)
	}
	if c.refused != nil && protocol == codec.HTTP { // requests are answered, other bytes are not
		seen, peeked, err := codec.Sniff(conn, firstByteTimeout)
		if err != nil {
			conn.Abort()
			return err
		}
		conn, protocol = peeked, seen.Protocol
	}
	if c.refused != nil && protocol == codec.TCP {
		conn.Abort()
		return c.refused
	}
	err := hcm.Serve(conn, info, protocol, s)
	if errors.As(err, &parked) {
		parked.After(leave)
	}
	return err
}

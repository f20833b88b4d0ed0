package codec

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/idle"
)

// Parked is the error of a serve function that returns, with [Options.Park], though
// its connection is not over: it has been quiet for a while, and needs no goroutine
// until there is something to do.
type Parked struct {
	s    *http1Server
	ends []func()
}

// Error implements error.
func (p *Parked) Error() string { return "the connection is quiet, and parked" }

// After has f called when the connection is over, before what was given earlier. It is
// called before Wait.
func (p *Parked) After(f func()) { p.ends = append(p.ends, f) }

// Wait has resume called in a goroutine of its own when something comes, the
// connection has ended, has been idle for too long, or is to end. The caller has
// nothing more to do with the connection from then on, and returns.
func (p *Parked) Wait(resume func()) {
	leftovers()
	s := p.s
	if !s.idleUntil.IsZero() {
		if left := time.Until(s.idleUntil); s.timer == nil {
			s.timer = time.AfterFunc(left, s.parker.Wake)
		} else {
			s.timer.Reset(left)
		}
	}
	if !s.parker.Park(resume) {
		s.mu.Lock()
		s.parker = nil // such as too many watches: the goroutine stays
		s.mu.Unlock()
		resume()
	}
}

// Resume goes on serving, and is a serve function too: it returns p when the
// connection is to wait again.
func (p *Parked) Resume() error {
	s := p.s
	if s.timer != nil {
		s.timer.Stop()
	}
	s.resumed = true
	again := false
	defer func() {
		for i := len(p.ends) - 1; i >= 0 && !again; i-- {
			p.ends[i]()
		}
	}()
	err := s.proceed()
	again = s.isParked(err)
	return err
}

func (s *http1Server) isParked(err error) bool { return s.parked != nil && errors.Is(err, s.parked) }

// parker waits for a connection's bytes without a goroutine.
type parker interface {
	// Park has next called in a goroutine of its own when there is something to read,
	// the connection is over, or Wake was called. False: it cannot.
	Park(next func()) bool
	// Wake ends the wait, or that which is next.
	Wake()
}

// parkerOf is that of c, or nil.
func parkerOf(c Conn) parker {
	switch c := c.(type) {
	case *h2.Stream:
		return c
	case TCPConn:
		if c.Parking != nil {
			return c.Parking
		}
	case TLSConn:
		if c.Parking != nil {
			return c.Parking
		}
	}
	return nil
}

// Parking is where a socket's connection waits without a goroutine.
type Parking struct {
	raw syscall.RawConn

	// mu guards below.
	mu     sync.Mutex
	next   func() // of who waits, or nil
	ticket uint64
	woken  bool // while nobody waited
}

// NewParking is of a socket, or nil if it cannot be waited for.
func NewParking(socket *net.TCPConn) *Parking {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return &Parking{raw: raw}
}

// Park implements parker.
func (p *Parking) Park(next func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.woken {
		p.woken = false
		go next()
		return true
	}
	ticket, err := idle.Wait(p.raw, p)
	if err != nil {
		return false
	}
	p.next, p.ticket = next, ticket
	return true
}

// Ready implements [idle.Waiter].
func (p *Parking) Ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.goOnLocked()
}

// Wake implements parker.
func (p *Parking) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.woken = p.next == nil
	p.goOnLocked()
}

func (p *Parking) goOnLocked() {
	if next := p.next; next != nil {
		idle.Cancel(p.ticket) // this may have been called for the one before
		p.next = nil
		go next()
	}
}

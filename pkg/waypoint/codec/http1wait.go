package codec

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// waiting is how a connection waits for its next request.
type waiting struct {
	parker    parker // or nil: it waits in its goroutine
	idleUntil time.Time
	resumed   bool        // the wait began before it was parked
	parked    *Parked     // once it was
	timer     *time.Timer // of idleUntil while it is parked, once it was
}

// drain implements drainer.
func (s *http1Server) drain() { s.draining.Store(true) }

// closeIdle implements drainer.
func (s *http1Server) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	if s.idle {
		_ = s.in.want(time.Unix(1, 0)) // a closed connection waits for nothing
	}
	if s.parker != nil {
		s.parker.Wake()
	}
}

// setIdle says whether a drain may interrupt what is read.
func (s *http1Server) setIdle(idle bool) {
	s.mu.Lock()
	s.idle = idle
	s.mu.Unlock()
}

// errIdle ends a connection in order: it was idle for too long, or while draining.
var errIdle = errors.New("idle")

// await waits for the next request.
func (s *http1Server) await() error {
	s.responded, s.broken, s.began = false, nil, time.Time{}
	s.setIdle(true)
	s.waitIdle()
	if s.closing.Load() && s.in.r == s.in.w {
		return errIdle
	}
	slow := false
	head, err := s.in.findHead(s.o.Limits, func() error {
		slow, s.began = true, time.Now()
		s.setIdle(false)
		s.waitFor(s.o.HeadTimeout)
		return nil
	})
	s.setIdle(false)
	switch {
	case err == nil:
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case slow:
		return ErrSlowHead
	case s.mayPark():
		if s.parked == nil {
			s.parked = &Parked{s: s}
		}
		return s.parked
	default:
		return errIdle
	}
	_ = s.in.want(time.Time{}) // reading meets what is wrong
	if s.either && s.served == 0 && strings.HasPrefix(h2.Preface, string(head)) {
		s.ahead = append(bytes.Clone(head), s.in.buf[s.in.r:s.in.w]...)
		return nil
	}
	s.request.Scheme = s.o.Scheme
	if err := s.in.head.Request(head, &s.request); err != nil {
		return err
	}
	s.in.body.Reset(&s.in.head)
	s.waits.Store(s.in.head.Continue)
	s.close = !s.in.head.KeepAlive || s.o.MaxRequests > 0 && s.served+1 >= s.o.MaxRequests
	return nil
}

// waitIdle bounds the wait for a request, and first that in this goroutine.
func (s *http1Server) waitIdle() {
	now := time.Now()
	switch {
	case s.resumed: // the wait goes on
		s.resumed = false
	case s.o.IdleTimeout >= 0:
		s.idleUntil = now.Add(s.o.IdleTimeout)
	}
	until := s.idleUntil
	if s.parker != nil {
		if quiet := now.Add(s.o.Park); until.IsZero() || quiet.Before(until) {
			until = quiet
		}
	}
	_ = s.in.want(until) // reading meets what is wrong
}

// mayPark reports whether the wait goes on, and needs no goroutine.
func (s *http1Server) mayPark() bool {
	return s.parker != nil && !s.closing.Load() && (s.idleUntil.IsZero() || time.Now().Before(s.idleUntil))
}

// waitFor bounds what is read next; negative is no bound.
func (s *http1Server) waitFor(d time.Duration) {
	var t time.Time
	if d >= 0 {
		t = time.Now().Add(d)
	}
	_ = s.in.want(t) // reading meets what is wrong
}

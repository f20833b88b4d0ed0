package h2

import (
	"os"
	"sync"
	"time"
)

// alarm wakes who waits on a condition.
type alarm struct {
	timer *time.Timer
	cond  *sync.Cond
}

func (a *alarm) ring() {
	a.cond.L.Lock()
	a.cond.Broadcast()
	a.cond.L.Unlock()
}

var alarms = sync.Pool{New: func() any {
	a := &alarm{}
	a.timer = time.AfterFunc(time.Hour, a.ring)
	a.timer.Stop()
	return a
}}

// waitUntil waits on cond, whose lock is held, for a signal or until a time in unix
// nanoseconds, 0 for none. It may return early; when the time is up it returns
// [os.ErrDeadlineExceeded] without waiting.
func waitUntil(cond *sync.Cond, by int64) error {
	if by == 0 {
		cond.Wait()
		return nil
	}
	left := time.Duration(by - time.Now().UnixNano())
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	a := alarms.Get().(*alarm)
	a.cond = cond
	a.timer.Reset(left)
	cond.Wait()
	if a.timer.Stop() { // else it may be ringing
		a.cond = nil
		alarms.Put(a)
	}
	return nil
}

func deadline(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.UnixNano())
}

// SetReadDeadline bounds waits for the peer: what reads then returns
// [os.ErrDeadlineExceeded], and may be called again. Zero is no bound.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	s.readBy = deadline(t)
	s.readable.Broadcast()
	s.mu.Unlock()
	return nil
}

// SetWriteDeadline bounds waits for the peer's windows. A connection that takes no
// bytes at all is ended by its keepalive.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	s.writeBy = deadline(t)
	s.writable.Broadcast()
	s.c.mu.Unlock()
	return nil
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t) // neither fails
	return s.SetWriteDeadline(t)
}

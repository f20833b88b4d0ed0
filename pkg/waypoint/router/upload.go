package router

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
)

const (
	// maxKept bounds what is kept of a request's body for another try or a mirror, in
	// bytes: Envoy's default buffer limit.
	maxKept = 1 << 20
	// inline is how much of a body is carried by the exchange's own goroutine, before
	// the response is looked for.
	inline = 64 << 10
)

// upload carries a request's body to the attempt of the moment. What is kept of it
// goes to later ones first.
type upload struct {
	d    Downstream
	keep bool

	// writing guards the attempt's stream, and is held while something is written to
	// it: that may last for as long as the upstream does not read. It comes before mu.
	writing sync.Mutex
	stream  *cluster.Stream // of the attempt, or nil: between attempts
	running chan struct{}   // of the goroutine; nil without one. The exchange's own.

	// mu guards below.
	mu       sync.Mutex
	kept     []byte
	lost     bool // more came than may be kept
	received uint64
	ended    bool
	endedAt  time.Time
	trailers message.Fields
	err      error // of the client
	stopped  bool
}

// attach gives an attempt what is kept, and the rest as it comes. An error is the
// attempt's.
func (u *upload) attach(s *cluster.Stream) error {
	u.writing.Lock()
	u.mu.Lock()
	kept, ended := u.kept, u.ended
	u.mu.Unlock()
	first := u.running == nil
	if len(kept) > inline { // who waits for the answer does not wait for this
		go func() {
			defer u.writing.Unlock()
			_ = u.followLocked(s, kept) // a stream that does not take it has failed: its reader says why
		}()
	} else {
		err := u.followLocked(s, kept)
		u.writing.Unlock()
		if err != nil {
			return err
		}
	}
	if ended || !first {
		return nil
	}
	for moved := len(kept); moved < inline && u.d.Ready(); {
		n, more := u.step()
		if moved += n; !more {
			return nil
		}
	}
	if len(kept) <= inline {
		if err := s.Flush(); err != nil {
			return err
		}
	}
	u.running = make(chan struct{})
	go u.run()
	return nil
}

// followLocked makes s the attempt's stream, once it has what is kept.
func (u *upload) followLocked(s *cluster.Stream, kept []byte) error {
	if len(kept) > 0 {
		if _, err := s.Write(kept); err != nil {
			return err
		}
	}
	u.mu.Lock()
	ended, trailers := u.ended, u.trailers
	u.mu.Unlock()
	if ended {
		return s.Finish(trailers)
	}
	u.stream = s
	return nil
}

// detach takes the attempt away; what comes meanwhile is kept.
func (u *upload) detach() {
	u.writing.Lock()
	u.stream = nil
	u.writing.Unlock()
}

func (u *upload) run() {
	defer close(u.running)
	for {
		if _, more := u.step(); !more {
			return
		}
	}
}

// step carries what comes next; more is false after the end.
func (u *upload) step() (n int, more bool) {
	b, err := u.d.Next()
	u.writing.Lock()
	defer u.writing.Unlock()
	if !u.take(b, err) {
		return 0, true
	}
	s := u.stream
	if len(b) > 0 && s != nil {
		// A stream that does not take it has failed: its reader says why.
		if _, werr := s.Write(b); werr == nil && err == nil && !u.d.Ready() {
			_ = s.Flush()
		}
	}
	switch {
	case err == nil:
		return len(b), true
	case errors.Is(err, io.EOF):
		trailers := u.d.Trailers()
		u.mu.Lock()
		u.ended, u.endedAt, u.trailers = true, time.Now(), trailers
		u.mu.Unlock()
		if s != nil {
			_ = s.Finish(trailers)
		}
	default:
		u.mu.Lock()
		u.err = err
		u.mu.Unlock()
	}
	return len(b), false
}

// take notes what came. It is false where only the wait for it was interrupted.
func (u *upload) take(b []byte, err error) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) && !u.stopped {
		return false
	}
	u.received += uint64(len(b))
	if u.keep && !u.lost && len(b) > 0 {
		if len(u.kept)+len(b) > maxKept {
			u.kept, u.lost = nil, true
		} else {
			u.kept = append(u.kept, b...)
		}
	} else if len(b) > 0 {
		u.lost = true
	}
	return true
}

// state is whether the request has come in whole, since when, and the client's error.
func (u *upload) state() (ended bool, at time.Time, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ended, u.endedAt, u.err
}

// repeatable tells whether another attempt can be given all that came so far.
func (u *upload) repeatable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.lost
}

// stop ends the goroutine, if there is one, and returns how many bytes came.
func (u *upload) stop() uint64 {
	u.detach()
	u.mu.Lock()
	u.stopped = true
	running, ended := u.running, u.ended
	u.mu.Unlock()
	if running != nil && !ended {
		_ = u.d.SetReadDeadline(time.Unix(1, 0))
		<-running
		_ = u.d.SetReadDeadline(time.Time{})
	} else if running != nil {
		<-running
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.received
}

// wait returns when the client has ended its side.
func (u *upload) wait() {
	if u != nil && u.running != nil {
		<-u.running
	}
}

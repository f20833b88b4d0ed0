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

	// mu guards below.
	mu       sync.Mutex
	stream   *cluster.Stream // of the attempt, or nil: between attempts
	kept     []byte
	lost     bool // more came than may be kept
	received uint64
	ended    bool
	endedAt  time.Time
	trailers message.Fields
	err      error // of the client
	stopped  bool
	running  chan struct{} // of the goroutine; nil without one
}

// attach gives an attempt what is kept, and the rest as it comes. An error is the
// attempt's.
func (u *upload) attach(s *cluster.Stream) error {
	u.mu.Lock()
	if len(u.kept) > 0 {
		if _, err := s.Write(u.kept); err != nil {
			u.mu.Unlock()
			return err
		}
	}
	if u.ended {
		err := s.Finish(u.trailers)
		u.mu.Unlock()
		return err
	}
	u.stream = s
	start := u.running == nil
	u.mu.Unlock()
	if !start {
		return nil
	}
	for moved := 0; moved < inline && u.d.Ready(); {
		n, more := u.step()
		if moved += n; !more {
			return nil
		}
	}
	if err := s.Flush(); err != nil {
		return err
	}
	u.running = make(chan struct{})
	go u.run()
	return nil
}

// detach takes the attempt away; what comes meanwhile is kept.
func (u *upload) detach() {
	u.mu.Lock()
	u.stream = nil
	u.mu.Unlock()
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
	u.mu.Lock()
	defer u.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) && !u.stopped {
		return 0, true
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
		u.ended, u.endedAt, u.trailers = true, time.Now(), u.d.Trailers()
		if s != nil {
			_ = s.Finish(u.trailers)
		}
	default:
		u.err = err
	}
	return len(b), false
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
	u.mu.Lock()
	u.stopped, u.stream = true, nil
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

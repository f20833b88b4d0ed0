package router

import (
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
)

const (
	// defaultKept bounds what is kept of a request's body for another try or a mirror
	// where the route does not, in bytes: Envoy's default buffer limit.
	defaultKept = 1 << 20
	// unpolicedKept is what is kept where no policy asks for another try: a connection
	// that had just ended when it was taken loses no request.
	unpolicedKept = 16 << 10
	// inline is how much of a body is carried by the exchange's own goroutine, before
	// the response is looked for.
	inline = 64 << 10
)

// upload carries a request's body to the attempt of the moment. What is kept of it
// goes to later ones first.
type upload struct {
	d     Downstream
	guard *guard.Guard

	// sending is held while an attempt is given something, which may take as long as
	// the attempt does; it guards stream. It is taken before mu.
	sending sync.Mutex
	stream  *cluster.Stream // of the attempt, or nil: between attempts

	// mu guards below.
	mu       sync.Mutex
	kept     *body // nil: nothing is
	lost     bool  // more came than may be kept
	received uint64
	moved    time.Time // when something last came
	ended    bool
	endedAt  time.Time
	trailers message.Fields
	err      error // of the client
	stopped  bool

	running chan struct{} // of the goroutine; nil without one
}

// kept is room for the request's body, as much as the route allows.
func (f *forwarding) kept() *body {
	limit := defaultKept
	if l := f.route.BufferLimit; l != nil {
		limit = int(min(*l, math.MaxInt32))
	}
	if f.retries == 0 && len(f.forward.Mirrors) == 0 {
		limit = min(limit, unpolicedKept)
	}
	return &body{keep: f.r.o.Keep, peer: f.info.DirectRemote.Addr(), limit: limit}
}

// errLost is a body of which more came between two attempts than is kept: the next one
// would get its end as if it was the whole.
var errLost = errors.New("the request's body was not kept")

// attach gives an attempt what is kept, and the rest as it comes. An error is the
// attempt's.
func (u *upload) attach(s *cluster.Stream) error {
	u.sending.Lock()
	u.mu.Lock()
	var kept []byte
	if u.kept != nil {
		kept = u.kept.bytes
	}
	ended, lost := u.ended, u.lost
	u.mu.Unlock()
	if lost { // since it was asked whether the body can be repeated
		u.sending.Unlock()
		return errLost
	}
	if len(kept) > inline { // it may wait for the attempt, whose answer may come first
		go func() {
			defer u.sending.Unlock()
			defer u.guard.Recover("a request's body")
			_ = u.again(s, kept, ended) // the attempt's reader says why
		}()
	} else {
		err := u.again(s, kept, ended)
		u.sending.Unlock()
		if err != nil {
			return err
		}
	}
	if ended || u.running != nil {
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

// again gives an attempt what came before it.
func (u *upload) again(s *cluster.Stream, kept []byte, ended bool) error {
	if len(kept) > 0 {
		if _, err := s.Write(kept); err != nil {
			return err
		}
	}
	if ended {
		return s.Finish(u.trailers)
	}
	u.stream = s
	if len(kept) > 0 {
		return s.Flush()
	}
	return nil
}

// detach takes the attempt away; what comes meanwhile is kept.
func (u *upload) detach() {
	u.sending.Lock()
	u.stream = nil
	u.sending.Unlock()
}

func (u *upload) run() {
	defer close(u.running)
	defer u.guard.Recover("a request's body")
	for {
		if _, more := u.step(); !more {
			return
		}
	}
}

// step carries what comes next; more is false after the end.
func (u *upload) step() (n int, more bool) {
	b, err := u.d.Next()
	u.sending.Lock()
	defer u.sending.Unlock()
	ended, more := u.took(b, err)
	s := u.stream
	if s == nil {
		return len(b), more
	}
	// A stream that does not take it has failed: its reader says why.
	if len(b) > 0 {
		if _, werr := s.Write(b); werr == nil && err == nil && !u.d.Ready() {
			_ = s.Flush()
		}
	}
	if ended {
		_ = s.Finish(u.trailers)
	}
	return len(b), more
}

// took notes what came.
func (u *upload) took(b []byte, err error) (ended, more bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) && !u.stopped {
		return false, true
	}
	if len(b) > 0 {
		u.received += uint64(len(b))
		u.moved = time.Now()
		if u.kept == nil || !u.kept.append(b) {
			u.lost = true
			u.forget()
		}
	}
	switch {
	case err == nil:
		return false, true
	case errors.Is(err, io.EOF):
		u.ended, u.endedAt, u.trailers = true, time.Now(), u.d.Trailers()
		return true, false
	}
	u.err = err
	return false, false
}

// state is whether the request has come in whole, since when, and the client's error.
func (u *upload) state() (ended bool, at time.Time, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ended, u.endedAt, u.err
}

// last is when something came, zero if nothing did.
func (u *upload) last() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.moved
}

// repeatable tells whether another attempt can be given all that came so far.
func (u *upload) repeatable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.lost
}

// whole is the body with its trailers, if all of it was kept. It is the upload's until
// stop.
func (u *upload) whole() (kept *body, trailers message.Fields, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.kept, u.trailers, u.ended && !u.lost
}

// forget gives up what is kept; the caller holds mu.
func (u *upload) forget() {
	if u.kept != nil {
		u.kept.let()
		u.kept = nil
	}
}

// stop ends the goroutine, if there is one, gives up what is kept, and returns how many
// bytes came.
func (u *upload) stop() uint64 {
	u.detach()
	u.mu.Lock()
	u.stopped = true
	u.mu.Unlock()
	if u.running != nil {
		_ = u.d.SetReadDeadline(time.Unix(1, 0)) // a body that has ended waits for nothing
		<-u.running
		_ = u.d.SetReadDeadline(time.Time{})
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget()
	return u.received
}

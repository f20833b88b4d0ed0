package router

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
)

// timeouts are the route's, or those that a gRPC client asks for.
func (f *forwarding) timeouts() (global, perTry time.Duration) {
	global = f.forward.Timeout
	if f.grpc {
		global = grpcGlobal(f.forward, f.x.Request, global)
	}
	if p := f.forward.Retry; p != nil {
		perTry = p.PerTry
	}
	if global > 0 && perTry >= global {
		perTry = 0
	}
	return global, perTry
}

// expected tells the upstream how long it is waited for.
func (f *forwarding) expected(r *message.Request) {
	t := f.global
	if d := f.globalDeadline(); f.attempts > 1 && !d.IsZero() {
		t = max(time.Until(d), time.Millisecond) // what is left of it
	}
	if f.perTry > 0 && (t <= 0 || f.perTry < t) {
		t = f.perTry
	}
	if t > 0 {
		text := f.forward.TimeoutText
		if t != f.forward.Timeout {
			text = strconv.FormatInt(t.Milliseconds(), 10)
		}
		r.Fields.Set("x-envoy-expected-rq-timeout-ms", text)
	}
}

// connectDeadline is when an attempt that finds no connection has to end.
func (f *forwarding) connectDeadline(start time.Time) time.Time {
	return earliest(f.requestDeadline(), earliest(f.globalDeadline(), f.tryDeadline(start)))
}

// requestDeadline is when the request has to have come in whole; zero where it has, or
// may take its time.
func (f *forwarding) requestDeadline() time.Time {
	if f.call.RequestTimeout <= 0 || f.requestComplete() {
		return time.Time{}
	}
	return f.info.Start.Add(f.call.RequestTimeout)
}

// tryIdleDeadline is when something of the response has to have come from a connection
// that was had at moved; zero while the request has not come in whole.
func (f *forwarding) tryIdleDeadline(moved time.Time) time.Time {
	idle := f.tryIdle()
	if idle <= 0 || !f.requestComplete() {
		return time.Time{}
	}
	if f.complete.After(moved) {
		moved = f.complete
	}
	return moved.Add(idle)
}

// tryIdle is the policy's per_try_idle_timeout; 0 is none.
func (f *forwarding) tryIdle() time.Duration {
	if p := f.forward.Retry; p != nil {
		return p.PerTryIdle
	}
	return 0
}

// globalDeadline counts from the request's end; zero while that has not come.
func (f *forwarding) globalDeadline() time.Time {
	if f.global <= 0 || !f.requestComplete() {
		return time.Time{}
	}
	return f.complete.Add(f.global)
}

func (f *forwarding) tryDeadline(start time.Time) time.Time {
	if f.perTry <= 0 || !f.requestComplete() {
		return time.Time{}
	}
	if f.complete.After(start) {
		start = f.complete
	}
	return start.Add(f.perTry)
}

func (f *forwarding) requestComplete() bool {
	if f.complete.IsZero() {
		if ended, at, _ := f.upload.state(); ended {
			f.complete = at
			f.info.RequestReceived = at.Sub(f.info.Start)
		}
	}
	return !f.complete.IsZero()
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// longest is when the stream has to be over, or zero.
func (f *forwarding) longest() time.Time {
	if !f.call.bounded {
		return time.Time{}
	}
	return f.info.Start.Add(f.call.duration)
}

// What ends a wait beside the upstream's own end.
var (
	errGone       = errors.New("the client is gone")
	errGlobal     = errors.New("upstream request timeout")
	errTryTimeout = errors.New("per try timeout")
	errTryIdle    = errors.New("per try idle timeout")
	errRequest    = errors.New("request timeout")
	errLongest    = errors.New("the stream lasted as long as it may")
	errIdle       = errors.New("nothing moved for the stream's idle timeout")
)

// await waits for a response's head. Informational ones go to the client.
func (f *forwarding) await(s *cluster.Stream, start time.Time) (*message.Response, error) {
	sent := time.Now()
	for now := sent; ; now = time.Now() {
		limit := earliest(f.longest(), earliest(f.connectDeadline(start), f.tryIdleDeadline(sent)))
		_ = s.SetReadDeadline(earliest(limit, now.Add(look)))
		response, err := s.Response()
		switch {
		case err == nil && response.Status < 200 && response.Status != 101:
			if err := f.d.Inform(response); err != nil {
				return nil, errGone
			}
			continue
		case err == nil:
			return response, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		}
		if !f.lasts {
			f.lasts = true
			f.d.Lasts()
		}
		if err := f.interrupted(start); err != nil {
			return nil, err
		}
		if passed(f.tryIdleDeadline(sent)) {
			return nil, errTryIdle
		}
	}
}

// passed tells whether there is a deadline that has.
func passed(d time.Time) bool { return !d.IsZero() && !time.Now().Before(d) }

// interrupted is why a wait may not go on, or nil. start is the attempt's, or zero: the
// response has begun.
func (f *forwarding) interrupted(start time.Time) error {
	answered := start.IsZero()
	switch idle := f.call.idleTimeout(); {
	case passed(f.globalDeadline()):
		return errGlobal
	case !answered && passed(f.tryDeadline(start)):
		return errTryTimeout
	case passed(f.longest()):
		return errLongest
	case !answered && passed(f.requestDeadline()):
		return errRequest
	case f.d.Gone():
		return errGone
	case !answered && idle > 0 && time.Since(f.lastMoved(start)) > idle:
		return errIdle
	}
	if f.upload != nil {
		if _, _, err := f.upload.state(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return errGone
		}
	}
	return nil
}

// lastMoved is when something of the request last came.
func (f *forwarding) lastMoved(start time.Time) time.Time {
	if f.upload != nil {
		if t := f.upload.last(); t.After(start) {
			return t
		}
	}
	return start
}

package codec

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// ServeHTTP2 serves an HTTP/2 connection, which it owns, until it ends: each
// exchange in a goroutine of its own. Of the options, limits of the head, the idle
// timeout, Drain and HTTP2 apply.
func ServeHTTP2(conn Conn, o Options, h Handler) error {
	ahead, conn := Ahead(conn)
	s := &http2Server{o: o.withDefaults(), h: h}
	defer s.o.Drain.remove(s)
	err := h2.ServerAfter(below(conn), ahead, s.o.http2(), s.serve, s.started)
	if s.timer != nil {
		s.timer.Stop()
	}
	return http2Failure(err)
}

// http2Server is a connection.
type http2Server struct {
	// Constant once started.
	o     Options
	h     Handler
	conn  *h2.Conn
	timer *time.Timer // of the idle timeout, or nil

	busy atomic.Int64 // exchanges begun since the timer looked, and those under way
}

func (s *http2Server) started(c *h2.Conn) {
	s.conn = c
	if s.o.IdleTimeout > 0 {
		s.timer = time.AfterFunc(s.o.IdleTimeout, s.checkIdle)
	}
	s.o.Drain.add(s)
}

// drain implements drainer.
func (s *http2Server) drain() { go s.conn.GoAway() }

// closeIdle implements drainer: it ends with its last stream as it is.
func (s *http2Server) closeIdle() {}

// checkIdle ends a connection that had no exchange for as long as it may be idle,
// and at most twice that.
func (s *http2Server) checkIdle() {
	open, limit := s.conn.Load()
	switch {
	case limit == 0:
	case open == 0 && s.busy.Swap(0) == 0:
		s.conn.GoAway()
	default:
		s.timer.Reset(s.o.IdleTimeout)
	}
}

// exchanges are lent to streams.
var exchanges = sync.Pool{New: func() any { return new(http2Exchange) }}

func (s *http2Server) serve(stream *h2.Stream) {
	deepen(0)
	s.busy.Add(1)
	e := exchanges.Get().(*http2Exchange)
	e.Stream, e.server = stream, s
	waits, ok := requestOf(stream.Fields(), stream.HasBody(), &e.request)
	e.waits.Store(waits)
	if ok {
		s.h(e)
	} else {
		r := Refusal{Err: errTargetOfHTTP2, Response: message.Response{Status: 400}}
		s.o.refused(&r)
		_ = e.Respond(&r.Response, true) // a stream that is gone needs no answer
	}
	scratch := e.scratch
	clear(scratch[:cap(scratch)])
	e.Stream, e.server, e.request, e.scratch = nil, nil, message.Request{}, scratch[:0]
	e.swallow, e.done = false, false
	exchanges.Put(e)
}

// http2Exchange is a stream.
type http2Exchange struct {
	*h2.Stream
	server  *http2Server
	request message.Request
	scratch []h2.Field
	waits   atomic.Bool // for 100 (Continue)
	swallow bool        // the response's body: it has none
	done    bool        // with the response

	// mu keeps a reader from saying 100 behind a response.
	mu sync.Mutex
}

var _ Exchange = (*http2Exchange)(nil)

// Request implements [Exchange].
func (e *http2Exchange) Request() *message.Request { return &e.request }

// Began implements [Exchange]. A head is here with its stream.
func (e *http2Exchange) Began() time.Time { return time.Time{} }

// HasBody implements [Exchange]. The bytes of an upgrade come after the response.
func (e *http2Exchange) HasBody() bool { return e.Stream.HasBody() && e.request.Upgrade == "" }

// Next implements [Reader].
func (e *http2Exchange) Next() ([]byte, error) {
	if e.waits.Load() && !e.Ready() {
		if err := e.Inform(&message.Response{Status: 100}); err != nil {
			return nil, err
		}
	}
	b, err := e.Stream.Next()
	return b, http2Failure(err)
}

// Trailers implements [Reader].
func (e *http2Exchange) Trailers() message.Fields { return e.Stream.Trailers() }

// Inform implements [Exchange].
func (e *http2Exchange) Inform(r *message.Response) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Status == 100 && !e.waits.Swap(false) {
		return nil
	}
	return http2Failure(e.Stream.Respond(appendResponse(nil, r, message.Unknown), 0))
}

// Respond implements [Exchange].
func (e *http2Exchange) Respond(r *message.Response, end bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waits.Store(false)
	length, mode := r.ContentLength, h2.More
	switch {
	case r.Status == 101: // the answer to an extended CONNECT (RFC 8441 section 5)
		ok := *r
		ok.Status = 200
		r, length, mode = &ok, message.Unknown, 0
	case e.request.Method == "CONNECT" && r.Status/100 == 2:
		length, mode = message.Unknown, 0
	case r.Status == 204:
		length, end, e.swallow = message.Unknown, true, !end
	case r.Status == 304 || e.request.Method == "HEAD":
		end, e.swallow = true, !end
	case end:
		length = 0
	}
	if end {
		mode, e.done = h2.End, true
	}
	e.scratch = appendResponse(e.scratch[:0], r, length)
	return http2Failure(e.Stream.Respond(e.scratch, mode))
}

// Write implements [Writer].
func (e *http2Exchange) Write(p []byte) (int, error) {
	if e.swallow || len(p) == 0 {
		return len(p), nil
	}
	if err := e.Send(p, h2.More); err != nil {
		return 0, http2Failure(err)
	}
	return len(p), nil
}

// Flush implements [Writer].
func (e *http2Exchange) Flush() error { return http2Failure(e.Stream.Flush()) }

// Finish implements [Writer].
func (e *http2Exchange) Finish(trailers message.Fields) error {
	if e.done {
		return nil
	}
	e.done = true
	return http2Failure(e.Stream.Finish(trailers))
}

// Gone implements [Exchange].
func (e *http2Exchange) Gone() bool { return e.Err() != nil }

// Reset implements [Exchange].
func (e *http2Exchange) Reset() { e.Stream.Reset(h2.CodeInternal) }

// CloseAfter implements [Exchange].
func (e *http2Exchange) CloseAfter() { e.server.conn.GoAway() }

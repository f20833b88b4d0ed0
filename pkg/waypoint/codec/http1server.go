package codec

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// ServeHTTP1 serves an HTTP/1 connection, which it owns, in the caller's goroutine:
// one exchange after the other. It returns nil when the connection ended in order,
// and closes it.
//
// One goroutine may read an exchange while another writes it.
func ServeHTTP1(conn Conn, o Options, h Handler) error {
	return newHTTP1Server(conn, o, h).proceed()
}

// ServeHTTP serves a connection of either version: HTTP/2 where it begins with that
// one's preface (RFC 9113 section 3.3), HTTP/1 otherwise.
func ServeHTTP(conn Conn, o Options, h Handler) error {
	s := newHTTP1Server(conn, o, h)
	s.either = true
	return s.proceed()
}

func newHTTP1Server(conn Conn, o Options, h Handler) *http1Server {
	s := &http1Server{o: o.withDefaults(), h: h}
	s.in.init(conn)
	s.out.init(conn)
	s.conn = s.out.conn
	s.looker.init(s.conn)
	if o.Park > 0 {
		s.parker = parkerOf(s.conn)
	}
	s.o.Drain.add(s)
	return s
}

// proceed serves until the connection is over or parks.
func (s *http1Server) proceed() error {
	err := s.run()
	if s.isParked(err) || s.ahead == nil {
		return err
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		s.conn.Close()
		return failure(err)
	}
	return ServeHTTP2(&peeked{Conn: s.conn, ahead: s.ahead}, s.o, s.h)
}

func (s *http1Server) run() error {
	parks := false
	defer func() {
		if !parks {
			s.o.Drain.remove(s)
		}
	}()
	err := s.serve()
	if parks = s.isParked(err); !parks {
		s.in.close()
		s.out.close()
	}
	return err
}

// http1Server is a connection and its exchange.
type http1Server struct {
	// Constant.
	o    Options
	h    Handler
	conn Conn

	waiting
	looker   looker
	draining atomic.Bool
	closing  atomic.Bool // idle, it ends

	// Owned by the exchange's reader.
	in      input
	request message.Request
	broken  error     // of the body
	began   time.Time // when a head began that did not come at once, or zero

	// mu guards what a drain looks at, and the beginning of the response, as a
	// reader may want to say 100.
	mu        sync.Mutex
	idle      bool // waits for a request's first byte
	responded bool
	waits     atomic.Bool // for 100 (Continue), before it sends its body

	// Owned by the exchange's writer.
	out   output
	close bool // the connection after this exchange

	either bool   // HTTP/2 may be what comes
	ahead  []byte // and it is: what was read of it
	served int
	raw    atomic.Bool // the exchange switched protocols
	dead   atomic.Bool // the connection was reset
}

var _ Exchange = (*http1Server)(nil)

// serve runs exchanges until the connection is not to be used again.
func (s *http1Server) serve() error {
	for {
		switch err := s.await(); {
		case s.ahead != nil:
			return nil
		case s.isParked(err):
			return err
		case err != nil:
			return s.refuse(err)
		}
		s.served++
		s.h(s)
		again, err := s.end()
		if !again {
			return err
		}
	}
}

// refuse answers a request that never became an exchange, and closes.
func (s *http1Server) refuse(err error) error {
	var broken *h1.Error
	if !errors.As(err, &broken) {
		s.conn.Close()
		if errors.Is(err, errIdle) || errors.Is(err, io.EOF) && s.in.r == s.in.w {
			return nil
		}
		if s.in.r < s.in.w {
			s.o.refused(&Refusal{Err: failure(err), Began: s.began})
		}
		return failure(err)
	}
	r := Refusal{Err: failure(err), Began: s.began, Body: h1.StatusText(broken.Status)}
	r.Response = message.Response{Status: broken.Status, Fields: message.Fields{{Name: "content-type", Value: "text/plain"}}}
	s.o.refused(&r)
	length := int64(len(r.Body))
	r.Response.ContentLength = length
	s.out.begin(h1.Length, length)
	if s.out.buf, err = h1.AppendResponse(s.out.buf, &r.Response, h1.Length, length, "close"); err == nil {
		_ = s.out.want(time.Now().Add(lingerTime))
		if _, err = s.out.write([]byte(r.Body)); err == nil {
			err = s.out.finish(nil)
		}
	}
	if err != nil {
		s.conn.Abort()
	} else {
		s.linger()
	}
	return failure(broken)
}

const (
	// lingerTime and lingerBytes bound what is read of a client that is still
	// sending, so that a reset does not destroy what was answered (RFC 9112 section
	// 9.6). The time is Envoy's delayed_close_timeout.
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// linger closes a connection whose client may still be sending.
func (s *http1Server) linger() {
	if s.conn.CloseWrite() != nil {
		s.conn.Close()
		return
	}
	_ = s.in.want(time.Now().Add(lingerTime))
	s.in.close()
	for n := 0; n < lingerBytes; n += s.in.w {
		s.in.r, s.in.w = 0, 0
		if s.in.fill() != nil {
			break
		}
	}
	s.conn.Close()
}

// end cleans up after an exchange, and reports whether there may be another.
func (s *http1Server) end() (again bool, err error) {
	switch {
	case s.dead.Load():
		return false, nil
	case !s.responded && s.broken != nil:
		return false, s.refuse(s.broken)
	case !s.out.finished || s.out.err != nil || !s.responded:
		s.Reset()
		return false, failure(s.out.err)
	case s.raw.Load():
		s.conn.Close()
		return false, nil
	}
	if !s.in.body.Done() && !s.discard() || s.close {
		if s.in.body.Done() && s.in.r == s.in.w && s.looker.look() != readableState {
			s.conn.Close()
		} else {
			s.linger()
		}
		return false, nil
	}
	s.in.release()
	_ = s.out.want(time.Time{}) // it was the exchange's
	return true, nil
}

// discard takes a body that nobody read, as far as it is here already.
func (s *http1Server) discard() bool {
	if s.waits.Load() {
		return false // whether the client sends it cannot be known
	}
	for s.in.ready() && !s.in.body.Done() {
		if _, err := s.in.next(); err != nil {
			return false
		}
	}
	return s.in.body.Done()
}

// Request implements [Exchange].
func (s *http1Server) Request() *message.Request { return &s.request }

// Began implements [Exchange].
func (s *http1Server) Began() time.Time { return s.began }

// HasBody implements [Exchange].
func (s *http1Server) HasBody() bool { return s.in.head.Framing != h1.NoBody }

// Next implements [Reader].
func (s *http1Server) Next() ([]byte, error) {
	if s.waits.Load() && !s.in.ready() {
		if err := s.sayContinue(); err != nil {
			return nil, failure(err)
		}
	}
	data, err := s.in.next()
	if errors.Is(err, io.EOF) {
		err = s.in.body.End()
	}
	if err != nil {
		err = failure(err)
		if errors.Is(err, ErrProtocol) || errors.Is(err, ErrTooLarge) {
			s.broken = err
		}
		return nil, err
	}
	if len(data) == 0 {
		return nil, io.EOF
	}
	return data, nil
}

// sayContinue tells the client to send its body, unless it has an answer.
func (s *http1Server) sayContinue() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.responded || !s.waits.Swap(false) {
		return nil
	}
	return s.out.writeAll([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

// Ready implements [Reader].
func (s *http1Server) Ready() bool { return s.in.ready() }

// Trailers implements [Reader].
func (s *http1Server) Trailers() message.Fields { return s.in.body.Trailers() }

// SetReadDeadline implements [Reader].
func (s *http1Server) SetReadDeadline(t time.Time) error { return s.in.want(t) }

// Inform implements [Exchange]. A client of HTTP/1.0 is told nothing.
func (s *http1Server) Inform(r *message.Response) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request.Version == message.HTTP10 {
		return nil
	}
	if r.Status == 100 && !s.waits.Swap(false) {
		return nil
	}
	b, err := h1.AppendResponse(borrow(smallBuffer)[:0], r, h1.NoBody, message.Unknown, "")
	defer giveBack(b)
	if err != nil {
		return failure(err)
	}
	return failure(s.out.writeAll(b))
}

// Respond implements [Exchange].
func (s *http1Server) Respond(r *message.Response, end bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responded = true
	framing, length := s.framing(r, end)
	connection := ""
	switch {
	case framing == h1.Raw && r.Status == 101:
		connection = "upgrade"
	case framing == h1.Raw:
	case s.close || s.draining.Load():
		s.close = true
		connection = "close"
	case s.request.Version == message.HTTP10:
		connection = "keep-alive"
	}
	s.out.begin(framing, length)
	var err error
	if s.out.buf, err = h1.AppendResponse(s.out.buf, r, framing, length, connection); err != nil {
		s.out.fail(err)
		return failure(err)
	}
	if framing == h1.Raw {
		s.raw.Store(true)
		s.in.body.SetRaw()
		s.in.head.Framing = h1.Raw
		return failure(s.out.flush())
	}
	if end || framing == h1.NoBody {
		s.out.framing, s.out.swallow = h1.NoBody, !end
		return failure(s.out.finish(nil))
	}
	return nil
}

// framing is how the response's body ends (RFC 9112 section 6.3), and the length
// that its head has.
func (s *http1Server) framing(r *message.Response, end bool) (f h1.Framing, length int64) {
	switch {
	case r.Status == 101 || s.request.Method == "CONNECT" && r.Status/100 == 2:
		return h1.Raw, message.Unknown
	case r.Status == 204:
		return h1.NoBody, message.Unknown
	case s.request.Method == "HEAD":
		if r.ContentLength < 0 && s.request.Version == message.HTTP11 {
			return h1.NoBody, message.Unknown
		}
		return h1.NoBody, r.ContentLength
	case r.Status == 304:
		return h1.NoBody, r.ContentLength
	case end:
		return h1.NoBody, 0
	case r.ContentLength >= 0:
		return h1.Length, r.ContentLength
	case s.request.Version == message.HTTP11:
		return h1.Chunked, message.Unknown
	}
	s.close = true
	return h1.UntilClose, message.Unknown
}

// Write implements [Writer].
func (s *http1Server) Write(p []byte) (int, error) {
	n, err := s.out.write(p)
	return n, failure(err)
}

// Flush implements [Writer].
func (s *http1Server) Flush() error { return failure(s.out.flush()) }

// Finish implements [Writer].
func (s *http1Server) Finish(trailers message.Fields) error { return failure(s.out.finish(trailers)) }

// SetWriteDeadline implements [Writer].
func (s *http1Server) SetWriteDeadline(t time.Time) error { return s.out.want(t) }

// Gone implements [Exchange]. As with Envoy, a client that sends no more is gone,
// unless it switched protocols.
func (s *http1Server) Gone() bool {
	return s.dead.Load() || !s.raw.Load() && s.looker.look() == goneState
}

// Reset implements [Exchange].
func (s *http1Server) Reset() {
	if !s.dead.Swap(true) {
		s.conn.Abort()
	}
}

// CloseAfter implements [Exchange].
func (s *http1Server) CloseAfter() { s.close = true }

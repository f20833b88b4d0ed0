package codec

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// HTTP1Client is an HTTP/1 connection to a server. It carries one exchange at a
// time; one goroutine may read it while another writes.
type HTTP1Client struct {
	// Constant.
	o      Options
	conn   Conn
	looker looker

	in       input
	out      output
	response message.Response
	stream   http1Stream

	served int
	since  time.Time // it has been idle
	dead   atomic.Bool
}

// NewHTTP1Client uses a connection, which it owns.
func NewHTTP1Client(conn Conn, o Options) *HTTP1Client {
	c := &HTTP1Client{o: o.withDefaults()}
	c.in.init(conn)
	c.out.init(conn)
	c.conn = c.out.conn
	c.looker.init(c.conn)
	c.stream.c = c
	return c
}

// lookAfter is how long a connection is idle before a look at it is worth its
// system call. What ends within it is met by ErrRefused.
const lookAfter = 10 * time.Millisecond

// Usable reports whether the connection can take an exchange: it has none, and its
// server has neither closed it nor sent what nobody asked for.
func (c *HTTP1Client) Usable() bool {
	if c.dead.Load() || c.stream.open || c.in.r != c.in.w {
		return false
	}
	if c.served > 0 && (c.since.IsZero() || time.Since(c.since) > lookAfter) && c.looker.look() != quietState {
		c.Close()
		return false
	}
	return true
}

// Served is how many exchanges the connection has completed.
func (c *HTTP1Client) Served() int { return c.served }

// Close closes the connection. One with an exchange under way is reset.
func (c *HTTP1Client) Close() {
	if c.dead.Swap(true) {
		return
	}
	if c.stream.open {
		c.conn.Abort()
		return
	}
	_ = c.conn.Close() // nothing was to be sent
	c.in.close()
	c.out.close()
}

// Open begins an exchange; the connection must be usable.
func (c *HTTP1Client) Open() ClientStream {
	c.stream = http1Stream{c: c, open: true}
	c.in.got = false
	return &c.stream
}

// http1Stream is a client's exchange.
type http1Stream struct {
	c    *HTTP1Client
	open bool

	method  string
	upgrade bool
	sent    bool
	answers int         // heads that came
	final   bool        // the last one was the response's
	raw     atomic.Bool // the exchange switched protocols
}

var _ ClientStream = (*http1Stream)(nil)

// Send implements [ClientStream].
func (s *http1Stream) Send(r *message.Request, end bool) error {
	s.method, s.upgrade, s.sent = r.Method, r.Upgrade != "", true
	framing := h1.NoBody
	switch {
	case end || r.ContentLength == 0 || r.Method == "CONNECT":
	case r.ContentLength > 0:
		framing = h1.Length
	default:
		framing = h1.Chunked
	}
	o := &s.c.out
	o.begin(framing, r.ContentLength)
	var err error
	if o.buf, err = h1.AppendRequest(o.buf, r, framing); err != nil {
		o.fail(err)
		return failure(err)
	}
	if framing == h1.NoBody {
		return s.failed(o.finish(nil))
	}
	return nil
}

// failed sorts an error: a connection that was used before and ends with nothing
// read from it was idle to its server.
func (s *http1Stream) failed(err error) error {
	sorted := failure(err)
	if errors.Is(sorted, ErrReset) && s.c.served > 0 && !s.c.in.got {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return sorted
}

// Write implements [Writer].
func (s *http1Stream) Write(p []byte) (int, error) {
	n, err := s.c.out.write(p)
	return n, failure(err)
}

// Flush implements [Writer].
func (s *http1Stream) Flush() error { return failure(s.c.out.flush()) }

// Finish implements [Writer].
func (s *http1Stream) Finish(trailers message.Fields) error {
	return failure(s.c.out.finish(trailers))
}

// SetWriteDeadline implements [Writer].
func (s *http1Stream) SetWriteDeadline(t time.Time) error { return s.c.out.want(t) }

// maxInforms bounds informational responses to one request.
const maxInforms = 64

// errInforms is too many of them.
var errInforms = &h1.Error{Status: 400, Reason: "more informational responses than the limit"}

// Response implements [ClientStream].
func (s *http1Stream) Response() (*message.Response, error) {
	in, r := &s.c.in, &s.c.response
	head, err := in.findHead(s.c.o.Limits, nil)
	if err != nil {
		if errors.Is(err, io.EOF) && in.got {
			err = io.ErrUnexpectedEOF
		}
		return nil, s.failed(err)
	}
	if err := in.head.Response(head, r, s.method, s.upgrade); err != nil {
		return nil, failure(err)
	}
	if s.answers++; s.answers > maxInforms {
		return nil, failure(errInforms)
	}
	if r.Status < 200 && r.Status != 101 {
		return r, nil
	}
	s.final = true
	in.body.Reset(&in.head)
	if in.head.Framing == h1.Raw {
		s.raw.Store(true)
		in.body.SetRaw()
		s.c.out.framing, s.c.out.finished = h1.Raw, false
	}
	return r, nil
}

// HasBody implements [ClientStream].
func (s *http1Stream) HasBody() bool { return s.c.in.head.Framing != h1.NoBody }

// Next implements [Reader].
func (s *http1Stream) Next() ([]byte, error) {
	data, err := s.c.in.next()
	if errors.Is(err, io.EOF) {
		err = s.c.in.body.End()
	}
	if err != nil {
		return nil, failure(err)
	}
	if len(data) == 0 {
		return nil, io.EOF
	}
	return data, nil
}

// Ready implements [Reader].
func (s *http1Stream) Ready() bool { return s.final && s.c.in.ready() }

// Trailers implements [Reader].
func (s *http1Stream) Trailers() message.Fields { return s.c.in.body.Trailers() }

// SetReadDeadline implements [Reader].
func (s *http1Stream) SetReadDeadline(t time.Time) error { return s.c.in.want(t) }

// Close implements [ClientStream].
func (s *http1Stream) Close() {
	if !s.open {
		return
	}
	c := s.c
	s.open = false
	again := c.out.finished && c.out.err == nil && (!s.sent || s.final && c.in.body.Done() && c.in.head.KeepAlive) && c.in.r == c.in.w
	orderly := s.final && c.in.body.Done() && c.out.finished
	switch {
	case c.dead.Load():
	case again:
		c.in.release()
		c.out.close()
		_ = c.in.want(time.Time{})  // an idle connection waits for nothing
		_ = c.out.want(time.Time{}) // as above
		if s.sent {
			c.served++
		}
		c.since = time.Now()
		return
	case orderly:
		_ = c.conn.Close() // it is not to be used again
	default:
		c.conn.Abort()
	}
	c.dead.Store(true)
	c.in.close()
	c.out.close()
}

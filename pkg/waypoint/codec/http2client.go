package codec

import (
	"errors"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// HTTP2Client is an HTTP/2 connection to a server, which carries many exchanges at
// a time. Its methods may be called from any goroutine.
type HTTP2Client struct{ conn *h2.Conn }

// NewHTTP2Client begins a connection on conn, which it owns. It does not wait for
// the server.
func NewHTTP2Client(conn Conn, o Options) (*HTTP2Client, error) {
	c, err := h2.Client(below(conn), o.withDefaults().http2())
	if err != nil {
		return nil, http2Failure(err)
	}
	return &HTTP2Client{c}, nil
}

// Load is how many exchanges are under way, and how many there may be: 0 of 0 when
// no new ones are taken.
func (c *HTTP2Client) Load() (open, limit int) { return c.conn.Load() }

// Usable reports whether the connection can take an exchange.
func (c *HTTP2Client) Usable() bool {
	open, limit := c.conn.Load()
	return open < limit
}

// Done closes when the connection is over.
func (c *HTTP2Client) Done() <-chan struct{} { return c.conn.Done() }

// Drain takes no new exchanges; the connection ends with the last one.
func (c *HTTP2Client) Drain() { c.conn.GoAway() }

// Close ends the connection and resets its exchanges.
func (c *HTTP2Client) Close() { c.conn.Close() }

// Open prepares an exchange; sending it takes a stream, or is [ErrRefused].
func (c *HTTP2Client) Open() ClientStream { return &http2Stream{c: c} }

// http2Stream is a client's exchange.
type http2Stream struct {
	c        *HTTP2Client
	stream   *h2.Stream // or nil, before Send
	response message.Response
	scratch  [24]h2.Field
	upgrade  string // the protocol asked for, or ""
	done     bool   // with the request
	writeBy  time.Time
	readBy   time.Time
}

var _ ClientStream = (*http2Stream)(nil)

// errNotSent is a mistake of ours.
var errNotSent = errors.New("an exchange was used before its request was sent")

// Send implements [ClientStream].
func (s *http2Stream) Send(r *message.Request, end bool) error {
	s.upgrade = r.Upgrade
	mode := h2.More
	switch {
	case s.upgrade != "" || r.Method == "CONNECT":
		mode = 0
	case end:
		mode, s.done = h2.End, true
	}
	stream, err := s.c.conn.Open(appendRequest(s.scratch[:0], r), mode)
	clear(s.scratch[:])
	if err != nil {
		return http2Failure(err)
	}
	s.stream = stream
	if err := stream.SetWriteDeadline(s.writeBy); err != nil {
		return err
	}
	return stream.SetReadDeadline(s.readBy)
}

// Write implements [Writer].
func (s *http2Stream) Write(p []byte) (int, error) {
	switch {
	case s.stream == nil:
		return 0, errNotSent
	case len(p) == 0:
		return 0, nil
	case s.done:
		return 0, errAfterEnd
	}
	if err := s.stream.Send(p, h2.More); err != nil {
		return 0, http2Failure(err)
	}
	return len(p), nil
}

// Flush implements [Writer].
func (s *http2Stream) Flush() error {
	if s.stream == nil {
		return errNotSent
	}
	return http2Failure(s.stream.Flush())
}

// Finish implements [Writer].
func (s *http2Stream) Finish(trailers message.Fields) error {
	switch {
	case s.stream == nil:
		return errNotSent
	case s.done:
		return nil
	}
	s.done = true
	return http2Failure(s.stream.Finish(trailers))
}

// SetWriteDeadline implements [Writer].
func (s *http2Stream) SetWriteDeadline(t time.Time) error {
	if s.stream == nil {
		s.writeBy = t
		return nil
	}
	return s.stream.SetWriteDeadline(t)
}

// Response implements [ClientStream].
func (s *http2Stream) Response() (*message.Response, error) {
	if s.stream == nil {
		return nil, errNotSent
	}
	fields, err := s.stream.Head()
	if err != nil {
		return nil, http2Failure(err)
	}
	responseOf(fields, s.stream.HasBody(), s.upgrade, &s.response)
	return &s.response, nil
}

// HasBody implements [ClientStream].
func (s *http2Stream) HasBody() bool { return s.stream != nil && s.stream.HasBody() }

// Next implements [Reader].
func (s *http2Stream) Next() ([]byte, error) {
	if s.stream == nil {
		return nil, errNotSent
	}
	b, err := s.stream.Next()
	return b, http2Failure(err)
}

// Ready implements [Reader].
func (s *http2Stream) Ready() bool { return s.stream != nil && s.stream.Ready() }

// Trailers implements [Reader].
func (s *http2Stream) Trailers() message.Fields {
	if s.stream == nil {
		return nil
	}
	return s.stream.Trailers()
}

// SetReadDeadline implements [Reader].
func (s *http2Stream) SetReadDeadline(t time.Time) error {
	if s.stream == nil {
		s.readBy = t
		return nil
	}
	return s.stream.SetReadDeadline(t)
}

// Close implements [ClientStream].
func (s *http2Stream) Close() {
	if s.stream != nil {
		_ = s.stream.Close() // a stream that failed is over
	}
}

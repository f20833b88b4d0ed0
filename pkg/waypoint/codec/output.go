package codec

import (
	"errors"
	"net"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

var (
	errAfterEnd = errors.New("a body was written to a message that has ended, or has none")
	errLonger   = errors.New("the body is longer than its Content-Length")
	errShorter  = errors.New("the body is shorter than its Content-Length")
)

// output is what goes out on an HTTP/1 connection: what is small is held back in one
// buffer, which is borrowed while there is something in it.
type output struct {
	conn Conn
	tcp  *net.TCPConn // for writev, or nil
	deadline

	buf     []byte
	vec     [3][]byte
	buffers net.Buffers

	framing  h1.Framing
	left     int64 // of a Length
	swallow  bool  // the body, as the message has none
	finished bool  // the message is complete
	err      error // of the connection
}

func (o *output) init(c Conn) {
	if p, ok := c.(*peeked); ok {
		c = p.Conn
	}
	o.conn, o.tcp = c, socketOf(c)
	o.set = c.SetWriteDeadline
	_, o.exact = c.(TLSConn)
	o.finished = true
}

// begin is called before a head is appended.
func (o *output) begin(framing h1.Framing, length int64) {
	o.framing, o.left, o.finished, o.swallow = framing, length, false, false
	if o.buf == nil {
		o.buf = borrow(smallBuffer)[:0]
	}
}

func (o *output) write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n := len(p)
	switch {
	case n == 0 || o.swallow:
		return n, nil
	case o.finished || o.framing == h1.NoBody:
		return 0, errAfterEnd
	case o.framing == h1.Length:
		if o.left -= int64(n); o.left < 0 {
			o.left += int64(n)
			return 0, errLonger
		}
	}
	if o.buf == nil {
		o.buf = borrow(smallBuffer)[:0]
	}
	chunked := o.framing == h1.Chunked
	if chunked {
		if cap(o.buf)-len(o.buf) < h1.ChunkRoom {
			if err := o.flush(); err != nil {
				return 0, err
			}
			o.buf = borrow(smallBuffer)[:0]
		}
		o.buf = h1.AppendChunk(o.buf, n)
	}
	if len(o.buf)+n+len(crlf) <= cap(o.buf) {
		o.buf = append(o.buf, p...)
		if chunked {
			o.buf = append(o.buf, crlf...)
		}
		return n, nil
	}
	return o.send(p, chunked)
}

const crlf = "\r\n"

var crlfBytes = []byte(crlf)

// send writes what is held back, p, and the end of a chunk.
func (o *output) send(p []byte, chunked bool) (int, error) {
	n := len(p)
	if o.tcp == nil {
		// A TLS record or a DATA frame that is full costs least: p fills the first.
		m := min(n, cap(o.buf)-len(o.buf))
		if len(o.buf) > 0 {
			o.buf, p = append(o.buf, p[:m]...), p[m:]
			if err := o.flush(); err != nil {
				return 0, err
			}
		}
		if err := o.writeAll(p); err != nil {
			return 0, err
		}
		if chunked {
			if o.buf == nil {
				o.buf = borrow(smallBuffer)[:0]
			}
			o.buf = append(o.buf, crlf...)
		}
		return n, nil
	}
	o.vec[0], o.vec[1], o.vec[2] = o.buf, p, nil
	if chunked {
		o.vec[2] = crlfBytes
	}
	o.buffers = o.vec[:]
	for len(o.buffers) > 0 {
		if _, err := o.buffers.WriteTo(o.tcp); err != nil && !o.early(err) {
			o.fail(err)
			break
		}
	}
	o.vec = [3][]byte{}
	o.empty()
	if o.err != nil {
		return 0, o.err
	}
	return n, nil
}

func (o *output) empty() {
	if o.buf != nil {
		giveBack(o.buf)
		o.buf = nil
	}
}

func (o *output) fail(err error) { o.err = err }

// flush sends what is held back.
func (o *output) flush() error {
	if o.err != nil {
		return o.err
	}
	if len(o.buf) == 0 {
		return nil
	}
	err := o.writeAll(o.buf)
	o.empty()
	return err
}

func (o *output) writeAll(p []byte) error {
	for len(p) > 0 {
		n, err := o.conn.Write(p)
		p = p[n:]
		if err != nil && !o.early(err) {
			o.fail(err)
			return err
		}
	}
	return nil
}

// finish ends the message.
func (o *output) finish(trailers message.Fields) error {
	if o.finished {
		return o.flush()
	}
	switch o.framing {
	case h1.Length:
		if o.left > 0 {
			return errShorter
		}
	case h1.Chunked:
		if o.buf == nil {
			o.buf = borrow(smallBuffer)[:0]
		}
		var err error
		if o.buf, err = h1.AppendLast(o.buf, trailers); err != nil {
			return err
		}
	case h1.Raw:
		o.finished = true
		if err := o.flush(); err != nil {
			return err
		}
		return o.conn.CloseWrite()
	}
	o.finished = true
	return o.flush()
}

func (o *output) close() { o.empty() }

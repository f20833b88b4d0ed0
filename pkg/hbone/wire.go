package hbone

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

const (
	// wireBuffer is what is read from or written to a tunnel's socket at once.
	wireBuffer = 128 << 10
	// A TLS record's header, what it carries at most, and that with its overhead
	// (RFC 8446 section 5.2).
	tlsHeader    = 5
	tlsPlaintext = 16 << 10
	tlsRecord    = tlsPlaintext + 256
)

var wireBuffers = sync.Pool{New: func() any { return new([wireBuffer]byte) }}

// wire is the socket under a tunnel's TLS. crypto/tls reads and writes one record
// at a time; a wire does several with one system call. While there is nothing, it
// holds no buffer.
type wire struct {
	*net.TCPConn
	raw syscall.RawConn
	try func(fd uintptr) bool

	// The reader's: what was read is buf[r:w], of which left belongs to the record
	// that is being read.
	buf     *[wireBuffer]byte
	r, w    int
	left    int
	n       int // of the last read, and how it failed
	err     error
	instant bool // a read that would wait is errWouldWait
	// waits, unless nil, is called with what waits for the peer.
	waits func(wait func() error) error

	// mu guards the writer's below: an alert may be written while records gather.
	mu     sync.Mutex
	gather bool
	out    *[wireBuffer]byte
	queued int
}

func newWire(c *net.TCPConn) (*wire, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &wire{TCPConn: c, raw: raw}
	w.try = w.tryRead
	return w, nil
}

// wouldWait is no timeout of anybody's, but what crypto/tls takes for one: it does
// not break the connection.
type wouldWait struct{}

func (wouldWait) Error() string   { return "nothing to read yet" }
func (wouldWait) Timeout() bool   { return true }
func (wouldWait) Temporary() bool { return true }

var errWouldWait net.Error = wouldWait{}

// Read implements [net.Conn]. It does not read beyond a record, so that what is
// left is the next one's beginning.
func (w *wire) Read(b []byte) (int, error) {
	for w.r == w.w || w.left == 0 && w.w-w.r < tlsHeader {
		if w.instant {
			return 0, errWouldWait
		}
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	if w.left == 0 {
		w.left = recordLen(w.buf[w.r:w.w])
	}
	n := copy(b, w.buf[w.r:min(w.w, w.r+w.left)])
	w.left -= n
	if w.r += n; w.r == w.w {
		wireBuffers.Put(w.buf)
		w.buf, w.r, w.w = nil, 0, 0
	}
	return n, nil
}

func recordLen(header []byte) int { return tlsHeader + int(header[3])<<8 + int(header[4]) }

// whole reports whether the next record is here.
func (w *wire) whole() bool {
	have := w.w - w.r
	return w.left == 0 && have >= tlsHeader && have >= recordLen(w.buf[w.r:w.w])
}

// fill waits for the socket and reads what it has behind what is left.
func (w *wire) fill() error {
	if w.r > 0 {
		w.w = copy(w.buf[:], w.buf[w.r:w.w])
		w.r = 0
	}
	if w.waits != nil {
		return w.waits(w.more)
	}
	return w.more()
}

func (w *wire) more() error {
	if err := w.raw.Read(w.try); err != nil {
		return err
	}
	if w.n <= 0 {
		return w.err
	}
	w.w += w.n
	return nil
}

// tryRead reports false when there is nothing to read yet.
func (w *wire) tryRead(fd uintptr) bool {
	if w.buf == nil {
		w.buf = wireBuffers.Get().(*[wireBuffer]byte)
	}
	for {
		w.n, w.err = syscall.Read(int(fd), w.buf[w.w:])
		if !errors.Is(w.err, syscall.EINTR) {
			break
		}
	}
	if w.n > 0 {
		return true
	}
	if w.w == 0 {
		wireBuffers.Put(w.buf)
		w.buf = nil
	}
	if errors.Is(w.err, syscall.EAGAIN) {
		return false
	}
	if w.err == nil {
		w.err = io.EOF
	}
	return true
}

// Write implements [net.Conn]: it writes at once, unless records gather.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.gather {
		if err := w.flushLocked(); err != nil {
			return 0, err
		}
		return w.TCPConn.Write(b)
	}
	for rest := b; len(rest) > 0; {
		if w.out == nil {
			w.out = wireBuffers.Get().(*[wireBuffer]byte)
		}
		n := copy(w.out[w.queued:], rest)
		w.queued, rest = w.queued+n, rest[n:]
		if w.queued == wireBuffer {
			if err := w.flushLocked(); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

func (w *wire) flushLocked() error {
	if w.out == nil {
		return nil
	}
	_, err := w.TCPConn.Write(w.out[:w.queued])
	wireBuffers.Put(w.out)
	w.out, w.queued = nil, 0
	return err
}

// begin lets records gather; end writes them.
func (w *wire) begin() {
	w.mu.Lock()
	w.gather = true
	w.mu.Unlock()
}

func (w *wire) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gather = false
	return w.flushLocked()
}

// tunnelConn is a tunnel's TLS over its wire. One goroutine may read.
type tunnelConn struct {
	*tls.Conn
	wire *wire
	// filled: the last read filled its buffer, and TLS may hold the rest of a record.
	filled bool
}

var _ h2.Waiter = (*tunnelConn)(nil)

// Wait implements [h2.Waiter].
func (t *tunnelConn) Wait() error {
	if t.filled || t.wire.r < t.wire.w {
		return nil
	}
	return t.wire.fill()
}

// Read implements [net.Conn]: it returns as many records as there are.
func (t *tunnelConn) Read(b []byte) (int, error) {
	n, err := t.read(b)
	t.filled = n == len(b)
	return n, err
}

func (t *tunnelConn) read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	for err == nil && len(b)-n >= tlsRecord && t.wire.whole() {
		var more int
		t.wire.instant = true
		more, err = t.Conn.Read(b[n:])
		t.wire.instant = false
		n += more
		if errors.Is(err, errWouldWait) { // a record without data
			return n, nil
		}
	}
	return n, err
}

// Write implements [net.Conn]: its records go out together.
func (t *tunnelConn) Write(b []byte) (int, error) {
	if len(b) <= tlsPlaintext { // one record
		return t.Conn.Write(b)
	}
	t.wire.begin()
	n, err := t.Conn.Write(b)
	if ferr := t.wire.end(); err == nil && ferr != nil {
		return 0, ferr
	}
	return n, err
}

package h2

import (
	"net"
	"sync"
	"sync/atomic"
)

// Stream is one request and its response, or a tunnel's two directions. One
// goroutine may write and another read or relay; one may do both. It is a
// [net.Conn], of which what is read is DATA.
type Stream struct {
	// Constant.
	c      *Conn
	id     uint32
	method string // of a request that we sent

	answered atomic.Bool // the response was sent

	// Guarded by the Conn's mu.
	sendWindow int64
	writable   sync.Cond // on it
	writeBy    int64     // unix nanoseconds, or 0
	blocked    bool      // it is in the Conn's list

	// mu guards below.
	mu         sync.Mutex
	readable   sync.Cond // on mu
	readBy     int64     // unix nanoseconds, or 0
	heads      [][]Field // of a client: those that came and were not taken
	firstHead  [1][]Field
	fields     []Field // of a server: the request's
	trailers   []Field
	gotFinal   bool   // of a client: the response's head came
	headEnd    bool   // the head was all
	left       int64  // of the content-length, or -1
	pending    chunks // received and not passed on
	firstPiece [1][]byte
	viewed     int     // of pending: what Next returned last
	recvWindow int64   // what the peer may still send
	owed       int64   // passed on and not given back
	eof        bool    // no more input will come
	err        error   // the stream is over
	sink       *socket // where input goes; nil: to Next and Read
	flushing   bool    // a goroutine writes pending to sink
	isOver     bool    // nothing more will come: the end of input has been passed on, or the stream failed
	parking    parking // of a server's handler
	sentEnd    bool
}

var (
	_ net.Conn = (*Stream)(nil)
	_ Waiter   = (*Stream)(nil)
)

func newStream(c *Conn, id uint32) *Stream {
	s := &Stream{c: c, id: id, recvWindow: int64(c.config.StreamWindow), left: -1}
	s.readable.L, s.writable.L = &s.mu, &c.mu
	s.heads, s.pending.list = s.firstHead[:0], s.firstPiece[:0] // what nearly all need
	return s
}

// ID is the stream's number, for logs.
func (s *Stream) ID() uint32 { return s.id }

// Conn is the stream's connection.
func (s *Stream) Conn() *Conn { return s.c }

// Err is why the stream is over, or nil.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// LocalAddr is the connection's.
func (s *Stream) LocalAddr() net.Addr { return s.c.nc.LocalAddr() }

// RemoteAddr is the connection's.
func (s *Stream) RemoteAddr() net.Addr { return s.c.nc.RemoteAddr() }

// end ends the stream with an error. Input that is complete can still be read
// (RFC 9113 section 8.1).
func (s *Stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	if !s.eof || s.sink != nil {
		s.dropLocked()
	}
	s.readableLocked()
	s.isOver = true
	if s.sink != nil {
		s.sink.interrupt()
		s.sink.overLocked(err)
	}
}

// Reset ends the stream abruptly.
func (s *Stream) Reset(code Code) {
	s.mu.Lock()
	eof := s.eof
	s.mu.Unlock()
	c := s.c
	c.mu.Lock()
	live := c.forgetLocked(s)
	if live && eof {
		c.closed.add(s.id)
	}
	c.mu.Unlock()
	if live {
		if err := c.writeReset(s.id, code); err != nil {
			c.fail(err)
		}
	}
	s.end(&StreamError{Code: code})
	if live {
		c.settle()
	}
}

// Abort ends the stream abruptly, as a reset ends a TCP connection.
func (s *Stream) Abort() { s.Reset(CodeConnect) }

// Close ends the use of the stream: one that is complete stays so, a tunnel's
// output is ended in order, and the peer is told to send no more.
func (s *Stream) Close() error {
	s.mu.Lock()
	sent, eof, over := s.sentEnd, s.eof, s.err != nil
	s.mu.Unlock()
	switch {
	case over || sent && eof:
	case !s.c.client && !s.answered.Load():
		s.Reset(CodeInternal)
	case s.method == "" || s.method == "CONNECT": // a server's, or a tunnel
		if !sent {
			if err := s.CloseWrite(); err != nil {
				return err
			}
		}
		if !eof {
			s.Reset(CodeNo)
		}
	default:
		s.Reset(CodeCancel)
	}
	s.mu.Lock()
	s.dropLocked()
	s.mu.Unlock()
	return nil
}

// abandon is called when a server's handler returned before the stream was
// complete.
func (s *Stream) abandon() {
	s.mu.Lock()
	relayed, code := s.sink != nil, CodeInternal
	if s.sentEnd { // the rest of the request is not needed (section 8.1)
		code = CodeNo
	}
	s.mu.Unlock()
	if !relayed {
		s.Reset(code)
	}
}

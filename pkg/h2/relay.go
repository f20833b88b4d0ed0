package h2

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Buffer sizes make a frame's header and payload fill TLS records of 16 KiB.
const (
	smallBuffer = 16 << 10
	largeBuffer = 64 << 10
)

// Arrays, so that lending allocates nothing.
var (
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

func borrow(size int) []byte {
	if size == smallBuffer {
		return smallPool.Get().(*[smallBuffer]byte)[:]
	}
	return largePool.Get().(*[largeBuffer]byte)[:]
}

func giveBuffer(b []byte) {
	if b = b[:cap(b)]; len(b) == smallBuffer {
		smallPool.Put((*[smallBuffer]byte)(b))
	} else {
		largePool.Put((*[largeBuffer]byte)(b))
	}
}

// Relay carries bytes between the stream and conn, both ways, until both have
// ended, and closes conn. sent counts the bytes from conn to the stream, received
// those from the stream to conn. Half-closes are passed on. An abrupt end of
// either side is an abrupt end of the other: the error says of which, and conn is
// reset, never closed cleanly.
func (s *Stream) Relay(conn *net.TCPConn, sent, received *atomic.Uint64) error {
	k, err := newSink(conn, received)
	if err != nil {
		s.Reset(CodeConnect)
		conn.Close()
		return err
	}
	s.attach(k)
	err = s.pump(k, sent)
	if err == nil {
		<-s.over
		err = s.Err()
		if isOrderly(err) {
			err = nil
		}
	} else {
		s.Reset(CodeConnect)
		if serr := s.Err(); serr != nil && !isLocalReset(serr) {
			err = serr
		}
	}
	if err != nil {
		_ = conn.SetLinger(0)
	}
	conn.Close()
	return err
}

// isOrderly: a peer may reset a stream with NO_ERROR once it needs no more of it.
func isOrderly(err error) bool {
	var se *StreamError
	return err == nil || errors.As(err, &se) && se.Remote && se.Code == CodeNo
}

func isLocalReset(err error) bool {
	var se *StreamError
	return errors.As(err, &se) && !se.Remote
}

// attach makes k the stream's destination; what came before it goes there first.
func (s *Stream) attach(k *sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink = k
	if s.err != nil {
		k.interrupt()
		return
	}
	s.passOnLocked()
	if !s.flushing {
		s.finishInputLocked()
	}
}

// pump sends what the socket has until its end. While the socket has nothing,
// no buffer is held.
func (s *Stream) pump(k *sink, sent *atomic.Uint64) error {
	src := newSource(k.raw)
	for {
		buf, n, err := src.read()
		if n > 0 {
			werr := s.writeFrames(buf[:headerLen+n], false)
			full := n == len(buf)-headerLen
			giveBuffer(buf)
			if werr != nil {
				return werr
			}
			sent.Add(uint64(n)) //nolint:gosec // not negative
			// A reader that fills its buffer has more to come.
			if full {
				src.size = largeBuffer
			} else if n < smallBuffer/2 {
				src.size = smallBuffer
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return s.CloseWrite()
		}
		if serr := s.Err(); serr != nil {
			return serr
		}
		return err
	}
}

package h2

import (
	"errors"
	"net"
	"sync/atomic"
)

// Relay carries bytes between the stream and conn, both ways, until both have
// ended, and closes conn. It works in the caller's goroutine while there is work,
// and may return before the end, of which it tells done, from any goroutine. sent
// counts the bytes from conn to the stream, received those from the stream to conn.
// Half-closes are passed on. An abrupt end of either side is an abrupt end of the
// other: the error says of which, and conn is reset, never closed cleanly.
func (s *Stream) Relay(conn *net.TCPConn, sent, received *atomic.Uint64, done func(error)) {
	k, err := newSocket(s, conn, sent, received, done)
	if err != nil {
		s.Reset(CodeConnect)
		conn.Close()
		go done(err)
		return
	}
	s.attach(k)
	k.pump()
}

// orderly is nil for an end that is no failure: a peer may reset a stream with
// NO_ERROR once it needs no more of it.
func orderly(err error) error {
	var se *StreamError
	if errors.As(err, &se) && se.Remote && se.Code == CodeNo {
		return nil
	}
	return err
}

func isLocalReset(err error) bool {
	var se *StreamError
	return errors.As(err, &se) && !se.Remote
}

// attach makes k the stream's destination; what came before it goes there first.
func (s *Stream) attach(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink = k
	s.fields = nil // they were looked at
	if s.err != nil {
		k.interrupt()
		return
	}
	s.passOnLocked()
	if !s.flushing {
		s.finishInputLocked()
	}
}

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
	s.returnLocked()
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

// passOnLocked sees to it that someone takes what is pending.
func (s *Stream) passOnLocked() {
	if s.sink == nil {
		s.readableLocked()
		return
	}
	if !s.flushing && s.pending.len > 0 {
		s.flushing = true
		go s.flush()
	}
}

// flush writes pending to the sink until there is nothing left.
func (s *Stream) flush() {
	for {
		s.mu.Lock()
		if s.pending.len == 0 || s.err != nil {
			s.flushing = false
			s.dropLocked()
			s.finishInputLocked()
			s.mu.Unlock()
			return
		}
		batch := s.pending
		s.pending = chunks{}
		s.mu.Unlock()
		if err := s.flushBatch(&batch); err != nil {
			s.mu.Lock()
			s.flushing = false
			s.dropLocked()
			s.mu.Unlock()
			s.Reset(CodeConnect)
			return
		}
	}
}

func (s *Stream) flushBatch(batch *chunks) error {
	defer func() {
		s.c.buffered.Add(-int64(batch.len))
		batch.drop(false)
	}()
	for batch.len > 0 {
		b := batch.first()
		n, err := s.sink.write(b)
		s.c.buffered.Add(-int64(len(b)))
		batch.took(len(b))
		s.credit(int64(n))
		if err != nil {
			return err
		}
		if err := s.c.giveBack(); err != nil {
			s.c.fail(err)
		}
	}
	return nil
}

// finishInputLocked passes the end of input on, once all before it has been.
func (s *Stream) finishInputLocked() {
	if !s.eof || s.sink == nil || s.isOver || s.pending.len > 0 {
		return
	}
	if !s.sink.pumped { // else the socket is closed right away
		s.sink.closeWrite()
	}
	s.isOver = true
	s.sink.overLocked(nil)
}

package h2

import (
	"errors"
	"io"
	"syscall"
)

// source is the socket that a stream's output comes from.
type source struct {
	raw  syscall.RawConn
	size int // of the buffer to borrow
	// try is a field so that a read allocates nothing.
	try func(fd uintptr) bool

	// What try found.
	buf []byte
	n   int
	err error
}

func newSource(raw syscall.RawConn) *source {
	s := &source{raw: raw, size: smallBuffer}
	s.try = s.tryRead
	return s
}

// read waits until the socket is readable, then borrows a buffer and reads behind
// room for a frame's header. The buffer is the caller's if n is positive.
func (s *source) read() (buf []byte, n int, err error) {
	err = s.raw.Read(s.try)
	buf, s.buf = s.buf, nil
	if err != nil {
		return nil, 0, err
	}
	return buf, s.n, s.err
}

// tryRead reports false when there is nothing to read yet.
func (s *source) tryRead(fd uintptr) bool {
	s.buf = borrow(s.size)
	for {
		s.n, s.err = syscall.Read(int(fd), s.buf[headerLen:])
		if !errors.Is(s.err, syscall.EINTR) {
			break
		}
	}
	if s.n > 0 {
		return true
	}
	giveBuffer(s.buf)
	s.buf = nil
	if errors.Is(s.err, syscall.EAGAIN) {
		return false
	}
	if s.err == nil {
		s.err = io.EOF
	}
	return true
}

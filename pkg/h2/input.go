package h2

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// readBuffer holds what is read from the connection at once. It is larger than a
// TLS record, so that a record is not split.
const readBuffer = 128 << 10

var readPool = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// Waiter is a connection that tells when it has something to read.
type Waiter interface {
	// Wait returns when Read would return at once, or with its error.
	Wait() error
}

// input reads a connection. While there is nothing to read, it holds no buffer.
type input struct {
	nc     net.Conn
	raw    syscall.RawConn // of a socket, or nil
	waiter Waiter          // or nil
	// try is a field so that a read allocates nothing.
	try func(fd uintptr) bool

	buf  *[readBuffer]byte // or nil
	r, w int               // what was read is buf[r:w]
	kept []byte            // what was read, while the rest of it is waited for
	n    int               // of the last try, and how it failed
	err  error
	one  [1]byte // what a connection that can only be read is waited with
}

func (in *input) init(nc net.Conn) {
	in.nc = nc
	in.waiter, _ = nc.(Waiter)
	if socket, ok := nc.(*net.TCPConn); ok {
		in.raw, _ = socket.SyscallConn() // without it, it is read as any other
		in.try = in.tryRead
	}
}

// prepend puts what was read already before all else.
func (in *input) prepend(b []byte) {
	if len(b) > 0 {
		in.borrow()
		in.w = copy(in.buf[:], b)
	}
}

// need waits until there are n bytes, at most the buffer's size. They stay there.
func (in *input) need(n int) ([]byte, error) {
	for in.w-in.r < n {
		if err := in.fill(); err != nil {
			if errors.Is(err, io.EOF) && in.w > in.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return in.buf[in.r : in.r+n], nil
}

// some waits until there are bytes, and returns up to n of them. They stay there.
func (in *input) some(n int) ([]byte, error) {
	if in.r == in.w {
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
	return in.buf[in.r:min(in.w, in.r+n)], nil
}

// skip takes n bytes away that are there.
func (in *input) skip(n int) {
	if in.r += n; in.r == in.w {
		in.r, in.w = 0, 0
	}
}

// discard takes n bytes away, waiting for them.
func (in *input) discard(n int) error {
	for n > 0 {
		b, err := in.some(n)
		if err != nil {
			return err
		}
		in.skip(len(b))
		n -= len(b)
	}
	return nil
}

// fill reads what the connection has, at least one byte.
func (in *input) fill() error {
	if in.r > 0 { // the buffer is there
		in.w = copy(in.buf[:], in.buf[in.r:in.w])
		in.r = 0
	}
	switch {
	case in.raw != nil:
		if err := in.raw.Read(in.try); err != nil {
			in.kept = nil
			return err
		}
		if in.n <= 0 {
			return in.err
		}
		in.w += in.n
		return nil
	case in.w > 0:
	case in.waiter != nil:
		in.release()
		if err := in.waiter.Wait(); err != nil {
			return err
		}
		in.borrow()
	default:
		in.release()
		n, err := in.nc.Read(in.one[:])
		if n == 0 && err != nil {
			return err
		}
		in.borrow()
		in.buf[0], in.w = in.one[0], n
		return nil
	}
	n, err := in.nc.Read(in.buf[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

// maxKept is what is worth copying to give a buffer back, in bytes.
const maxKept = 4 << 10

// tryRead reports false when there is nothing to read yet.
func (in *input) tryRead(fd uintptr) bool {
	in.borrow()
	if len(in.kept) > 0 {
		in.w = copy(in.buf[:], in.kept)
		in.kept = in.kept[:0]
	}
	for {
		in.n, in.err = syscall.Read(int(fd), in.buf[in.w:])
		if !errors.Is(in.err, syscall.EINTR) {
			break
		}
	}
	if in.n > 0 {
		return true
	}
	if errors.Is(in.err, syscall.EAGAIN) {
		if in.w <= maxKept { // a peer that stops within a frame holds no more than it sent
			in.kept = append(in.kept, in.buf[:in.w]...)
			in.w = 0
			in.release()
		}
		return false
	}
	if in.err == nil {
		in.err = io.EOF
	}
	return true
}

func (in *input) borrow() {
	if in.buf == nil {
		in.buf = readPool.Get().(*[readBuffer]byte)
	}
}

func (in *input) release() {
	if in.buf != nil {
		readPool.Put(in.buf)
		in.buf = nil
	}
}

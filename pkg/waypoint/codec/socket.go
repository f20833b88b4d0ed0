package codec

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"unsafe"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// TCPConn is a socket as a [Conn].
type TCPConn struct {
	*net.TCPConn
	Parking *Parking // or nil: it always waits in a goroutine
}

// Abort resets the connection.
func (c TCPConn) Abort() {
	_ = c.SetLinger(0) // a socket that is gone needs no reset
	_ = c.Close()
	if c.Parking != nil {
		c.Parking.Wake()
	}
}

// TLSConn is TLS over a socket as a [Conn].
type TLSConn struct {
	*tls.Conn
	Parking *Parking // or nil, as above
}

// Abort resets the connection, without an alert.
func (c TLSConn) Abort() {
	if tcp, ok := c.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // as above
	}
	_ = c.NetConn().Close()
	if c.Parking != nil {
		c.Parking.Wake()
	}
}

// NewConn makes a [Conn] of a socket, or of TLS over one.
func NewConn(nc net.Conn) (Conn, error) {
	switch c := nc.(type) {
	case Conn:
		return c, nil
	case *net.TCPConn:
		return TCPConn{TCPConn: c}, nil
	case *tls.Conn:
		return TLSConn{Conn: c}, nil
	}
	return nil, fmt.Errorf("a %T cannot carry HTTP: it is neither a TCP socket nor TLS over one", nc)
}

// socketOf is the socket under c, if there is nothing in between.
func socketOf(c Conn) *net.TCPConn {
	switch c := c.(type) {
	case TCPConn:
		return c.TCPConn
	case *TCPConn:
		return c.TCPConn
	}
	return nil
}

// below is c as pkg/h2 reads it best: the socket or the TLS that it wraps.
func below(c Conn) net.Conn {
	if tcp := socketOf(c); tcp != nil {
		return tcp
	}
	if t, ok := c.(TLSConn); ok {
		return t.Conn
	}
	return c
}

// state is what a look at a connection shows.
type state uint8

const (
	quietState state = iota
	readableState
	goneState
)

// looker peeks at a connection without waiting.
type looker struct {
	raw   syscall.RawConn // of the socket below, or nil
	conn  Conn
	found state
	peek  func(fd uintptr) // a field, so that a look allocates nothing
}

func (l *looker) init(c Conn) {
	l.conn = c
	var tcp *net.TCPConn
	if tcp = socketOf(c); tcp == nil {
		if over, ok := c.(interface{ NetConn() net.Conn }); ok {
			tcp, _ = over.NetConn().(*net.TCPConn)
		}
	}
	if tcp == nil {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		l.raw, l.peek = raw, l.peekSocket
	}
}

// look costs one system call at most; a tunnel's stream knows.
func (l *looker) look() state {
	if l.raw == nil {
		switch s, ok := l.conn.(*h2.Stream); {
		case !ok || !s.Ready():
			return quietState
		case s.Buffered() > 0:
			return readableState
		}
		return goneState
	}
	if l.raw.Control(l.peek) != nil {
		return goneState
	}
	return l.found
}

func (l *looker) peekSocket(fd uintptr) {
	var b [1]byte
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1,
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		l.found = quietState
	case errno != 0 || n == 0:
		l.found = goneState
	default:
		l.found = readableState
	}
}

// reader reads from a connection into a buffer that it borrows only when there is
// something to read, where the connection is a socket or a tunnel's stream.
type reader struct {
	conn Conn
	wait h2.Waiter // or nil
	raw  syscall.RawConn
	try  func(fd uintptr) bool // a field, so that a read allocates nothing

	// Of the read under way.
	into []byte // or nil, to borrow
	size int
	n    int
	err  error
}

func (r *reader) init(c Conn) {
	r.conn = c
	r.wait, _ = c.(h2.Waiter)
	if tcp := socketOf(c); tcp != nil {
		if raw, err := tcp.SyscallConn(); err == nil {
			r.raw, r.try = raw, r.tryRead
		}
	}
}

// read reads into b, or, when that is nil, into a buffer of this size that is the
// caller's unless there is an error.
func (r *reader) read(b []byte, size int) ([]byte, int, error) {
	if r.raw == nil {
		borrowed := b == nil
		if borrowed {
			if r.wait != nil {
				if err := r.wait.Wait(); err != nil {
					return nil, 0, err
				}
			}
			b = borrow(size)
		}
		n, err := r.conn.Read(b)
		if n > 0 {
			return b, n, nil
		}
		if borrowed {
			giveBack(b)
			b = nil
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return b, 0, err
	}
	r.into, r.size = b, size
	err := r.raw.Read(r.try)
	b, r.into = r.into, nil
	if err == nil {
		err = r.err
	}
	if err != nil {
		return b, 0, err
	}
	return b, r.n, nil
}

// tryRead reports false when there is nothing to read yet.
func (r *reader) tryRead(fd uintptr) bool {
	b := r.into
	if b == nil {
		b = borrow(r.size)
	}
	for {
		r.n, r.err = syscall.Read(int(fd), b)
		if !errors.Is(r.err, syscall.EINTR) {
			break
		}
	}
	if r.n > 0 {
		r.into, r.err = b, nil
		return true
	}
	if r.into == nil {
		giveBack(b)
	}
	r.n = 0
	if errors.Is(r.err, syscall.EAGAIN) {
		return false
	}
	if r.err == nil {
		r.err = io.EOF
	}
	return true
}

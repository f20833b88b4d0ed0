// Package relay carries bytes between two TCP sockets, with half-closes passed on
// and aborts kept aborts. A connection that is idle holds no buffer and no pipe;
// one that is busy is spliced in the kernel. A relay can be stopped where it holds no
// byte, so that another process goes on with its sockets.
//
// pkg/ztunnel uses it for the legs that are not encrypted; it imports the
// standard library alone.
package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// chunk is what is read at once while a connection is not busy.
	chunk = 32 << 10
	// busyAfter full reads in a row the kernel carries the bytes, spliceStep at a
	// time: a counter is late by at most that.
	busyAfter  = 4
	spliceStep = 256 << 10
)

var buffers = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// Relay carries bytes between two sockets.
type Relay struct {
	// Constant after New.
	a, b        *net.TCPConn
	forth, back *atomic.Uint64

	// mu guards below.
	mu     sync.Mutex
	busy   []*net.TCPConn // where the ways lead that are neither at rest nor over
	ended  int            // ways that are over
	failed bool           // one ended abruptly
	pause  *pause         // or nil
}

// New returns a relay between a and b, which are its own from now on; Run it. forth
// counts bytes from a to b, back those from b to a.
func New(a, b *net.TCPConn, forth, back *atomic.Uint64) *Relay {
	return &Relay{a: a, b: b, forth: forth, back: back, busy: []*net.TCPConn{a, b}}
}

// Run carries bytes both ways until both have ended, and closes both sockets. When
// one side ends abruptly the other is reset, never closed cleanly, and the error is
// returned. A relay that was left ends with [ErrLeft].
func (r *Relay) Run() error {
	failed := make(chan error, 1)
	go func() { failed <- r.oneWay(r.b, r.a, r.back) }()
	// The first error is the cause; the second is that of the sockets being reset.
	err := r.oneWay(r.a, r.b, r.forth)
	if other := <-failed; err == nil || other != nil && errors.Is(err, net.ErrClosed) {
		err = other
	}
	if err != nil && !errors.Is(err, ErrLeft) {
		Reset(r.a, r.b)
		return err
	}
	r.a.Close()
	r.b.Close()
	return err
}

// Reset closes conns abruptly: their peers see a reset.
func Reset(conns ...*net.TCPConn) {
	for _, c := range conns {
		_ = c.SetLinger(0) // a socket that is gone is reset enough
		_ = c.Close()
	}
}

// oneWay carries src to dst until src's end, which it passes on. On an error it
// resets both, since the other direction must not wait for a peer that is gone.
func (r *Relay) oneWay(src, dst *net.TCPConn, count *atomic.Uint64) error {
	err := carry(src, dst, count)
	for errors.Is(err, os.ErrDeadlineExceeded) && r.rest(dst) {
		err = carry(src, dst, count)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrLeft
	case err == nil:
		// Of a connection that was taken over it may be the second time, when all of
		// it has ended but for what is to be read still.
		if err = dst.CloseWrite(); errors.Is(err, syscall.ENOTCONN) {
			err = nil
		}
	}
	if err != nil {
		Reset(r.a, r.b)
	}
	r.over(dst, err)
	return err
}

func carry(src, dst *net.TCPConn, count *atomic.Uint64) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	for full := 0; ; {
		if full >= busyAfter {
			n, err := dst.ReadFrom(&io.LimitedReader{R: src, N: spliceStep})
			count.Add(uint64(n))
			if err != nil || n < spliceStep {
				return err // fewer bytes without an error: the end
			}
			full = 0 // whether it is still busy is seen by reading
			continue
		}
		buffer, n, err := readWhenReady(raw)
		if n > 0 {
			var written int
			written, err = dst.Write((*buffer)[:n])
			count.Add(uint64(written))
			buffers.Put(buffer)
			if full++; n < chunk {
				full = 0
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readWhenReady waits until the socket is readable and only then takes a buffer.
// The caller gives the buffer back where n > 0.
func readWhenReady(raw syscall.RawConn) (buffer *[]byte, n int, err error) {
	waited := raw.Read(func(fd uintptr) bool {
		buffer = buffers.Get().(*[]byte)
		for {
			n, err = syscall.Read(int(fd), *buffer)
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if n > 0 {
			return true
		}
		buffers.Put(buffer)
		buffer = nil
		if errors.Is(err, syscall.EAGAIN) {
			return false
		}
		if err == nil {
			err = io.EOF
		}
		return true
	})
	if waited != nil {
		return nil, 0, waited
	}
	return buffer, n, err
}

// Package relay carries bytes between two TCP sockets, in the kernel where it can
// (splice), with half-closes passed on and aborts kept aborts.
//
// pkg/ztunnel uses it for the legs that are not encrypted; it imports the
// standard library alone.
package relay

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
)

// step is how much is carried between two updates of a counter.
const step = 1 << 20

// Both carries bytes both ways until both have ended, and closes both. forth
// counts bytes from a to b, back those from b to a. When one side ends abruptly
// the other is reset, never closed cleanly, and the error is returned.
func Both(a, b *net.TCPConn, forth, back *atomic.Uint64) error {
	failed := make(chan error, 1)
	go func() { failed <- oneWay(b, a, back, a, b) }()
	err := errors.Join(oneWay(a, b, forth, a, b), <-failed)
	if err != nil {
		Reset(a, b)
		return err
	}
	a.Close()
	b.Close()
	return nil
}

// Reset closes conns abruptly: their peers see a reset.
func Reset(conns ...*net.TCPConn) {
	for _, c := range conns {
		_ = c.SetLinger(0) // a socket that is gone is reset enough
		_ = c.Close()
	}
}

func oneWay(src, dst *net.TCPConn, count *atomic.Uint64, ends ...*net.TCPConn) error {
	for {
		n, err := dst.ReadFrom(&io.LimitedReader{R: src, N: step})
		count.Add(uint64(n)) //nolint:gosec // not negative
		if err != nil {
			// The other direction must not wait for a peer that is gone.
			Reset(ends...)
			return err
		}
		if n < step {
			return dst.CloseWrite()
		}
	}
}

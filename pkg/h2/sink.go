package h2

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// sink is the socket that a stream's input goes to.
type sink struct {
	conn  *net.TCPConn
	raw   syscall.RawConn
	count *atomic.Uint64
}

func newSink(conn *net.TCPConn, count *atomic.Uint64) (*sink, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &sink{conn, raw, count}, nil
}

// writeNow writes what the socket takes without waiting.
func (k *sink) writeNow(b []byte) (n int, err error) {
	werr := k.raw.Write(func(fd uintptr) bool {
		for {
			n, err = syscall.Write(int(fd), b)
			if !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	})
	if werr != nil {
		return 0, werr
	}
	if errors.Is(err, syscall.EAGAIN) {
		n, err = 0, nil
	}
	if n < 0 {
		n = 0
	}
	k.count.Add(uint64(n)) //nolint:gosec // not negative
	return n, err
}

// write writes all of b, waiting for the socket.
func (k *sink) write(b []byte) (int, error) {
	n, err := k.conn.Write(b)
	k.count.Add(uint64(n)) //nolint:gosec // not negative
	return n, err
}

func (k *sink) closeWrite() {
	_ = k.conn.CloseWrite() // a socket that is gone is noticed by the reader
}

// interrupt ends what waits for the socket.
func (k *sink) interrupt() { _ = k.conn.SetDeadline(time.Unix(1, 0)) }

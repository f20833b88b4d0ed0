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

	// try is a field so that a write allocates nothing; what it writes, and what
	// came of it, are writeNow's, which its stream's lock guards.
	try func(fd uintptr) bool
	out []byte
	n   int
	err error
}

func newSink(conn *net.TCPConn, count *atomic.Uint64) (*sink, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	k := &sink{conn: conn, raw: raw, count: count}
	k.try = k.tryWrite
	return k, nil
}

// writeNow writes what the socket takes without waiting.
func (k *sink) writeNow(b []byte) (n int, err error) {
	k.out = b
	err = k.raw.Write(k.try)
	k.out = nil
	if err != nil {
		return 0, err
	}
	n, err = max(k.n, 0), k.err
	if errors.Is(err, syscall.EAGAIN) {
		n, err = 0, nil
	}
	k.count.Add(uint64(n)) //nolint:gosec // not negative
	return n, err
}

func (k *sink) tryWrite(fd uintptr) bool {
	for {
		k.n, k.err = syscall.Write(int(fd), k.out)
		if !errors.Is(k.err, syscall.EINTR) {
			return true
		}
	}
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

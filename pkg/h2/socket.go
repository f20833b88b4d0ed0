package h2

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/idle"
)

// quiet is how long a socket has nothing to read before it waits without a
// goroutine. A connection that has work more often than this wakes faster.
const quiet = 200 * time.Millisecond

// socket is the TCP connection that a stream is relayed to.
type socket struct {
	// Constant.
	s        *Stream
	conn     *net.TCPConn
	raw      syscall.RawConn
	sent     *atomic.Uint64 // from the socket to the stream
	received *atomic.Uint64
	done     func(error)

	// try is a field so that a write allocates nothing; what it writes, and what
	// came of it, are writeNow's, which its stream's lock guards.
	try func(fd uintptr) bool
	out []byte
	n   int
	err error

	// Guarded by the stream's lock.
	ticket   uint64 // of the idle set, where it is parked
	parked   bool
	pumped   bool // the socket's end was passed on
	finished bool
}

func newSocket(s *Stream, conn *net.TCPConn, sent, received *atomic.Uint64, done func(error)) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	k := &socket{s: s, conn: conn, raw: raw, sent: sent, received: received, done: done}
	k.try = k.tryWrite
	return k, nil
}

// writeNow writes what the socket takes without waiting.
func (k *socket) writeNow(b []byte) (n int, err error) {
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
	k.received.Add(uint64(n))
	return n, err
}

func (k *socket) tryWrite(fd uintptr) bool {
	for {
		k.n, k.err = syscall.Write(int(fd), k.out)
		if !errors.Is(k.err, syscall.EINTR) {
			return true
		}
	}
}

// write writes all of b, waiting for the socket.
func (k *socket) write(b []byte) (int, error) {
	n, err := k.conn.Write(b)
	k.received.Add(uint64(n))
	return n, err
}

func (k *socket) closeWrite() {
	_ = k.conn.CloseWrite() // a socket that is gone is noticed by the reader
}

// interrupt ends what waits for the socket.
func (k *socket) interrupt() { _ = k.conn.SetDeadline(time.Unix(1, 0)) }

// pump sends what the socket has, until its end or until it has been quiet.
func (k *socket) pump() {
	err := k.carry()
	if errors.Is(err, errParked) {
		return
	}
	s := k.s
	if err != nil {
		s.Reset(CodeConnect)
		if serr := s.Err(); serr != nil && !isLocalReset(serr) {
			err = serr
		}
		k.finish(err)
		return
	}
	s.mu.Lock()
	k.pumped = true
	over, err := s.isOver, s.err
	s.mu.Unlock()
	if over {
		k.finish(orderly(err))
	}
}

// errParked: the idle set calls when there is more to do.
var errParked = errors.New("parked")

// carry sends what the socket has until its end. While the socket has nothing,
// no buffer is held.
func (k *socket) carry() error {
	src := newSource(k.raw)
	rested := false // since the deadline was set
	k.rest()
	for {
		if err := k.s.Err(); err != nil {
			return err // its interruption may have been before the deadline was set
		}
		buf, n, err := src.read()
		if n > 0 {
			rested = false
			werr := k.s.writeFrames(buf[:headerLen+n])
			full := n == len(buf)-headerLen
			giveBuffer(buf)
			if werr != nil {
				return werr
			}
			k.sent.Add(uint64(n))
			// A reader that fills its buffer has more to come.
			if full {
				src.size = largeBuffer
			} else if n < smallBuffer/2 {
				src.size = smallBuffer
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return k.s.CloseWrite()
		}
		if serr := k.s.Err(); serr != nil {
			return serr
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if rested && k.park() {
			return errParked
		}
		rested = true
		k.rest()
	}
}

// rest makes a read that waits for long return.
func (k *socket) rest() { _ = k.conn.SetReadDeadline(time.Now().Add(quiet)) }

// park gives the socket to the idle set, unless the stream is over.
func (k *socket) park() bool {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.s.err != nil {
		return false
	}
	if err := k.conn.SetReadDeadline(time.Time{}); err != nil {
		return false
	}
	ticket, err := idle.Wait(k.raw, k)
	if err != nil {
		return false // such as too many watches: the goroutine stays
	}
	k.ticket, k.parked = ticket, true
	return true
}

// Ready implements [idle.Waiter].
func (k *socket) Ready() {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.parked {
		k.parked = false
		go k.pump()
	}
}

// overLocked is told that nothing more comes for the socket.
func (k *socket) overLocked(err error) {
	switch {
	case k.parked && err != nil:
		idle.Cancel(k.ticket)
		k.parked = false
		go k.pump() // it ends as if it had been waiting here
	case k.pumped:
		go k.finish(orderly(err))
	}
}

// finish closes the socket: after an error abruptly, never in order.
func (k *socket) finish(err error) {
	k.s.mu.Lock()
	already := k.finished
	k.finished = true
	k.s.mu.Unlock()
	if already {
		return
	}
	if err != nil {
		_ = k.conn.SetLinger(0)
	}
	k.conn.Close()
	k.done(err)
}

package tcpproxy

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// chunk is what is read at once.
const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// nexter is a connection that shows what it received instead of copying it.
type nexter interface{ Next() ([]byte, error) }

// bare is the connection below those that only count it.
func bare(c codec.Conn) codec.Conn {
	for {
		u, ok := c.(interface{ Unwrap() codec.Conn })
		if !ok {
			return c
		}
		c = u.Unwrap()
	}
}

// relay carries bytes both ways until both have ended.
func (p *Proxy) relay(down, up codec.Conn, info *streaminfo.Info) error {
	var busy atomic.Int64 // when bytes were last carried
	busy.Store(time.Now().UnixNano())
	var end time.Time
	if p.longest > 0 {
		end = info.Start.Add(p.longest)
	}
	failed := make(chan error, 1)
	go func() {
		err := errFault
		defer func() {
			if err != nil { // the other direction must not wait for a peer that is gone
				down.Abort()
				up.Abort()
			}
			failed <- err
		}()
		defer p.d.Guard.Recover("a TCP connection")
		err = p.oneWay(up, down, &info.Traffic.Received, &busy, end)
	}()
	err := p.oneWay(down, up, &info.Traffic.Sent, &busy, end)
	if err != nil {
		up.Abort()
		down.Abort()
	}
	// The one that came first ended the other.
	other := <-failed
	gone := peerReset(err, true) || peerReset(other, false)
	if err == nil || errors.Is(other, errIdle) || errors.Is(other, errLongest) {
		err = other
	}
	switch {
	case gone:
		info.Flags |= streaminfo.UpstreamRemoteReset
	case errors.Is(err, errIdle):
		info.Flags |= streaminfo.StreamIdleTimeout
	case errors.Is(err, errLongest):
		info.Flags |= streaminfo.DurationTimeout
	}
	if err != nil {
		return err
	}
	up.Close()
	return down.Close()
}

var (
	errIdle    = errors.New("nothing was sent for the idle timeout")
	errLongest = errors.New("the connection lasted as long as it may")
	errFault   = errors.New("a fault of this program")
)

// sideError is a failure of the side that was read, or else of the one that was
// written.
type sideError struct {
	error
	read bool
}

// Unwrap is what happened there.
func (e *sideError) Unwrap() error { return e.error }

// peerReset tells whether a direction ended with a reset by the peer of one of its
// sides: the one that was read, or the other.
func peerReset(err error, read bool) bool {
	var side *sideError
	if !errors.As(err, &side) || side.read != read {
		return false
	}
	var stream *h2.StreamError
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &stream) && stream.Remote
}

// oneWay carries from src to dst until src's end, which it passes on.
func (p *Proxy) oneWay(dst, src codec.Conn, count *atomic.Uint64, busy *atomic.Int64, end time.Time) error {
	next, ok := bare(src).(nexter)
	var buffer *[chunk]byte
	if !ok {
		buffer = chunks.Get().(*[chunk]byte)
		defer chunks.Put(buffer)
	}
	for {
		if p.idle > 0 || !end.IsZero() {
			_ = src.SetReadDeadline(p.deadline(busy, end))
		}
		var b []byte
		var err error
		if ok {
			b, err = next.Next()
		} else {
			var n int
			n, err = src.Read(buffer[:])
			b = buffer[:n]
		}
		if len(b) > 0 {
			busy.Store(time.Now().UnixNano())
			if p.idle > 0 || !end.IsZero() { // who does not read is idle, too
				_ = dst.SetWriteDeadline(p.deadline(busy, end))
			}
			n, werr := dst.Write(b)
			count.Add(uint64(n)) //nolint:gosec // not negative
			if errors.Is(werr, os.ErrDeadlineExceeded) {
				return p.why(end)
			}
			if werr != nil {
				return &sideError{werr, false}
			}
			busy.Store(time.Now().UnixNano())
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return dst.CloseWrite()
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !end.IsZero() && !time.Now().Before(end) {
				return errLongest
			}
			if p.idle > 0 && time.Since(time.Unix(0, busy.Load())) >= p.idle {
				return errIdle
			}
		default:
			return &sideError{err, true}
		}
	}
}

// why is what a deadline that passed means.
func (p *Proxy) why(end time.Time) error {
	if !end.IsZero() && !time.Now().Before(end) {
		return errLongest
	}
	return errIdle
}

func (p *Proxy) deadline(busy *atomic.Int64, end time.Time) time.Time {
	if p.idle <= 0 {
		return end
	}
	d := time.Unix(0, busy.Load()).Add(p.idle)
	if !end.IsZero() && end.Before(d) {
		return end
	}
	return d
}

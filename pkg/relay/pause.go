package relay

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// ErrLeft is the end of a relay that was left.
var ErrLeft = errors.New("another goes on with the connection")

// pause is one stop of a relay.
type pause struct {
	rest    chan struct{}  // closed when no way carries, or one has failed
	told    bool           // rest is closed
	resting []*net.TCPConn // where the ways lead that are at rest
	over    chan struct{}  // closed when the pause is
	left    bool           // constant when over is closed: another goes on
}

func (p *pause) tell() {
	if !p.told {
		p.told = true
		close(p.rest)
	}
}

// past is a deadline that ends every read.
var past = time.Unix(1, 0)

// Pause stops the relay where it holds no byte: what it has read is written, and
// counted. It reports whether the relay is at rest; then Resume or Leave follows. A
// receiver that has not taken what was read within patience gets a larger socket for
// it, and as long again. A relay that does not come to rest goes on, as does one that
// ends meanwhile. What the sockets hold, an end that was passed on among it, is theirs,
// and with them whoever has them next.
func (r *Relay) Pause(patience time.Duration) bool {
	r.mu.Lock()
	if r.pause != nil || r.ended == 2 || r.failed {
		r.mu.Unlock()
		return false
	}
	p := &pause{rest: make(chan struct{}), over: make(chan struct{})}
	r.pause = p
	// A way looks at the deadline before it reads: what it has read it writes first.
	_ = r.a.SetReadDeadline(past) // a socket that is closed ends the ways
	_ = r.b.SetReadDeadline(past)
	r.mu.Unlock()
	if !p.within(patience) {
		r.mu.Lock()
		blocked := slices.Clone(r.busy)
		r.mu.Unlock()
		for _, c := range blocked {
			enlarge(c)
		}
		p.within(patience)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.busy) == 0 && r.ended < 2 && !r.failed {
		return true
	}
	r.resumeLocked()
	return false
}

func (p *pause) within(patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.rest:
		return true
	case <-timer.C:
		return false
	}
}

// maxSend bounds how much a socket may hold for a receiver that takes nothing: it
// grows with each agent that has it.
const maxSend = 16 << 20

// enlarge makes room for what is being written to c: the kernel wakes the writer when
// a third of the socket is free, which a slow receiver needs long for. A process
// without CAP_NET_ADMIN makes as much as it may.
func enlarge(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // who is closed is at rest
		now, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		if err != nil || now >= maxSend {
			return
		}
		size := now + 2*spliceStep // the kernel doubles it, for what it needs itself
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUFFORCE, size) != nil {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, size)
		}
	})
}

// Resume goes on after Pause.
func (r *Relay) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resumeLocked()
}

func (r *Relay) resumeLocked() {
	p := r.pause
	r.pause = nil
	_ = r.a.SetReadDeadline(time.Time{})
	_ = r.b.SetReadDeadline(time.Time{})
	r.busy = append(r.busy, p.resting...)
	close(p.over)
}

// Leave ends the relay after Pause: another process has the sockets, and goes on. Of
// this one's end their peers see nothing.
func (r *Relay) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pause.left = true
	close(r.pause.over)
}

// rest is called by the way to dst when its deadline has passed. It returns when the
// pause is over, and reports whether to go on.
func (r *Relay) rest(dst *net.TCPConn) bool {
	r.mu.Lock()
	p := r.pause
	if p == nil { // over already
		r.mu.Unlock()
		return true
	}
	p.resting = append(p.resting, dst)
	r.idleLocked(dst)
	r.mu.Unlock()
	<-p.over
	return !p.left
}

// over notes the end of the way to dst.
func (r *Relay) over(dst *net.TCPConn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	r.failed = r.failed || err != nil
	r.idleLocked(dst)
}

func (r *Relay) idleLocked(dst *net.TCPConn) {
	r.busy = slices.DeleteFunc(r.busy, func(c *net.TCPConn) bool { return c == dst })
	if r.pause != nil && (len(r.busy) == 0 || r.failed) {
		r.pause.tell()
	}
}

package relay

import (
	"errors"
	"time"
)

// ErrLeft is the end of a relay that was left.
var ErrLeft = errors.New("another goes on with the connection")

// pause is one stop of a relay.
type pause struct {
	rest chan struct{} // closed when no way carries, or one has failed
	told bool          // rest is closed
	over chan struct{} // closed when the pause is
	left bool          // constant when over is closed: another goes on
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
// counted. It reports whether the relay is at rest; then Resume or Leave follows. One
// whose receiver takes nothing does not come to rest, and goes on after patience, as
// does one that ends meanwhile. What the sockets hold, an end that was passed on
// among it, is theirs, and with them whoever has them next.
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
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.rest:
	case <-timer.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.carrying == 0 && r.ended < 2 && !r.failed {
		return true
	}
	r.resumeLocked()
	return false
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
	r.carrying = 2 - r.ended
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

// rest is called by a way whose deadline has passed. It returns when the pause is
// over, and reports whether to go on.
func (r *Relay) rest() bool {
	r.mu.Lock()
	p := r.pause
	if p == nil { // over already
		r.mu.Unlock()
		return true
	}
	if r.carrying--; r.carrying == 0 {
		p.tell()
	}
	r.mu.Unlock()
	<-p.over
	return !p.left
}

// over notes the end of a way.
func (r *Relay) over(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.carrying--
	r.ended++
	r.failed = r.failed || err != nil
	if r.pause != nil && (r.carrying == 0 || r.failed) {
		r.pause.tell()
	}
}

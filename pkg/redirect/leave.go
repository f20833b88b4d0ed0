package redirect

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// releasePatience bounds how long connections on their way to the agent are
// waited for when their pod leaves the mesh.
const releasePatience = time.Second

// Release takes the pod out of the mesh: its new connections go as if there were
// none. What is on its way to the agent's listeners arrives there; they stay
// open, and so does what is carried, until Close. With ctx ended nothing is
// waited for: the pod itself has gone.
func (p *Pod) Release(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.releaseLocked(ctx)
}

func (p *Pod) releaseLocked(ctx context.Context) error {
	if p.released || p.closed {
		return nil
	}
	p.released = true
	p.r.mu.Lock()
	delete(p.r.pods, p.cookie)
	p.r.mu.Unlock()
	if !p.installed {
		return nil // it is another agent's
	}
	p.entry.Flags &^= flagCaptured
	err := p.r.connect.Pods.Put(p.cookie, p.entry)
	ctx, cancel := context.WithTimeout(ctx, releasePatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond) // nothing tells of it
	defer tick.Stop()
	for err == nil && ctx.Err() == nil && p.expected() {
		<-tick.C
	}
	return errors.Join(err, p.r.forget(p.cookie))
}

// expected reports whether a connection is on its way to the agent.
func (p *Pod) expected() bool {
	var c bpfobj.ConnectUnderWay
	if p.r.connect.Pending.Lookup(p.cookie, &c) == nil && c.Connections > 0 {
		return true
	}
	for _, l := range []*net.TCPListener{p.outbound, p.inbound} {
		if waiting(l) > 0 {
			return true
		}
	}
	return false
}

// waiting is how many connections a listener has that nobody has accepted.
func waiting(l *net.TCPListener) (n uint32) {
	raw, err := l.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		// Of a listener, unacked is the length of its queue.
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Unacked
		}
	})
	return n
}

// Deafen closes the pod's listeners: another enrolment of it may open them.
func (p *Pod) Deafen() {
	for _, l := range []*net.TCPListener{p.outbound, p.inbound, p.hbone} {
		if l != nil {
			_ = l.Close() // it may be closed already
		}
	}
}

// Close releases the pod, closes what is open in it and leaves its namespace as it
// was, unless it is enrolled again by now.
func (p *Pod) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.releaseLocked(gone)
	if p.closed {
		return err
	}
	p.closed = true
	p.Deafen()
	p.r.mu.Lock()
	defer p.r.mu.Unlock() // an enrolment that comes now prepares the namespace after this
	if p.installed && p.r.pods[p.cookie] == nil && !p.r.entering[p.cookie] {
		err = errors.Join(err, p.ns.Do(p.restore))
	}
	return errors.Join(err, p.ns.Close())
}

// Leave closes what is open in the pod and keeps it captured, and so refused: for
// an agent that stops.
func (p *Pod) Leave() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.Deafen()
	return p.ns.Close()
}

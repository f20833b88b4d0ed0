package ztunnel

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Carried is a plaintext connection as one agent tells the next of it. Versions read
// each other's: fields are added, and what is not there is zero. Whether one way has
// ended the sockets know.
type Carried struct {
	Inbound bool `json:"inbound,omitempty"`
	// Source is the client's end; Original where it meant to go, Actual where that
	// led. Actual may be invalid: an endpoint with a name.
	Source      netip.AddrPort `json:"source"`
	Original    netip.AddrPort `json:"original"`
	Actual      netip.AddrPort `json:"actual"`
	Destination netip.AddrPort `json:"destination"` // the socket's peer
	// Workload and Service are whom an outbound one was resolved to, if anybody.
	Workload  mesh.WorkloadID `json:"workload,omitempty"`
	Namespace string          `json:"namespace,omitempty"`
	Hostname  string          `json:"hostname,omitempty"`
	// What its record holds.
	Opened   time.Time `json:"opened"`
	ToServer uint64    `json:"toServer,omitempty"`
	ToClient uint64    `json:"toClient,omitempty"`
}

// Plaintext is a live connection that is relayed without a tunnel, which another
// agent can go on with.
type Plaintext struct {
	// Constant after it was made.
	live           *liveConn
	client, server *net.TCPConn
	relay          *relay.Relay
	record         *telemetry.Record
}

// Plaintexts lists the live connections that can be handed over. expected says that
// there may be more: some are being set up.
func (p *Proxy) Plaintexts() (all []*Plaintext, expected bool) {
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	for c := range p.live.all {
		if c.plain != nil {
			all = append(all, c.plain)
		}
		expected = expected || c.plain == nil && c.Protocol == "TCP"
	}
	return all, expected || len(p.outgoing)+len(p.incoming) > len(p.live.all) // accepted, not decided on
}

// Rest stops the connection where this process holds none of its bytes, and returns
// what another needs to go on: new descriptors of its sockets, the client's and the
// server's, among it. GoOn or Leave follows. False: it does not come to rest within
// patience, since its receiver takes nothing; or it is over.
func (t *Plaintext) Rest(patience time.Duration) (c Carried, fds []int, ok bool) {
	if !t.relay.Pause(patience) {
		return c, nil, false
	}
	// Nobody aborts it while its sockets may be another's.
	set := t.live.set
	set.mu.Lock()
	closed := t.live.why != nil
	if !closed {
		t.live.abort = nil
	}
	set.mu.Unlock()
	if closed {
		t.relay.Resume()
		return c, nil, false
	}
	for _, conn := range []*net.TCPConn{t.client, t.server} {
		fd, err := dup(conn)
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			t.GoOn()
			return c, nil, false
		}
		fds = append(fds, fd)
	}
	return t.carried(), fds, true
}

func (t *Plaintext) carried() Carried {
	info := t.record.Info()
	c := Carried{
		Inbound: t.live.Direction == telemetry.Inbound,
		Source:  t.live.Source, Original: t.live.Original, Actual: t.live.Actual, Destination: info.DestinationAddr,
		Opened: t.record.Opened(), ToServer: t.record.ToServer.Load(), ToClient: t.record.ToClient.Load(),
	}
	if info.Destination != nil {
		c.Workload = info.Destination.UID
	}
	if info.Service != nil {
		c.Namespace, c.Hostname = info.Service.Key.Namespace, info.Service.Key.Hostname
	}
	return c
}

// GoOn goes on after Rest. What was to be closed meanwhile is.
func (t *Plaintext) GoOn() {
	abort := func() { relay.Reset(t.client, t.server) }
	set := t.live.set
	set.mu.Lock()
	t.live.abort = abort
	closed := t.live.why != nil
	set.mu.Unlock()
	if closed {
		abort()
	}
	t.relay.Resume()
}

// Leave ends the connection here after Rest: another agent has taken it.
func (t *Plaintext) Leave() { t.relay.Leave() }

// dup returns a new descriptor of a connection's socket.
func dup(c *net.TCPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var derr error
	if err := raw.Control(func(from uintptr) { fd, derr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, err
	}
	if derr != nil {
		return 0, fmt.Errorf("descriptor of a connection: %w", derr)
	}
	return fd, nil
}

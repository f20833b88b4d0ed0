// Package listener takes connections and finds the filter chain that serves each:
// sockets, tunnels that end here (HBONE), and Envoy's internal listeners, which are
// calls within the process. Package waypoint makes and updates it.
package listener

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/chain"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// ErrNoChain: no filter chain serves such a connection.
var ErrNoChain = errors.New("no filter chain matches")

// Table is which chain serves what, of one moment. It is not changed.
type Table struct {
	// Match finds a chain's name; "" with false: none.
	Match func(in matcher.ConnInput) (string, bool)
	// Chains are by name.
	Chains map[string]*chain.Slot
	// SniffHTTP and SniffTLS tell whether a destination port's first bytes are looked
	// at (Envoy's http_inspector and tls_inspector with filter_disabled).
	SniffHTTP, SniffTLS func(port uint16) bool
	// SniffTimeout bounds the wait for a client that may be waiting for us.
	SniffTimeout time.Duration
	// Previous serves, or nil, what this one does not know any more: who sends it has
	// not heard of that yet.
	Previous atomic.Pointer[Table]
}

// Known tells whether some chain may serve dst, if its first bytes are right.
func (t *Table) Known(dst netip.AddrPort, authority string) bool {
	if previous := t.Previous.Load(); previous != nil && previous.knows(dst, authority) {
		return true
	}
	return t.knows(dst, authority)
}

func (t *Table) knows(dst netip.AddrPort, authority string) bool {
	undecided := false
	name, ok := t.Match(matcher.ConnInput{Destination: dst, FilterState: map[string]string{stateAuthority: authority}, Undecided: &undecided})
	return undecided || ok && t.Chains[name] != nil
}

// decided tells whether the chain is the same whatever a connection begins with: nobody
// has to wait for that then, and its server may speak first.
func (t *Table) decided(in matcher.ConnInput) bool {
	undecided := false
	in.Undecided = &undecided
	t.Match(in)
	return !undecided
}

// Serve runs a connection until it ends, or parks ([codec.Parked]). What nothing serves is aborted.
func (t *Table) Serve(conn codec.Conn, info *streaminfo.Connection) error {
	in := matcher.ConnInput{
		Destination: info.Local, Source: info.Remote, FilterState: info.FilterState, ServerName: info.ServerName, TransportProtocol: "raw_buffer",
	}
	if previous := t.Previous.Load(); previous != nil && !t.knows(info.Local, info.Authority) {
		t = previous
	}
	protocol, known := codec.TCP, false
	sniffHTTP, sniffTLS := t.SniffHTTP != nil && t.SniffHTTP(info.Local.Port()), t.SniffTLS != nil && t.SniffTLS(info.Local.Port())
	if sniffTLS || sniffHTTP && !t.decided(in) {
		began := time.Now()
		seen, peeked, err := codec.Sniff(conn, t.SniffTimeout)
		info.Waited = time.Since(began)
		if err != nil {
			conn.Abort()
			return err
		}
		conn, known = peeked, true
		switch {
		case seen.Protocol == codec.TLS && sniffTLS:
			in.TransportProtocol, in.ServerName, in.ApplicationProtocols = "tls", seen.ServerName, seen.ALPN
			info.ServerName = seen.ServerName
		case seen.Protocol == codec.HTTP1 && sniffHTTP:
			in.ApplicationProtocols = []string{"http/1.1"}
			protocol = codec.HTTP1
		case seen.Protocol == codec.HTTP2 && sniffHTTP:
			in.ApplicationProtocols = []string{"h2c"}
			protocol = codec.HTTP2
		}
	}
	name, ok := t.Match(in)
	slot := t.Chains[name]
	if !ok || slot == nil {
		conn.Abort()
		return ErrNoChain
	}
	return serve(slot, conn, info, protocol, known)
}

// serve admits a connection and runs it.
func serve(slot *chain.Slot, conn codec.Conn, info *streaminfo.Connection, protocol codec.Protocol, known bool) error {
	c := slot.Chain()
	info.Chain = c.Name
	if err := c.Admit(info); err != nil {
		c.Denied(info, err)
		conn.Abort()
		return err
	}
	if c.HTTP() && !known {
		protocol = codec.HTTP
	}
	return slot.Serve(conn, info, protocol)
}

package ztunnel

import (
	"context"
	"net"
	"net/netip"
)

// PodSockets is a pod's network namespace as the proxy uses it. The listeners
// are the pod's: the proxy closes them when it stops accepting.
type PodSockets interface {
	// Outbound accepts the pod's captured connections (15001).
	Outbound() net.Listener
	// InboundPlain accepts plaintext connections to the pod (15006). The local
	// address of an accepted connection is where the client meant to go.
	InboundPlain() net.Listener
	// InboundHBONE accepts tunnels to the pod (15008).
	InboundHBONE() net.Listener
	// OriginalDestination is where the pod meant to go with a connection that
	// Outbound accepted.
	OriginalDestination(c *net.TCPConn) (netip.AddrPort, error)
	// Dial connects from the pod's own address, uncaptured.
	Dial(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error)
	// DialApp connects to the application with the client's address as source.
	// An invalid client, or the pod's own address, is not kept.
	DialApp(ctx context.Context, client netip.Addr, dst netip.AddrPort) (*net.TCPConn, error)
	// DestroySockets resets the pod's connections older than its enrolment that
	// match selects, and returns how many.
	DestroySockets(ctx context.Context, match func(local, remote netip.AddrPort) bool) (int, error)
	// SetTCPOnly drops what is not TCP, or lets it pass.
	SetTCPOnly(only bool) error
}

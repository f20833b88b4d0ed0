package redirect

import (
	"context"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DestroySockets resets the pod's established connections that match selects:
// those older than its enrolment, which the agent does not carry. Its own are not
// offered. It returns how many were reset.
func (p *Pod) DestroySockets(ctx context.Context, match func(local, remote netip.AddrPort) bool) (n int, err error) {
	err = p.ns.Do(func() error {
		var errs []error
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := netlink.SocketDiagTCP(family)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, s := range sockets {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				local, remote := socketEnd(s.ID.Source, s.ID.SourcePort), socketEnd(s.ID.Destination, s.ID.DestinationPort)
				if s.State == netlink.TCP_LISTEN || s.State == netlink.TCP_TIME_WAIT || p.isOurs(local, remote) || !match(local, remote) {
					continue
				}
				if err := netlink.SocketDestroy(tcpAddr(local), tcpAddr(remote)); err != nil {
					errs = append(errs, err)
					continue
				}
				n++
			}
		}
		return errors.Join(errs...)
	})
	return n, err
}

// isOurs reports whether a connection is one of the agent's: to or from its
// ports, or from the range of its dials to applications.
func (p *Pod) isOurs(local, remote netip.AddrPort) bool {
	for _, port := range []uint16{local.Port(), remote.Port()} {
		if port == portOutbound || port == portInbound || port == portHBONE {
			return true
		}
	}
	return local.Addr().IsLoopback() || remote.Addr().IsLoopback() || local.Addr() == remote.Addr()
}

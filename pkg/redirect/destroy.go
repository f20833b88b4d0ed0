package redirect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
				switch err := destroy(s); {
				case err == nil:
					n++
				case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE): // it has ended by itself
					errs = append(errs, fmt.Errorf("reset %s: %w", remote, err))
				}
			}
		}
		return errors.Join(errs...)
	})
	return n, err
}

// destroy resets this very socket, in the calling thread's network namespace. By its
// addresses alone another could be meant: when a connection has ended meanwhile, the
// listener that its addresses are steered to.
func destroy(s *netlink.Socket) error {
	c, err := nl.Subscribe(unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	defer c.Close()
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(destroyRequest{s})
	_, err = req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// destroyRequest is struct inet_diag_req_v2 (linux/inet_diag.h).
type destroyRequest struct{ *netlink.Socket }

// Len implements nl.NetlinkRequestData.
func (destroyRequest) Len() int { return 56 }

// Serialize implements nl.NetlinkRequestData.
func (r destroyRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.Family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<r.State)
	binary.BigEndian.PutUint16(b[8:], r.ID.SourcePort)
	binary.BigEndian.PutUint16(b[10:], r.ID.DestinationPort)
	source, destination := r.ID.Source.To16(), r.ID.Destination.To16()
	if r.Family == unix.AF_INET {
		source, destination = r.ID.Source.To4(), r.ID.Destination.To4()
	}
	copy(b[12:], source)
	copy(b[28:], destination)
	binary.NativeEndian.PutUint32(b[44:], r.ID.Interface)
	binary.NativeEndian.PutUint32(b[48:], r.ID.Cookie[0])
	binary.NativeEndian.PutUint32(b[52:], r.ID.Cookie[1])
	return b
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

package ztunnel

import (
	"errors"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Route is where an outbound connection goes.
type Route struct {
	// Tunnel is set for HBONE; else the connection is plain TCP.
	Tunnel bool
	// Destination is the socket to connect to. Its address is invalid where the
	// endpoint is a host name.
	Destination netip.AddrPort
	// Authority is what the tunnel is asked for.
	Authority hbone.Authority
	// Expected are the SPIFFE IDs that may answer.
	Expected []string

	Workload *mesh.Workload // the endpoint or the waypoint, or nil: outside the mesh
	Service  *mesh.Service  // what was asked for, or nil: an address
}

// Decide chooses the route of a connection of client (or nil: not known) to dst,
// in the order of Istio's node proxy. It is a pure function but for the draw of
// an endpoint.
func Decide(s *store.Snapshot, client *mesh.Workload, network string, dst netip.AddrPort) (Route, error) {
	addr := mesh.NewNetworkAddr(network, dst.Addr())
	if svc := s.ServiceByVIP(addr); svc != nil {
		if gateway := serviceWaypoint(svc); gateway != nil && !isWaypoint(client, gateway) {
			return toWaypoint(s, client, network, gateway, Route{Service: svc}, dst)
		}
		e, err := s.Endpoint(svc, dst.Port(), client, dst.Addr().Is6())
		if errors.Is(err, store.ErrPassthrough) {
			return Route{Destination: dst, Service: svc}, nil
		}
		if err != nil {
			return Route{Service: svc}, err
		}
		return toWorkload(e.Workload, e.Addr, svc, network)
	}
	w := s.WorkloadByAddr(addr)
	if w == nil {
		return Route{Destination: dst}, nil
	}
	if w.Waypoint != nil && !isWaypoint(client, w.Waypoint) {
		return toWaypoint(s, client, network, w.Waypoint, Route{}, dst)
	}
	return toWorkload(w, dst, nil, network)
}

func toWorkload(w *mesh.Workload, dst netip.AddrPort, svc *mesh.Service, network string) (Route, error) {
	r := Route{Workload: w, Service: svc, Destination: dst}
	switch {
	case w.Network != network:
		return r, errNetwork
	case !dst.Addr().IsValid() && w.Hostname == "":
		return r, store.ErrNoEndpoint
	case w.Tunnel != mesh.TunnelHBONE || !dst.Addr().IsValid():
		return r, nil
	}
	r.Tunnel = true
	r.Destination = netip.AddrPortFrom(dst.Addr(), hbone.Port)
	r.Authority = hbone.Authority{Addr: dst.Addr(), Port: dst.Port()}
	r.Expected = expected(w, svc)
	return r, nil
}

// expected are the identities that may answer for w, as an endpoint of svc.
func expected(w *mesh.Workload, svc *mesh.Service) []string {
	ids := []string{w.Identity().String()}
	if svc != nil {
		ids = append(ids, svc.SubjectAltNames...)
	}
	return ids
}

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
	// Destination is the socket to connect to.
	Destination netip.AddrPort
	// Authority is what the tunnel is asked for.
	Authority hbone.Authority
	// Expected are the SPIFFE IDs that may answer.
	Expected []string

	Workload *mesh.Workload // the endpoint, or nil: outside the mesh
	Service  *mesh.Service  // what was asked for, or nil: an address
}

// Decide chooses the route of a connection of client to dst, in the order of
// Istio's node proxy. It is a pure function but for the draw of an endpoint.
func Decide(s *store.Snapshot, client *mesh.Workload, network string, dst netip.AddrPort) (Route, error) {
	addr := mesh.NewNetworkAddr(network, dst.Addr())
	svc := s.ServiceByVIP(addr)
	if svc != nil && (svc.Waypoint != nil || len(svc.WeightedWaypoints) > 0) {
		return Route{Service: svc}, errWaypoint
	}
	if svc != nil {
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
	if w.Waypoint != nil {
		return Route{Workload: w}, errWaypoint
	}
	return toWorkload(w, dst, nil, network)
}

func toWorkload(w *mesh.Workload, dst netip.AddrPort, svc *mesh.Service, network string) (Route, error) {
	r := Route{Workload: w, Service: svc, Destination: dst}
	switch {
	case w.Network != network:
		return r, errNetwork
	case !dst.Addr().IsValid():
		return r, store.ErrNoEndpoint
	case w.Tunnel != mesh.TunnelHBONE:
		return r, nil
	}
	r.Tunnel = true
	r.Destination = netip.AddrPortFrom(dst.Addr(), hbone.Port)
	r.Authority = hbone.Authority{Addr: dst.Addr(), Port: dst.Port()}
	r.Expected = []string{w.Identity().String()}
	if svc != nil {
		r.Expected = append(r.Expected, svc.SubjectAltNames...)
	}
	return r, nil
}

// reserved reports whether a port is the agent's own in a pod.
func reserved(port uint16) bool { return port == 15001 || port == 15006 || port == hbone.Port }

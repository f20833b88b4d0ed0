package ztunnel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// serviceWaypoint is the waypoint of a connection to svc, or nil. Of several one
// is drawn by weight.
func serviceWaypoint(svc *mesh.Service) *mesh.GatewayAddr {
	var total uint32
	for _, w := range svc.WeightedWaypoints {
		total += w.Weight
	}
	if total == 0 {
		return svc.Waypoint
	}
	draw := rand.Uint32N(total) //nolint:gosec // balances load, guards nothing
	for i := range svc.WeightedWaypoints {
		w := &svc.WeightedWaypoints[i]
		if draw < w.Weight {
			return &w.Waypoint
		}
		draw -= w.Weight
	}
	return svc.Waypoint
}

// isWaypoint reports whether w is the waypoint that gateway names: what it sends
// has been through it.
func isWaypoint(w *mesh.Workload, gateway *mesh.GatewayAddr) bool {
	if w == nil {
		return false
	}
	if gateway.Service.Hostname != "" {
		_, serves := w.Services[gateway.Service]
		return serves
	}
	for _, a := range w.Addrs {
		if mesh.NewNetworkAddr(w.Network, a) == gateway.Addr {
			return true
		}
	}
	return false
}

// toWaypoint leads to a waypoint that is asked for dst. A waypoint that is named
// and cannot be found is never gone around: its policies would be, too.
func toWaypoint(s *store.Snapshot, client *mesh.Workload, network string, gateway *mesh.GatewayAddr, r Route, dst netip.AddrPort) (Route, error) {
	port := gateway.Port
	if port == 0 {
		port = hbone.Port
	}
	var svc *mesh.Service
	if gateway.Service.Hostname != "" {
		svc = s.Service(gateway.Service)
	} else {
		svc = s.ServiceByVIP(gateway.Addr)
	}
	e := store.Endpoint{Addr: netip.AddrPortFrom(gateway.Addr.Addr, port)}
	switch {
	case svc != nil:
		var err error
		if e, err = s.Endpoint(svc, port, client, dst.Addr().Is6()); err != nil {
			return r, fmt.Errorf("%w: %w", errWaypoint, err)
		}
	case gateway.Service.Hostname == "":
		e.Workload = s.WorkloadByAddr(gateway.Addr)
	}
	if e.Workload == nil || !e.Addr.Addr().IsValid() {
		name := gateway.Addr.String()
		if gateway.Service.Hostname != "" {
			name = gateway.Service.String()
		}
		return r, fmt.Errorf("%w: %s", errWaypoint, name)
	}
	r.Workload = e.Workload
	if e.Workload.Network != network {
		return r, errNetwork
	}
	r.Tunnel, r.Destination = true, e.Addr
	r.Authority = hbone.Authority{Addr: dst.Addr(), Port: dst.Port()}
	r.Expected = expected(e.Workload, svc)
	return r, nil
}

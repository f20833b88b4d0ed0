package ztunnel

import (
	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// decide decides on a connection to the pod. What comes from a waypoint of the pod was
// decided on there, on who called it, if the control plane says that its waypoints do
// that; the policies see the waypoint alone here.
func decide(s *store.Snapshot, self *mesh.Workload, policies []*mesh.Policy, conn authz.Conn) authz.Decision {
	if self.WaypointAuthorizes && fromWaypoint(s, self, conn) {
		return authz.Decision{Allow: true, Reason: reasonWaypoint}
	}
	return authz.Evaluate(policies, conn)
}

const reasonWaypoint = "authorized by the waypoint"

// fromWaypoint tells whether a waypoint of the pod, or of a service that it is behind,
// calls: its identity, from an address of one of its pods. Another namespace's service
// can have the pod behind it, by an EndpointSlice; its waypoint is nobody whom the pod's
// namespace has chosen.
func fromWaypoint(s *store.Snapshot, self *mesh.Workload, conn authz.Conn) bool {
	if self.Waypoint != nil && isEnd(s, self.Network, self.Waypoint, conn) {
		return true
	}
	for _, svc := range s.ServicesOf(self) {
		if svc.Key.Namespace != self.Namespace {
			continue
		}
		if svc.Waypoint != nil && isEnd(s, self.Network, svc.Waypoint, conn) {
			return true
		}
		for i := range svc.WeightedWaypoints {
			if isEnd(s, self.Network, &svc.WeightedWaypoints[i].Waypoint, conn) {
				return true
			}
		}
	}
	return false
}

// isEnd tells whether a workload that gateway leads to has the caller's identity and
// address.
func isEnd(s *store.Snapshot, network string, gateway *mesh.GatewayAddr, conn authz.Conn) bool {
	if conn.Source.IsZero() {
		return false
	}
	w := s.WorkloadByAddr(mesh.NewNetworkAddr(network, conn.SourceIP))
	if w == nil || w.Identity() != conn.Source {
		return false
	}
	if svc := s.ServiceByVIP(gateway.Addr); gateway.Service.Hostname == "" && svc != nil {
		_, serves := w.Services[svc.Key]
		return serves
	}
	return isWaypoint(w, gateway)
}

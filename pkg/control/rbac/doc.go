// Package rbac turns AuthorizationPolicies into Envoy's RBAC filters for
// waypoints, and says on each policy what became of it. It is pure: the same
// model gives the same filters.
//
// Two kinds of policy hold at a waypoint. Those with targetRefs, to its Gateway,
// to its GatewayClass or to a service behind it, are decided by a waypoint
// alone. Those of layer 4 (by workload, namespace or mesh) are decided by the
// nodes too, but for traffic that came through a waypoint only the waypoint
// knows the original caller: see [Layer4] for who enforces them there.
//
// What cannot be decided is closed: docs/adr/0007 has the rules.
//
// For pkg/control and cmd/control-plane.
package rbac

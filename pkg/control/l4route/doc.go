// Package l4route turns the routes of connections into those of one service port
// at its waypoint: TCPRoutes and TLSRoutes whose parent is a Service or a
// ServiceEntry, and the tcp and tls rules of VirtualServices. It is pure: the same
// model gives the same routes.
//
// On a port that carries TLS, routes are told apart by the server name in the
// client's hello: an exact name before a wildcard, a longer wildcard before a
// shorter one, whatever the order in which they are written; a name is the first
// route's that has it. A TCPRoute there takes what no name matches; without one
// that is closed. On other ports that carry connections one route takes them all.
// Rules may be for some callers, who are known by the identity or address that the
// chain is chosen by; what rules for some leave goes on to the next, and in the end to
// the service. The order of routes:
//
//  1. TLSRoutes and TCPRoutes of other namespaces, for callers there alone; the oldest
//     first, then by namespace and name.
//  2. Those of the service's namespace, in that order.
//  3. VirtualServices of the service's namespace: those that name the host exactly
//     before those with a wildcard, then the oldest; rules as they are written.
//
// A destination that is not there takes its share of the connections, which are
// closed. For packages under pkg/control and cmd/control-plane.
package l4route

// Package routing turns VirtualServices, HTTPRoutes and GRPCRoutes into the route
// configuration of one service port at its waypoint, in the shape in which istiod
// sends it. It is pure: the same model gives the same routes.
//
// The order in which routes are tried:
//
//  1. GRPCRoutes, then HTTPRoutes, of other namespaces than the service's
//     (consumer routes); they match callers of their own namespace alone.
//  2. GRPCRoutes, then HTTPRoutes, of the service's namespace (producer routes).
//  3. VirtualServices: those that name the host exactly before those with a
//     wildcard, a longer wildcard before a shorter one; of equal ones the oldest,
//     then by namespace and name. Rules keep the order in which they are written.
//
// The rules of all routes of one of the first kinds are sorted together, as the
// Gateway API asks: exact path, regular expression, longest prefix, method, number
// of headers, number of query parameters; then the oldest route, then by namespace
// and name, then as written. A request that no route matches is answered 404,
// unless the service has no routes but consumers' routes.
//
// A caller is known by the principal of its certificate, which the listener puts
// into the filter state as [PrincipalKey].
//
// # Session affinity
//
// The annotation fairlead.dev/session-affinity of a VirtualService keeps a user on
// one version while weights move. Its value is one of
//
//	cookie=<name>            the value of a cookie that the application sets
//	cookie=<name>;ttl=<24h>  the same; who has no cookie is given one for that long,
//	                         0s: until the browser is closed
//	header=<name>            the value of a request header
//	identity                 the service account of the caller
//
// The hash of that value decides, by the route's hash policy and the weighted
// clusters' use_hash_policy: the same in each replica and after restarts. Versions
// stand in the order of their cluster names and weights are scaled to one total, so
// that as v2 grows users move only from v1 to v2. A request without the value is
// spread by weight alone. An HTTPRoute's or GRPCRoute's sessionPersistence is
// translated the same way; its clusters are to balance by that hash as well, which
// [Backend] tells.
//
// For packages under pkg/control and cmd/control-plane.
package routing

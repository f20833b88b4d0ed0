// Package cluster is everything upstream of the waypoint's router: what Envoy calls
// clusters. It compiles Envoy's Cluster and ClusterLoadAssignment, chooses hosts as
// Envoy's balancers do, bounds what goes out (circuit breakers), takes failing hosts
// out (outlier detection) and keeps the connections. The router, the TCP proxy and
// the admin page import it.
//
// Istio's and our own chains of internal listeners are compiled away: an endpoint
// behind the internal listener connect_originate is a host whose connections are
// streams of an HBONE tunnel, so that the status of the CONNECT is seen here. A
// destination that refused is an error before anything was sent, which can be retried
// safely.
//
// A [Cluster] is one object for as long as its name exists. An update swaps what it
// looks at; hosts, their connections, ejections and counts go on, except those that
// the update concerns: connections drain when transport or protocol change.
package cluster

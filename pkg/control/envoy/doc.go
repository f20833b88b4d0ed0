// Package envoy turns the model into the Envoy v3 resources of one waypoint, in
// the shape in which istiod sends them, but with routes by RDS: listeners,
// clusters, endpoints and one route configuration per service port. It is pure:
// the same model and options give the same resources.
//
// What other packages know is given to it in [Parts]: routes, authorization,
// access logs. So that they can name clusters, package destination finds rules
// and [ClusterName] is exported.
//
// There are two flavours. A client that is built with Istio's extensions gets
// them as istiod sends them. Any other, our own waypoint and an Envoy as it comes
// from upstream, gets upstream's types only, and more: the identity of who
// answers is checked, and x-forwarded-for is appended to.
//
// For packages under pkg/control and cmd/control-plane.
package envoy

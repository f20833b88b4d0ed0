// Package xds is the data plane's side of discovery: a delta ADS client of Istio's
// control plane or ours, and the edge where the wire's messages of workload
// discovery become pkg/mesh values.
//
// What arrives goes to an [Applier] (pkg/store is one, without either knowing
// the other), and what a waypoint gets beside it, in Envoy's types, to an
// [EnvoyApplier]. A resource that cannot be used is refused with its reason, and
// what was known before stays. Commands (cmd/) construct the client.
package xds

// Package xds is the node's side of workload discovery: a delta ADS client of
// Istio's control plane or ours, and the edge where the wire's messages become
// pkg/mesh values.
//
// What arrives goes to an [Applier] (pkg/store is one, without either knowing
// the other). A resource that cannot be used is refused with its reason, and what
// was known before stays. Commands (cmd/) construct the client.
package xds

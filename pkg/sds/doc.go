// Package sds lets an Envoy as it comes from upstream stand in a waypoint's place.
//
// A [Server] on a Unix socket gives it the pod's certificate and the mesh's roots
// by Envoy's secret discovery service, as Istio's agent does behind the cluster
// name "sds-grpc", and relays its discovery streams to the control plane with the
// pod's token, which is read anew for each. Keys go over the socket and nowhere
// else. [Bootstrap] is the configuration that such an Envoy starts with.
//
// Commands (cmd/) construct both.
package sds

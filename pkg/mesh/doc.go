// Package mesh holds the nouns of the mesh: workloads, services, policies,
// identities and addresses. Values only: no I/O, no clock, no goroutines.
//
// Every other package may import it; it imports the standard library alone.
// The wire's types (api/) are turned into these at the edge, in pkg/xds.
package mesh

// Package store is the node's view of the mesh: one writer applies deltas, any
// number of readers take immutable snapshots.
//
// A [Snapshot] answers what the proxy asks at a new connection: who has this
// address, which endpoint of a service to take, which policies hold. Its Changed
// channel closes when a newer one exists. The last state is kept on disk, so that
// an agent starts without its control plane.
//
// Engines read it; cmd hands it to pkg/xds as its Applier.
package store

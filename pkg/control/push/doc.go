// Package push serves workloads and policies to node agents and waypoints, and to
// each waypoint its own clusters, endpoints, listeners and routes, by ADS.
//
// One [Log] holds every resource of the mesh, and one those of a waypoint, each
// marshalled once; a client is a cursor into them. What a change costs grows with
// the change and the clients, not with the mesh; a slow client holds nothing but
// its cursor. Versions are content hashes, so a reconnect sends only differences.
// Within a log what is named is sent before what names it, and taken away after.
//
// For cmd/control-plane.
package push

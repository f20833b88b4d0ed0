// Package push serves workloads and policies to node agents by delta ADS.
//
// One [Log] holds every resource, marshalled once; a client is a cursor into it.
// What a change costs grows with the change and the clients, not with the mesh;
// a slow client holds nothing but its cursor. Versions are content hashes, so a
// reconnect sends only differences.
//
// For cmd/control-plane.
package push

// Package network lays a cluster's wires out of network namespaces: a fabric
// with a bridge, a namespace per node with an uplink to it and a bridge for its
// pods, a namespace per pod. Nothing of it stands in the namespace of the
// machine, so several clusters may use the same addresses side by side.
//
// Pods have host routes only (/32, /128) through their node, as with routed CNIs:
// everything they send passes the node's IP stack, also to a neighbour, so that
// its service NAT sees both directions. Neighbour entries are permanent, because
// the kernel's neighbour table is one for all namespaces and 500 pods would fill it.
//
// It is part of the lab and only the lab imports it.
package network

// Package ca is the mesh's certificate authority: it signs a workload's request
// for an identity when the caller may have it, over Istio's certificate service.
//
// A node agent may ask on behalf of any identity that has a pod on its node, and
// no other; everyone else gets the identity of its own token. For cmd/control-plane.
package ca

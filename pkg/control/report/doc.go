// Package report writes what the control plane says about objects on the objects
// themselves, through the Kubernetes API: conditions of Services and of Istio's kinds,
// the parents of routes, addresses and listeners of Gateways.
//
// It watches the kinds that it writes, and keeps of each object its status and version
// alone. Conditions, parents and fields of others are left as they are: each write carries
// the version that it was made from, and one that came too late is made again. What the API
// already has is not written.
//
// For cmd/control-plane, where it runs in the replica that leads.
package report

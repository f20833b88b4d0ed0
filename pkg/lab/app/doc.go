// Package app holds the programs that the fairlead binary carries for a lab's
// pods: an echo server, a load generator, an application like Istio's Bookinfo,
// and one that sleeps. Container images lead to them by name, so that ordinary
// manifests run without a registry.
//
// It is part of the lab; only the lab and cmd/fairlead import it.
package app

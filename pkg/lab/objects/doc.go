// Package objects reads a directory of Kubernetes YAML for the lab, as far as the
// lab acts on it: what runs where, which services exist, which names resolve.
// Istio's own kinds are for the control plane, which reads the same directory
// and is strict about them; here only the hosts of a ServiceEntry count.
//
// The last good state is kept per file. The package also writes what the lab
// derives (pods with their status, services with their addresses) where the
// control plane looks for it.
//
// It is part of the lab and only the lab imports it.
package objects

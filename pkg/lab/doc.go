// Package lab makes a cluster on one Linux machine: nodes and pods are network
// namespaces, pods' processes are programs that the fairlead binary carries, and
// the mesh is the product's own binaries, one agent per node and one control
// plane. What runs is said by a directory of ordinary Kubernetes YAML; a saved
// file takes effect at once.
//
// [Run] is a whole cluster's life. One goroutine owns all state (loop.go); pods,
// daemons and probes are goroutines that report to it. [Client] talks to a running
// lab, [Clean] removes what a killed one left. On a real cluster nothing of this
// is used.
//
// It may be imported by cmd/fairlead and by tests.
package lab

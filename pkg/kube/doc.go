// Package kube is a small client of the Kubernetes API for the node's side: it
// reads, lists, watches, patches and deletes, and decodes of pods and namespaces what
// enrolment asks for, nothing else.
//
// The control plane has client-go. An agent runs on every node, and client-go's
// reflector costs an idle one 4.6 MB resident, a quarter of what it has; the CNI
// plugin starts for every pod. It is mechanism (layer 1): pkg/podwatch, pkg/cni and
// commands may import it; it imports the standard library alone.
package kube

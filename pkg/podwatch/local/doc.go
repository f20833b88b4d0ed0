// Package local keeps a node's pods in the mesh as the Kubernetes API says: it
// follows the pods of the node and the labels of namespaces, finds the pods' network
// namespaces, has the [podwatch.Manager] capture them or let them go, tries again
// what failed, and says on each pod what became of it. It also answers the CNI
// plugin, which asks before a pod's first process.
//
// For cmd/node-agent.
package local

// Package cni is both sides of the chained CNI plugin: what the plugin does when the
// container runtime calls it for a pod ([Plugin]), and how the agent puts it on the
// node, keeps it in the runtime's configuration and takes it away ([Installer]).
//
// The plugin asks the agent. With the agent down it decides by what it can still
// learn, in this order: pods of excluded namespaces start; the Kubernetes API says
// what labels a pod and its namespace have; else the agent's last note of namespaces
// does, in which a namespace that is not there counts as one in the mesh. A pod that
// is to be captured is held back then: the kubelet tries again.
//
// For cmd/fairlead-cni and cmd/node-agent.
package cni

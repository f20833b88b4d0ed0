// Package hostproc reads the node's /proc, as it is mounted in the agent's
// container: which network namespace a pod has, told from the cgroups of its
// processes, and which cgroup is the kubelet's. No pod is asked, and none can
// answer for another: cgroups are the container runtime's.
//
// For cmd/node-agent and pkg/podwatch/local.
package hostproc

// Package redirect is the kernel side of the agent: it loads, pins and attaches
// the programs of bpf/, and enrols pods: their connections are captured, those to
// them steered, and what gets around that is dropped.
//
// Everything is pinned under one directory per instance, so that without an agent
// a captured pod is refused, and a new agent takes over. A [Pod] hands out the
// sockets in its namespace; pkg/ztunnel uses them without knowing this package.
// It is the only one that imports cilium/ebpf. For cmd/node-agent.
package redirect

// Package ztunnel is the L4 proxy of one node: for each captured pod it takes
// the pod's connections into mutual TLS tunnels, ends the tunnels that lead to
// the pod, decides by policy, and keeps deciding while connections live.
//
// cmd/node-agent alone imports it, and gives it each pod's namespace as
// [PodSockets], which pkg/redirect implements without knowing this package.
package ztunnel

// Package podwatch is how the agent learns of its node's pods: the enrolment
// interface, served over a Unix socket, its client, and the memory of the pods
// that a restarted agent takes over from.
//
// Whoever creates pods calls it (the lab, later the CNI plugin); cmd/node-agent
// serves it and gives it an [Enroller]. It may be imported by cmd and pkg/lab.
package podwatch

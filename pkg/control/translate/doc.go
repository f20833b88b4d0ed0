// Package translate turns objects into what the nodes are sent: workloads,
// services and L4 policies, and what is to be said about the objects. It is a
// pure function: no clock, no I/O, no randomness; the same objects give the
// same bytes.
//
// For cmd/control-plane and pkg/control/push. Golden pairs are in testdata;
// test/oracle compares the output with a recorded istiod.
package translate

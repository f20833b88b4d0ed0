// Package oracle compares what the control plane makes of objects with what
// Istio's made of the same objects, recorded beside the repository. Every
// difference stands in ignore.yaml with its reason, or fails the test.
package oracle

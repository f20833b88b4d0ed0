// Package status holds what the control plane says about objects, conditions
// named as Istio names them, and writes it under a directory, one file per
// object, where the objects themselves cannot be written.
//
// For pkg/control and cmd/control-plane.
package status

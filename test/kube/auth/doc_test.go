// Package auth holds what a control plane on a real API server promises of its callers:
// who is refused and why, one root for all replicas, one writer, and roots and
// intermediates that are replaced while connections are made.
package auth

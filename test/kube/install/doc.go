// Package install holds the promises of `fairlead install` and its kin on a real API
// server: what they make, keep and take away, what they refuse, and what the chart's
// accounts may do.
package install

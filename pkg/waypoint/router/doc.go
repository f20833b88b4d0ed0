// Package router carries an exchange to the cluster that its route chose, and the
// response back: timeouts, retries, mirrors, upgrades. It is Envoy's router filter.
// Package hcm calls it.
package router

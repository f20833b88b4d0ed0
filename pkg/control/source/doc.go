// Package source turns a directory of ordinary YAML into typed, immutable
// snapshots of the objects that the control plane serves: Kubernetes' core
// kinds, Istio's, the Gateway API's and our settings.
//
// Istio's and the Gateway API's kinds are decoded strictly: an unknown field is
// an error that names file, line, field and the nearest known field. Core kinds
// are decoded leniently, with warnings. A file that breaks keeps its last good
// objects; a security object that is wrong and has no last good form is handed
// on as [Refused], so that what it selects is denied and not left open.
//
// For cmd/control-plane, pkg/control and tests. Nothing below pkg/control
// imports it.
package source

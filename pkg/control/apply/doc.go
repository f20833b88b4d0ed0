// Package apply runs the waypoints that Gateways ask for in a Kubernetes cluster: it
// keeps the objects that package deploy makes of them there by server-side apply, as the
// field manager [FieldManager].
//
// Everything is owned by its Gateway, so that it goes with it. What is there without the
// label gateway.istio.io/managed is someone else's: a ServiceAccount is used as it is, and
// of anything else the Gateway's status says that it is in the way. Fields that others own,
// as the number of replicas after `kubectl scale`, stay theirs.
//
// For cmd/control-plane, where it runs in the replica that leads.
package apply

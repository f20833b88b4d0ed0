// Package leader lets one of several control planes do what must have one writer: status,
// the objects of waypoints, the published root. All of them serve xDS and certificates.
//
// The leader holds a Lease (coordination.k8s.io/v1). One that is asked to stop ends its
// work first and gives the Lease up then, so that the next begins within a second or two
// and two never write. One that dies is followed when its Lease has run out, within
// about ten seconds. A leader that cannot renew in time stops writing before anyone else
// may begin.
//
// The control plane needs, in a Role of its own namespace:
//
//	apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"]
//	apiGroups: ["coordination.k8s.io"], resources: ["leases"], resourceNames: ["fairlead-leader"], verbs: ["get", "update"]
//
// cmd/control-plane constructs it.
package leader

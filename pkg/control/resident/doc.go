// Package resident answers the CA's questions about pods: does the caller's pod exist,
// and has a service account a pod on that node?
//
// The answer comes from the pods that the control plane follows. Where these know of no
// such pod, the API server is asked once: a new pod's agent may ask for its certificate
// before the control plane has heard of it. How often it is asked is bounded for each node
// and in all, and its answers are kept for a few seconds.
//
// The control plane needs, in a ClusterRole (it follows pods anyway):
//
//	resources: ["pods"], verbs: ["get", "list"]
//
// cmd/control-plane constructs it.
package resident

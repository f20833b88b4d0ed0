// Package rootcert publishes the mesh's roots as the ConfigMap istio-ca-root-cert of each
// namespace, where agents, waypoints and applications mount them.
//
// A new namespace gets it at once; one that somebody edits or deletes is put right. What
// else a ConfigMap of that name holds stays. Namespaces that are no longer the mesh's keep
// theirs: their pods may still need it to say goodbye. One publisher runs at a time, in
// the leader.
//
// The control plane needs, in a ClusterRole:
//
//	resources: ["configmaps"], verbs: ["create"]
//	resources: ["configmaps"], resourceNames: ["istio-ca-root-cert"], verbs: ["get", "list", "watch", "patch"]
//
// cmd/control-plane constructs it; who looks for the ConfigMap has its name from here.
package rootcert

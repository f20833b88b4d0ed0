// Package secret keeps the mesh's certificate authority in Secrets of a Kubernetes
// cluster: Istio's cacerts where somebody plugs in a CA, else istio-ca-secret, in which
// the first control plane to start puts a root of its own.
//
// Replicas that start together end with one root: a Secret is created by one of them,
// and the others read it. A replaced Secret takes effect without a restart, as
// [ca.Holder] says; one that is wrong or gone changes nothing.
//
// The control plane needs, in a Role of its own namespace:
//
//	resources: ["secrets"], verbs: ["create"]
//	resources: ["secrets"], resourceNames: ["istio-ca-secret", "cacerts"], verbs: ["get", "watch"]
//
// A name cannot bound "create"; everything else is bounded to the two. cmd/control-plane
// constructs it.
package secret

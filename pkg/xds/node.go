package xds

import (
	"strings"
)

// IstioVersion is the release of Istio whose forms this proxy takes: istiod
// chooses by it.
const IstioVersion = "1.31.0"

// FairleadVersion is the key of a node's metadata by which our control plane
// knows our own waypoint.
const FairleadVersion = "FAIRLEAD_VERSION"

// Waypoint is a waypoint's pod, as it tells the control plane of itself.
type Waypoint struct {
	Pod, Namespace, ServiceAccount string
	// Gateway is the name of the Gateway that it is of, in its namespace.
	Gateway string
	// Addresses are the pod's.
	Addresses []string
	// Node is the name of the node it runs on.
	Node                       string
	ClusterID, Network, MeshID string
	// Labels are the pod's. The one that names the Gateway is added.
	Labels map[string]string
	// Version is Fairlead's.
	Version string
}

// NodeID is the node's id, in Istio's form.
func (w Waypoint) NodeID() string {
	ip := "127.0.0.1"
	if len(w.Addresses) > 0 {
		ip = w.Addresses[0]
	}
	return "waypoint~" + ip + "~" + w.Pod + "." + w.Namespace + "~" + w.Namespace + ".svc.cluster.local"
}

// Metadata is the node's, as istiod wants it (ISTIO_META_* of Istio's own proxy),
// without what is not known.
func (w Waypoint) Metadata() map[string]any {
	labels := map[string]any{}
	for name, value := range w.Labels {
		labels[name] = value
	}
	labels["gateway.networking.k8s.io/gateway-name"] = w.Gateway
	out := map[string]any{
		"LABELS": labels, "ISTIO_VERSION": IstioVersion, FairleadVersion: w.Version, "ENABLE_HBONE": "true",
		"OWNER":        "kubernetes://apis/apps/v1/namespaces/" + w.Namespace + "/deployments/" + w.Gateway,
		"PROXY_CONFIG": map[string]any{"proxyMetadata": map[string]any{"ISTIO_META_ENABLE_HBONE": "true"}},
	}
	for key, value := range map[string]string{
		"NAME": w.Pod, "NAMESPACE": w.Namespace, "SERVICE_ACCOUNT": w.ServiceAccount, "WORKLOAD_NAME": w.Gateway, "NODE_NAME": w.Node,
		"INSTANCE_IPS": strings.Join(w.Addresses, ","), "CLUSTER_ID": w.ClusterID, "NETWORK": w.Network, "MESH_ID": w.MeshID,
	} {
		if value != "" {
			out[key] = value
		}
	}
	return out
}

// PlainMetadata is of an Envoy without Istio's extensions that stands in the
// waypoint's place: our control plane knows it by having no version of Istio.
func (w Waypoint) PlainMetadata() map[string]any {
	out := w.Metadata()
	delete(out, "ISTIO_VERSION")
	delete(out, FairleadVersion)
	return out
}

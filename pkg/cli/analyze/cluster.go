package analyze

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// kinds are what is read of a cluster.
var kinds = []schema.GroupKind{
	kube.Namespace, kube.Pod, kube.Service, kube.Deployment, kube.Gateway,
	{Kind: "Node"}, {Kind: "ServiceAccount"}, {Group: "discovery.k8s.io", Kind: "EndpointSlice"},
	{Group: "apps", Kind: "StatefulSet"}, {Group: "apps", Kind: "DaemonSet"},
	{Group: networking, Kind: "VirtualService"}, {Group: networking, Kind: "DestinationRule"}, {Group: networking, Kind: "ServiceEntry"},
	{Group: networking, Kind: "WorkloadEntry"}, {Group: networking, Kind: "WorkloadGroup"}, {Group: networking, Kind: "Gateway"},
	{Group: networking, Kind: "Sidecar"}, {Group: networking, Kind: "EnvoyFilter"}, {Group: networking, Kind: "ProxyConfig"},
	{Group: security, Kind: "AuthorizationPolicy"}, {Group: security, Kind: "PeerAuthentication"}, {Group: security, Kind: "RequestAuthentication"},
	{Group: telemetry, Kind: "Telemetry"}, {Group: "extensions.istio.io", Kind: "WasmPlugin"},
	{Group: gatewayGroup, Kind: "HTTPRoute"},
	{Group: gatewayGroup, Kind: "GRPCRoute"}, {Group: gatewayGroup, Kind: "TCPRoute"},
	{Group: gatewayGroup, Kind: "TLSRoute"}, {Group: gatewayGroup, Kind: "ReferenceGrant"},
}

// Cluster reads a cluster's objects. Secrets are read where the caller may, for
// the certificates of gateways.
func Cluster(ctx context.Context, c *kube.Client, istioNamespace string) ([]source.File, error) {
	var out []source.File
	add := func(object map[string]any) error {
		if meta, ok := object["metadata"].(map[string]any); ok {
			delete(meta, "managedFields")
		}
		raw, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("an object of the cluster: %w", err)
		}
		out = append(out, source.File{Data: raw})
		return nil
	}
	for _, gk := range append([]schema.GroupKind{{Kind: "Secret"}}, kinds...) {
		all, err := c.List(ctx, gk, "", "")
		if gk.Kind == "Secret" && apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, o := range all {
			if gk.Kind == "Secret" && o.Object["type"] != "kubernetes.io/tls" && o.Object["type"] != "Opaque" {
				continue
			}
			if err := add(o.Object); err != nil {
				return nil, err
			}
		}
	}
	mesh, err := c.Get(ctx, schema.GroupKind{Kind: "ConfigMap"}, istioNamespace, "istio")
	if err != nil || mesh == nil {
		return out, err
	}
	return out, add(mesh.Object)
}

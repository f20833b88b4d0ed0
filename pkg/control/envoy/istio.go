package envoy

import (
	"cmp"
	"slices"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	statsapi "istio.io/api/envoy/extensions/stats"
)

// typedStruct is the configuration of an extension whose type is not ours to
// link.
func (g *generator) typedStruct(typeURL string, value map[string]any) *udpav1.TypedStruct {
	s, err := structpb.NewStruct(value)
	g.fail(err)
	return &udpav1.TypedStruct{TypeUrl: "type.googleapis.com/" + typeURL, Value: s}
}

// peerMetadata finds workloads by the client's own discovery of them.
func (g *generator) peerMetadata(name string, value map[string]any) *hcmv3.HttpFilter {
	return g.httpFilter(name, g.typedStruct("io.istio.http.peer_metadata.Config", value))
}

func discovery() []any {
	return []any{map[string]any{"workload_discovery": map[string]any{}}}
}

func (g *generator) stats() *statsapi.PluginConfig {
	return &statsapi.PluginConfig{DisableHostHeaderFallback: true, Reporter: statsapi.Reporter_SERVER_GATEWAY}
}

// istioHTTPFilters are those of Istio's extensions that describe peers and count.
func (g *generator) istioHTTPFilters() []*hcmv3.HttpFilter {
	if !g.o.IstioExtensions {
		return nil
	}
	return []*hcmv3.HttpFilter{
		g.peerMetadata("waypoint_upstream_peer_metadata", map[string]any{"upstream_discovery": discovery()}),
		g.httpFilter("istio.stats", g.stats()),
	}
}

// exchange is what Istio's proxies tell each other of themselves, found by discovery.
func (g *generator) exchange() *udpav1.TypedStruct {
	return g.typedStruct("envoy.tcp.metadataexchange.config.MetadataExchange", map[string]any{"enable_discovery": true, "protocol": "istio-peer-exchange"})
}

// tracing is istiod's for a waypoint without a tracing provider: the decision of
// the caller is kept, and spans would carry these tags.
func (g *generator) tracing() *hcmv3.HttpConnectionManager_Tracing {
	if !g.m.Objects.Mesh.GetEnableTracing() {
		return nil
	}
	t := &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling: &typev3.Percent{Value: 100}, OverallSampling: &typev3.Percent{Value: 100}, RandomSampling: &typev3.Percent{Value: 1},
	}
	for _, action := range []string{"allow", "deny"} {
		for what, key := range map[string]string{"name": "effective_policy_id", "result": "engine_result"} {
			t.CustomTags = append(t.CustomTags, &tracingv3.CustomTag{Tag: "istio.authorization.dry_run." + action + "_policy." + what, Type: &tracingv3.CustomTag_Metadata_{
				Metadata: &tracingv3.CustomTag_Metadata{
					Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Request_{Request: &metadatav3.MetadataKind_Request{}}},
					MetadataKey: &metadatav3.MetadataKey{Key: "envoy.filters.http.rbac", Path: []*metadatav3.MetadataKey_PathSegment{
						{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: "istio_dry_run_" + action + "_shadow_" + key}}}},
				}}})
		}
	}
	for tag, value := range map[string]string{"canonical_revision": "latest", "canonical_service": g.w.Key.Name, "cluster_id": g.m.ClusterID,
		"mesh_id": g.m.TrustDomain, "namespace": g.w.Key.Namespace} {
		t.CustomTags = append(t.CustomTags, &tracingv3.CustomTag{Tag: "istio." + tag, Type: &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: value}}})
	}
	fields := map[string]string{"app": "app", "app_version": "version", "canonical_revision": "revision", "canonical_service": "service", "cluster_id": "cluster",
		"instance_name": "name", "namespace": "namespace", "workload": "workload", "workload_type": "type"}
	for side, object := range map[string]string{"destination": "upstream_peer_obj", "source": "downstream_peer_obj"} {
		for tag, field := range fields {
			t.CustomTags = append(t.CustomTags, &tracingv3.CustomTag{Tag: "istio." + side + "_" + tag, Type: &tracingv3.CustomTag_Value{
				Value: "%FILTER_STATE(" + object + ":FIELD:" + field + ")%"}})
		}
	}
	slices.SortFunc(t.CustomTags, func(a, b *tracingv3.CustomTag) int { return cmp.Compare(a.Tag, b.Tag) })
	return t
}

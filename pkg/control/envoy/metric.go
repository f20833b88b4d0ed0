package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	statslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	headertov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// sourceKeys are what a tunnel's baggage says of the caller: the part of the
// member's name, and the key of filter state "mesh.source_..." that takes it. It
// is the word of an authenticated peer, for labels and not for decisions.
var sourceKeys = []struct{ key, member string }{
	{"source_workload", `k8s\.(?:deployment|cronjob|job|pod)\.name`},
	{"source_workload_namespace", `k8s\.namespace\.name`},
	{"source_canonical_service", `service\.name`},
	{"source_canonical_revision", `service\.version`},
	{"source_cluster", `k8s\.cluster\.name`},
}

// sourceMetadata are the filters that say who calls, beyond the identity.
func (g *generator) sourceMetadata() []*hcmv3.HttpFilter {
	if g.o.IstioExtensions {
		return []*hcmv3.HttpFilter{g.peerMetadata("waypoint_downstream_peer_metadata",
			map[string]any{"downstream_discovery": discovery(), "shared_with_upstream": true})}
	}
	fromHeader, toState := &headertov3.Config{}, &httpstatev3.Config{}
	for _, k := range sourceKeys {
		fromHeader.RequestRules = append(fromHeader.RequestRules, &headertov3.Config_Rule{Header: "baggage", OnHeaderPresent: &headertov3.Config_KeyValuePair{
			MetadataNamespace: metadataNamespace, Key: k.key, Type: headertov3.Config_STRING,
			RegexValueRewrite: &matcherv3.RegexMatchAndSubstitute{
				// The second alternative makes an empty value of baggage without the member.
				Pattern:      &matcherv3.RegexMatcher{Regex: `^(?:.*,)?\s*` + k.member + `=([^,;\s]*).*$|^.*$`},
				Substitution: `\1`,
			},
		}})
		v := state(metadataNamespace+"."+k.key, "%DYNAMIC_METADATA("+metadataNamespace+":"+k.key+")%", "envoy.string", true)
		v.GetFormatString().OmitEmptyValues = true
		v.SkipIfEmpty = true
		toState.OnRequestHeaders = append(toState.OnRequestHeaders, v)
	}
	return []*hcmv3.HttpFilter{
		g.httpFilter("envoy.filters.http.header_to_metadata", fromHeader),
		g.httpFilter("source_metadata", toState),
	}
}

// metrics counts Istio's metrics of requests, or of connections, with its labels.
func (g *generator) metrics(p *model.Port, kind Kind) *accesslogv3.AccessLog {
	protocol := "tcp"
	if kind == HTTP {
		if protocol = "http"; p != nil && p.Protocol == model.GRPC {
			protocol = "grpc"
		}
	}
	config := g.once("metrics of "+protocol, func() proto.Message { return metrics(protocol) })
	return &accesslogv3.AccessLog{Name: "envoy.access_loggers.stats", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config}}
}

func metrics(protocol string) *statslogv3.Config {
	tags := metricTags(protocol)
	stat := func(name string) *statslogv3.Config_Stat { return &statslogv3.Config_Stat{Name: name, Tags: tags} }
	count := func(name string) *statslogv3.Config_Counter {
		return &statslogv3.Config_Counter{Stat: stat(name), ValueFixed: wrapperspb.UInt64(1)}
	}
	config := &statslogv3.Config{StatsScope: &typev3.Scope{Prefix: "istio"}}
	if protocol != "tcp" {
		config.Counters = []*statslogv3.Config_Counter{count("requests_total")}
		config.Histograms = []*statslogv3.Config_Histogram{
			{Stat: stat("request_duration_milliseconds"), Unit: statslogv3.Config_Histogram_Milliseconds, ValueFormat: "%DURATION%"},
			{Stat: stat("request_bytes"), Unit: statslogv3.Config_Histogram_Bytes, ValueFormat: "%BYTES_RECEIVED%"},
			{Stat: stat("response_bytes"), Unit: statslogv3.Config_Histogram_Bytes, ValueFormat: "%BYTES_SENT%"},
		}
	} else {
		config.Counters = []*statslogv3.Config_Counter{
			count("tcp_connections_closed_total"),
			{Stat: stat("tcp_received_bytes_total"), ValueFormat: "%BYTES_RECEIVED%"},
			{Stat: stat("tcp_sent_bytes_total"), ValueFormat: "%BYTES_SENT%"},
		}
	}
	return config
}

func metricTags(protocol string) []*statslogv3.Config_Tag {
	fromState := func(key string) string { return "%FILTER_STATE(" + metadataNamespace + "." + key + ":PLAIN)%" }
	fromHost := func(key string) string { return "%METADATA(UPSTREAM_HOST:" + metadataNamespace + ":" + key + ")%" }
	fromCluster := func(key string) string { return "%METADATA(CLUSTER:" + metadataNamespace + ":" + key + ")%" }
	tags := [][2]string{
		{"reporter", "waypoint"},
		{"source_workload", fromState("source_workload")}, {"source_workload_namespace", fromState("source_workload_namespace")},
		{"source_principal", "%FILTER_STATE(" + statePeerPrincipal + ":PLAIN)%"},
		{"source_app", fromState("source_canonical_service")}, {"source_version", fromState("source_canonical_revision")},
		{"source_canonical_service", fromState("source_canonical_service")}, {"source_canonical_revision", fromState("source_canonical_revision")},
		{"source_cluster", fromState("source_cluster")},
		{"destination_workload", fromHost("workload")}, {"destination_workload_namespace", fromHost("namespace")},
		{"destination_principal", fromHost("principal")}, {"destination_app", fromHost("app")}, {"destination_version", fromHost("version")},
		{"destination_canonical_service", fromHost("service")}, {"destination_canonical_revision", fromHost("revision")},
		{"destination_cluster", fromHost("cluster")},
		{"destination_service", fromCluster("host")}, {"destination_service_name", fromCluster("name")}, {"destination_service_namespace", fromCluster("namespace")},
		{"request_protocol", protocol}, {"response_flags", "%RESPONSE_FLAGS%"}, {"connection_security_policy", "mutual_tls"},
	}
	if protocol != "tcp" {
		tags = append(tags, [2]string{"response_code", "%RESPONSE_CODE%"})
		if protocol == "grpc" {
			tags = append(tags, [2]string{"grpc_response_status", "%GRPC_STATUS_NUMBER%"})
		}
	}
	var out []*statslogv3.Config_Tag
	for _, t := range tags {
		out = append(out, &statslogv3.Config_Tag{Name: t[0], ValueFormat: t[1]})
	}
	return out
}

package rules

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// parse reads a message in YAML.
func parse(t testing.TB, text string, m proto.Message) {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(asJSON, m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// richRoute is a valid route with much in it.
func richRoute(t testing.TB) *routev3.Route {
	m := &routev3.Route{}
	parse(t, `
name: canary
metadata: {filter_metadata: {istio: {config: a}}}
decorator: {operation: web}
match:
  path_separated_prefix: /api
  headers:
  - {name: x-canary, string_match: {exact: always}}
  - {name: user-agent, string_match: {safe_regex: {regex: ".*Firefox.*"}}, invert_match: true}
  query_parameters: [{name: q, string_match: {prefix: a, ignore_case: true}}]
  runtime_fraction: {default_value: {numerator: 5, denominator: HUNDRED}}
request_headers_to_add: [{header: {key: x-a, value: b}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
request_headers_to_remove: [x-b]
response_headers_to_add: [{header: {key: x-c, value: "%REQ(:path)%"}}]
route:
  weighted_clusters:
    clusters:
    - {name: v1, weight: 90, request_headers_to_remove: [x-d], metadata_match: {filter_metadata: {envoy.lb: {version: v1}}}}
    - {name: v2, weight: 10, response_headers_to_add: [{header: {key: x-c, value: v2}}]}
  prefix_rewrite: /
  host_rewrite_literal: web.shop
  timeout: 5s
  retry_policy:
    retry_on: 5xx,reset
    num_retries: 2
    per_try_timeout: 1s
    retry_back_off: {base_interval: 0.025s, max_interval: 1s}
    retriable_headers: [{name: x-retry, present_match: true}]
    retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]
  request_mirror_policies: [{cluster: shadow, runtime_fraction: {default_value: {numerator: 1}}}]
  hash_policy:
  - header: {header_name: x-user}
  - cookie: {name: session, ttl: 60s}
  - connection_properties: {source_ip: true}
  upgrade_configs: [{upgrade_type: websocket}]
  max_stream_duration: {max_stream_duration: 10s}
`, m)
	return m
}

// richHost is a valid virtual host, without routes.
func richHost(t testing.TB) *routev3.VirtualHost {
	m := &routev3.VirtualHost{}
	parse(t, `
name: web
domains: [web, web.shop, "*.web.shop"]
require_tls: NONE
virtual_clusters: [{name: a, headers: [{name: ":path", string_match: {prefix: /a}}]}]
rate_limits: [{actions: [{request_headers: {header_name: x-a, descriptor_key: a}}], hits_addend: {format: "%REQ(x)%"}}]
retry_policy: {retry_on: 5xx}
hedge_policy: {initial_requests: 1}
request_headers_to_remove: [x-a]
typed_per_filter_config: {a: {"@type": type.googleapis.com/google.protobuf.StringValue, value: b}}
per_request_buffer_limit_bytes: 100
`, m)
	return m
}

// richConfiguration is a valid route configuration.
func richConfiguration(t testing.TB) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{}
	parse(t, `
name: inbound
internal_only_headers: [x-a]
max_direct_response_body_size_bytes: 100
request_mirror_policies: [{cluster: shadow}]
cluster_specifier_plugins: [{extension: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: b}}}]
`, m)
	m.VirtualHosts = []*routev3.VirtualHost{richHost(t)}
	m.VirtualHosts[0].Routes = []*routev3.Route{richRoute(t)}
	return m
}

func BenchmarkCheck(b *testing.B) {
	m := richRoute(b)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Check(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Validate(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

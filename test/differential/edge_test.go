package differential

import (
	"fmt"
	"testing"
)

// Paths are brought into order, or refused.
func TestPathNormalisation(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	options := []string{``, `normalize_path: true`, `merge_slashes: true`, "normalize_path: true\nmerge_slashes: true"}
	for _, a := range []string{"KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"} {
		options = append(options, "path_with_escaped_slashes_action: "+a, "path_with_escaped_slashes_action: "+a+"\nnormalize_path: true\nmerge_slashes: true")
	}
	var ports []int
	for _, o := range options {
		ports = append(ports, w.http(o, oneRoute("- {name: admin, match: {prefix: /admin}, direct_response: {status: 403}}\n- {name: r, match: {prefix: /}, route: {cluster: @up}}")))
	}
	w.load()
	paths := []string{"/", "//", "/a//b", "/a/./b", "/a/../b", "/a/..", "/..", "/../..", "/a/%2e%2e/b", "/%2e/x", "/.%2e/admin", "/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, `/a/..\..\admin`, "/x/../admin", "/x//../admin", "//admin", "/%2fadmin", "/x%2f..%2fadmin", "/%61dmin", "/%41", "/%7Ea~", "/a%20b",
		"/a%00b", "/a?x=/../y", "/a//?x=//", "/a?x=%2f", "/a/b/", "/a/.", "/a/b/..", "/a;x/../b", "/...", "/a/.../b", "/a%252fb", "/%C3%A4", "/%c3%a4", "/a%", "/a%2", "/a%zz", "/a/%2E", "/%2F%2Fx", "/a|b", "/a\"b", "/a<b>", "/a{b}", "/a^b", "/a`b", "/A/B", "///a///b///", "/a/%5c../b"}
	b := w.batch(4)
	for i, port := range ports {
		for _, p := range paths {
			b.send(fmt.Sprintf("%q on %s", options[i], p), port, request{path: p})
			if i%3 == 0 {
				b.send(fmt.Sprintf("%q on %s over HTTP/2", options[i], p), port, request{path: p, h2: true})
			}
		}
	}
	b.work.Wait()
	w.compare()
	w.compareStats()
}

// Who the client is, and which x-envoy fields it may set.
func TestForwardedFields(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	options := []string{``, `use_remote_address: true`, "use_remote_address: true\nxff_num_trusted_hops: 1", `xff_num_trusted_hops: 1`, "use_remote_address: true\nskip_xff_append: true", "use_remote_address: true\npreserve_external_request_id: true", `preserve_external_request_id: true`,
		`generate_request_id: false`, `always_set_request_id_in_response: true`, "use_remote_address: true\ninternal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}", "use_remote_address: true\ninternal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}",
		"internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}", `via: proxy`, `server_name: other`, `server_header_transformation: APPEND_IF_ABSENT`, `server_header_transformation: PASS_THROUGH`, `represent_ipv4_remote_address_as_ipv4_mapped_ipv6: true`,
		"use_remote_address: true\nxff_num_trusted_hops: 1\npreserve_external_request_id: true", `suppress_envoy_headers: true`, `strip_trailing_host_dot: true`, `scheme_header_transformation: {scheme_to_overwrite: https}`, `append_x_forwarded_port: true`, `add_proxy_protocol_connection_state: false`, `proxy_100_continue: true`}
	var ports []int
	for _, o := range options {
		ports = append(ports, w.http(o, oneRoute("- {name: r, match: {prefix: /}, route: {cluster: @up, retry_policy: {num_retries: 0}}}")))
	}
	w.load()
	var requests []request
	for _, f := range [][]string{
		nil, {"x-forwarded-for: 1.2.3.4"}, {"x-forwarded-for: 1.2.3.4, 10.0.0.1"}, {"x-forwarded-for: 10.0.0.1"}, {"x-forwarded-for: 10.0.0.1, 1.2.3.4"}, {"x-forwarded-for: garbage"}, {"x-forwarded-for:"}, {"x-forwarded-for: 1.1.1.1", "x-forwarded-for: 2.2.2.2"}, {"x-forwarded-for: 1.1.1.1,2.2.2.2,3.3.3.3"},
		{"x-forwarded-for: 2001:db8::1"}, {"x-forwarded-for: 1.2.3.4:80"}, {"x-forwarded-proto: https"}, {"x-forwarded-proto: ftp"}, {"x-forwarded-proto: HTTPS"}, {"x-forwarded-host: h"}, {"x-forwarded-port: 1"}, {"x-request-id: mine"}, {"x-request-id: 6f0a3b52-1b2c-4d5e-8f90-112233445566"}, {"x-request-id:"}, {"x-request-id: a", "x-request-id: b"},
		{"x-envoy-internal: true"}, {"x-envoy-external-address: 1.1.1.1"}, {"x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"}, {"x-envoy-upstream-rq-timeout-ms: 5000"}, {"x-envoy-upstream-rq-per-try-timeout-ms: 100"}, {"x-envoy-decorator-operation: op"}, {"x-envoy-downstream-service-cluster: c"}, {"x-envoy-downstream-service-node: n"}, {"x-envoy-expected-rq-timeout-ms: 5"},
		{"x-envoy-force-trace: 1"}, {"x-client-trace-id: 1"}, {"x-envoy-original-path: /o"}, {"x-envoy-original-host: o"}, {"x-envoy-attempt-count: 7"}, {"x-envoy-is-timeout-retry: true"}, {"x-envoy-hedge-on-per-try-timeout: true"}, {"x-envoy-ip-tags: t"}, {"x-envoy-upstream-alt-stat-name: a"}, {"x-envoy-upstream-rq-timeout-alt-response: 1"}, {"x-envoy-retriable-status-codes: 404"}, {"x-envoy-retriable-header-names: x"},
		{"x-forwarded-client-cert: By=x"}, {"via: 1.1 before"}, {"user-agent: test"}, {"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"x-b3-traceid: 1"}, {"forwarded: for=1.2.3.4"}, {"x-envoy-peer-metadata: x"}, {"x-forwarded-for: 10.0.0.1", "x-envoy-retry-on: 5xx"}, {"x-forwarded-for: 127.0.0.1"}, {"x-real-ip: 1.1.1.1"},
	} {
		requests = append(requests, request{fields: f})
	}
	requests = append(requests, request{script: "status=503", fields: []string{"x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"}}, request{script: "h=server:up h=date:yesterday h=x-request-id:theirs h=via:1.1%20up h=x-envoy-upstream-service-time:7 h=x-envoy-overloaded:1"}, request{script: "h=x-envoy-decorator-operation:op h=x-envoy-immediate-health-check-fail:1"},
		request{host: "web.test.:80"}, request{host: "web.test."}, request{h2: true, fields: []string{"x-forwarded-proto: https"}})
	b := w.batch(4)
	for i, port := range ports {
		for _, r := range requests {
			b.send(fmt.Sprintf("%q on %s", options[i], describe(r)), port, r)
		}
	}
	b.work.Wait()
	w.compare()
	w.compareStats()
}

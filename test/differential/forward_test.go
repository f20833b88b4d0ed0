package differential

import (
	"fmt"
	"strings"
	"testing"
)

// What a route does to a request's path, authority and fields, and to a response's.
func TestRewrites(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	actions := []string{
		`match: {prefix: /a}, route: {cluster: @up, prefix_rewrite: /z}`, `match: {prefix: /a/}, route: {cluster: @up, prefix_rewrite: /}`, `match: {prefix: /A, case_sensitive: false}, route: {cluster: @up, prefix_rewrite: /Z/}`,
		`match: {path: /a}, route: {cluster: @up, prefix_rewrite: /exact}`, `match: {path_separated_prefix: /a}, route: {cluster: @up, prefix_rewrite: /sep}`, `match: {path_separated_prefix: /a}, route: {cluster: @up, prefix_rewrite: /}`,
		`match: {prefix: /}, route: {cluster: @up, regex_rewrite: {pattern: {regex: "^/([^/?]+)/(.*)$"}, substitution: '/\2/\1'}}`, `match: {safe_regex: {regex: "/a.*"}}, route: {cluster: @up, regex_rewrite: {pattern: {regex: "a"}, substitution: "b"}}`,
		`match: {prefix: /}, route: {cluster: @up, regex_rewrite: {pattern: {regex: "(x)|(b)"}, substitution: '[\1|\2|\0]'}}`, `match: {prefix: /}, route: {cluster: @up, host_rewrite_literal: other.test}`,
		`match: {prefix: /}, route: {cluster: @up, host_rewrite_header: x-host}`, `match: {prefix: /}, route: {cluster: @up, host_rewrite_path_regex: {pattern: {regex: "^/([^/?]+).*$"}, substitution: '\1.test'}}`,
		`match: {prefix: /}, route: {cluster: @up, auto_host_rewrite: true}`, `match: {prefix: /}, route: {cluster: @up, host_rewrite_literal: other.test, append_x_forwarded_host: true}`,
		`match: {prefix: /a}, route: {cluster: @up, prefix_rewrite: "/q?r=1"}`, `match: {prefix: /}, route: {cluster_header: x-to}`, `match: {prefix: /}, route: {cluster: missing}`, `match: {prefix: /}, route: {cluster: missing, cluster_not_found_response_code: NOT_FOUND}`,
		`match: {prefix: /}, route: {cluster: @up}, decorator: {operation: op}`,
	}
	w.askEach(actions, []request{
		{path: "/a"}, {path: "/a/"}, {path: "/a/b"}, {path: "/abc"}, {path: "/A/b?c=/a"}, {path: "/a?b"}, {path: "/"}, {path: "/x/b/x?x=b"}, {path: "/a", fields: []string{"x-host: from.test", "x-forwarded-host: earlier.test"}},
		{path: "/a", fields: []string{"x-host:"}}, {path: "/a", fields: []string{"x-to: Rewrites.up"}}, {path: "/a", fields: []string{"x-to: none"}}, {path: "/a%2Fb/c"}, {path: "/aa", host: "web.test:80"},
	})
}

// askEach sends every request by every route, each in a listener of its own.
func (w *world) askEach(actions []string, requests []request) {
	var ports []int
	for i, a := range actions {
		ports = append(ports, w.http("", oneRoute(fmt.Sprintf("- {name: r%d, %s}", i, a))))
	}
	w.load()
	for i, port := range ports {
		for _, r := range requests {
			w.send(fmt.Sprintf("%s on %s", strings.ReplaceAll(actions[i], "@", ""), describe(r)), port, r)
		}
	}
	w.compare()
	w.compareStats()
}

func describe(r request) string {
	r = r.withDefaults()
	text := r.method + " " + r.host + r.path
	if len(r.fields) > 0 {
		text += " " + strings.Join(r.fields, ", ")
	}
	if r.script != "" {
		text += " <" + r.script + ">"
	}
	if r.h2 {
		text += " over HTTP/2"
	}
	return text
}

func TestRedirects(t *testing.T) {
	w := newWorld(t)
	var actions []string
	for _, a := range []string{
		`host_redirect: to.test`, `https_redirect: true`, `scheme_redirect: ftp`, `port_redirect: 8443`, `path_redirect: /p`, `path_redirect: "/p?q=1"`, `prefix_rewrite: /z`, `regex_rewrite: {pattern: {regex: "^/(.)(.*)"}, substitution: '/\2\1'}`,
		`host_redirect: to.test, https_redirect: true, port_redirect: 444, path_redirect: /p`, `response_code: FOUND, path_redirect: /p`, `response_code: SEE_OTHER, host_redirect: to.test`, `response_code: TEMPORARY_REDIRECT, https_redirect: true`,
		`response_code: PERMANENT_REDIRECT, https_redirect: true`, `strip_query: true, https_redirect: true`, `strip_query: true, path_redirect: "/p?x=1"`, `https_redirect: true, port_redirect: 443`, `scheme_redirect: http, port_redirect: 80`,
	} {
		actions = append(actions, `match: {prefix: /a}, redirect: {`+a+`}`)
	}
	w.askEach(actions, []request{
		{path: "/a"}, {path: "/a/b?c=1"}, {path: "/abc#f"}, {path: "/a", host: "web.test:8080"}, {path: "/a", host: "web.test:80"}, {path: "/a", host: "web.test:443"}, {path: "/a", host: "[::1]:80"}, {path: "/a", host: ""},
		{path: "/a", fields: []string{"x-forwarded-proto: https"}}, {path: "/a", method: "HEAD"}, {path: "/a", method: "POST", body: "x"}, {path: "/a?", h2: true}, {path: "/a", host: "web.test:443", fields: []string{"x-forwarded-proto: https"}},
	})
}

func TestDirectResponses(t *testing.T) {
	w := newWorld(t)
	w.askEach([]string{
		`match: {prefix: /}, direct_response: {status: 200}`, `match: {prefix: /}, direct_response: {status: 418, body: {inline_string: teapot}}`, `match: {prefix: /}, direct_response: {status: 204}`,
		`match: {prefix: /}, direct_response: {status: 304}`, `match: {prefix: /}, direct_response: {status: 503, body: {inline_bytes: AAEC}}`, `match: {prefix: /}, direct_response: {status: 301, body: {inline_string: x}}, response_headers_to_add: [{header: {key: location, value: /y}}, {header: {key: content-type, value: text/html}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`,
		`match: {prefix: /}, direct_response: {status: 599, body: {inline_string: "` + strings.Repeat("long", 1000) + `"}}`,
	}, []request{{}, {method: "HEAD"}, {method: "POST", body: "abc"}, {h2: true}, {h2: true, method: "HEAD"}, {h2: true, method: "POST", body: "abc"}, {fields: []string{"connection: close"}},
		{fields: []string{"content-type: application/grpc"}, method: "POST", h2: true, body: "abc"}, {fields: []string{"content-type: application/grpc"}, method: "POST"}, {method: "OPTIONS"}})
}

// Fields are added and removed at all levels, in Envoy's order and ways.
func TestHeaderMutation(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	level := func(n string) string {
		var b strings.Builder
		for _, kind := range []string{"request", "response"} {
			fmt.Fprintf(&b, "%s_headers_to_add: [", kind)
			for _, action := range []string{"APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"} {
				fmt.Fprintf(&b, `{header: {key: x-%s, value: "%s"}, append_action: %s},`, strings.ToLower(action), n, action)
			}
			fmt.Fprintf(&b, `{header: {key: x-%s, value: "%s"}}], %s_headers_to_remove: [x-gone-%s], `, n, n, kind, n)
		}
		return strings.TrimSuffix(b.String(), ", ")
	}
	var ports []int
	for _, specific := range []bool{false, true} {
		ports = append(ports, w.http("", fmt.Sprintf(`{name: inline, most_specific_header_mutations_wins: %v, %s, virtual_hosts: [{name: v, domains: ["*"], %s, routes: [
 {match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: d}}, %s},
 {match: {prefix: /}, %s, route: {weighted_clusters: {clusters: [{name: @up, weight: 1, %s}]}}}]}]}`,
			specific, level("config"), level("host"), level("route"), level("route"), level("weighted"))))
	}
	formats := []string{"%REQ(x-a)%", "%REQ(x-a?x-b)%", "%REQ(x-a):2%", "%PROTOCOL%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_LOCAL_ADDRESS%", "%UPSTREAM_REMOTE_ADDRESS%", "%UPSTREAM_CLUSTER%", "%ROUTE_NAME%",
		"%RESPONSE_CODE%", "%RESPONSE_FLAGS%", "%%", "a%REQ(x-none)%b", "%REQ(:AUTHORITY)%%REQ(:PATH)%", "%HOSTNAME%-", "%RESP(x-r)%", "%REQUESTED_SERVER_NAME%", "%BYTES_RECEIVED%", "%METADATA(ROUTE:m:k)%", "%DYNAMIC_METADATA(m:k)%", "%RESPONSE_CODE_DETAILS%"}
	adds := func(kind string) string {
		var parts []string
		for i, f := range formats {
			if !strings.Contains(f, "HOSTNAME") {
				parts = append(parts, fmt.Sprintf(`{header: {key: x-f%d, value: "%s"}, keep_empty_value: %v}`, i, f, i%2 == 0))
			}
		}
		return kind + "_headers_to_add: [" + strings.Join(parts, ", ") + "]"
	}
	ports = append(ports, w.http("", oneRoute("- {name: fmt, match: {prefix: /}, metadata: {filter_metadata: {m: {k: v}}}, route: {cluster: @up}, "+adds("request")+", "+adds("response")+"}")))
	w.load()
	present := []string{"x-append_if_exists_or_add: own", "x-add_if_absent: own", "x-overwrite_if_exists_or_add: own", "x-overwrite_if_exists: own", "x-gone-config: 1", "x-gone-host: 1", "x-gone-route: 1", "x-gone-weighted: 1", "x-route: own", "x-a: abc", "x-a: def", "x-b: b"}
	script := ""
	for _, f := range present {
		script += " h=" + strings.ReplaceAll(f, ": ", ":")
	}
	script = strings.TrimSpace(script)
	for i, port := range ports {
		for _, r := range []request{{}, {fields: present}, {script: script}, {fields: present, script: script}, {path: "/direct"}, {path: "/direct", fields: present}, {h2: true, fields: present, script: script}, {script: "status=503 h=x-r:r"}, {script: "h=x-r:r h=x-r:s"}, {fields: []string{"x-b: only"}}} {
			w.send(fmt.Sprintf("table %d on %s", i, describe(r)), port, r)
		}
	}
	w.compare()
	w.compareStats()
}

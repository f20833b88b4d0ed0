package differential

import (
	"fmt"
	"slices"
	"testing"
)

const tcpType = `"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`

// tcp adds a listener with a TCP proxy behind network filters.
func (w *world) tcp(more string, filters []string, config string) int {
	prefix := fmt.Sprintf("%s_%d", w.name, len(w.ports))
	w.prefixes = append(w.prefixes, prefix)
	return w.listener(prefix, more, func(p *proxy) []any {
		return []any{map[string]any{"filters": w.tcpFilters(p, prefix, filters, config)}}
	})
}

func (w *world) tcpFilters(p *proxy, prefix string, filters []string, config string) []any {
	var out []any
	for _, f := range filters {
		out = append(out, yamlMap(w.local(f)))
	}
	m := yamlMap(w.local("{" + tcpType + ", " + config + "}"))
	m["stat_prefix"], m["access_log"] = prefix, accessLog(p, prefix)
	return append(out, map[string]any{"name": "tcp", "typed_config": m})
}

// Connections go through a TCP proxy as they are.
func TestTCP(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	w.cluster("other", "", 1)
	w.cluster("dead", "", -1)
	configs := []string{"cluster: @up", "weighted_clusters: {clusters: [{name: @other, weight: 1}]}", "cluster: @dead", "cluster: missing", "cluster: @dead, max_connect_attempts: 3"}
	var ports []int
	for _, c := range configs {
		ports = append(ports, w.tcp("", nil, c))
	}
	w.load()
	for i, port := range ports {
		for _, r := range []request{{script: "body=abc last"}, {method: "POST", body: "some bytes", script: "body=abc last"}, {script: "reset"}, {script: "close"}, {script: "size=100000 last"}, {script: "size=1000 closemid"}} {
			w.send(configs[i]+" on "+describe(r), port, r, noLog|anyEnd)
		}
	}
	w.compare()
	w.clusters = w.clusters[:2] // whoever looks whether a port is there calls the dead one, too
	w.compareStats()
}

// Rules of the network decide on connections.
func TestNetworkRBAC(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	rules := []string{
		`permissions: [{any: true}], principals: [{any: true}]`, `permissions: [{destination_port_range: {start: 21000, end: 30000}}], principals: [{any: true}]`, `permissions: [{destination_port: 1}], principals: [{any: true}]`, `permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]`,
		`permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]`, `permissions: [{any: true}], principals: [{authenticated: {}}]`, `permissions: [{any: true}], principals: [{not_id: {authenticated: {principal_name: {exact: x}}}}]`, `permissions: [{destination_ip: {address_prefix: 127.71.0.0, prefix_len: 16}}], principals: [{any: true}]`,
		`permissions: [{requested_server_name: {exact: a.test}}], principals: [{any: true}]`, `permissions: [{and_rules: {rules: [{any: true}, {not_rule: {destination_port: 1}}]}}], principals: [{or_ids: {ids: [{authenticated: {}}, {any: true}]}}]`,
	}
	type one struct {
		port int
		what string
	}
	var all []one
	for _, rule := range rules {
		for _, action := range []string{"ALLOW", "DENY"} {
			filter := `{name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x, rules: {action: ` + action + `, policies: {p: {` + rule + `}}}}}`
			all = append(all, one{w.tcp("", []string{filter}, "cluster: @up"), action + " " + rule})
		}
	}
	w.load()
	for _, o := range all {
		for range 2 {
			w.send(o.what, o.port, request{script: "body=abc last"}, noLog|anyEnd)
		}
	}
	w.compare()
	w.compareStats()
}

// Who says nothing in time can be told from who begins with something that is no request.
func TestLateConnections(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", "", 0)
	const inspectors = `listener_filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]
listener_filters_timeout: 0.5s
continue_on_listener_filters_timeout: true`
	waited := `{name: waited, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config, on_new_connection: [{object_key: waited, factory_key: envoy.string, format_string: {text_format_source: {inline_string: "%DURATION%"}}}]}}`
	rbac := `{name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x, rules: {action: DENY, policies: {p: {permissions: [{any: true}], principals: [{not_id: {filter_state: {key: waited, string_match: {safe_regex: {regex: "[0-9]{1,2}|[0-1][0-9]{2}|2[0-4][0-9]"}}}}}]}}}}}`
	prefix := w.name + "_0"
	w.prefixes = append(w.prefixes, prefix)
	// Requests have a chain of their own, or nobody would wait to tell them from others.
	port := w.listener(prefix, inspectors, func(p *proxy) []any {
		return []any{
			map[string]any{"name": "http", "filter_chain_match": yamlMap(`{application_protocols: ["http/1.1", "http/1.0"]}`), "filters": w.tcpFilters(p, prefix, nil, "cluster: @up")},
			map[string]any{"name": "rest", "filters": w.tcpFilters(p, prefix, []string{waited, rbac}, "cluster: @up")},
		}
	})
	w.load()
	for _, r := range []request{{raw: "NOT HTTP\r\nx-case: @CASE@\r\nx-script: last\r\n\r\n", patience: 2e9}, {raw: "x", patience: 2e9}} {
		w.send(r.raw, port, r, noLog|anyEnd)
	}
	w.compare()
	w.compareStats()
}

// What a connection begins with finds its chain: TLS by name, HTTP by version.
func TestSniffing(t *testing.T) {
	w := newWorld(t)
	for i, c := range []string{"a", "wild", "plain", "rest", "http"} {
		w.cluster(c, "", i)
	}
	const inspectors = `listener_filters: [{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}, {name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]
listener_filters_timeout: 0.5s
continue_on_listener_filters_timeout: true`
	prefix := w.name + "_0"
	w.prefixes = append(w.prefixes, prefix)
	port := w.listener(prefix, inspectors, func(p *proxy) []any {
		chain := func(name, match, cluster string) any {
			return map[string]any{"name": name, "filter_chain_match": yamlMap(match), "filters": w.tcpFilters(p, prefix, nil, "cluster: @"+cluster)}
		}
		return []any{
			chain("a", `{transport_protocol: tls, server_names: [a.test, b.test]}`, "a"), chain("wild", `{transport_protocol: tls, server_names: ["*.wild.test"]}`, "wild"), chain("tls", `{transport_protocol: tls}`, "rest"),
			chain("http", `{transport_protocol: raw_buffer, application_protocols: ["http/1.1", "http/1.0"]}`, "http"), chain("raw", `{transport_protocol: raw_buffer}`, "plain"),
		}
	})
	w.load()
	b := w.batch(8)
	for _, name := range []string{"a.test", "A.TEST", "b.test", "x.wild.test", "y.x.wild.test", "wild.test", "other.test", "a.test.x"} {
		b.send("TLS to "+name, port, request{serverName: name, script: "body=abc last"}, noLog|anyEnd)
		b.send("TLS with ALPN to "+name, port, request{serverName: name, protocols: []string{"http/1.1"}, script: "body=abc last"}, noLog|anyEnd)
	}
	for _, r := range []request{{script: "body=abc last"}, {method: "POST", body: "abc", script: "last"}, {h2: true}, {raw: "NOT HTTP\r\nx-case: @CASE@\r\nx-script: last\r\n\r\n", patience: 2e9}, {raw: "x", patience: 2e9}, {raw: "GET / HTTP/1.0\r\nx-case: @CASE@\r\nx-script: last\r\n\r\n"}} {
		b.send("without TLS "+describe(r)+r.raw, port, r, noLog|anyEnd)
	}
	// Where somebody's server might see a request, ours looks as well.
	for _, line := range []string{"\r\nGET / HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.9", "GET /"} {
		b.send("a bent line "+line, port, request{raw: line + "\r\nx-case: @CASE@\r\nx-script: last\r\n\r\n", patience: 2e9}, noLog|anyEnd)
	}
	b.work.Wait()
	w.compare()
	// Whoever looks whether the port is there says nothing: that is no connection to Envoy, which inspects first. Bent
	// lines go to one or the other.
	w.clusters = slices.DeleteFunc(w.clusters, func(c string) bool { return c == w.nameOf("plain") || c == w.nameOf("http") })
	w.compareStats()
}

package differential

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	// The types that configurations name.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

const http2Upstream = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}`

// yamlMap parses a YAML mapping.
func yamlMap(text string) map[string]any {
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, text))
	}
	return out
}

// parse makes a message of what stands in YAML.
func parse[M proto.Message](value any, into M) M {
	b, err := json.Marshal(value)
	if err == nil {
		err = protojson.Unmarshal(b, into)
	}
	if err != nil {
		panic(fmt.Sprintf("%v in\n%s", err, b))
	}
	return into
}

// world is the configuration of a test, and the requests that are sent by it.
type world struct {
	t         *testing.T
	name      string
	resources map[*proxy]map[string]map[string]proto.Message
	ports     []int
	prefixes  []string // of connection managers' statistics
	clusters  []string

	// mu guards below.
	mu    sync.Mutex
	cases []*comparison
	again int // requests that were sent once more
}

var (
	lastPort atomic.Int64
	lastCase atomic.Int64
)

// newWorld begins a configuration; it skips where the suite does not run.
func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getenv("DIFFERENTIAL") == "" {
		t.Skip("DIFFERENTIAL is not set: `make test-envoy` sets it")
	}
	w := &world{t: t, name: strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "_"), resources: map[*proxy]map[string]map[string]proto.Message{}}
	for _, p := range proxies() {
		w.resources[p] = map[string]map[string]proto.Message{}
		for _, typ := range resourceTypes {
			w.resources[p][typ] = map[string]proto.Message{}
		}
	}
	return w
}

func proxies() []*proxy { return []*proxy{envoyProxy, ourProxy} }

// name is a resource's, different in each test.
func (w *world) nameOf(name string) string { return w.name + "." + name }

// cluster adds a cluster with endpoints of the upstream; more is merged into it.
func (w *world) cluster(name, more string, hosts ...int) {
	port := upstreams.port
	var list []any
	for _, h := range hosts {
		if h < 0 { // one that refuses connections
			list = append(list, lbEndpoint(endpointAddress(0), 20079))
			continue
		}
		list = append(list, lbEndpoint(endpointAddress(h), port))
	}
	full := w.nameOf(name)
	c := map[string]any{"name": full, "type": "STATIC", "connect_timeout": "5s", "load_assignment": map[string]any{"cluster_name": full, "endpoints": []any{map[string]any{"lb_endpoints": list}}}}
	maps.Copy(c, yamlMap(more))
	w.clusters = append(w.clusters, full)
	for _, p := range proxies() {
		w.resources[p][clusterType][full] = parse(c, &clusterv3.Cluster{})
	}
}

func lbEndpoint(address string, port int) map[string]any {
	return map[string]any{"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": address, "port_value": port}}}}
}

// rds makes a route configuration by itself, for RDS.
func (w *world) rds(name, text string) {
	for _, p := range proxies() {
		m := parse(yamlMap(w.local(text)), &routev3.RouteConfiguration{})
		m.Name = w.nameOf(name)
		w.resources[p][routeType][w.nameOf(name)] = m
	}
}

// local puts the test's own names in the place of clusters in "cluster: @name".
func (w *world) local(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(text, `"@type"`, "\x00"), "@", w.name+"."), "\x00", `"@type"`)
}

const routerFilter = `{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`

// http adds a listener with a connection manager; hcm is merged into it, and its
// http_filters stand before the router. It returns the port.
func (w *world) http(hcm, routes string) int {
	prefix := fmt.Sprintf("%s_%d", w.name, len(w.ports))
	w.prefixes = append(w.prefixes, prefix)
	m := map[string]any{
		"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": prefix, "codec_type": "AUTO",
	}
	if routes != "" {
		m["route_config"] = yamlMap(w.local(routes))
	}
	over := yamlMap(w.local(hcm))
	filters, _ := over["http_filters"].([]any)
	delete(over, "http_filters")
	router := yamlMap(routerFilter)
	if suppress, _ := over["suppress_envoy_headers"].(bool); suppress {
		router["typed_config"].(map[string]any)["suppress_envoy_headers"] = true
		delete(over, "suppress_envoy_headers")
	}
	maps.Copy(m, over)
	m["http_filters"] = append(filters, router)
	return w.listener(prefix, "", func(p *proxy) []any {
		own := maps.Clone(m)
		own["access_log"] = accessLog(p, prefix)
		return []any{map[string]any{"filters": []any{map[string]any{"name": "hcm", "typed_config": own}}}}
	})
}

func accessLog(p *proxy, prefix string) []any {
	format := map[string]any{}
	for k, v := range logFormat {
		format[k] = strings.ReplaceAll(v, "@PREFIX@", prefix)
	}
	return []any{map[string]any{"name": "file", "typed_config": map[string]any{
		"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": p.log,
		"log_format": map[string]any{"json_format": format},
	}}}
}

// listener adds a listener whose chains are made for each proxy.
func (w *world) listener(name, more string, chains func(p *proxy) []any) int {
	port := 21000 + int(lastPort.Add(1))
	w.ports = append(w.ports, port)
	for _, p := range proxies() {
		l := map[string]any{"name": w.nameOf(name), "address": map[string]any{"socket_address": map[string]any{"address": p.host, "port_value": port}}, "filter_chains": chains(p)}
		maps.Copy(l, yamlMap(more))
		w.resources[p][listenerType][w.nameOf(name)] = parse(l, &listenerv3.Listener{})
	}
	return port
}

// load gives both proxies the configuration and waits until they serve by it.
func (w *world) load() {
	w.t.Helper()
	for _, p := range proxies() {
		p.ads.set(w.resources[p], nil)
	}
	for _, p := range proxies() {
		p.ads.settle(w.t)
		for _, port := range w.ports {
			if err := p.ready(port); err != nil {
				w.t.Fatalf("%s does not listen: %v", p.name, err)
			}
		}
	}
	w.t.Cleanup(w.unload)
}

func (w *world) unload() {
	for _, p := range proxies() {
		remove := map[string][]string{}
		for typ, byName := range w.resources[p] {
			for name := range byName {
				remove[typ] = append(remove[typ], name)
			}
		}
		p.ads.set(nil, remove)
	}
}

// oneRoute is a route configuration of one virtual host for everything.
func oneRoute(routes string) string {
	return "name: inline\nvalidate_clusters: false\nvirtual_hosts:\n- name: all\n  domains: [\"*\"]\n  routes:\n" + indent(routes, "  ")
}

func indent(text, by string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i := range lines {
		lines[i] = by + lines[i]
	}
	return strings.Join(lines, "\n")
}

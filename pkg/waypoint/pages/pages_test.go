package pages

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

func decode[M proto.Message](t *testing.T, text string, m M) M {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(asJSON, m); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return m
}

type silent struct{}

func (silent) HTTP(waypoint.HTTPLoggers) ([]hcm.Recorder, error) { return nil, nil }
func (silent) TCP(waypoint.TCPLoggers) ([]hcm.Recorder, error)   { return nil, nil }

// world is a waypoint with a few resources, and its pages.
type world struct {
	engine   *waypoint.Engine
	server   *httptest.Server
	level    *level.Levels
	pending  []string
	healthy  bool
	registry *prometheus.Registry
	pages    *Pages
}

const listenerYAML = `
name: NAME
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains:
- name: main
  filters:
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: inbound
      http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
      ROUTES
`

func newWorld(t *testing.T) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	clusters, err := cluster.NewManager(cluster.Options{Logger: log, Dial: func(ctx context.Context, to netip.AddrPort) (codec.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		return codec.TCPConn{TCPConn: c.(*net.TCPConn)}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clusters.Close)
	w := &world{level: level.New(slog.LevelInfo), registry: prometheus.NewRegistry(), healthy: true}
	if w.engine, err = waypoint.New(waypoint.Options{Clusters: clusters, Recorders: silent{}, Logger: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.engine.Drain(ctx, 0)
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(0xabc), NotAfter: time.Now().Add(50 * time.Hour), URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/ns/a/sa/w"}}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := New(Options{
		Engine: w.engine, Clusters: clusters, Level: w.level, Registry: w.registry, Version: "1.2.3", Logger: log,
		Bootstrap: decode(t, `{node: {id: waypoint~1.2.3.4~w.a~x, metadata: {ISTIO_VERSION: "1.29", NAMESPACE: a}},
		  static_resources: {secrets: [{name: s, tls_certificate: {private_key: {inline_string: verysecret}}}]}}`, &bootstrapv3.Bootstrap{}),
		Secrets: func() []Secret {
			return []Secret{{Name: "default", Chain: []*x509.Certificate{certificate}}, {Name: "ROOTCA", Roots: []*x509.Certificate{certificate}}}
		},
		Pending: func() []string { return w.pending }, SetHealth: func(h bool) { w.healthy = h },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.pages = pages
	mux := http.NewServeMux()
	for path, h := range pages.Handlers() {
		mux.HandleFunc(path, h)
	}
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	w.fill(t)
	return w
}

// fill gives the engine a static cluster and listener, and dynamic ones.
func (w *world) fill(t *testing.T) {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(backend.Close)
	host, port, _ := net.SplitHostPort(backend.Listener.Addr().String())
	assignment := func(name string) string {
		return `{cluster_name: ` + name + `, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: ` + host + `, port_value: ` + port + `}}}}]}]}`
	}
	for _, m := range []proto.Message{
		decode(t, `{name: fixed, type: STATIC, load_assignment: `+assignment("fixed")+`}`, &clusterv3.Cluster{}),
		decode(t, strings.NewReplacer("NAME", "static", "ROUTES", `route_config: {name: inline, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: fixed}}]}]}`).Replace(listenerYAML), &listenerv3.Listener{}),
	} {
		if err := w.engine.Apply(m); err != nil {
			t.Fatal(err)
		}
	}
	w.apply(t, xds.ClusterType, "moving", "v1", decode(t, `{name: moving, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}`, &clusterv3.Cluster{}))
	w.apply(t, xds.ClusterType, "waiting", "v1", decode(t, `{name: waiting, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}`, &clusterv3.Cluster{}))
	w.apply(t, xds.EndpointType, "moving", "v1", decode(t, assignment("moving"), &endpointv3.ClusterLoadAssignment{}))
	w.apply(t, xds.RouteType, "named", "v1", decode(t, `{name: named, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: moving, rate_limits: [{actions: [{remote_address: {}}]}]}}]}]}`, &routev3.RouteConfiguration{}))
	w.apply(t, xds.ListenerType, "dynamic", "v1", decode(t, strings.NewReplacer("NAME", "dynamic", "ROUTES", `rds: {route_config_name: named, config_source: {ads: {}}}`).Replace(listenerYAML), &listenerv3.Listener{}))
	// The second version is refused: the first stays in effect.
	w.apply(t, xds.RouteType, "named", "v2", decode(t, `{name: named, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {safe_regex: {regex: "("}}, route: {cluster: moving}}]}]}`, &routev3.RouteConfiguration{}))
}

func (w *world) apply(t *testing.T, typeURL, name, version string, m proto.Message) {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	w.engine.ApplyEnvoy(typeURL, []*discovery.Resource{{Name: name, Version: version, Resource: a}}, nil)
}

func (w *world) get(t *testing.T, method, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, w.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestConfigDumpIsEnvoys reads the dump as Envoy's own message, as istioctl does.
func TestConfigDumpIsEnvoys(t *testing.T) {
	w := newWorld(t)
	_, text := w.get(t, http.MethodGet, "/config_dump?include_eds")
	if strings.Contains(text, "verysecret") {
		t.Error("the dump shows a key")
	}
	dump := &adminv3.ConfigDump{}
	if err := protojson.Unmarshal([]byte(text), dump); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var order []string
	for _, c := range dump.GetConfigs() {
		m, err := c.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, string(m.ProtoReflect().Descriptor().Name()))
		switch d := m.(type) {
		case *adminv3.BootstrapConfigDump:
			if d.GetBootstrap().GetNode().GetMetadata().GetFields()["NAMESPACE"].GetStringValue() != "a" {
				t.Errorf("bootstrap: %v", d)
			}
		case *adminv3.ClustersConfigDump:
			if len(d.GetStaticClusters()) != 1 || len(d.GetDynamicActiveClusters()) != 1 || len(d.GetDynamicWarmingClusters()) != 1 {
				t.Errorf("clusters: %v", d)
			}
		case *adminv3.ListenersConfigDump:
			if len(d.GetStaticListeners()) != 1 || len(d.GetDynamicListeners()) != 1 || d.GetDynamicListeners()[0].GetActiveState().GetVersionInfo() != "v1" {
				t.Errorf("listeners: %v", d)
			}
		case *adminv3.RoutesConfigDump:
			if len(d.GetStaticRouteConfigs()) != 1 || len(d.GetDynamicRouteConfigs()) != 1 {
				t.Fatalf("routes: %v", d)
			}
			named := d.GetDynamicRouteConfigs()[0]
			if named.GetVersionInfo() != "v1" || named.GetErrorState().GetVersionInfo() != "v2" || !strings.Contains(named.GetErrorState().GetDetails(), "regex") {
				t.Errorf("a refused update: %v", named)
			}
		case *adminv3.EndpointsConfigDump:
			if len(d.GetDynamicEndpointConfigs()) != 1 {
				t.Errorf("endpoints: %v", d)
			}
		case *adminv3.SecretsConfigDump:
			if len(d.GetDynamicActiveSecrets()) != 2 {
				t.Errorf("secrets: %v", d)
			}
		}
	}
	want := []string{"BootstrapConfigDump", "ClustersConfigDump", "EndpointsConfigDump", "ListenersConfigDump", "RoutesConfigDump", "SecretsConfigDump"}
	if !slices.Equal(order, want) {
		t.Errorf("sections %v, want %v", order, want)
	}
}

// TestPages holds what each page shows, and what it refuses.
func TestPages(t *testing.T) {
	for _, tc := range []struct {
		method, path string
		code         int
		has, lacks   []string
	}{
		{"GET", "/config_dump", 200, nil, []string{"EndpointsConfigDump"}},
		{"GET", "/config_dump?resource=dynamic_listeners", 200, []string{`"name": "dynamic"`}, []string{`"static"`, "ClustersConfigDump"}},
		{"GET", "/config_dump?resource=static_clusters&mask=cluster.name", 200, []string{`"name": "fixed"`}, []string{"load_assignment", "last_updated"}},
		{"GET", "/config_dump?mask=bootstrap.node.id", 200, []string{"waypoint~1.2.3.4~w.a~x"}, []string{"ISTIO_VERSION", "ClustersConfigDump"}},
		{"GET", "/config_dump?name_regex=^mov", 200, []string{`"moving"`}, []string{`"name": "fixed"`, `"name": "waiting"`}},
		{"GET", "/config_dump?resource=nothing", 404, []string{"nothing not found in config dump"}, nil},
		{"GET", "/config_dump?name_regex=(", 400, []string{"name_regex"}, nil},
		{"GET", "/clusters", 200, []string{"fixed::default_priority::max_connections::1024", "moving::127.0.0.1:", "::health_flags::healthy"}, []string{"waiting::"}},
		{"GET", "/clusters?format=json", 200, []string{`"cluster_statuses"`, `"name": "moving"`, `"eds_health_status": "HEALTHY"`, `"name": "rq_total"`}, nil},
		{"GET", "/listeners", 200, []string{"dynamic::127.0.0.1:", "static::127.0.0.1:"}, nil},
		{"GET", "/listeners?format=json", 200, []string{`"listener_statuses"`, `"port_value"`}, nil},
		{"GET", "/certs", 200, []string{`"uri": "spiffe://td/ns/a/sa/w"`, `"days_until_expiration": "2"`, `"ca_cert"`, `"serial_number": "0abc"`}, nil},
		{"GET", "/stats", 200, []string{"\ncluster.fixed.upstream_rq_total: 1\n", "\nhttp.inbound.downstream_rq_2xx: 1\n", "\nserver.live: 1\n", "\nfairlead.config.refused: 1\n", "\nfairlead.config.warnings_now: 1\n", ".downstream_cx_total: 1\n"}, nil},
		{"GET", "/stats?usedonly", 200, []string{"cluster.fixed.upstream_rq_total: 1\n"}, []string{": 0\n"}},
		{"GET", "/stats?filter=^cluster\\.moving", 200, []string{"cluster.moving.upstream_rq_total: 0\n"}, []string{"fixed", "server."}},
		{"GET", "/stats?filter=(", 400, []string{"filter"}, nil},
		{"GET", "/stats?format=xml", 400, nil, nil},
		{"GET", "/stats?filter=_time$", 200, []string{"\ncluster.fixed.upstream_rq_time: P0(nan,", " P99.5(nan,", "cluster.fixed.external.upstream_rq_time: P0(nan", "\nhttp.inbound.downstream_rq_time: P0(nan,"}, []string{"moving"}},
		{"GET", "/stats?filter=_(time|ms)$&histogram_buckets=cumulative", 200, []string{" B1.8e+06(0,1) B3.6e+06(0,1)\n", "cluster.fixed.upstream_cx_connect_ms: B0.5(0,"}, nil},
		{"GET", "/stats?filter=_rq_time$&histogram_buckets=disjoint&format=json", 200, []string{`"name":"cluster.fixed.upstream_rq_time"`, `{"cumulative":0,"interval":0,"upper_bound":3600000}`}, nil},
		{"GET", "/stats?filter=_rq_time$&format=json", 200, []string{`"supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100]`, `"name":"http.inbound.downstream_rq_time","values":[{"cumulative":`, `"interval":null`}, nil},
		{"GET", "/stats?histogram_buckets=other", 400, []string{"histogram_buckets"}, nil},
		{"GET", "/stats/prometheus?filter=_time$", 200, []string{
			"# TYPE envoy_cluster_upstream_rq_time histogram", `envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="fixed",le="3.6e+06"} 1`, `envoy_cluster_upstream_rq_time_count{envoy_cluster_name="fixed"} 1`,
			`envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="inbound"} 1`,
		}, nil},
		{"GET", "/stats?format=json&filter=rq_total$", 200, []string{`{"name":"cluster.fixed.upstream_rq_total","value":1}`}, nil},
		{"GET", "/stats?format=prometheus", 200, []string{"envoy_server_live 1\n", "own_metric 0\n", "# TYPE envoy_cluster_membership_total gauge"}, nil},
		{"GET", "/stats/prometheus", 200, []string{
			`envoy_cluster_upstream_rq_total{envoy_cluster_name="fixed"} 1`, `envoy_cluster_upstream_rq_xx{envoy_cluster_name="fixed",envoy_response_code_class="2"} 1`,
			`envoy_cluster_upstream_rq{envoy_cluster_name="fixed",envoy_response_code="200"} 1`, `envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix="inbound",envoy_response_code_class="2"} 1`,
			`envoy_listener_downstream_cx_total{envoy_listener_address="127.0.0.1_`, "fairlead_config_refused 1\n",
		}, nil},
		{"GET", "/memory", 200, []string{`"allocated"`, `"heap_size"`}, nil},
		{"GET", "/server_info", 200, []string{`"version": "1.2.3"`, `"state": "LIVE"`, `"uptime_current_epoch"`, "ISTIO_VERSION"}, nil},
		{"GET", "/ready", 200, []string{"LIVE\n"}, nil},
		{"GET", "/logging", 200, []string{"active loggers:\n  waypoint: info\n"}, nil},
		{"GET", "/logging?level=debug", 405, nil, nil},
		{"POST", "/logging?level=debug", 200, []string{"waypoint: debug"}, nil},
		{"POST", "/logging?paths=waypoint:warning", 200, []string{"waypoint: warning"}, nil},
		{"POST", "/logging?waypoint=error", 200, []string{"waypoint: error"}, nil},
		{"POST", "/logging?reset", 200, []string{"waypoint: info"}, nil},
		{"POST", "/logging?level=loud", 400, []string{"loud"}, nil},
		{"POST", "/logging?paths=rbac:debug", 400, []string{`"rbac"`}, nil},
		{"GET", "/healthcheck/fail", 405, nil, nil},
		{"GET", "/drain_listeners", 405, nil, nil},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			w := newWorld(t)
			own := prometheus.NewCounter(prometheus.CounterOpts{Name: "own_metric", Help: "x"})
			w.registry.MustRegister(own)
			response, err := http.Get("http://" + w.engine.Address("static").String() + "/")
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			code, text := w.get(t, tc.method, strings.ReplaceAll(tc.path, "^", "%5E"))
			if code != tc.code {
				t.Errorf("%d, want %d", code, tc.code)
			}
			missing := func(s string) bool {
				// Spaces differ from run to run in protobuf's JSON.
				return !strings.Contains(strings.ReplaceAll(text, `":  `, `": `), s)
			}
			// A request is counted when it is over, a little after its client has the answer.
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(5 * time.Second); slices.ContainsFunc(tc.has, missing) && time.Now().Before(end); <-tick.C {
				_, text = w.get(t, tc.method, strings.ReplaceAll(tc.path, "^", "%5E"))
			}
			for _, s := range tc.has {
				if missing(s) {
					t.Errorf("no %q in\n%s", s, text)
				}
			}
			for _, s := range tc.lacks {
				if strings.Contains(text, s) {
					t.Errorf("%q in\n%s", s, text)
				}
			}
		})
	}
}

// TestLevers holds what POST changes.
func TestLevers(t *testing.T) {
	w := newWorld(t)
	if code, _ := w.get(t, http.MethodPost, "/healthcheck/fail"); code != 200 || w.healthy {
		t.Error("the waypoint stays healthy")
	}
	if code, _ := w.get(t, http.MethodPost, "/healthcheck/ok"); code != 200 || !w.healthy {
		t.Error("the waypoint stays unhealthy")
	}
	w.pending = []string{"a certificate"}
	if code, text := w.get(t, http.MethodGet, "/ready"); code != 503 || text != "INITIALIZING\n" {
		t.Errorf("/ready: %d %q", code, text)
	}
	w.pending = nil
	address := w.engine.Address("static").String()
	if code, _ := w.get(t, http.MethodPost, "/drain_listeners?graceful"); code != 200 {
		t.Errorf("/drain_listeners: %d", code)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("a listener that drains takes connections")
	}
	var info struct{ State string }
	if _, text := w.get(t, http.MethodGet, "/server_info"); json.Unmarshal([]byte(text), &info) != nil || info.State != "DRAINING" {
		t.Errorf("state %q, want DRAINING", info.State)
	}
}

// Statistics of clusters that were chosen are at both ports, and no others.
func TestChosenStatistics(t *testing.T) {
	w := newWorld(t)
	const chosen, other = "cluster.fixed.upstream_cx_total", "cluster.fixed.upstream_rq_total"
	if _, all := w.get(t, "GET", "/stats"); !strings.Contains(all, chosen) || !strings.Contains(all, other) {
		t.Fatalf("without a choice there are not all:\n%s", all)
	}
	w.pages.o.Included = func(name string) bool { return name == chosen }
	_, admin := w.get(t, "GET", "/stats")
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var port []string
	for _, f := range families {
		port = append(port, f.GetName())
	}
	if !strings.Contains(admin, chosen) || strings.Contains(admin, other) {
		t.Errorf("at /stats:\n%s", admin)
	}
	if !slices.Contains(port, "envoy_cluster_upstream_cx_total") || slices.Contains(port, "envoy_cluster_upstream_rq_total") {
		t.Errorf("at the port for metrics: %v", port)
	}
}

package envoy

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	realenvoy "github.com/fairlead-mesh/fairlead/test/envoy"
)

// TestEnvoyAccepts has a real Envoy load what is made of every golden input, as
// a bootstrap, with the routes put in: EDS and SDS are named and not asked for.
func TestEnvoyAccepts(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		if strings.HasPrefix(name, "istio") {
			continue // an Envoy as it comes lacks the extensions
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			r := generate(t, text, Options{Locality: Locality{Region: "r1", Zone: "z1"}, Parts: Parts{Streams: byName}})
			validate(t, r)
		})
	}
}

// validate has Envoy judge resources. Without one it skips the test.
func validate(t *testing.T, r Resources) {
	t.Helper()
	binary := realenvoy.Need(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "bootstrap.json")
	keys := certificate(t, dir)
	if err := os.WriteFile(file, []byte(keys.Replace(string(bootstrap(t, r)))), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "--mode", "validate", "-l", "warning", "-c", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		// istiod's field of routes, which every Envoy obeys
		if strings.Contains(line, "deprecated") && !strings.Contains(line, "max_grpc_timeout") {
			t.Error(line)
		}
	}
}

// byName are routes for connections of every kind: by server names, by weight, by who
// calls and from where, and for the rest.
func byName(s *model.Service, p *model.Port) (Streams, error) {
	own := &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: ClusterName(TCP, s.Hostname, p.Number, ""), Weight: 1}
	return Streams{Routes: []Stream{
		{ServerNames: []string{"a.example", "*.b.example"}, Clusters: []*tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{own, own}},
		{ServerNames: []string{"c.example"}, IdleTimeout: seconds(1), Callers: []*matcherv3.StringMatcher{regex("spiffe://(a|b)/ns/c/sa/d")}},
		{Callers: []*matcherv3.StringMatcher{{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://a/ns/b/sa/"}}, {MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "spiffe://a/ns/b/sa/c"}}}},
		{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}},
		{},
	}}, nil
}

func regex(text string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: text}}}
}

// certificate makes the files that the inputs name, and puts their names in.
func certificate(t *testing.T, dir string) *strings.Replacer {
	t.Helper()
	made := identitytest.SelfSigned()
	der := made.Certificate[0]
	private, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, block := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: der}, "ca.pem": {Type: "CERTIFICATE", Bytes: der}, "k.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, "/etc/"+name, file)
	}
	return strings.NewReplacer(names...)
}

func bootstrap(t *testing.T, r Resources) []byte {
	t.Helper()
	internal := map[string]any{"name": "envoy.bootstrap.internal_listener",
		"typed_config": map[string]any{"@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}
	static := func(name string) map[string]any {
		return map[string]any{"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": map[string]any{"cluster_name": name},
			"typed_extension_protocol_options": map[string]any{httpProtocolOptions: map[string]any{
				"@type": "type.googleapis.com/" + httpProtocolOptions, "explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}}}}}
	}
	clusters := []any{static(sdsCluster), static("xds")}
	for _, c := range r.Clusters {
		clusters = append(clusters, raw(t, c))
	}
	var listeners []any
	for _, l := range r.Listeners {
		listeners = append(listeners, withRoutes(trees(t, map[string]proto.Message{"": l}, true)[""], trees(t, r.Routes, true)))
	}
	out, err := json.Marshal(map[string]any{
		"node":                 map[string]any{"id": "a", "cluster": "a"},
		"bootstrap_extensions": []any{internal},
		"dynamic_resources": map[string]any{"ads_config": map[string]any{"api_type": "DELTA_GRPC", "transport_api_version": "V3",
			"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "xds"}}}}},
		"static_resources": map[string]any{"clusters": clusters, "listeners": listeners},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// withRoutes puts routes where RDS would bring them.
func withRoutes(v any, routes map[string]any) any {
	switch v := v.(type) {
	case map[string]any:
		if rds, ok := v["rds"].(map[string]any); ok {
			delete(v, "rds")
			v["routeConfig"] = routes[rds["routeConfigName"].(string)]
		}
		for _, e := range v {
			withRoutes(e, routes)
		}
	case []any:
		for _, e := range v {
			withRoutes(e, routes)
		}
	}
	return v
}

func raw(t *testing.T, m proto.Message) json.RawMessage {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

package l4route

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
)

const oracle = "../../../../shared/oracle"

// TestAgainstRecordedIstiod compares the clusters of each TCP chain, and the
// routes' conditions, with what a real istiod made of the same objects.
func TestAgainstRecordedIstiod(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(oracle, name))
		if err != nil {
			t.Skipf("the recordings are not here: %v", err)
		}
		return string(text)
	}
	m := world(t, read("base.yaml"), read("tcproute-tlsroute/in.yaml"))
	var recorded struct {
		Listeners map[string]struct {
			FilterChains []struct {
				Name    string `json:"name"`
				Filters []struct {
					TypedConfig struct {
						Cluster          string `json:"cluster"`
						WeightedClusters any    `json:"weightedClusters"`
					} `json:"typedConfig"`
				} `json:"filters"`
			} `json:"filterChains"`
		} `json:"listeners"`
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(read("tcproute-tlsroute/waypoint.json"), `"=base"`, "{}")), &recorded); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	for _, c := range recorded.Listeners["main_internal"].FilterChains {
		for _, f := range c.Filters {
			switch {
			case f.TypedConfig.WeightedClusters != nil:
				want[c.Name] = f.TypedConfig.WeightedClusters.(map[string]any)["clusters"]
			case f.TypedConfig.Cluster != "" && c.Name != "direct-tcp":
				want[c.Name] = []any{map[string]any{"name": f.TypedConfig.Cluster, "weight": float64(1)}}
			}
		}
	}
	b := New(m)
	compared := 0
	for _, s := range m.Waypoints[0].Services {
		for i := range s.Ports {
			p := &s.Ports[i]
			chain, ok := want[envoy.ClusterName(envoy.TCP, s.Hostname, p.Number, "")]
			if !ok {
				continue
			}
			compared++
			routes := streams(t, b.Streams(nil, s, p))["routes"].([]any)
			if len(routes) != 1 { // a TLSRoute has names here, and istiod has none
				t.Errorf("%s:%d has %d routes", s.Hostname, p.Number, len(routes))
			}
			if diff := cmp.Diff(chain, routes[0].(map[string]any)["clusters"]); diff != "" {
				t.Errorf("%s:%d (-istiod +ours):\n%s", s.Hostname, p.Number, diff)
			}
		}
	}
	if compared < 4 {
		t.Errorf("only %d chains compared", compared)
	}
	for _, s := range b.Statuses() {
		got := map[string]string{}
		for _, c := range s.Parents[0].Conditions {
			got[c.Type] = c.Status + " " + c.Reason + " " + c.Message
		}
		for _, doc := range strings.Split(read("tcproute-tlsroute/status.yaml"), "\n---\n") {
			var o struct {
				Kind   string
				Status struct {
					Parents []struct {
						Conditions []struct{ Type, Status, Reason, Message string }
					}
				}
			}
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Fatal(err)
			}
			if o.Kind != s.Object.Kind {
				continue
			}
			want := map[string]string{}
			for _, c := range o.Status.Parents[0].Conditions {
				want[c.Type] = c.Status + " " + c.Reason + " " + c.Message
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-istiod +ours):\n%s", o.Kind, diff)
			}
		}
	}
}

// TestMostSpecificName holds that the order of writing does not decide which of
// two names takes a connection.
func TestMostSpecificName(t *testing.T) {
	m := world(t, `
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {istio.io/use-waypoint: w}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: a}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.96.0.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {clusterIP: 10.96.0.1, ports: [{name: tls, port: 443}, {name: tcp, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: a}
spec:
  hosts: [s, "*.com"]
  tls:
  - match: [{sniHosts: ["*.com", "*.example.com", www.example.com]}]
    route: [{destination: {host: s}}]
`)
	b := New(m)
	s := m.Waypoints[0].Services[0]
	var got []string
	for _, r := range b.Streams(nil, s, s.Port(443)).Routes {
		got = append(got, strings.Join(r.ServerNames, " "))
	}
	if diff := cmp.Diff([]string{"www.example.com", "*.example.com", "*.com"}, got); diff != "" {
		t.Error(diff)
	}
	if routes := b.Streams(nil, s, s.Port(80)).Routes; len(routes) != 1 || len(routes[0].ServerNames) != 0 {
		t.Errorf("a port without TLS has routes by name: %v", routes)
	}
}

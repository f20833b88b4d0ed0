package l4route

import (
	"fmt"
	"testing"

	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// TestGolden compares testdata/x.in.yaml, translated, with testdata/x.out.yaml.
func TestGolden(t *testing.T) {
	golden.Run(t, func(t *testing.T, _ string, in []byte) []byte { return render(t, string(in)) })
}

func world(t *testing.T, texts ...string) *model.Model {
	t.Helper()
	var files []source.File
	for i, text := range texts {
		files = append(files, source.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
	}
	out, err := translate.Translate(source.Parse(files, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return out.Model
}

func render(t *testing.T, text string) []byte {
	t.Helper()
	m := world(t, text)
	b := New(m)
	view := map[string]any{}
	for _, w := range m.Waypoints {
		for _, s := range w.Services {
			for i := range s.Ports {
				if p := &s.Ports[i]; !p.Protocol.IsHTTP() {
					view[fmt.Sprintf("%s:%d %s", s.Hostname, p.Number, p.Protocol)] = streams(t, b.Streams(nil, s, p))
				}
			}
		}
	}
	view["status"] = said(b.Statuses())
	return golden.YAML(t, view)
}

func said(all []status.Status) map[string]any {
	out := map[string]any{}
	for _, s := range all {
		var lines []string
		for _, c := range s.Conditions {
			lines = append(lines, c.Type+" "+c.Status+" "+c.Reason+": "+c.Message)
		}
		for _, p := range s.Parents {
			for _, c := range p.Conditions {
				lines = append(lines, fmt.Sprintf("%s %s:%d: %s %s %s: %s", p.Ref.Kind, p.Ref.Name, p.Ref.Port, c.Type, c.Status, c.Reason, c.Message))
			}
		}
		out[s.Object.Kind+" "+s.Object.Namespace+"/"+s.Object.Name] = lines
	}
	return out
}

func streams(t *testing.T, s envoy.Streams) map[string]any {
	t.Helper()
	var routes, backends []any
	for _, r := range s.Routes {
		proxy := &tcpproxyv3.TcpProxy{StatPrefix: "x", ClusterSpecifier: &tcpproxyv3.TcpProxy_WeightedClusters{
			WeightedClusters: &tcpproxyv3.TcpProxy_WeightedCluster{Clusters: r.Clusters}}}
		if err := proxy.ValidateAll(); err != nil {
			t.Errorf("route: %v", err)
		}
		route := map[string]any{"clusters": golden.Tree(t, proxy.GetWeightedClusters()).(map[string]any)["clusters"]}
		if len(r.ServerNames) > 0 {
			route["serverNames"] = r.ServerNames
		}
		for _, m := range r.Callers {
			if err := m.ValidateAll(); err != nil {
				t.Errorf("caller: %v", err)
			}
			route["callers"] = append(anys(route["callers"]), golden.Tree(t, m))
		}
		for _, p := range r.Sources {
			route["sources"] = append(anys(route["sources"]), p.String())
		}
		routes = append(routes, route)
	}
	for _, b := range s.Backends {
		backends = append(backends, fmt.Sprintf("%s:%d %s", b.Service.Hostname, b.Port, b.Kind))
	}
	return map[string]any{"routes": routes, "backends": backends}
}

func anys(v any) []any {
	list, _ := v.([]any)
	return list
}

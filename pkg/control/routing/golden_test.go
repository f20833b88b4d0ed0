package routing

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// parse is the model of YAML texts.
func parse(t testing.TB, texts ...[]byte) *model.Model {
	t.Helper()
	var files []source.File
	for i, text := range texts {
		files = append(files, source.File{Name: fmt.Sprintf("%d.yaml", i), Data: text})
	}
	objects := source.Parse(files, nil)
	for _, p := range objects.Problems {
		if p.Severity == source.Error {
			t.Errorf("input: %s", p)
		}
	}
	out, err := translate.Translate(objects, translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return out.Model
}

func base(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// port is a service port with its routes.
type port struct {
	config   *routev3.RouteConfiguration
	backends []Backend
}

// ports are the routes of all ports of services with a waypoint.
func ports(t testing.TB, b *Builder, d Destinations) map[string]port {
	t.Helper()
	out := map[string]port{}
	for _, s := range b.model.Services {
		for i := range s.Ports {
			p := &s.Ports[i]
			if s.Waypoint == nil || !p.Protocol.IsHTTP() {
				continue
			}
			config, backends := b.HTTP(d, s, p, true)
			if err := config.ValidateAll(); err != nil {
				t.Errorf("%s: Envoy would refuse it: %v", config.Name, err)
			}
			out[config.Name] = port{config, backends}
		}
	}
	return out
}

// subsets stands for the DestinationRules of the cases.
type subsets struct{}

func (subsets) HasSubset(_ *model.Service, subset string) bool {
	return subset == "v1" || subset == "v2"
}
func (subsets) HashPolicies(s *model.Service, _ uint32, subset string) []*routev3.RouteAction_HashPolicy {
	if s.Name != "ratings" {
		return nil
	}
	return []*routev3.RouteAction_HashPolicy{{PolicySpecifier: headerHash("x-user", "")}}
}

// TestGolden compares testdata/x.in.yaml on top of base.yaml, translated, with
// testdata/x.out.yaml. Ports with nothing but the default route are left out.
func TestGolden(t *testing.T) {
	golden.Run(t, func(t *testing.T, _ string, in []byte) []byte { return render(t, New(parse(t, base(t), in), nil)) })
}

func render(t testing.TB, b *Builder) []byte {
	t.Helper()
	view := map[string]any{}
	for name, p := range ports(t, b, subsets{}) {
		routes := p.config.VirtualHosts[0].Routes
		if len(routes) == 1 && routes[0].Name == "default" && len(p.backends) == 1 && routes[0].Metadata == nil && len(routes[0].GetRoute().HashPolicy) == 0 {
			continue
		}
		var list []any
		for _, r := range routes {
			list = append(list, plain(t, r))
		}
		var backends []string
		for _, x := range p.backends {
			text := envoy.ClusterName(envoy.HTTP, x.Service.Hostname, x.Port, x.Subset)
			if x.Hashed {
				text += " hashed"
			}
			backends = append(backends, text)
		}
		view[name] = map[string]any{"routes": list, "backends": backends}
	}
	said := map[string]any{}
	for _, s := range b.Statuses() {
		var lines []string
		for _, c := range s.Conditions {
			lines = append(lines, c.Type+" "+c.Status+" "+c.Reason+": "+c.Message)
		}
		for _, p := range s.Parents {
			for _, c := range p.Conditions {
				lines = append(lines, fmt.Sprintf("parent %s %s: %s %s %s: %s", p.Ref.Kind, p.Ref.Name, c.Type, c.Status, c.Reason, c.Message))
			}
		}
		said[s.Object.Kind+" "+s.Object.Namespace+"/"+s.Object.Name] = lines
	}
	view["status"] = said
	text, err := yaml.Marshal(view)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// plain is a route as JSON, with the parts that nearly all share in short.
func plain(t testing.TB, r *routev3.Route) any {
	t.Helper()
	text, err := protojson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if action, ok := v["route"].(map[string]any); ok {
		standard, _ := protojson.Marshal(retryPolicy(defaultAttempts))
		var policy any
		_ = json.Unmarshal(standard, &policy)
		if cmp.Equal(action["retryPolicy"], policy) {
			action["retryPolicy"] = "the default"
		}
	}
	if m := r.GetMetadata().GetFilterMetadata()["istio"]; m != nil {
		v["metadata"] = m.Fields["config"].GetStringValue()
	}
	return v
}

func names(routes []*routev3.Route) (out []string) {
	for _, r := range routes {
		out = append(out, r.Name)
	}
	return slices.Clip(out)
}

package envoy

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// TestGolden compares the resources of testdata/x.in.yaml's first waypoint with
// testdata/x.out.yaml. A name that begins with istio is of a client with Istio's
// extensions. The access logger that counts is written out in one file only.
func TestGolden(t *testing.T) {
	golden.Run(t, func(t *testing.T, name string, in []byte) []byte {
		o := Options{IstioExtensions: strings.HasPrefix(name, "istio"), Locality: Locality{Region: "r1", Zone: "z1"}}
		return render(t, generate(t, in, o), name == "listeners")
	})
}

// generate makes the resources of the first waypoint in a text, and holds what
// must be true of all.
func generate(t *testing.T, text []byte, o Options) Resources {
	t.Helper()
	in := source.Parse([]source.File{{Name: "in.yaml", Data: text}}, nil)
	for _, p := range in.Problems {
		if p.Severity == source.Error {
			t.Errorf("input: %s", p)
		}
	}
	out, err := translate.Translate(in, translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Model.Waypoints) == 0 {
		t.Fatal("the input has no waypoint")
	}
	r, err := Generate(out.Model, out.Model.Waypoints[0], o)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, o)
	return r
}

// check holds that resources are named as they are keyed, valid by their own
// rules down to the last extension, and lead nowhere that is not there.
func check(t *testing.T, r Resources, o Options) {
	t.Helper()
	for name, l := range r.Listeners {
		valid(t, name, l.Name, l)
	}
	for name, c := range r.Clusters {
		valid(t, name, c.Name, c)
		if c.EdsClusterConfig != nil && r.Endpoints[c.EdsClusterConfig.ServiceName] == nil {
			t.Errorf("cluster %s has no endpoints", name)
		}
	}
	for name, e := range r.Endpoints {
		valid(t, name, e.ClusterName, e)
		if r.Clusters[name] == nil {
			t.Errorf("endpoints %s have no cluster", name)
		}
	}
	for name, c := range r.Routes {
		valid(t, name, c.Name, c)
		for _, v := range c.VirtualHosts {
			for _, route := range v.Routes {
				if to := route.GetRoute().GetCluster(); to != "" && r.Clusters[to] == nil {
					t.Errorf("route %s leads to cluster %s, which is not there", name, to)
				}
			}
		}
	}
	if text := string(render(t, r, true)); !o.IstioExtensions {
		for _, word := range []string{"TypedStruct", "istio.hashable_string", "stats.PluginConfig"} {
			if strings.Contains(text, word) {
				t.Errorf("%s is in what a client without Istio's extensions gets", word)
			}
		}
	}
}

func valid(t *testing.T, key, name string, m proto.Message) {
	t.Helper()
	if key != name {
		t.Errorf("resource %s is keyed as %s", name, key)
	}
	validMessage(t, key, m)
}

// validMessage follows extensions, which a message's own check does not.
func validMessage(t *testing.T, key string, m proto.Message) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		if a, ok := m.Interface().(*anypb.Any); ok {
			inner, err := a.UnmarshalNew()
			if err != nil {
				t.Errorf("%s: %v", key, err)
				return
			}
			validMessage(t, key, inner)
			return
		}
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case fd.IsMap():
				if fd.MapValue().Message() != nil {
					v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { walk(v.Message()); return true })
				}
			case fd.Message() == nil:
			case fd.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			default:
				walk(v.Message())
			}
			return true
		})
	}
	walk(m.ProtoReflect())
}

func render(t *testing.T, r Resources, whole bool) []byte {
	t.Helper()
	view := map[string]any{"listeners": trees(t, r.Listeners, whole), "clusters": trees(t, r.Clusters, whole),
		"endpoints": trees(t, r.Endpoints, whole), "routes": trees(t, r.Routes, whole)}
	text, err := yaml.Marshal(view)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func trees[M proto.Message](t *testing.T, in map[string]M, whole bool) map[string]any {
	t.Helper()
	out := map[string]any{}
	for name, m := range in {
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		if !whole {
			v = short(v)
		}
		out[name] = v
	}
	return out
}

// short leaves out the configuration of the logger that counts.
func short(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v["name"] == "envoy.access_loggers.stats" {
			return "envoy.access_loggers.stats"
		}
		for k, e := range v {
			v[k] = short(e)
		}
	case []any:
		for i, e := range v {
			v[i] = short(e)
		}
	}
	return v
}

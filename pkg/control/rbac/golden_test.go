package rbac

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// TestGolden compares testdata/x.in.yaml, translated, with testdata/x.out.yaml.
// A file layer4*.in.yaml is translated with the policies of layer 4.
func TestGolden(t *testing.T) {
	golden.Run(t, func(t *testing.T, name string, in []byte) []byte {
		return render(t, in, strings.HasPrefix(name, "layer4"))
	})
}

// world translates YAML as the control plane does.
func world(t *testing.T, layer4 bool, texts ...string) (*model.Model, *Policies) {
	t.Helper()
	var files []source.File
	for i, text := range texts {
		files = append(files, source.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
	}
	out, err := translate.Translate(source.Parse(files, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	if layer4 {
		return out.Model, New(out.Model, NewLayer4(out.Policies, out.Addresses))
	}
	return out.Model, New(out.Model, nil)
}

func render(t *testing.T, text []byte, layer4 bool) []byte {
	t.Helper()
	m, p := world(t, layer4, string(text))
	view := map[string]any{}
	for _, w := range m.Waypoints {
		of := map[string]any{}
		put := func(name string, s *model.Service, port *model.Port) {
			var filters []any
			for _, f := range httpFilters(t, p, w, s, port) {
				filters = append(filters, golden.Tree(t, f))
			}
			if len(filters) > 0 && (port == nil || port.Protocol.IsHTTP() || port.Protocol == model.Unsupported) {
				of[name+" http"] = filters
			}
			filters = nil
			for _, f := range networkFilters(t, p, w, s, port) {
				filters = append(filters, golden.Tree(t, f))
			}
			if len(filters) > 0 && (port == nil || !port.Protocol.IsHTTP()) {
				of[name+" tcp"] = filters
			}
		}
		for _, s := range w.Services {
			for i := range s.Ports {
				put(fmt.Sprintf("%s:%d", s.Hostname, s.Ports[i].Number), s, &s.Ports[i])
			}
		}
		if len(w.Workloads) > 0 {
			put("direct", nil, nil)
		}
		view["waypoint "+w.Key.Namespace+"/"+w.Key.Name] = of
	}
	said := map[string]any{}
	for _, s := range p.Status() {
		for _, c := range s.Conditions {
			said[s.Object.Namespace+"/"+s.Object.Name] = c.Type + " " + c.Status + " " + c.Reason + ": " + c.Message
		}
	}
	view["status"] = said
	return golden.YAML(t, view)
}

func httpFilters(t *testing.T, p *Policies, w *model.Waypoint, s *model.Service, port *model.Port) (out []*httprbacv3.RBAC) {
	t.Helper()
	filters, err := p.HTTPFilters(w, s, port)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range filters {
		if err := f.ValidateAll(); err != nil {
			t.Errorf("filter: %v", err)
		}
		out = append(out, unpack(t, f.GetTypedConfig(), &httprbacv3.RBAC{}))
	}
	return out
}

func networkFilters(t *testing.T, p *Policies, w *model.Waypoint, s *model.Service, port *model.Port) (out []proto.Message) {
	t.Helper()
	filters, err := p.NetworkFilters(w, s, port)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range filters {
		if err := f.ValidateAll(); err != nil {
			t.Errorf("filter: %v", err)
		}
		if f.Name == stateFilterName {
			out = append(out, unpack(t, f.GetTypedConfig(), &netstatev3.Config{}))
			continue
		}
		out = append(out, unpack(t, f.GetTypedConfig(), &netrbacv3.RBAC{}))
	}
	return out
}

func unpack[T interface {
	proto.Message
	ValidateAll() error
}](t *testing.T, config *anypb.Any, into T) T {
	t.Helper()
	if err := config.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
	if err := into.ValidateAll(); err != nil {
		t.Errorf("%s: %v", into.ProtoReflect().Descriptor().Name(), err)
	}
	return into
}

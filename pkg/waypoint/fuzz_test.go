package waypoint

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// empties are the types that a waypoint takes, in the order of an input's first byte.
var empties = []struct {
	typeURL string
	empty   func() proto.Message
}{
	{xds.ClusterType, func() proto.Message { return &clusterv3.Cluster{} }},
	{xds.EndpointType, func() proto.Message { return &endpointv3.ClusterLoadAssignment{} }},
	{xds.RouteType, func() proto.Message { return &routev3.RouteConfiguration{} }},
	{xds.ListenerType, func() proto.Message { return &listenerv3.Listener{} }},
}

// FuzzResources gives the engine resources that are other than any control plane's. None
// ends it, none is a fault, and one that is refused whole changes nothing.
func FuzzResources(f *testing.F) {
	add := func(kind byte, m proto.Message) {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
	}
	add(0, parse(f, []byte(mainOf), &clusterv3.Cluster{}))
	add(3, parse(f, []byte(`{"name":"l","address":{"socket_address":{"address":"127.0.0.1","port_value":1}},"filter_chains":[`+httpChain("c", table(forward), "")+`]}`), &listenerv3.Listener{}))
	add(3, parse(f, []byte(`{"name":"m","internal_listener":{},"filter_chains":[`+tcpChain("t", denyOne)+`]}`), &listenerv3.Listener{}))
	if files, _ := filepath.Glob(recordings + "/base/waypoint.json"); len(files) > 0 {
		base := readRecording(f, files[0])
		for _, name := range slices.Sorted(maps.Keys(base.Listeners)) {
			add(3, parse(f, base.Listeners[name], &listenerv3.Listener{}))
		}
		for _, name := range slices.Sorted(maps.Keys(base.Clusters)) {
			add(0, parse(f, base.Clusters[name], &clusterv3.Cluster{}))
		}
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		k := empties[int(kind)%len(empties)]
		m := k.empty()
		if proto.Unmarshal(b, m) != nil {
			return
		}
		w.try(t, k.typeURL, m)
	})
}

// try applies a resource and looks at what is left.
func (w *world) try(t *testing.T, typeURL string, m proto.Message) {
	t.Helper()
	name := "x"
	if n, ok := m.(interface{ GetName() string }); ok {
		name = n.GetName()
	}
	if l, ok := m.(*listenerv3.Listener); ok && len(l.GetFilterChains()) > 64 {
		return // only slower
	}
	a, err := anypb.New(m)
	if err != nil {
		return // text that is no UTF-8
	}
	before := w.engine.listeners[name]
	refused := w.engine.ApplyEnvoy(typeURL, []*discovery.Resource{{Name: name, Version: "1", Resource: a}}, nil)
	if n := w.engine.guard.Caught(); n > 0 {
		t.Fatalf("a fault: %v in %v", refused, m)
	}
	if l := w.engine.listeners[name]; typeURL == xds.ListenerType && refused[name] != nil && l != before && !proto.Equal(l.config, m) {
		t.Errorf("refused with %v, and changed", refused[name])
	}
	w.engine.ApplyEnvoy(typeURL, nil, []string{name})
	if w.engine.listeners[name] != nil {
		t.Errorf("%q is still there", name)
	}
}

// Recorded resources with one field taken away, emptied or made extreme are taken or
// refused, each in its turn: no panic, and no fault.
func TestMutatedResources(t *testing.T) {
	files, _ := filepath.Glob(recordings + "/*/waypoint.json")
	if len(files) == 0 {
		t.Skip("no recordings here")
	}
	base := readRecording(t, recordings+"/base/waypoint.json")
	w := newWorld(t)
	tried, made := 0, 0
	turn := func() bool { // of the hundred thousand that there are
		made++
		return made%7 == 0
	}
	for _, file := range files {
		own := readRecording(t, file)
		for name, m := range resources(t, own.Listeners, base.Listeners, func() *listenerv3.Listener { return &listenerv3.Listener{} }) {
			if name != "main_internal" {
				continue
			}
			l := m.(*listenerv3.Listener)
			for _, fc := range l.GetFilterChains() {
				for _, fl := range fc.GetFilters() {
					any := fl.GetTypedConfig()
					inner, err := any.UnmarshalNew()
					if err != nil {
						continue
					}
					original := any.GetValue()
					mutants(inner.ProtoReflect(), func() {
						if b, err := proto.Marshal(inner); err == nil && turn() {
							any.Value = b
							one := proto.Clone(fc).(*listenerv3.FilterChain)
							w.try(t, xds.ListenerType, &listenerv3.Listener{Name: "l", ListenerSpecifier: l.GetListenerSpecifier(), FilterChains: []*listenerv3.FilterChain{one}})
							tried++
						}
					})
					any.Value = original
				}
				break // the chains of a recording are alike
			}
		}
		for _, m := range resources(t, own.Clusters, base.Clusters, func() *clusterv3.Cluster { return &clusterv3.Cluster{} }) {
			mutants(m.ProtoReflect(), func() {
				if turn() {
					w.try(t, xds.ClusterType, m)
					tried++
				}
			})
		}
	}
	t.Logf("%d resources", tried)
	if tried < 10_000 {
		t.Errorf("only %d resources were tried", tried)
	}
}

// mutants calls use with m in each of the shapes that it has when one of its fields, or
// one below, is another. m is as before at the end.
func mutants(m protoreflect.Message, use func()) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.IsMap() {
			return true
		}
		if f.IsList() { // a copy: clearing a field clears the list itself
			kept := m.NewField(f)
			for i := range v.List().Len() {
				kept.List().Append(v.List().Get(i))
			}
			v = kept
		}
		m.Clear(f)
		use()
		switch {
		case f.IsList():
			rest := m.NewField(f)
			for i := 1; i < v.List().Len(); i++ {
				rest.List().Append(v.List().Get(i))
			}
			m.Set(f, rest)
			use()
		case f.Kind() == protoreflect.MessageKind:
			m.Set(f, protoreflect.ValueOfMessage(v.Message().New()))
			use()
		default:
			for _, other := range extremes(f) {
				m.Set(f, other)
				use()
			}
		}
		m.Set(f, v)
		switch {
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range min(v.List().Len(), 2) {
				mutants(v.List().Get(i).Message(), use)
			}
		case !f.IsList() && f.Kind() == protoreflect.MessageKind:
			mutants(v.Message(), use)
		}
		return true
	})
}

func extremes(f protoreflect.FieldDescriptor) []protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return []protoreflect.Value{protoreflect.ValueOfBool(true)}
	case protoreflect.StringKind:
		return []protoreflect.Value{protoreflect.ValueOfString("%"), protoreflect.ValueOfString("(*[")}
	case protoreflect.Uint32Kind:
		return []protoreflect.Value{protoreflect.ValueOfUint32(0), protoreflect.ValueOfUint32(1<<32 - 1)}
	case protoreflect.Uint64Kind:
		return []protoreflect.Value{protoreflect.ValueOfUint64(1<<64 - 1)}
	case protoreflect.Int32Kind:
		return []protoreflect.Value{protoreflect.ValueOfInt32(-1)}
	case protoreflect.Int64Kind:
		return []protoreflect.Value{protoreflect.ValueOfInt64(-1), protoreflect.ValueOfInt64(1<<63 - 1)}
	case protoreflect.DoubleKind:
		return []protoreflect.Value{protoreflect.ValueOfFloat64(-1), protoreflect.ValueOfFloat64(1e308)}
	case protoreflect.EnumKind:
		return []protoreflect.Value{protoreflect.ValueOfEnum(0), protoreflect.ValueOfEnum(1), protoreflect.ValueOfEnum(999)}
	}
	return nil
}

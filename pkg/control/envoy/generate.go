package envoy

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// generator makes the resources of one waypoint.
type generator struct {
	m     *model.Model
	w     *model.Waypoint
	o     Options
	rules *destination.Rules
	out   Resources
	// wanted are the ports whose clusters routes lead to, with the subsets that are
	// to choose by hash.
	wanted map[portKey]map[string]bool
	// identities are the clusters that check who answers, by name.
	identities map[string][]string
	// fixed are encoded configurations that many chains and clusters share.
	fixed map[string]*anypb.Any
	errs  []error
}

// Generate makes all resources of a waypoint. An error is a part that could not
// be translated; then there is no resource at all.
func Generate(m *model.Model, w *model.Waypoint, o Options) (Resources, error) {
	o.Labels = destination.Labels(w, o.Labels)
	g := &generator{
		m: m, w: w, o: o, rules: destination.NewRules(m, w, o.Labels),
		out: Resources{
			Listeners: map[string]*listenerv3.Listener{}, Clusters: map[string]*clusterv3.Cluster{},
			Endpoints: map[string]*endpointv3.ClusterLoadAssignment{}, Routes: map[string]*routev3.RouteConfiguration{},
		},
		wanted: map[portKey]map[string]bool{}, identities: map[string][]string{}, fixed: map[string]*anypb.Any{},
	}
	g.mainInternal()
	g.services()
	g.providers()
	g.tunnels()
	if err := errors.Join(g.errs...); err != nil {
		return Resources{}, fmt.Errorf("waypoint %s/%s: %w", w.Key.Namespace, w.Key.Name, err)
	}
	return g.out, nil
}

func (g *generator) fail(err error) {
	if err != nil {
		g.errs = append(g.errs, err)
	}
}

// pack encodes an extension's configuration, the same bytes each time.
func (g *generator) pack(m proto.Message) *anypb.Any {
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		g.fail(fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return out
}

// once is pack for a configuration that is the same wherever it has this name.
func (g *generator) once(name string, make func() proto.Message) *anypb.Any {
	out := g.fixed[name]
	if out == nil {
		out = g.pack(make())
		g.fixed[name] = out
	}
	return out
}

func (g *generator) listener(l *listenerv3.Listener) { g.out.Listeners[l.Name] = l }
func (g *generator) cluster(c *clusterv3.Cluster)    { g.out.Clusters[c.Name] = c }

// ads is where routes and endpoints come from: the stream that this came by.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   &durationpb.Duration{},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func u32(v uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(v) }

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }
